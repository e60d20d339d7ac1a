// Detection: boxes by the Spec's head, those that lie on better ones suppressed, and the rest in the picture's pixels; with their points and masks.
import { decimal, named, numeric, position, requireFinite, rounded, runLengths, shape } from "./arrays.js";
import { HEADS } from "./heads.js";
import { best, blend, suppress } from "./suppression.js";

const f32 = Math.fround;

/** The row {boxes: [{label, score, box, points, mask}]}, best first. */
export function detect(spec, outputs, threshold, geometry) {
  const planes = spec.prototypes === null ? null : prototypes(spec, outputs);
  const boxes = placedBoxes(spec, outputs, threshold, geometry).map((box) => {
    const row = boxRow(box);
    return planes ? { ...row, mask: maskOf(box.coefficients, planes, box.own, geometry) } : row;
  });
  return { boxes };
}

/** Boxes where the geometry leads, best first, with nothing rounded: {label, score, box, points}; and in the input's pixels (`own`) for their masks. */
export function placedBoxes(spec, outputs, threshold, geometry) {
  const given = threshold ?? spec.confidence;
  const query = { spec, given, threshold: f32(given), size: [geometry.inputHeight, geometry.inputWidth] };
  const candidates = suppressed(spec, HEADS[spec.head](query, outputs));
  const fractions = spec.normalized || spec.head === "tflite_postprocess"; // TensorFlow Lite's operator knows no pixels.
  const size = fractions ? [geometry.inputWidth, geometry.inputHeight] : [1, 1];
  return candidates.flatMap(({ box, score, label, points, coefficients }) => {
    const own = box.map((value, index) => value * size[index % 2]);
    const [x0, y0, x1, y1] = geometry.box(own);
    if (!(x1 > x0 && y1 > y0)) return []; // outside of the picture, in the padding
    const places = points?.map(([x, y, ...rest]) => [...geometry.point(x * size[0], y * size[1]), ...rest]);
    return [{ label: spec.labels[label], score: decimal(score), box: [x0, y0, x1, y1], points: places, own, coefficients }];
  });
}

/** A box as rows show it. */
export function boxRow({ label, score, box, points }) {
  const row = { label, score, box: box.map(position) };
  return points ? { ...row, points: points.map(([x, y, ...rest]) => [position(x), position(y), ...rest.map((value) => rounded(value, 4))]) } : row;
}

/** What suppression leaves, best first: within each label, then across labels if the Spec says so. */
function suppressed(spec, candidates) {
  const most = spec.max_boxes;
  const already = ["tflite_postprocess", "selected"].includes(spec.head) || (spec.head === "rows" && !spec.columns.includes("scores")) || (spec.head === "boxes" && spec.tensors.length === 3);
  if (spec.suppression === "blend" && !already) return blend(candidates, spec.iou, most);
  const across = spec.class_agnostic_iou;
  let staying = already ? best(candidates) : suppress(candidates, spec.iou, { most: across === null ? most : Infinity });
  if (across !== null) staying = suppress(staying, across, { acrossLabels: true, most });
  return staying.slice(0, most);
}

function prototypes(spec, outputs) {
  const { data, dims } = numeric(named(outputs, spec.prototypes));
  if (dims.length !== 4 || dims[1] !== spec.coefficients) throw new Error(`the prototypes are ${shape({ dims })}; expected [1, ${spec.coefficients}, height, width]`);
  requireFinite(data, "prototypes");
  return { data, count: dims[1], height: dims[2], width: dims[3] };
}

/** The mask of a box: prototype planes weighted by its coefficients, cut to the box, interpolated to the picture's pixels and cut at 0. */
function maskOf(coefficients, planes, [x0, y0, x1, y1], geometry) {
  const columns = between(geometry.centres(0), x0, x1, planes.width / geometry.inputWidth, planes.width);
  const rows = between(geometry.centres(1), y0, y1, planes.height / geometry.inputHeight, planes.height);
  const { width, height } = geometry;
  if (!columns.length || !rows.length) return { size: [height, width], counts: [height * width] };
  const logits = weighted(coefficients, planes);
  const along = (row, column) => {
    const [above, under] = [logits[row.before * planes.width + column], logits[row.after * planes.width + column]];
    return f32(above + f32(f32(under - above) * row.share));
  };
  const lines = new Map(); // a row of values in the picture's height, still in the planes' width
  const lineOf = (row) => {
    if (!lines.has(row)) lines.set(row, Float32Array.from({ length: planes.width }, (_, column) => along(rows.places[row - rows.first], column)));
    return lines.get(row);
  };
  const inside = (sentColumn, sentRow) => {
    const [column, row] = geometry.uprightAt(sentColumn, sentRow);
    const line = lineOf(row);
    const { before, after, share } = columns.places[column - columns.first];
    return f32(line[before] + f32(f32(line[after] - line[before]) * share)) > 0;
  };
  const rectangle = geometry.sentRectangle([columns.first, rows.first, columns.first + columns.length, rows.first + rows.length]);
  return { size: [height, width], counts: runLengths(width, height, rectangle, inside) };
}

/** The picture's columns (or rows) whose centres lie in the box, and where each lies among the planes' cells. */
function between(centres, from, to, scale, cells) {
  const first = centres.findIndex((at) => at >= from && at < to);
  const own = first < 0 ? [] : Array.from(centres.filter((at) => at >= from && at < to));
  const places = own.map((at) => {
    const centred = Math.min(Math.max(at * scale - 0.5, 0), cells - 1);
    const before = Math.floor(centred);
    return { before, after: Math.min(before + 1, cells - 1), share: f32(centred - before) };
  });
  return { first, length: own.length, places };
}

function weighted(coefficients, { data, count, height, width }) {
  const logits = new Float32Array(height * width);
  for (let plane = 0; plane < count; plane += 1) {
    const [by, start] = [coefficients[plane], plane * logits.length];
    for (let at = 0; at < logits.length; at += 1) logits[at] += f32(by * data[start + at]);
  }
  return logits;
}
