// How networks write boxes into their outputs: each head reads one picture's outputs and gives the candidates that reach the threshold, as
// {box: [x0, y0, x1, y1], score, label, points, coefficients} in the network's own coordinates. Plimsoll's `tasks/detect/heads.py` names the sources.
import { SLACK, activated, numeric, requireFinite, requireProbabilities, shape } from "./arrays.js";

const f32 = Math.fround;
const POINT_COLUMNS = 3; // of a point in a YOLO head: x, y, and how sure the network is of it
const FORMATS = { ssd: "yxhw", boxes: "xyxy", selected: "yxyx" };

const range = (count) => Array.from({ length: count }, (_, index) => index);
const product = (sizes) => sizes.reduce((all, size) => all * size, 1);

function misfit(output, expected) {
  return new Error(`the network's output is ${shape(output)}; the head reads ${expected}`);
}

/** The outputs that a head reads, in the Spec's order, or the network's own if the Spec names none. */
function outputsOf(spec, outputs, count) {
  const names = spec.tensors.length ? spec.tensors : Object.keys(outputs);
  if (names.length !== count || names.some((name) => !outputs[name])) throw new Error(`head '${spec.head}' reads ${count} outputs; the network has ${Object.keys(outputs).join(", ")}`);
  return names.map((name) => numeric(outputs[name]));
}

// Boxes

const boxFormat = (spec) => spec.box_format ?? FORMATS[spec.head] ?? "xywh";

/** The corners of four numbers in the order of a `box_format`. */
function corners(numbers, order) {
  const [a, b, c, d] = order.startsWith("yx") ? [numbers[1], numbers[0], numbers[3], numbers[2]] : numbers;
  return order === "xyxy" || order === "yxyx" ? [a, b, c, d] : [a - c / 2, b - d / 2, a + c / 2, b + d / 2];
}

/** [centre y, centre x, height, width] of an anchor. */
function centred(anchor, order) {
  if (order === "yxhw") return anchor;
  const [x0, y0, x1, y1] = corners(anchor, order);
  return [(y0 + y1) / 2, (x0 + x1) / 2, y1 - y0, x1 - x0];
}

/** Left upper corners of the cells of a grid, row by row; a grid is rounded up where its stride doesn't divide the input. */
function gridOf(stride, [height, width]) {
  const [tall, wide] = [Math.ceil(height / stride), Math.ceil(width / stride)];
  return { count: tall * wide, corner: (cell) => [(cell % wide) * stride, Math.floor(cell / wide) * stride] };
}

// Labels

/** A box with its best label, or with `several_labels` each label that reaches the threshold; of equal scores the first label wins. */
function labelsOf({ spec, threshold }, count, scoreOf, box) {
  if (spec.several_labels) {
    return range(count).filter((label) => scoreOf(label) >= threshold).map((label) => ({ ...box(), score: scoreOf(label), label }));
  }
  let [label, score] = [0, scoreOf(0)];
  for (let other = 1; other < count; other += 1) {
    const value = scoreOf(other);
    if (value > score) [label, score] = [other, value];
  }
  return score >= threshold ? [{ ...box(), score, label }] : [];
}

/** A box with the label of a number of its own; none where that is the background's. */
function numbered({ spec }, box, number, score) {
  const shift = spec.background === "first" ? 1 : 0;
  const top = spec.labels.length - 1 + (spec.background === "first" || spec.background === "last" ? 1 : 0);
  if (!(Number.isInteger(number) && number >= 0 && number <= top)) throw new Error(`the network gives the label ${number}, the Spec has ${spec.labels.length}`);
  const label = number - shift;
  return label >= 0 && label < spec.labels.length ? [{ box, score: f32(score), label }] : [];
}

/** Which of the scores' columns comes first, without the background's. */
function firstLabel(spec, columns) {
  return columns === spec.labels.length || spec.background === "last" ? 0 : 1;
}

// Rows

/** The columns before and after the scores by name, and where the scores begin and how many there are. */
function rowColumns(spec, count) {
  const objectness = spec.head === "yolov8" ? [] : ["objectness"];
  const order = boxFormat(spec);
  const box = order === "xyxy" || order === "yxyx" ? [`${order[0]}0`, `${order[1]}0`, `${order[2]}1`, `${order[3]}1`] : [...order];
  const further = spec.points * POINT_COLUMNS + (spec.prototypes === null ? 0 : spec.coefficients);
  const names = spec.head === "rows" ? spec.columns : [...box, ...objectness, "scores", ...Array(further).fill("-")];
  const start = names.indexOf("scores");
  const wide = start < 0 ? 0 : count - names.length + 1;
  const at = {};
  names.forEach((name, index) => {
    if (name !== "-" && name !== "scores") at[name] = start >= 0 && index > start ? index + wide - 1 : index;
  });
  return { at, start, wide, fixed: names.length - (start < 0 ? 0 : 1) };
}

