// Text: one line of it, read by connectionist temporal classification (CTC): the best symbol of each step, repeats merged and blanks dropped.
import { activated, decimal, named, numeric, requireFinite, shape } from "./arrays.js";

/** How far a step's probabilities may be from a sum of 1: 8-bit networks round each. */
const SLACK = 0.02;
const f32 = Math.fround;

/** The row {text, score, symbols: [[symbol, score]]}; the network's output is [1, T, symbols + 1], [1, symbols + 1, T], or whole numbers [1, T]. */
export function text(spec, outputs, threshold) {
  const symbols = spec.space ? [...spec.alphabet, " "] : spec.alphabet;
  const blank = spec.blank === "first" ? 0 : symbols.length;
  const letter = (index) => symbols[index - (index > blank ? 1 : 0)]; // the blank takes an index of its own
  const output = numeric(named(outputs, spec.tensor));
  if (output.whole) return chosen(output, { symbols, blank, letter });
  const { best, scores } = steps(output, spec, symbols.length + 1);
  const read = begins(best, blank);
  const own = read.map((at) => scores[at]);
  const mean = own.length ? own.reduce((sum, value) => sum + value, 0) / own.length : 0;
  const score = decimal(f32(spec.score === "probability" ? Math.exp(scores.reduce((sum, value) => sum + Math.log(value), 0)) : mean));
  const at = threshold ?? spec.threshold;
  if (at !== null && score < at) return { text: "", score, symbols: [] };
  const letters = read.map((step) => letter(best[step]));
  return { text: letters.join(""), score, symbols: letters.map((each, index) => [each, decimal(own[index])]) };
}

/** Of a network that chooses each step's symbol itself, and gives no score. */
function chosen({ data, dims }, { symbols, blank, letter }) {
  if (dims.length !== 2) throw new Error(`the network's output is whole numbers ${shape({ dims })}; symbols are read from [1, T]`);
  if (data.some((index) => index < 0 || index > symbols.length)) throw new Error(`the network gives other symbols than the Spec's ${symbols.length} and the blank`);
  const letters = begins(data, blank).map((at) => letter(data[at]));
  return { text: letters.join(""), score: null, symbols: letters.map((each) => [each, null]) };
}

/** The best symbol of each step and its probability; of equal ones the first. */
function steps({ data, dims }, { activation }, count) {
  if (dims.length !== 3 || !dims.slice(1).includes(count)) throw new Error(`the network's output is ${shape({ dims })}; the Spec has ${count - 1} symbols and the blank`);
  requireFinite(data, "scores");
  const last = dims[2] === count;
  const length = last ? dims[1] : dims[2];
  const values = last ? data : Float32Array.from(data, (_, at) => data[(at % count) * length + Math.floor(at / count)]);
  const shares = activated(values, activation, count);
  const best = [];
  const scores = [];
  for (let start = 0; start < shares.length; start += count) {
    const own = shares.subarray(start, start + count);
    const sum = own.reduce((total, value) => total + value, 0);
    if (Math.abs(sum - 1) > SLACK || own.some((value) => value < -SLACK)) throw new Error(`the network's scores of a step sum up to ${sum.toPrecision(3)}; expected probabilities with the sum 1`);
    const clipped = own.map((value) => Math.min(Math.max(value, 0), 1));
    best.push(clipped.reduce((most, value, index) => (value > clipped[most] ? index : most), 0));
    scores.push(clipped[best.at(-1)]);
  }
  return { best, scores };
}

/** The steps where each symbol begins. */
function begins(path, blank) {
  return Array.from(path.keys()).filter((at) => path[at] !== blank && (at === 0 || path[at] !== path[at - 1]));
}
