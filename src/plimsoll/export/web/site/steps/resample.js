// Resizing as OpenCV and TensorFlow define it, in the arithmetic of Plimsoll's reference (`plimsoll.preprocessing.resample`): for each axis
// a table of taps, float32 weights, float32 sums. Only the tables differ between the conventions.

const f32 = Math.fround;
const triangle = (distance) => Math.max(0, 1 - distance);
const cubic = (a) => (distance) => {
  if (distance <= 1) return ((a + 2) * distance - (a + 3)) * (distance * distance) + 1;
  return distance < 2 ? ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a : 0;
};
const lanczos = (radius) => (distance) => (distance < radius ? sinc(distance) * sinc(distance / radius) : 0);

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

const OPENCV = { bilinear: [triangle, 1], bicubic: [cubic(-0.75), 2], lanczos: [lanczos(4), 4] };
const TENSORFLOW = { bilinear: [triangle, 1], bicubic: [cubic(-0.5), 2], lanczos: [lanczos(3), 3] };

/** Resize `{width, height, channels, data}`; returns the data: Float32Array in the same range, unrounded (`nearest`: of the same type). */
export function resample(picture, width, height, step) {
  const bothShrink = width <= picture.width && height <= picture.height;
  const columns = axis(picture.width, width, step, bothShrink);
  const rows = axis(picture.height, height, step, bothShrink);
  if (step.filter === "nearest") return picked(picture, columns.index, rows.index, width, height);
  if (rows.count === 2 && columns.count === 2) return interpolated(picture, rows, columns, width, height);
  if (height <= picture.height) return alongX(alongY(picture, rows, height), columns, width).data;
  return alongY(alongX(picture, columns, width), rows, height).data;
}

function axis(size, out, step, bothShrink) {
  const { filter, convention, coordinates } = step;
  if (filter === "nearest") return nearest(size, out, step);
  if (convention === "opencv") {
    if (filter === "area") return bothShrink ? area(size, size / out, out) : areaEnlarging(size, out);
    const position = Float64Array.from({ length: out }, (_, at) => (at + 0.5) * (size / out) - 0.5);
    return replicated(position, size, ...OPENCV[filter], true);
  }
  if (filter === "area") return area(size, scaleOf(size, out, coordinates), out);
  if (step.antialias || filter === "lanczos") return renormalized(size, out, ...TENSORFLOW[filter], Boolean(step.antialias));
  const position = positions(size, out, coordinates);
  if (filter === "bicubic") {
    // TensorFlow looks its cubic weights up in a table of 1,024 fractions.
    const tabled = position.map((value) => Math.floor(value) + halfToEven((value - Math.floor(value)) * 1024) / 1024);
    const half = coordinates === "half_pixel";
    return replicated(tabled, size, cubic(half ? -0.5 : -0.75), 2, !half);
  }
  return replicated(position, size, triangle, 1, true);
}

/** Round to the nearest whole number, halves to the even one. */
export function halfToEven(value) {
  const down = Math.floor(value);
  const rest = value - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
}

/** TensorFlow's input pixels for each output pixel, in its float32 arithmetic. */
function scaleOf(size, out, coordinates) {
  return coordinates === "align_corners" && size > 1 && out > 1 ? f32((size - 1) / (out - 1)) : f32(size / out);
}

/** The source coordinate of each output pixel's centre, in TensorFlow's float32 arithmetic. */
function positions(size, out, coordinates) {
  const scale = scaleOf(size, out, coordinates);
  const half = coordinates === "half_pixel";
  return Float64Array.from({ length: out }, (_, at) => (half ? f32(f32(f32(at + 0.5) * scale) - 0.5) : f32(at * scale)));
}

function nearest(size, out, { convention, coordinates }) {
  let position;
  if (convention === "opencv") position = Float64Array.from({ length: out }, (_, at) => Math.floor(at * (1 / (out / size)))); // OpenCV's own roundabout way
  else if (coordinates === "asymmetric") position = positions(size, out, coordinates).map(Math.floor);
  else position = positions(size, out, coordinates).map((value) => Math.floor(value + 0.5));
  return { count: 1, index: Int32Array.from(position, (value) => Math.min(Math.max(value, 0), size - 1)), weight: null };
}

/** Taps of `count` weights a pixel: `weigh(at, k)` gives [input pixel, weight]; they are scaled to a sum of 1. */
function taps(size, out, count, weigh) {
  const index = new Int32Array(out * count);
  const weight = new Float32Array(out * count);
  const exact = new Float64Array(count);
  for (let at = 0; at < out; at += 1) {
    let sum = 0;
    for (let k = 0; k < count; k += 1) {
      const [tap, share] = weigh(at, k);
      index[at * count + k] = Math.min(Math.max(tap, 0), size - 1);
      exact[k] = share;
      sum += share;
    }
    for (let k = 0; k < count; k += 1) weight[at * count + k] = exact[k] / sum;
  }
  return { count, index, weight };
}

