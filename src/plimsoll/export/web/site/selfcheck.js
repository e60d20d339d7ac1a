// Does this browser answer the golden pictures as Python did? Five differences for each, with the limits that the package states; of a cascade,
// those of each network, and the whole's answers.
import { row } from "./answer.js";
import { fetched } from "./plimsoll.js";

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array,
  int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array,
};

/** Positions in rows are rounded to a hundredth of a pixel. */
const ROW_LIMIT = 0.011;

/** How many golden pictures there are, those of a cascade's networks first. */
export async function goldenCount(model) {
  const counts = await Promise.all((model.networks ?? []).map(goldenCount));
  return counts.reduce((sum, count) => sum + count, (await golden(model)).pictures.length);
}

/**
 * Check one golden picture. Returns {picture, checks: [{name, measured, limit, passed}]}: how far its tensor lies from the stored one
 * (in levels of 255: at worst, and on the mean), how far the outputs do, for the stored tensor and for the whole way, and what is answered to
 * the stored outputs.
 */
export async function check(model, index) {
  if (model.networks) return checkWithin(model, index);
  const { pictures, tolerance, level } = await golden(model);
  const vector = pictures[index];
  const file = (name) => fetched(new URL(name, model.base));
  const stored = array(await file(vector.tensor.file), vector.tensor.dtype);
  const expected = {};
  const outputs = {};
  for (const [name, output] of Object.entries(vector.outputs)) {
    expected[name] = array(await file(output.file), output.dtype);
    outputs[name] = { data: expected[name], dims: output.shape, type: output.dtype };
  }
  const network = apart(expected, await model.run({ data: stored, dtype: vector.tensor.dtype, shape: vector.tensor.shape }));
  const tensor = await model.preprocessor.tensor(await file(vector.picture));
  const [largest, mean] = difference(stored, tensor.data);
  const endToEnd = apart(expected, await model.run(tensor));
  const checks = [
    ["preprocessing, worst value", largest / level, tolerance.input_max],
    ["preprocessing, mean", mean / level, tolerance.input_mean],
    ["network", network, tolerance.network],
    ["end to end", endToEnd, tolerance.end_to_end],
    ["answer to the stored outputs", rowsApart(vector.row, row(model.spec.output, outputs, tensor)), ROW_LIMIT],
  ].map(([name, measured, limit]) => ({ name, measured, limit, passed: measured <= limit }));
  return { picture: vector.picture, checks };
}

async function checkWithin(cascade, index) {
  let at = index;
  for (const [number, network] of cascade.networks.entries()) {
    const count = await goldenCount(network);
    if (at < count) {
      const { picture, checks } = await check(network, at);
      return { picture: `${cascade.stages[number].folder.split("/").at(-1)}: ${picture}`, checks };
    }
    at -= count;
  }
  const { pictures, tolerance } = await golden(cascade);
  const { picture, row: expected } = pictures[at];
  const { boxes } = await cascade.predict(await fetched(new URL(picture, cascade.base)));
  const measured = boxesApart(expected.boxes, boxes);
  return { picture, checks: [{ name: `whole cascade, ${expected.boxes.length} boxes`, measured, limit: tolerance, passed: measured <= tolerance }] };
}

/** The largest difference of a score, or of a position as a share of its box's longer side; NaN where the boxes are others. */
function boxesApart(expected, actual) {
  if (expected.length !== actual.length) return NaN;
  const apartOf = (first, second) => {
    if (first.label !== second.label || first.points?.length !== second.points?.length) return NaN;
    const [x0, y0, x1, y1] = first.box;
    const [before, after] = [first, second].map(({ box, points }) => [...box, ...(points ?? []).flat()]);
    const moved = before.map((value, at) => Math.abs(value - after[at]));
    return Math.max(Math.abs(first.score - second.score), Math.max(...moved) / Math.max(x1 - x0, y1 - y0));
  };
  return expected.reduce((most, box, index) => Math.max(most, apartOf(box, actual[index])), 0);
}

/** Largest difference of any number in a row; of run lengths the share of pixels that differ; NaN where the rows hold different things. */
function rowsApart(expected, actual, name = "") {
  if (typeof expected === "number") return Math.abs(expected - actual);
  if (typeof expected !== "object" || expected === null) return expected === actual ? 0 : NaN;
  const keys = Object.keys(expected);
  if (name === "counts") return pixelsApart(expected, actual);
  if (typeof actual !== "object" || actual === null || keys.join() !== Object.keys(actual).join()) return NaN;
  const inside = (key) => (name === "rle" ? "counts" : key); // `rle` has the counts of each label
  return keys.reduce((most, key) => Math.max(most, rowsApart(expected[key], actual[key], inside(key))), 0);
}

function pixelsApart(expected, actual) {
  const [first, second] = [expected, actual].map((counts) => counts.map(((at) => (count) => (at += count))(0)));
  if (first.at(-1) !== second?.at(-1)) return NaN;
  const edges = [...first, ...second].sort((a, b) => a - b);
  let [differing, before] = [0, 0];
  edges.forEach((edge, index) => {
    if (index % 2) differing += edge - before; // between an odd number of edges, one has the label and the other hasn't
    before = edge;
  });
  return differing / first.at(-1);
}

async function golden(model) {
  model.golden ??= JSON.parse(new TextDecoder().decode(await fetched(new URL("golden.json", model.base))));
  return model.golden;
}

function array(bytes, dtype) {
  return new ARRAYS[dtype](bytes.buffer, bytes.byteOffset, bytes.byteLength / ARRAYS[dtype].BYTES_PER_ELEMENT);
}

/** Largest and mean difference; NaN where the sizes differ or a value is no number. */
function difference(expected, actual) {
  if (expected.length !== actual.length) return [NaN, NaN];
  let [largest, sum] = [0, 0];
  for (let at = 0; at < expected.length; at += 1) {
    const apart = Math.abs(Number(expected[at]) - Number(actual[at]));
    if (!(apart <= largest)) largest = apart;
    sum += apart;
  }
  return [largest, sum / expected.length];
}

/** Largest difference of any output, as a share of its largest value where that is above 1. */
function apart(expected, outputs) {
  return Math.max(
    ...Object.entries(expected).map(([name, values]) => {
      const scale = values.reduce((most, value) => Math.max(most, Math.abs(Number(value))), 1);
      return difference(values, outputs[name]?.data ?? [])[0] / scale;
    }),
  );
}
