// Huffman-coded data of a JPEG file to coefficients: sequential and progressive scans (ITU-T T.81, annexes F and G), with
// libjpeg-turbo's answers to damage: a bad code is a zero, and what is missing after the data's end stays zero.
import { PictureError } from "./errors.js";
import { ZIGZAG } from "./jpeg_tables.js";

const LOOK = 9;

/** Make what decodes the codes of a table `{counts, symbols}`. */
export function decoder({ counts, symbols }) {
  const quick = new Int16Array(1 << LOOK); // length << 8 | symbol, for codes of up to LOOK bits
  const largest = new Int32Array(18).fill(-1);
  const shift = new Int32Array(18);
  let code = 0;
  let position = 0;
  for (let length = 1; length <= 16; length += 1) {
    shift[length] = position - code;
    for (let count = counts[length - 1]; count > 0; count -= 1, code += 1, position += 1) {
      if (code >= 1 << length) throw new PictureError("a damaged JPEG file: its Huffman table is not possible");
      if (length > LOOK) continue;
      const from = code << (LOOK - length);
      quick.fill((length << 8) | symbols[position], from, from + (1 << (LOOK - length)));
    }
    if (counts[length - 1]) largest[length] = code - 1;
    code <<= 1;
  }
  largest[17] = 0x7fffffff;
  return { quick, largest, shift, symbols };
}

/** The bits of a scan, up to the next marker; beyond it come zeros, and `dry` tells that some were read. */
class Bits {
  constructor(data, at) {
    this.data = data;
    this.at = at;
    this.restart();
  }

  restart() {
    this.hold = 0;
    this.count = 0;
    this.padding = 0;
    this.dry = false;
  }

  fill() {
    const { data } = this;
    while (this.count <= 16) {
      let byte = 0;
      if (this.at < data.length && (data[this.at] !== 0xff || data[this.at + 1] === 0)) {
        byte = data[this.at];
        this.at += byte === 0xff ? 2 : 1;
      } else {
        while (data[this.at] === 0xff && data[this.at + 1] === 0xff) this.at += 1;
        if (data[this.at] === 0xff && data[this.at + 1] === 0) continue;
        this.padding += 8;
      }
      this.hold = ((this.hold << 8) | byte) & 0xffffff;
      this.count += 8;
    }
  }

  take(length) {
    if (this.count < length) this.fill();
    this.count -= length;
    if (this.count < this.padding) this.dry = true;
    return (this.hold >> this.count) & ((1 << length) - 1);
  }

  symbol(table) {
    if (this.count < 16) this.fill();
    const quick = table.quick[(this.hold >> (this.count - LOOK)) & ((1 << LOOK) - 1)];
    if (quick) {
      this.count -= quick >> 8;
      if (this.count < this.padding) this.dry = true;
      return quick & 255;
    }
    let length = LOOK + 1;
    let code = this.take(length);
    while (code > table.largest[length]) {
      length += 1;
      code = (code << 1) | this.take(1);
    }
    return length > 16 ? 0 : table.symbols[code + table.shift[length]];
  }

  /** A signed value of so many bits (figure F.12). */
  signed(length) {
    if (length === 0) return 0;
    const value = this.take(length);
    return value < 1 << (length - 1) ? value - (1 << length) + 1 : value;
  }
}

/**
 * Decode one scan into the coefficients of its components; returns where its data end, and whether the file ended before they did.
 * `scan`: {components: [{component, dc, ac}], first, last, high, low}; `frame`: {progressive, mcusAcross, mcusDown}.
 */
export function decodeScan(data, at, frame, scan, interval) {
  const bits = new Bits(data, at);
  const state = { bits, scan, bandEnd: 0, last: scan.components.map(() => 0) };
  const block = method(frame, scan);
  const [across, down, unit] = units(frame, scan);
  let left = interval || Infinity;
  let cut = false;
  for (let row = 0; row < down; row += 1) {
    for (let column = 0; column < across; column += 1, left -= 1) {
      if (left === 0) {
        nextInterval(state);
        left = interval;
      }
      if (bits.dry) {
        cut ||= bits.at >= data.length;
        continue;
      }
      for (const part of unit) block(state, part.index, part.coefficients, part.first + row * part.down + column * part.across);
    }
  }
  return { at: bits.at, cut: cut || (bits.dry && bits.at >= data.length) };
}

