// What a network's outputs mean: one row a picture, with the keys and values that `plimsoll predict` writes.

/** The row of a picture: {label, score, scores} for `classify`, {outputs} for `tensor`; `outputs`: name → {data, dims}, one picture each. */
export function row(output, outputs, threshold = null) {
  return output.task === "classify" ? classification(output, outputs, threshold) : raw(output, outputs);
}

/** How people read the score of a classification, where the Spec says so; else null. */
export function band(output, score) {
  if (output.task !== "classify") return null;
  return output.bands.find(({ below }) => below === null || score < below)?.label ?? null;
}

function classification(output, outputs, threshold) {
  const { labels, positive } = output;
  const values = activated(Float32Array.from(named(outputs, output.tensor).data, Number), output.activation);
  if (values.length !== labels.length) throw new Error(`the network gives ${values.length} scores a picture, the Spec has ${labels.length} labels`);
  if (!values.every(Number.isFinite)) throw new Error("non-finite scores in the network's output");
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

/** Softmax or the logistic function, in float32 and without overflow. */
export function activated(values, activation) {
  if (activation === "softmax") {
    const largest = Math.max(...values);
    const powers = values.map((value) => Math.exp(Math.fround(value - largest)));
    const sum = powers.reduce((total, power) => Math.fround(total + power), 0);
    return powers.map((power) => power / sum);
  }
  return activation === "sigmoid" ? values.map((value) => 0.5 * (1 + Math.tanh(0.5 * value))) : values;
}

/** The shortest decimal that float32 reads back as the same value, so that 0.1 is shown and not 0.10000000149. */
export function decimal(value) {
  for (let digits = 1; digits < 9; digits += 1) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}

function raw(output, outputs) {
  const names = output.tensors.length ? output.tensors : Object.keys(outputs);
  return { outputs: Object.fromEntries(names.map((name) => [name, nested(Array.from(named(outputs, name).data), named(outputs, name).dims.slice(1))])) };
}

function nested(values, dims) {
  if (dims.length === 0) return values[0];
  if (dims.length === 1) return values;
  const size = values.length / dims[0];
  return Array.from({ length: dims[0] }, (_, index) => nested(values.slice(index * size, (index + 1) * size), dims.slice(1)));
}

function named(outputs, name) {
  const names = Object.keys(outputs);
  if (name === null && names.length === 1) return outputs[names[0]];
  if (name === null || !outputs[name]) throw new Error(`the network has the outputs ${names.join(", ")}; the Spec names ${name ?? "none"}`);
  return outputs[name];
}
