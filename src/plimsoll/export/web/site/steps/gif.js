// The first picture of a GIF file (GIF89a). Decoded here because a canvas forgets the colour under a transparent pixel.
import { PictureError } from "./errors.js";
import { checkSize } from "./formats.js";

/** Decode a file's bytes; returns {width, height, channels: 3, or 4 with transparency, data, orientation: 1}. */
export function decodeGif(data, step) {
  const word = (at) => data[at] | (data[at + 1] << 8);
  const screen = { width: word(6), height: word(8) };
  let at = 13;
  let palette = null;
  if (data[10] & 0x80) [palette, at] = colours(data, at, data[10]);
  let clear = -1;
  while (at < data.length && data[at] !== 0x3b) {
    if (data[at] === 0x21) {
      if (data[at + 1] === 0xf9 && data[at + 3] & 1) clear = data[at + 6];
      at = blocks(data, at + 2).at;
    } else if (data[at] === 0x2c) {
      const frame = { x: word(at + 1), y: word(at + 3), width: word(at + 5), height: word(at + 7), interlaced: Boolean(data[at + 9] & 0x40) };
      let from = at + 10;
      if (data[at + 9] & 0x80) [palette, from] = colours(data, from, data[at + 9]);
      return painted(screen, frame, pixelsOf(data, from, frame, step, screen), palette, clear);
    } else at += 1;
  }
  throw new PictureError("can't be decoded: the GIF file holds no picture");
}

function colours(data, at, flags) {
  const end = at + 3 * (2 << (flags & 7));
  return [data.subarray(at, end), end];
}

/** The bytes of a chain of sub-blocks, and where it ends. */
function blocks(data, start) {
  const parts = [];
  let at = start;
  while (at < data.length && data[at] !== 0) {
    parts.push(data.subarray(at + 1, at + 1 + data[at]));
    at += 1 + data[at];
  }
  return { parts, at: at + 1, complete: at < data.length };
}

function pixelsOf(data, at, frame, step, screen) {
  checkSize(Math.max(screen.width, frame.x + frame.width), Math.max(screen.height, frame.y + frame.height), step);
  const { parts, complete } = blocks(data, at + 1);
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((to, part) => (bytes.set(part, to), to + part.length), 0);
  const [pixels, count] = unpacked(bytes, data[at], frame.width * frame.height);
  if (step.truncated === "error" && count < pixels.length) throw new PictureError(`can't be decoded: the GIF file is ${complete ? "damaged" : "truncated"}`);
  return pixels;
}

/** Lempel, Ziv and Welch's codes to palette entries; returns them and how many there were. */
function unpacked(bytes, size, limit) {
  const out = new Uint8Array(limit);
  const [reset, end] = [1 << size, (1 << size) + 1];
  const before = new Uint16Array(4096);
  const last = new Uint8Array(4096);
  const length = new Uint16Array(4096);
  for (let code = 0; code < reset; code += 1) [last[code], length[code]] = [code, 1];
  let [width, next, previous, hold, held, count] = [size + 1, end + 1, -1, 0, 0, 0];
  for (let at = 0; at < bytes.length && count < limit; ) {
    while (held < width && at < bytes.length) {
      hold |= bytes[at++] << held;
      held += 8;
    }
    while (held >= width && count < limit) {
      const code = hold & ((1 << width) - 1);
      hold >>>= width;
      held -= width;
      if (code === end) return [out, count];
      if (code === reset) {
        [width, next, previous] = [size + 1, end + 1, -1];
        continue;
      }
      if (code > next || (code === next && previous < 0)) return [out, count];
      if (previous >= 0 && next < 4096) {
        before[next] = previous;
        length[next] = length[previous] + 1;
        last[next] = firstOf(code === next ? previous : code, before, length, last);
        next += 1;
        if (next === 1 << width && width < 12) width += 1;
      }
      let index = count + length[code] - 1;
      count += length[code];
      for (let entry = code; index >= count - length[code]; entry = before[entry], index -= 1) if (index < limit) out[index] = last[entry];
      previous = code;
    }
  }
  return [out, Math.min(count, limit)];
}

function firstOf(code, before, length, last) {
  let entry = code;
  while (length[entry] > 1) entry = before[entry];
  return last[entry];
}

/** Put the frame on its screen; around it lies the transparent colour, or the first one. */
function painted(screen, frame, pixels, palette, clear) {
  const [width, height] = [Math.max(screen.width, frame.x + frame.width), Math.max(screen.height, frame.y + frame.height)];
  const channels = clear >= 0 ? 4 : 3;
  const entries = new Uint8Array(width * height).fill(Math.max(clear, 0));
  rows(frame).forEach((row, index) => entries.set(pixels.subarray(index * frame.width, (index + 1) * frame.width), (frame.y + row) * width + frame.x));
  const data = new Uint8Array(entries.length * channels);
  for (let at = 0, to = 0; at < entries.length; at += 1, to += channels) {
    const entry = entries[at];
    for (let channel = 0; channel < 3; channel += 1) data[to + channel] = palette ? (palette[3 * entry + channel] ?? 0) : entry;
    if (channels === 4) data[to + 3] = entry === clear ? 0 : 255;
  }
  return { width, height, channels, data, orientation: 1 };
}

function rows({ height, interlaced }) {
  const passes = interlaced ? [[0, 8], [4, 8], [2, 4], [1, 2]] : [[0, 1]];
  return passes.flatMap(([first, step]) => Array.from({ length: Math.max(0, Math.ceil((height - first) / step)) }, (_, index) => first + index * step));
}
