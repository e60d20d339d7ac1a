// What all tasks share: outputs by their names, as numbers; float32's arithmetic, checks and decimals.
import { fromHalfBits } from "../steps/arithmetic.js";
import { halfToEven } from "../steps/resample.js";

const f32 = Math.fround;
/** Quantized networks give scores a step above 1 or below 0. */
export const SLACK = 0.01;

/** The named output, or the only one; throws. */
export function named(outputs, name) {
  const names = Object.keys(outputs);
  if (name === null && names.length === 1) return outputs[names[0]];
  if (name === null || !outputs[name]) throw new Error(`the network has the outputs ${names.join(", ")}; the Spec names ${name ?? "none"}`);
  return outputs[name];
}

/** An output {data, dims, type} with its values as numbers: whole ones exactly, all others as float32. */
export function numeric({ data, dims, type }) {
  if (type === "float16" && data instanceof Uint16Array) return { data: Float32Array.from(data, fromHalfBits), dims };
  if (data instanceof Float32Array || data instanceof Float64Array) return { data, dims };
  return { data: Float64Array.from(data, Number), dims, whole: type !== "float16" };
}

export const shape = ({ dims }) => `[${dims.join(", ")}]`;

/** Throw for NaN and infinity. */
export function requireFinite(values, what) {
  for (let at = 0; at < values.length; at += 1) {
    if (!Number.isFinite(values[at])) throw new Error(`non-finite ${what} in the network's output`);
  }
}

/** Throw for scores that are not from 0 to 1. */
export function requireProbabilities(values) {
  for (const value of values) {
    if (!(value >= -SLACK && value <= 1 + SLACK)) throw new Error(`the network's scores hold ${value.toPrecision(3)}; expected probabilities, 0 to 1`);
  }
}

/** Softmax or the logistic function over the last axis of values, in float32 and without overflow. */
export function activated(values, activation, width = values.length) {
  if (activation === "sigmoid") return Float32Array.from(values, (value) => 0.5 * f32(1 + f32(Math.tanh(0.5 * value))));
  const out = Float32Array.from(values);
  if (activation !== "softmax") return out;
  for (let start = 0; start < out.length; start += width) {
    const own = out.subarray(start, start + width);
    const largest = own.reduce((most, value) => Math.max(most, value), -Infinity);
    own.forEach((value, index) => {
      own[index] = Math.exp(f32(value - largest));
    });
    const sum = own.reduce((total, power) => f32(total + power), 0);
    own.forEach((power, index) => {
      own[index] = power / sum;
    });
  }
  return out;
}

/** The shortest decimal that float32 reads back as the same value, so that 0.1 is shown and not 0.10000000149. */
export function decimal(value) {
  for (let digits = 1; digits < 9; digits += 1) {
    const short = Number(value.toPrecision(digits));
    if (f32(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}

/** A value rounded to so many decimals, halves to the even digit as Python rounds. */
export function rounded(value, digits) {
  const halves = value * 2 ** (digits + 1);
  if (Number.isInteger(halves) && halves % 2 !== 0) return halfToEven(value * 10 ** digits) / 10 ** digits;
  return Number(value.toFixed(digits));
}

/** A position in pixels as rows show it: to a hundredth of a pixel. */
export const position = (value) => rounded(value, 2);

/** COCO's run lengths (pixels without it, with it, without it … down the columns) of what is inside of a rectangle [left, top, right, bottom] of a picture. */
export function runLengths(width, height, [left, top, right, bottom], inside) {
  const counts = [];
  let [ended, started] = [0, -1]; // where the last run ended; where the present one began
  const close = (at) => {
    if (started < 0) return;
    counts.push(started - ended, at - started);
    [ended, started] = [at, -1];
  };
  for (let column = left; column < right; column += 1) {
    const first = column * height;
    if (top > 0) close(first); // the last column's run reached the bottom
    for (let row = top; row < bottom; row += 1) {
      if (!inside(column, row)) close(first + row);
      else if (started < 0) started = first + row;
    }
    if (bottom < height) close(first + bottom);
  }
  close(right * height);
  if (ended < width * height) counts.push(width * height - ended);
  return counts;
}