/** How many minimum coded units a scan has across and down, and the blocks of one: where the first unit's lies, and how far on the next ones'. */
function units(frame, scan) {
  if (scan.components.length === 1) {
    const { blocksAcross, blocksDown, stride, coefficients } = scan.components[0].component;
    return [blocksAcross, blocksDown, [{ index: 0, coefficients, first: 0, across: 64, down: 64 * stride }]];
  }
  const unit = [];
  scan.components.forEach(({ component: { horizontal, vertical, stride, coefficients } }, index) => {
    for (let v = 0; v < vertical; v += 1) {
      for (let h = 0; h < horizontal; h += 1) unit.push({ index, coefficients, first: 64 * (v * stride + h), across: 64 * horizontal, down: 64 * stride * vertical });
    }
  });
  return [frame.mcusAcross, frame.mcusDown, unit];
}

function nextInterval(state) {
  const { bits } = state;
  const { data } = bits;
  let at = bits.at;
  while (at + 1 < data.length && !(data[at] === 0xff && data[at + 1] !== 0 && data[at + 1] !== 0xff)) at += 1;
  const isRestart = data[at + 1] >= 0xd0 && data[at + 1] <= 0xd7;
  if (isRestart) {
    bits.at = at + 2;
    bits.restart();
  }
  state.last.fill(0);
  state.bandEnd = 0;
}

function method(frame, scan) {
  if (!frame.progressive) return sequential;
  if (scan.first === 0) return scan.high === 0 ? firstDc : refineDc;
  return scan.high === 0 ? firstAc : refineAc;
}

function sequential(state, index, out, from) {
  const { bits } = state;
  const { dc, ac } = state.scan.components[index];
  state.last[index] += bits.signed(bits.symbol(dc));
  out[from] = state.last[index];
  for (let k = 1; k < 64; k += 1) {
    const symbol = bits.symbol(ac);
    const size = symbol & 15;
    if (size) {
      k += symbol >> 4;
      out[from + ZIGZAG[k]] = bits.signed(size);
    } else if (symbol === 0xf0) k += 15;
    else break;
  }
}

function firstDc(state, index, out, from) {
  const { bits, scan } = state;
  state.last[index] += bits.signed(bits.symbol(scan.components[index].dc));
  out[from] = state.last[index] << scan.low;
}

function refineDc(state, index, out, from) {
  if (state.bits.take(1)) out[from] |= 1 << state.scan.low;
}

function firstAc(state, index, out, from) {
  if (state.bandEnd > 0) {
    state.bandEnd -= 1;
    return;
  }
  const { bits, scan } = state;
  for (let k = scan.first; k <= scan.last; k += 1) {
    const symbol = bits.symbol(scan.components[0].ac);
    const [run, size] = [symbol >> 4, symbol & 15];
    if (size) {
      k += run;
      out[from + ZIGZAG[k]] = bits.signed(size) << scan.low;
    } else if (run === 15) k += 15;
    else {
      state.bandEnd = (1 << run) + bits.take(run) - 1;
      break;
    }
  }
}

function refineAc(state, index, out, from) {
  const { bits, scan } = state;
  const bit = 1 << scan.low;
  let k = scan.first;
  if (state.bandEnd === 0) {
    for (; k <= scan.last; k += 1) {
      const symbol = bits.symbol(scan.components[0].ac);
      let run = symbol >> 4;
      let value = 0;
      if (symbol & 15) value = bits.take(1) ? bit : -bit;
      else if (run !== 15) {
        state.bandEnd = (1 << run) + bits.take(run);
        break;
      }
      for (; k <= scan.last; k += 1) {
        const position = from + ZIGZAG[k];
        if (out[position] !== 0) correct(bits, out, position, bit);
        else if (--run < 0) break;
      }
      if (value) out[from + ZIGZAG[k]] = value;
    }
  }
  if (state.bandEnd > 0) {
    for (; k <= scan.last; k += 1) {
      const position = from + ZIGZAG[k];
      if (out[position] !== 0) correct(bits, out, position, bit);
    }
    state.bandEnd -= 1;
  }
}

function correct(bits, out, position, bit) {
  if (bits.take(1) && (out[position] & bit) === 0) out[position] += out[position] >= 0 ? bit : -bit;
}
