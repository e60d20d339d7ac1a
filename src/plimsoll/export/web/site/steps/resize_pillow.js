// Pillow's resize of 8-bit pixels (libImaging/Resample.c and Geometry.c), in its whole numbers: horizontally, then vertically, each pass
// rounded to a level. The order is the reference's, whichever version of Pillow it runs on.

const BITS = 22;
const FILTERS = {
  area: [(x) => (x > -0.5 && x <= 0.5 ? 1 : 0), 0.5],
  bilinear: [(x) => Math.max(0, 1 - Math.abs(x)), 1],
  bicubic: [bicubic, 2],
  lanczos: [(x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0), 3],
};

function bicubic(value) {
  const x = Math.abs(value);
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** Resize `{width, height, channels, data}` to width × height with a filter of the Spec. */
export function resizePillow(picture, width, height, filter) {
  if (width === picture.width && height === picture.height) return picture;
  if (filter === "nearest") return nearest(picture, width, height);
  const narrowed = width === picture.width ? picture : { ...picture, width, data: alongX(picture, width, filter) };
  return height === picture.height ? narrowed : { ...narrowed, height, data: alongY(narrowed, height, filter) };
}

/** For each output pixel its first input pixel, and weights times 2^22, as many for each (`size`; those beyond `count` are zero). */
function weights(from, to, filter) {
  const [kernel, radius] = FILTERS[filter];
  const scale = from / to;
  const wide = Math.max(scale, 1);
  const support = radius * wide;
  const size = 2 * Math.ceil(support) + 1;
  const first = new Int32Array(to);
  const count = new Int32Array(to);
  const weight = new Int32Array(to * size);
  for (let at = 0; at < to; at += 1) {
    const centre = (at + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const exact = [];
    for (let x = start; x < end; x += 1) exact.push(kernel((x - centre + 0.5) * (1 / wide)));
    const sum = exact.reduce((total, value) => total + value, 0);
    exact.forEach((value, x) => {
      const share = (sum === 0 ? value : value / sum) * (1 << BITS);
      weight[at * size + x] = share < 0 ? -0.5 + share : 0.5 + share;
    });
    first[at] = start;
    count[at] = exact.length;
  }
  return { first, count, weight, size };
}

function alongX(picture, to, filter) {
  const table = weights(picture.width, to, filter);
  const out = new Uint8ClampedArray(to * picture.height * picture.channels);
  if (picture.channels === 3) coloursAlongX(picture, table, out);
  else greyAlongX(picture, table, out);
  return new Uint8Array(out.buffer);
}

function coloursAlongX({ width, height, data }, { first, count, weight, size }, out) {
  const half = 1 << (BITS - 1);
  for (let y = 0, to = 0; y < height; y += 1) {
    for (let x = 0; x < count.length; x += 1) {
      let [red, green, blue] = [half, half, half];
      let from = (y * width + first[x]) * 3;
      const end = x * size + count[x];
      for (let k = x * size; k < end; k += 1, from += 3) {
        const share = weight[k];
        red += data[from] * share;
        green += data[from + 1] * share;
        blue += data[from + 2] * share;
      }
      out[to++] = red >> BITS;
      out[to++] = green >> BITS;
      out[to++] = blue >> BITS;
    }
  }
}

function greyAlongX({ width, height, data }, { first, count, weight, size }, out) {
  for (let y = 0, to = 0; y < height; y += 1) {
    for (let x = 0; x < count.length; x += 1) {
      let sum = 1 << (BITS - 1);
      let from = y * width + first[x];
      const end = x * size + count[x];
      for (let k = x * size; k < end; k += 1, from += 1) sum += data[from] * weight[k];
      out[to++] = sum >> BITS;
    }
  }
}

function alongY({ width, height, channels, data }, to, filter) {
  const { first, count, weight, size } = weights(height, to, filter);
  const line = width * channels;
  const out = new Uint8ClampedArray(to * line);
  const sums = new Int32Array(line);
  for (let y = 0; y < to; y += 1) {
    sums.fill(1 << (BITS - 1));
    for (let k = 0; k < count[y]; k += 1) {
      const share = weight[y * size + k];
      const from = (first[y] + k) * line;
      for (let at = 0; at < line; at += 1) sums[at] += data[from + at] * share;
    }
    for (let at = 0; at < line; at += 1) out[y * line + at] = sums[at] >> BITS;
  }
  return new Uint8Array(out.buffer);
}

function nearest({ width, height, channels, data, ...rest }, toWidth, toHeight) {
  const [columns, rows] = [places(width, toWidth), places(height, toHeight)];
  const out = new Uint8Array(toWidth * toHeight * channels);
  let to = 0;
  for (const row of rows) {
    for (const column of columns) {
      for (let channel = 0; channel < channels; channel += 1) out[to++] = data[(row * width + column) * channels + channel];
    }
  }
  return { ...rest, width: toWidth, height: toHeight, channels, data: out };
}

/** The input pixel for each output pixel; Pillow adds up the step, so the last bits are those of its sum. */
function places(from, to) {
  const step = from / to;
  const indices = new Int32Array(to);
  for (let at = 0, position = step * 0.5; at < to; at += 1, position += step) indices[at] = Math.min(from - 1, Math.trunc(position));
  return indices;
}