/** How many columns a row may have. */
function rowWidths(spec, fixed, hasScores) {
  if (!hasScores) return [fixed];
  const without = fixed + spec.labels.length;
  if (spec.head !== "rows" || spec.background === "none") return [without];
  return spec.background === null ? [without, without + 1] : [without + 1];
}

/** One output whose rows are boxes: [1, boxes, columns], for yolov8 [1, columns, boxes]. */
function rows(query, outputs) {
  const { spec, threshold } = query;
  const [raw] = outputsOf(spec, Object.fromEntries(Object.entries(outputs).filter(([name]) => name !== spec.prototypes)), 1);
  const { dims, data } = raw;
  const turned = spec.head === "yolov8";
  const count = turned ? dims[1] : dims.at(-1);
  const boxes = turned ? dims[2] : product(dims.slice(1, -1));
  const { at, start, wide, fixed } = rowColumns(spec, count);
  const widths = rowWidths(spec, fixed, start >= 0);
  if (dims.length < 3 || (spec.head !== "rows" && dims.length !== 3) || !widths.includes(count)) throw misfit(raw, turned ? `[N, ${widths[0]}, boxes]` : `[N, boxes, ${widths.join(" or ")}]`);
  requireFinite(data, "boxes or scores");
  const value = turned ? (row, column) => data[column * boxes + row] : (row, column) => data[row * count + column];
  const cells = spec.head === "yolox" ? yoloxCells(query, boxes) : null;
  const order = "x0" in at ? ["x0", "y0", "x1", "y1"] : ["x", "y", "w", "h"];
  const boxOf = (row) => {
    const numbers = order.map((name) => value(row, at[name]));
    const four = cells ? cells(row, numbers) : numbers;
    return corners(four, "x0" in at ? "xyxy" : "xywh");
  };
  const first = start + firstLabel(spec, wide);
  const further = (row) => ({
    points: spec.points ? range(spec.points).map((point) => range(POINT_COLUMNS).map((axis) => value(row, start + wide + POINT_COLUMNS * point + axis))) : null,
    coefficients: spec.prototypes === null ? null : Float32Array.from({ length: spec.coefficients }, (_, index) => value(row, count - spec.coefficients + index)),
  });
  return range(boxes).flatMap((row) => {
    if ("score" in at) {
      const score = value(row, at.score);
      if (!(score >= threshold) || (at.picture !== undefined && value(row, at.picture) < 0) || (at.label !== undefined && value(row, at.label) < 0)) return [];
      if (at.picture !== undefined && value(row, at.picture) !== 0) throw new Error("a row says that it belongs to another picture");
      requireProbabilities([score]);
      return numbered(query, boxOf(row), at.label === undefined ? 0 : value(row, at.label), score);
    }
    const objectness = at.objectness === undefined ? 1 : value(row, at.objectness);
    if (at.objectness !== undefined && !(objectness >= f32(query.given / (1 + SLACK)))) return [];
    const score = at.objectness === undefined ? (label) => value(row, first + label) : (label) => f32(value(row, first + label) * objectness);
    const candidates = labelsOf(query, spec.labels.length, score, () => ({ box: boxOf(row), ...further(row) }));
    if (candidates.length) requireProbabilities(candidates.map((candidate) => candidate.score));
    return candidates;
  });
}

/** YOLOX: offsets from the cells of its grids, one a stride; centre = (t + cell) x stride, size = exp(t) x stride, in float32. */
function yoloxCells({ spec, size }, boxes) {
  const grids = spec.strides.map((stride) => ({ stride, wide: Math.floor(size[1] / stride), tall: Math.floor(size[0] / stride) }));
  const total = grids.reduce((sum, { wide, tall }) => sum + wide * tall, 0);
  if (total !== boxes) throw new Error(`the network gives ${boxes} boxes; its input has ${total} cells at strides ${spec.strides.join(", ")}`);
  return (row, [x, y, width, height]) => {
    let cell = row;
    const { stride, wide } = grids.find((grid) => cell < grid.wide * grid.tall || ((cell -= grid.wide * grid.tall), false));
    const sizes = [width, height].map((value) => f32(f32(Math.exp(value)) * stride));
    requireFinite(sizes, "box sizes");
    return [f32(f32(x + (cell % wide)) * stride), f32(f32(y + Math.floor(cell / wide)) * stride), ...sizes];
  };
}

