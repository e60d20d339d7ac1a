// A PNG file to pixels (W3C PNG, third edition): all colour types, depths and interlacing; 16-bit samples keep their high byte.
// Decoded here and not by the browser, whose canvas forgets the colours under transparency and may follow a gamma or colour profile.
import { PictureError } from "./errors.js";
import { orientationOf, orientationOfXmp } from "./exif.js";
import { checkSize, text } from "./formats.js";

const SAMPLES = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
/** Adam7: for each pass its first column and row, and the steps between columns and rows. */
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
const XMP = "XML:com.adobe.xmp\0";

/** Decode a file's bytes; returns {width, height, channels: 1, 2, 3 or 4 (the even ones end with alpha), data, orientation}. */
export async function decodePng(data, step) {
  const file = parse(data, step);
  const raw = await inflated(file, step);
  const samples = unpacked(file, raw);
  return { width: file.width, height: file.height, orientation: file.orientation, ...coloured(file, samples) };
}

function parse(data, step) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const file = { parts: [], palette: null, transparency: null, orientation: 1, ended: false };
  for (let at = 8; at + 12 <= data.length && !file.ended; ) {
    const length = view.getUint32(at);
    const kind = text(data, at + 4, 4);
    const body = data.subarray(at + 8, at + 8 + length);
    if (kind[0] < "a") checkSum(data, at + 4, length, kind, view, step);
    chunk(file, kind, body, step);
    at += 12 + length;
  }
  if (!file.width) throw new PictureError("can't be decoded: a PNG file without its header");
  if (file.type === 3 && !file.palette) throw new PictureError("can't be decoded: a PNG file without its palette");
  return file;
}

function chunk(file, kind, body, step) {
  if (kind === "IHDR") header(file, body, step);
  else if (kind === "PLTE") file.palette = body;
  else if (kind === "tRNS") file.transparency = body;
  else if (kind === "IDAT") file.parts.push(body);
  else if (kind === "eXIf") file.orientation = orientationOf(body);
  else if (kind === "iTXt" && text(body, 0, XMP.length) === XMP && file.orientation === 1) file.orientation = orientationOfXmp(body);
  else if (kind === "IEND") file.ended = true;
}

function header(file, body, step) {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const [depth, type, , , interlaced] = body.subarray(8, 13);
  if (!DEPTHS[type]?.includes(depth)) throw new PictureError(`can't be decoded: a PNG file of colour type ${type} with ${depth} bits`);
  Object.assign(file, { width: view.getUint32(0), height: view.getUint32(4), depth, type, interlaced });
  checkSize(file.width, file.height, step);
}

const CRC = Uint32Array.from({ length: 256 }, (_, value) => {
  let sum = value;
  for (let bit = 0; bit < 8; bit += 1) sum = sum & 1 ? 0xedb88320 ^ (sum >>> 1) : sum >>> 1;
  return sum;
});

function checkSum(data, at, length, kind, view, step) {
  if (at + 4 + length + 4 > data.length) {
    if (step.truncated === "error") throw new PictureError("can't be decoded: the PNG file is truncated");
    return;
  }
  let sum = 0xffffffff;
  for (let index = at; index < at + 4 + length; index += 1) sum = CRC[(sum ^ data[index]) & 255] ^ (sum >>> 8);
  if ((sum ^ 0xffffffff) >>> 0 !== view.getUint32(at + 4 + length) && step.truncated === "error") {
    throw new PictureError(`can't be decoded: a damaged PNG file (the check sum of ${kind} is wrong)`);
  }
}

