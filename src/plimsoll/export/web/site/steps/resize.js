// The `resize` step: which size, whose arithmetic, and the padding.
import { PictureError } from "./errors.js";
import { halfToEven, resample } from "./resample.js";
import { resizePillow } from "./resize_pillow.js";

const MAX_LONG_EDGE = 65_535;
const MAX_SQUARE_PIXELS = 100_000_000;

/** Resize a picture; uint8, or float32 in 0…255 with rounding "none". */
export function resize(given, step) {
  const picture = step.pad_first ? paddedToSquare(given, step) : given;
  const [width, height] = resizedSize(picture.width, picture.height, step);
  const same = width === picture.width && height === picture.height && step.rounding === "nearest";
  const out = same ? picture : resizeTo(picture, width, height, step);
  return step.fit === "letterbox" || step.fit === "height" ? padded(out, step, padding(width, height, step)) : out;
}

/** The size to resize to, before any padding. */
export function resizedSize(width, height, step) {
  if (step.fit === "stretch") return [step.width, step.height];
  if (step.fit === "short_edge") {
    const long = Math.trunc((step.size * Math.max(width, height)) / Math.min(width, height));
    requireLongEdge(width, height, `a shorter side of ${step.size} the longer`, long);
    return width <= height ? [step.size, long] : [long, step.size];
  }
  if (step.fit === "height") {
    const free = Math.ceil(step.height * (width / height));
    if (step.width != null) return [Math.min(step.width, free), step.height];
    requireLongEdge(width, height, `a height of ${step.height} the width`, free);
    return [free, step.height];
  }
  const fitting = Math.min(step.width / width, step.height / height);
  const ratio = step.enlarge ? fitting : Math.min(fitting, 1);
  return [Math.max(1, halfToEven(width * ratio)), Math.max(1, halfToEven(height * ratio))];
}

function requireLongEdge(width, height, given, pixels) {
  if (pixels > MAX_LONG_EDGE) {
    throw new PictureError(`${width}×${height} pixels: with ${given} would be ${pixels}, more than ${MAX_LONG_EDGE}`);
  }
}

function resizeTo(picture, width, height, step) {
  if (step.convention === "pillow") return resizePillow(picture, width, height, step.filter);
  const source = step.rounding === "tensorflow" ? { ...picture, data: unit(picture.data) } : picture;
  const data = rounded(resample(source, width, height, step), step);
  return { ...picture, width, height, data, dtype: step.rounding === "none" ? "float32" : "uint8" };
}

/** Levels as TensorFlow's convert_image_dtype makes them: in [0, 1]. */
function unit(levels) {
  const out = new Float32Array(levels.length);
  const share = Math.fround(1 / 255);
  for (let at = 0; at < out.length; at += 1) out[at] = levels[at] * share;
  return out;
}

function rounded(values, { rounding }) {
  if (rounding === "none") return Float32Array.from(values);
  if (values instanceof Uint8Array) return values;
  const out = new Uint8ClampedArray(values.length);
  if (rounding === "tensorflow") {
    // tf.image.convert_image_dtype to uint8: value · (255 + 0.5), clipped and cut off.
    for (let at = 0; at < out.length; at += 1) out[at] = Math.floor(Math.fround(values[at] * 255.5));
  } else {
    for (let at = 0; at < out.length; at += 1) out[at] = Math.floor(Math.fround(values[at] + 0.5));
  }
  return new Uint8Array(out.buffer);
}

/** [left, top, width, height]: where a resized picture lies after padding, and the size then. */
export function padding(width, height, step) {
  if (step.fit !== "letterbox" && step.fit !== "height") return [0, 0, width, height];
  const remainder = (number) => ((number % step.stride) + step.stride) % step.stride;
  const missing = (size, have) => (step.stride ? remainder(size - have) : size - have);
  const addX = missing(step.width ?? (step.stride ? 0 : width), width);
  const addY = step.fit === "height" ? 0 : missing(step.height, height);
  const centred = step.fit === "letterbox" && step.pad_position === "centre";
  const [left, top] = centred ? [Math.floor(addX / 2), Math.floor(addY / 2)] : [0, 0];
  return [left, top, width + addX, height + addY];
}

/** [left, top, side]: where a picture lies in the square that `pad_first` pads it to. */
export function squareAround(width, height, step) {
  const side = Math.max(width, height);
  const centred = step.pad_position === "centre";
  return centred ? [Math.floor((side - width) / 2), Math.floor((side - height) / 2), side] : [0, 0, side];
}

function paddedToSquare(picture, step) {
  const [left, top, side] = squareAround(picture.width, picture.height, step);
  if (side * side > MAX_SQUARE_PIXELS) {
    throw new PictureError(`${picture.width}×${picture.height} pixels: padded to a square there would be too many`);
  }
  return padded(picture, step, [left, top, side, side]);
}

function padded(picture, step, [left, top, toWidth, toHeight]) {
  const { width, height, channels, data } = picture;
  const out = new data.constructor(toWidth * toHeight * channels).fill(step.pad_value);
  const line = width * channels;
  for (let y = 0; y < height; y += 1) out.set(data.subarray(y * line, (y + 1) * line), ((top + y) * toWidth + left) * channels);
  return { ...picture, width: toWidth, height: toHeight, data: out };
}