// Locations beside scores

function locationsAndScores(spec, outputs) {
  let [locations, scores] = outputsOf(spec, outputs, 2);
  const width = 4 + 2 * spec.points;
  if (!spec.tensors.length && scores.dims.at(-1) === width) {
    if (locations.dims.at(-1) === width) throw new Error(`both outputs have ${width} columns: which one has the locations?`);
    [locations, scores] = [scores, locations];
  }
  if (locations.dims.length === 4 && locations.dims[2] === 1) locations = { ...locations, dims: [locations.dims[0], locations.dims[1], locations.dims[3]] };
  if (locations.dims.length !== 3 || locations.dims[2] !== width) throw misfit(locations, `[N, boxes, ${width}]`);
  const labels = spec.labels.length;
  const count = locations.dims[1];
  const widths = spec.background === null ? [labels, labels + 1] : [spec.background === "none" ? labels : labels + 1];
  const { dims } = scores;
  const square = dims.length === 3 && dims[1] === dims[2] && widths.includes(dims[1]);
  if (square && spec.label_axis === null) throw new Error(`the network's scores are [${dims.join(", ")}]: which axis counts the labels? Write output.label_axis in the Spec`);
  const labelAxis = spec.label_axis ?? (!widths.includes(dims[2]) && widths.includes(dims[1]) ? 1 : 2);
  const across = dims.length === 3 && labelAxis === 1 && dims[2] === count;
  const columns = dims.length === 2 ? 1 : across ? dims[1] : dims[2];
  if (!widths.includes(columns) || scores.data.length !== count * columns) throw misfit(scores, `[N, ${count}, ${widths.join(" or ")}]`);
  requireFinite(locations.data, "locations");
  requireFinite(scores.data, "scores");
  const rowsFirst = across ? Float32Array.from(scores.data, (_, index) => scores.data[(index % columns) * count + Math.floor(index / columns)]) : scores.data;
  const shares = activated(rowsFirst, spec.activation, columns);
  requireProbabilities(shares);
  const first = firstLabel(spec, columns);
  return { count, location: (row) => locations.data.subarray(row * width, (row + 1) * width), score: (row) => (label) => shares[row * columns + first + label] };
}

function scored(query, { count, location, score }, boxOf) {
  return range(count).flatMap((row) => labelsOf(query, query.spec.labels.length, score(row), () => boxOf(location(row), row)));
}

/** Offsets from anchors: centre = t / scale x anchor size + anchor centre; size = exp(t / scale) x anchor size, or without the exponential. */
function ssd(query, outputs) {
  const { spec, size } = query;
  const read = locationsAndScores(spec, outputs);
  const anchors = spec.anchor_grid.length ? gridAnchors(spec.anchor_grid, size) : spec.anchors.map((anchor) => centred(anchor, spec.anchor_format ?? boxFormat(spec)));
  if (anchors.length !== read.count) throw new Error(`the network gives ${read.count} locations, the Spec has ${anchors.length} anchors`);
  const order = [..."yxhw"].map((letter) => boxFormat(spec).indexOf(letter));
  const all = Math.max(...spec.variances) <= 1 ? spec.variances.map((variance) => 1 / variance) : spec.variances;
  const scales = order.map((at) => all[at]);
  return scored(query, read, (values, row) => {
    const [anchorY, anchorX, anchorHeight, anchorWidth] = anchors[row];
    const [y, x, h, w] = order.map((at, index) => values[at] / scales[index]);
    const [height, width] = (spec.box_coder === "linear" ? [h, w] : [Math.exp(h), Math.exp(w)]).map((value, axis) => (value * [anchorHeight, anchorWidth][axis]) / 2);
    const [centreY, centreX] = [y * anchorHeight + anchorY, x * anchorWidth + anchorX];
    const box = [centreX - width, centreY - height, centreX + width, centreY + height];
    requireFinite(box, "box sizes");
    const point = (index) => [(values[4 + 2 * index] / scales[1]) * anchorWidth + anchorX, (values[5 + 2 * index] / scales[0]) * anchorHeight + anchorY];
    return { box, points: spec.points ? range(spec.points).map(point) : null };
  });
}