/** The bytes of all rows, each after its filter's number; what is missing of a truncated file is zero. */
async function inflated(file, step) {
  const expected = passes(file).reduce((sum, pass) => sum + pass.height * (1 + pass.bytes), 0);
  const raw = new Uint8Array(expected);
  const reader = new Blob(file.parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let at = 0;
  try {
    for (let got = await reader.read(); !got.done && at < expected; got = await reader.read()) {
      const part = got.value.subarray(0, expected - at);
      raw.set(part, at);
      at += part.length;
    }
  } catch (error) {
    if (at < expected && step.truncated === "error") throw new PictureError(`can't be decoded: a damaged PNG file (${error.message})`);
  }
  reader.cancel().catch(() => {});
  if (at < expected && step.truncated === "error") throw new PictureError("can't be decoded: the PNG file is truncated");
  return raw;
}

function passes({ width, height, depth, type, interlaced }) {
  const bits = SAMPLES[type] * depth;
  return (interlaced ? PASSES : [[0, 0, 1, 1]])
    .map(([x, y, dx, dy]) => ({ x, y, dx, dy, width: Math.ceil((width - x) / dx), height: Math.ceil((height - y) / dy) }))
    .filter((pass) => pass.width > 0 && pass.height > 0)
    .map((pass) => ({ ...pass, bytes: Math.ceil((pass.width * bits) / 8) }));
}

/** All samples, one per element, in the file's own depth (16-bit ones whole). */
function unpacked(file, raw) {
  const count = SAMPLES[file.type];
  const out = file.depth === 16 ? new Uint16Array(file.width * file.height * count) : new Uint8Array(file.width * file.height * count);
  const distance = Math.max(1, (count * file.depth) >> 3);
  let at = 0;
  for (const pass of passes(file)) {
    let above = new Uint8Array(pass.bytes);
    for (let y = 0; y < pass.height; y += 1) {
      const line = raw.subarray(at + 1, at + 1 + pass.bytes);
      unfilter(raw[at], line, above, distance);
      spread(file, line, pass, y, count, out);
      above = line;
      at += 1 + pass.bytes;
    }
  }
  return out;
}

function unfilter(kind, line, above, distance) {
  for (let at = 0; at < line.length; at += 1) {
    const left = at >= distance ? line[at - distance] : 0;
    const up = above[at];
    if (kind === 1) line[at] += left;
    else if (kind === 2) line[at] += up;
    else if (kind === 3) line[at] += (left + up) >> 1;
    else if (kind === 4) line[at] += paeth(left, up, at >= distance ? above[at - distance] : 0);
  }
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

function spread({ width, depth }, line, pass, y, count, out) {
  const row = (pass.y + y * pass.dy) * width;
  for (let x = 0; x < pass.width; x += 1) {
    const to = (row + pass.x + x * pass.dx) * count;
    for (let sample = 0; sample < count; sample += 1) {
      const index = x * count + sample;
      if (depth === 8) out[to + sample] = line[index];
      else if (depth === 16) out[to + sample] = (line[2 * index] << 8) | line[2 * index + 1];
      else {
        const bit = index * depth;
        out[to + sample] = (line[bit >> 3] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
      }
    }
  }
}

/** Samples to 8-bit pixels, with alpha where the file has transparency. */
function coloured({ type, depth, palette, transparency }, samples) {
  if (type === 3) return paletted(palette, transparency, samples);
  const count = SAMPLES[type];
  const eight = depth === 16 ? (value) => value >> 8 : (value) => value * (depth < 8 ? 255 / ((1 << depth) - 1) : 1);
  if (!transparency || type > 2) return { channels: count, data: depth === 8 ? samples : Uint8Array.from(samples, eight) };
  const clear = Array.from({ length: count }, (_, channel) => (transparency[2 * channel] << 8) | transparency[2 * channel + 1]);
  const data = new Uint8Array((samples.length / count) * (count + 1));
  for (let from = 0, to = 0; from < samples.length; from += count) {
    for (let channel = 0; channel < count; channel += 1) data[to++] = eight(samples[from + channel]);
    data[to++] = clear.every((value, channel) => samples[from + channel] === value) ? 0 : 255;
  }
  return { channels: count + 1, data };
}

function paletted(palette, transparency, samples) {
  const count = transparency ? 4 : 3;
  const data = new Uint8Array(samples.length * count);
  for (let at = 0, to = 0; at < samples.length; at += 1, to += count) {
    const entry = samples[at];
    for (let channel = 0; channel < 3; channel += 1) data[to + channel] = palette[3 * entry + channel] ?? 0;
    if (transparency) data[to + 3] = transparency[entry] ?? 255;
  }
  return { channels: count, data };
}
