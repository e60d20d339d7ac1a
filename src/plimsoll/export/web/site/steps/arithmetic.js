// The steps that move or calculate values one by one, in float32 as the reference does.
import { PictureError } from "./errors.js";
import { halfToEven } from "./resample.js";

/** Cut out a rectangle; throws where the picture is too small for it. */
export function crop(picture, step) {
  const { width, height, channels, data } = picture;
  const [x, y] = origin(width, height, step);
  if (x < 0 || y < 0 || x + step.width > width || y + step.height > height) {
    throw new PictureError(`the crop of ${step.width}×${step.height} at (${x}, ${y}) does not fit into ${width}×${height} pixels`);
  }
  const line = step.width * channels;
  const out = new data.constructor(step.height * line);
  for (let row = 0; row < step.height; row += 1) {
    const from = ((y + row) * width + x) * channels;
    out.set(data.subarray(from, from + line), row * line);
  }
  return { ...picture, width: step.width, height: step.height, data: out };
}

/** Where a crop's left upper corner lies in a picture of this size. */
export function origin(width, height, step) {
  if (step.x !== null) return [step.x, step.y];
  const margins = [(width - step.width) / 2, (height - step.height) / 2];
  return margins.map(step.centre === "round" ? halfToEven : Math.floor);
}

/** Bring the channels into the step's order. */
export function channels(picture, step) {
  if (step.order === picture.colour) return picture;
  const data = picture.data.slice();
  for (let at = 0; at < data.length; at += 3) {
    data[at] = picture.data[at + 2];
    data[at + 2] = picture.data[at];
  }
  return { ...picture, colour: step.order, data };
}

/** Multiply or divide. */
export function scale(picture, step) {
  const by = Math.fround(step.divisor ?? step.factor);
  return floats(picture, step.divisor === null ? (value) => value * by : (value) => value / by);
}

export function mean(picture, step) {
  return floats(picture, (value, by) => value - by, step.values);
}

export function std(picture, step) {
  return floats(picture, (value, by) => value / by, step.values);
}

/** Apply `operation(value, the channel's value)` to all values. A Float32Array rounds what it is given, which makes each operation float32's own. */
function floats(picture, operation, values = [0]) {
  const { channels: depth, width, height } = picture;
  const first = picture.layout === "NCHW";
  const source = numbers(picture);
  const data = new Float32Array(source.length);
  for (let channel = 0; channel < depth; channel += 1) {
    const by = Math.fround(values[values.length === 1 ? 0 : channel]);
    const [start, step] = first ? [channel * width * height, 1] : [channel, depth];
    for (let count = width * height, at = start; count > 0; count -= 1, at += step) data[at] = operation(source[at], by);
  }
  return { ...picture, data, dtype: "float32" };
}

/** Move the channel axis. */
export function layout(picture, step) {
  if (step.order === picture.layout) return picture;
  const { channels: depth, width, height, data } = picture;
  const plane = width * height;
  const out = new data.constructor(data.length);
  for (let at = 0; at < plane; at += 1) {
    for (let channel = 0; channel < depth; channel += 1) {
      const [last, first] = [at * depth + channel, channel * plane + at];
      if (step.order === "NCHW") out[first] = data[last];
      else out[last] = data[first];
    }
  }
  return { ...picture, layout: step.order, data: out };
}

/** Convert; to uint8 by rounding and clipping. float16 values are kept as their bits (Uint16Array), as ONNX Runtime Web takes them. */
export function dtype(picture, step) {
  if (step.to === picture.dtype) return picture;
  const values = numbers(picture);
  const convert = {
    uint8: () => Uint8Array.from(values, (value) => Math.min(Math.max(Math.floor(Math.fround(value + 0.5)), 0), 255)),
    float16: () => Uint16Array.from(values, halfBits),
    float32: () => Float32Array.from(values),
  };
  return { ...picture, dtype: step.to, data: convert[step.to]() };
}

function numbers({ data, dtype: kind }) {
  return kind === "float16" ? Float32Array.from(data, fromHalfBits) : data;
}

const word = new DataView(new ArrayBuffer(4));

/** The bits of the float16 that is nearest to a value, halves to the even one (IEEE 754). */
export function halfBits(value) {
  word.setFloat32(0, value);
  const bits = word.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00;
  if (size >= 0x477ff000) return sign | 0x7c00; // rounds to infinity
  if (size < 0x38800000) return sign | halfToEven(Math.abs(value) * 2 ** 24); // below the normal numbers
  return sign | halfToEven((size - 0x38000000) / 8192);
}

/** The value of a float16 given as its bits. */
export function fromHalfBits(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