/** A kernel of fixed width; pixels beyond the border repeat it, or don't count. */
function replicated(position, size, kernel, radius, borderCounts) {
  return taps(size, position.length, 2 * radius, (at, k) => {
    const tap = Math.floor(position[at]) - radius + 1 + k;
    return [tap, borderCounts || (tap >= 0 && tap < size) ? kernel(Math.abs(position[at] - tap)) : 0];
  });
}

/** TensorFlow's ScaleAndTranslate: the kernel widens with the reduction if asked; beyond the border nothing counts. */
function renormalized(size, out, kernel, radius, antialias) {
  const scale = antialias ? Math.max(size / out, 1) : 1;
  const reach = radius * scale;
  return taps(size, out, Math.ceil(2 * reach) + 1, (at, k) => {
    const position = (at + 0.5) * (size / out) - 0.5;
    const tap = Math.ceil(position - reach - 1e-9) + k;
    return [tap, tap >= 0 && tap < size ? kernel(Math.abs(position - tap) / scale) : 0];
  });
}

/** Each output pixel is the mean of the interval of input that it covers. */
function area(size, scale, out) {
  return taps(size, out, Math.ceil(scale) + 1, (at, k) => {
    const start = at * scale;
    const tap = Math.floor(start + 1e-9) + k;
    return [tap, Math.max(0, Math.min(tap + 1, start + scale) - Math.max(tap, start))];
  });
}

/** OpenCV's INTER_AREA where an axis grows: bilinear between pixels, flat inside them. */
function areaEnlarging(size, out) {
  const inverse = out / size;
  const index = new Int32Array(2 * out);
  const weight = new Float32Array(2 * out);
  for (let at = 0; at < out; at += 1) {
    const first = Math.floor(at * (1 / inverse));
    const raw = f32(at + 1 - (first + 1) * inverse);
    const fraction = raw <= 0 ? 0 : f32(raw - Math.floor(raw));
    index.set([Math.min(first, size - 1), Math.min(first + 1, size - 1)], 2 * at);
    weight.set([f32(1 - fraction), fraction], 2 * at);
  }
  return { count: 2, index, weight };
}

function picked({ width, channels, data }, columns, rows, toWidth, toHeight) {
  const out = new data.constructor(toWidth * toHeight * channels);
  let to = 0;
  for (const row of rows) {
    for (const column of columns) {
      for (let channel = 0; channel < channels; channel += 1) out[to++] = data[(row * width + column) * channels + channel];
    }
  }
  return out;
}

/** Bilinear as a + (b − a)·t, along x, then along y: TensorFlow's order, equal to the last bit. */
function interpolated({ width, channels, data }, rows, columns, toWidth, toHeight) {
  const line = toWidth * channels;
  const alongRow = (row, into) => {
    for (let x = 0, to = 0; x < toWidth; x += 1) {
      const left = (row * width + columns.index[2 * x]) * channels;
      const right = (row * width + columns.index[2 * x + 1]) * channels;
      const t = columns.weight[2 * x + 1];
      for (let channel = 0; channel < channels; channel += 1) {
        const value = data[left + channel];
        into[to++] = f32(value + f32(f32(data[right + channel] - value) * t));
      }
    }
  };
  const out = new Float32Array(toHeight * line);
  const [top, bottom] = [new Float32Array(line), new Float32Array(line)];
  for (let y = 0; y < toHeight; y += 1) {
    alongRow(rows.index[2 * y], top);
    alongRow(rows.index[2 * y + 1], bottom);
    const t = rows.weight[2 * y + 1];
    for (let at = 0; at < line; at += 1) out[y * line + at] = f32(top[at] + f32(f32(bottom[at] - top[at]) * t));
  }
  return out;
}

/** The taps that weigh anything anywhere: the others are left out of the sums, as in the reference. */
function used({ count, weight }) {
  return Array.from({ length: count }, (_, k) => k).filter((k) => {
    for (let at = k; at < weight.length; at += count) if (weight[at] !== 0) return true;
    return false;
  });
}

function alongY({ width, channels, data }, table, height) {
  const line = width * channels;
  const out = new Float32Array(height * line);
  for (const k of used(table)) {
    for (let y = 0; y < height; y += 1) {
      const share = table.weight[y * table.count + k];
      const from = table.index[y * table.count + k] * line;
      for (let at = 0; at < line; at += 1) out[y * line + at] += f32(data[from + at] * share);
    }
  }
  return { width, height, channels, data: out };
}

function alongX({ width, height, channels, data }, table, toWidth) {
  const out = new Float32Array(height * toWidth * channels);
  const active = used(table);
  for (let y = 0, to = 0; y < height; y += 1) {
    for (let x = 0; x < toWidth; x += 1) {
      for (let channel = 0; channel < channels; channel += 1, to += 1) {
        let sum = 0;
        for (const k of active) {
          const tap = x * table.count + k;
          sum = f32(sum + f32(data[(y * width + table.index[tap]) * channels + channel] * table.weight[tap]));
        }
        out[to] = sum;
      }
    }
  }
  return { width: toWidth, height, channels, data: out };
}