/** Anchors as large as the input, centred in the cells of grids: [stride, anchors a cell] each. */
function gridAnchors(grids, [height, width]) {
  return grids.flatMap(([stride, count]) => {
    const [tall, wide] = [Math.ceil(height / stride), Math.ceil(width / stride)];
    return range(tall * wide).flatMap((cell) => Array(count).fill([(Math.floor(cell / wide) + 0.5) / tall, ((cell % wide) + 0.5) / wide, 1, 1]));
  });
}

/** Decoded boxes beside scores; or, with a third output, the score and the label of each box. */
function boxes(query, outputs) {
  const { spec, threshold } = query;
  const order = boxFormat(spec);
  if ((spec.tensors.length || Object.keys(outputs).length) !== 3) {
    return scored(query, locationsAndScores(spec, outputs), (values) => ({ box: corners(values, order) }));
  }
  if (!spec.tensors.length) throw new Error(`which of the outputs ${Object.keys(outputs).join(", ")} has the boxes, which the scores and which the labels?`);
  const [places, scores, labels] = outputsOf(spec, outputs, 3);
  const count = places.dims[1];
  if (places.dims.length !== 3 || places.dims[2] !== 4 || scores.data.length !== count || labels.data.length !== count) throw misfit(places, "boxes [N, boxes, 4], scores [N, boxes] and labels [N, boxes]");
  requireFinite(places.data, "boxes");
  requireFinite(scores.data, "scores");
  const shares = activated(scores.data, spec.activation);
  requireProbabilities(shares);
  return range(count).flatMap((row) => (shares[row] >= threshold && labels.data[row] >= 0 ? numbered(query, corners(places.data.subarray(4 * row, 4 * row + 4), order), labels.data[row], shares[row]) : []));
}

/** What ONNX's NonMaxSuppression chose: boxes [1, boxes, 4], scores [1, labels, boxes], and the chosen [n, 3] as (picture, label, box). */
function selected(query, outputs) {
  const { spec, threshold } = query;
  const [places, scores, indices] = outputsOf(spec, outputs, 3);
  if (places.dims.length !== 3 || scores.dims.length !== 3 || places.dims[2] !== 4 || indices.dims.at(-1) !== 3) throw misfit(places, "boxes [N, boxes, 4], scores [N, labels, boxes] and what was chosen, [n, 3]");
  requireFinite(places.data, "boxes");
  requireFinite(scores.data, "scores");
  const limits = [places.dims[0], scores.dims[1], places.dims[1]];
  return range(indices.data.length / 3).flatMap((row) => {
    const chosen = Array.from(indices.data.subarray(3 * row, 3 * row + 3), Number);
    if (chosen.some((index) => index < 0)) return []; // fixed sizes are filled up with -1
    if (chosen.some((index, axis) => index >= limits[axis])) throw new Error(`the network chose ${chosen} (picture, label, box); there are ${limits}`);
    const [, label, box] = chosen;
    const [score] = activated([scores.data[label * limits[2] + box]], spec.activation);
    requireProbabilities([score]);
    return score >= threshold ? numbered(query, corners(places.data.subarray(4 * box, 4 * box + 4), boxFormat(spec)), label, score) : [];
  });
}

/** Boxes [1, most, 4] (y0, x0, y1, x1 as fractions), labels, scores and counts, in that order. */
function tflitePostprocess(query, outputs) {
  const [places, labels, scores, counts] = outputsOf(query.spec, outputs, 4);
  const [count] = counts.data;
  if (places.dims.length !== 3 || places.dims[2] !== 4 || labels.data.length !== places.dims[1] || scores.data.length !== places.dims[1] || counts.data.length !== 1) throw misfit(places, "boxes [N, most, 4], labels, scores and counts");
  if (!(Number.isInteger(count) && count >= 0 && count <= places.dims[1])) throw new Error(`the network counts ${count} boxes, but its outputs hold ${places.dims[1]}`);
  return range(count).flatMap((row) => {
    const box = places.data.subarray(4 * row, 4 * row + 4);
    requireFinite([...box, labels.data[row], scores.data[row]], "boxes, labels or scores");
    requireProbabilities([scores.data[row]]);
    return scores.data[row] >= query.threshold ? numbered(query, corners(box, "yxyx"), labels.data[row], scores.data[row]) : [];
  });
}

// Grids, one a stride

