// What a network's outputs mean: one row a picture, with the keys and values that `plimsoll predict` writes.
import { activated, decimal, named, requireFinite } from "./tasks/arrays.js";
import { detect } from "./tasks/detect.js";
import { landmarks } from "./tasks/landmarks.js";
import { segment } from "./tasks/segment.js";
import { text } from "./tasks/text.js";

const TASKS = { classify, detect, landmarks, segment, tensor, text };

/**
 * The row of a picture: {label, score, scores} for `classify`, {boxes} for `detect`, {points, presence} for `landmarks`, {mask} for `segment`,
 * {text, score, symbols} for `text`, {outputs} for `tensor`. `outputs`: name → {data, dims, type}, one picture each; `geometry`: the way back to the picture (geometry.js).
 */
export function row(output, outputs, { threshold = null, geometry = null } = {}) {
  return TASKS[output.task](output, outputs, threshold, geometry);
}

/** How people read the score of a classification, where the Spec says so; else null. */
export function band(output, score) {
  if (output.task !== "classify") return null;
  return output.bands.find(({ below }) => below === null || score < below)?.label ?? null;
}

function classify(output, outputs, threshold) {
  const { labels, positive } = output;
  const values = activated(Float32Array.from(named(outputs, output.tensor).data, Number), output.activation);
  if (values.length !== labels.length) throw new Error(`the network gives ${values.length} scores a picture, the Spec has ${labels.length} labels`);
  requireFinite(values, "scores");
  const order = labels.map((_, index) => index).sort((a, b) => values[b] - values[a] || a - b);
  const scores = Object.fromEntries(order.map((index) => [labels[index], decimal(values[index])]));
  const at = threshold ?? output.threshold;
  if (positive === null) {
    const best = labels[order[0]];
    return { label: at === null || scores[best] >= at ? best : null, score: scores[best], scores };
  }
  const score = scores[positive];
  const other = labels[order.find((index) => labels[index] !== positive)] ?? null;
  return { label: score >= (at ?? 0.5) ? positive : other, score, scores };
}

function tensor(output, outputs) {
  const names = output.tensors.length ? output.tensors : Object.keys(outputs);
  return { outputs: Object.fromEntries(names.map((name) => [name, nested(Array.from(named(outputs, name).data), named(outputs, name).dims.slice(1))])) };
}

function nested(values, dims) {
  if (dims.length === 0) return values[0];
  if (dims.length === 1) return values;
  const size = values.length / dims[0];
  return Array.from({ length: dims[0] }, (_, index) => nested(values.slice(index * size, (index + 1) * size), dims.slice(1)));
}
