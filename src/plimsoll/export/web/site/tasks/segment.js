// Segmentation: a label for every pixel. Values are interpolated bilinearly to the pixel's centre, and then the label is decided; where the
// four cells around a pixel have one label, that is the pixel's, so values are interpolated along the edges alone.
import { activated, named, numeric, requireFinite, rounded, shape } from "./arrays.js";

const NO_LABEL = 65_535;
const MIXED = 65_534;
const f32 = Math.fround;

/** The row {mask: {size, labels, rle}}. */
export function segment(spec, outputs, threshold, geometry) {
  const output = numeric(named(outputs, spec.tensor));
  const labelAt = output.whole ? ofLabels(spec, output, geometry) : ofPlanes(spec, output, threshold ?? spec.threshold, geometry);
  return { mask: mask(spec, labelAt, geometry) };
}

/** For a network whose output is labels: the label of the cell at each position. */
function ofLabels(spec, { data, dims }, geometry) {
  const sizes = dims.slice(1).filter((size) => size !== 1);
  const [height, width] = dims.length === 4 && sizes.length < 3 ? [...Array(2 - sizes.length).fill(1), ...sizes] : dims.slice(1);
  if (height * width !== data.length) throw new Error(`the network's output is whole numbers ${shape({ dims })}; labels are read from [N, height, width]`);
  if (data.some((value) => value < 0 || value >= spec.labels.length)) throw new Error(`the network gives other labels than the Spec's ${spec.labels.length}`);
  const cell = (position, cells) => Math.min(Math.max(Math.floor(position), 0), cells - 1);
  const columns = geometry.centres(0).map((x) => (Number.isNaN(x) ? NaN : cell(x * (width / geometry.inputWidth), width)));
  const rows = geometry.centres(1).map((y) => (Number.isNaN(y) ? NaN : cell(y * (height / geometry.inputHeight), height)));
  return (column, row) => (Number.isNaN(columns[column]) || Number.isNaN(rows[row]) ? NO_LABEL : data[rows[row] * width + columns[column]]);
}

function ofPlanes(spec, output, threshold, geometry) {
  const { height, width, planes, value } = asPlanes(spec, output);
  const decide = decider(spec, planes, threshold);
  const cells = new Uint16Array(height * width);
  for (let at = 0; at < cells.length; at += 1) cells[at] = decide((plane) => value(at, plane));
  const gaps = gapsOf(cells, height, width);
  const columns = Array.from(geometry.centres(0), (x) => located(x * (width / geometry.inputWidth), width));
  const rows = Array.from(geometry.centres(1), (y) => located(y * (height / geometry.inputHeight), height));
  return (column, row) => {
    const [x, y] = [columns[column], rows[row]];
    if (x === null || y === null) return NO_LABEL;
    const label = gaps[y.between * (width + 1) + x.between];
    if (label !== MIXED) return label;
    return decide((plane) => {
      const along = (line) => {
        const first = value(line * width + x.before, plane);
        return f32(first + f32(f32(value(line * width + x.after, plane) - first) * x.share));
      };
      const top = along(y.before);
      return f32(top + f32(f32(along(y.after) - top) * y.share));
    });
  };
}

/** The planes' size, and their value in a cell. */
function asPlanes(spec, { data, dims }) {
  const axis = spec.layout === "NCHW" ? 1 : 3;
  const count = spec.labels.length;
  const full = dims.length === 3 ? dims.toSpliced(axis, 0, 1) : dims;
  if (full.length !== 4 || full.includes(0) || !(full[axis] === count || (count <= 2 && full[axis] === 1))) {
    throw new Error(`the network's output is ${shape({ dims })}; the Spec has ${count} labels and layout ${spec.layout}`);
  }
  requireFinite(data, "values");
  const planes = full[axis];
  const [height, width] = axis === 1 ? full.slice(2) : full.slice(1);
  return { height, width, planes, value: axis === 1 ? (cell, plane) => data[plane * height * width + cell] : (cell, plane) => data[cell * planes + plane] };
}

/** From the values of a pixel to its label. Softmax and sigmoid rise with their values: they change no largest one. */
function decider(spec, planes, threshold) {
  if (planes > 1) {
    return (value) => {
      let best = 0;
      for (let plane = 1, most = value(0); plane < planes; plane += 1) if (value(plane) > most) [best, most] = [plane, value(plane)];
      return best;
    };
  }
  const activation = spec.activation === "sigmoid" ? "sigmoid" : "none";
  const [below, above] = spec.labels.length === 2 ? [0, 1] : [NO_LABEL, 0];
  return (value) => (activated([value(0)], activation)[0] >= f32(threshold) ? above : below);
}

/** For each gap between four cells the label that all four have, or MIXED; the border repeats. */
function gapsOf(cells, height, width) {
  const gaps = new Uint16Array((height + 1) * (width + 1));
  for (let y = 0; y <= height; y += 1) {
    const [above, under] = [Math.max(y - 1, 0) * width, Math.min(y, height - 1) * width];
    for (let x = 0; x <= width; x += 1) {
      const [left, right] = [Math.max(x - 1, 0), Math.min(x, width - 1)];
      const label = cells[above + left];
      const same = label === cells[above + right] && label === cells[under + left] && label === cells[under + right];
      gaps[y * (width + 1) + x] = same ? label : MIXED;
    }
  }
  return gaps;
}

/** The cells before and after a position, and its share of the way between them; null for what was cropped away. */
function located(position, cells) {
  if (Number.isNaN(position)) return null;
  const centred = Math.min(Math.max(position - 0.5, -1), cells);
  const first = Math.min(Math.floor(centred), cells - 1);
  return { between: first + 1, before: Math.max(first, 0), after: Math.min(first + 1, cells - 1), share: f32(centred - first) };
}

/** The labels of the picture as it was sent: which occur, with their shares, and each one's run lengths down the columns. */
function mask({ labels }, labelAt, geometry) {
  const { width, height } = geometry;
  const total = width * height;
  const areas = new Map(); // label → {area, counts, end}
  let [label, start] = [-1, 0];
  const close = (end) => {
    if (label < 0 || label === NO_LABEL) return;
    const own = areas.get(label) ?? { area: 0, counts: [], end: 0 };
    own.counts.push(start - own.end, end - start);
    areas.set(label, { ...own, area: own.area + end - start, end });
  };
  for (let column = 0; column < width; column += 1) {
    for (let row = 0; row < height; row += 1) {
      const next = labelAt(...geometry.uprightAt(column, row));
      if (next === label) continue;
      close(column * height + row);
      [label, start] = [next, column * height + row];
    }
  }
  close(total);
  const listed = [...areas].sort(([a, { area: first }], [b, { area: second }]) => second - first || a - b);
  return {
    size: [height, width],
    labels: listed.map(([index, { area }]) => ({ label: labels[index], share: rounded(area / total, 6) })),
    rle: Object.fromEntries(listed.map(([index, { counts, end }]) => [labels[index], end < total ? [...counts, total - end] : counts])),
  };
}