/** For each stride, scores [1, cells, labels] and distances [1, cells, 4 x bins]: the distribution of each side's distance from the cell's centre, in strides. */
function nanodet(query, outputs) {
  const { spec, size } = query;
  const labels = spec.labels.length;
  const grids = spec.strides.map((stride) => gridOf(stride, size));
  const parts = gridParts(spec, outputs, grids);
  return grids.flatMap(({ count, corner }, grid) => {
    const { scores, distance } = parts[grid];
    requireFinite(scores, "scores");
    const shares = activated(scores, spec.activation, labels);
    requireProbabilities(shares);
    const stride = spec.strides[grid];
    return range(count).flatMap((cell) => {
      const score = (label) => shares[cell * labels + label];
      return labelsOf(query, labels, score, () => {
        const sides = range(4).map((side) => activated(distance(cell, side), "softmax").reduce((sum, share, bin) => sum + share * bin, 0) * stride);
        requireFinite(sides, "distances");
        const [x, y] = corner(cell).map((at) => at + spec.cell_offset * stride);
        return { box: [x - sides[0], y - sides[1], x + sides[2], y + sides[3]] };
      });
    });
  });
}

/** Each grid's scores and distances: outputs of their own, or side by side in one. */
function gridParts(spec, outputs, grids) {
  const labels = spec.labels.length;
  const names = spec.tensors.length ? spec.tensors : Object.keys(outputs);
  if (names.length === 1) {
    const [table] = outputsOf(spec, outputs, 1);
    const total = grids.reduce((sum, { count }) => sum + count, 0);
    const wide = table.dims[2];
    const bins = (wide - labels) / 4;
    if (table.dims.length !== 3 || table.dims[1] !== total || !Number.isInteger(bins) || bins < 2) throw misfit(table, `[N, ${total}, ${labels} + 4 x bins]`);
    let before = 0;
    return grids.map(({ count }) => {
      const first = before;
      before += count;
      const scores = Float32Array.from({ length: count * labels }, (_, index) => table.data[(first + Math.floor(index / labels)) * wide + (index % labels)]);
      const start = (cell, side) => (first + cell) * wide + labels + side * bins;
      return { scores, distance: (cell, side) => table.data.subarray(start(cell, side), start(cell, side) + bins) };
    });
  }
  const arrays = outputsOf(spec, outputs, 2 * grids.length);
  return grids.map(({ count }, grid) => {
    const [scores, distances] = arrays.slice(2 * grid, 2 * grid + 2);
    const bins = distances.dims[2] / 4;
    if (scores.data.length !== count * labels || distances.dims[1] !== count || !Number.isInteger(bins) || bins < 2) throw misfit(scores, `scores [N, ${count}, ${labels}] and distances [N, ${count}, 4 x bins] at stride ${spec.strides[grid]}`);
    return { scores: scores.data, distance: (cell, side) => distances.data.subarray((4 * cell + side) * bins, (4 * cell + side + 1) * bins) };
  });
}

/** Classes, objectness, boxes and points, each for every stride. A score is the geometric mean of class and objectness. */
function yunet(query, outputs) {
  const { spec, size } = query;
  const kinds = spec.points ? 4 : 3;
  const grids = spec.strides.length;
  const arrays = outputsOf(spec, outputs, kinds * grids);
  const columns = [spec.labels.length, 1, 4, 2 * spec.points];
  return spec.strides.flatMap((stride, grid) => {
    const { count, corner } = gridOf(stride, size);
    const [classes, objectness, places, points] = range(kinds).map((kind) => {
      const array = arrays[kind * grids + grid];
      if (array.dims.length !== 3 || array.dims[2] !== columns[kind] || array.dims[1] !== count) throw misfit(array, `[N, ${count}, ${columns[kind]}]`);
      requireFinite(array.data, "boxes or scores");
      return (cell, column) => array.data[cell * columns[kind] + column];
    });
    const clipped = (value) => Math.min(Math.max(value, 0), 1);
    return range(count).flatMap((cell) => {
      const score = (label) => f32(Math.sqrt(f32(clipped(classes(cell, label)) * clipped(objectness(cell, 0)))));
      return labelsOf(query, spec.labels.length, score, () => {
        const [x, y] = corner(cell);
        const [centreX, centreY] = [x + places(cell, 0) * stride, y + places(cell, 1) * stride];
        const [width, height] = [2, 3].map((column) => (Math.exp(places(cell, column)) * stride) / 2);
        requireFinite([width, height], "box sizes");
        const point = (index) => [points(cell, 2 * index) * stride + x, points(cell, 2 * index + 1) * stride + y];
        return { box: [centreX - width, centreY - height, centreX + width, centreY + height], points: points ? range(spec.points).map(point) : null };
      });
    });
  });
}

export const HEADS = { yolov5: rows, yolov8: rows, yolox: rows, rows, ssd, boxes, selected, nanodet, yunet, tflite_postprocess: tflitePostprocess };
