// Planes of a JPEG picture to pixels and back, in libjpeg-turbo's whole numbers: jccolor.c, jdcolor.c, jcsample.c, jdsample.c.
// A plane is `{width, height, stride, data}`; its rows may be longer (`stride`) than the picture needs (`width`).

const fix = (value) => Math.trunc(value * 65536 + 0.5);

const RED = Int32Array.from({ length: 256 }, (_, cr) => (fix(1.402) * (cr - 128) + 32768) >> 16);
const BLUE = Int32Array.from({ length: 256 }, (_, cb) => (fix(1.772) * (cb - 128) + 32768) >> 16);
const GREEN_CR = Int32Array.from({ length: 256 }, (_, cr) => -fix(0.71414) * (cr - 128));
const GREEN_CB = Int32Array.from({ length: 256 }, (_, cb) => -fix(0.34414) * (cb - 128) + 32768);

/** YCbCr samples of equal size to RGB pixels. */
export function yccToRgb(y, cb, cr) {
  const out = new Uint8ClampedArray(3 * y.length);
  for (let at = 0, to = 0; at < y.length; at += 1, to += 3) {
    const level = y[at];
    out[to] = level + RED[cr[at]];
    out[to + 1] = level + ((GREEN_CB[cb[at]] + GREEN_CR[cr[at]]) >> 16);
    out[to + 2] = level + BLUE[cb[at]];
  }
  return new Uint8Array(out.buffer);
}

/** Samples of equal size to pixels, as they are. */
export function interleaved(...planes) {
  const count = planes.length;
  const out = new Uint8Array(count * planes[0].length);
  planes.forEach((plane, channel) => {
    for (let at = 0, to = channel; at < plane.length; at += 1, to += count) out[to] = plane[at];
  });
  return out;
}

/** Stored CMYK (inverted, as Adobe writes it and Pillow expects it of every file) to RGB, as Pillow does it. */
export function cmykToRgb(c, m, y, k) {
  const out = new Uint8ClampedArray(3 * c.length);
  const ink = [c, m, y];
  for (let at = 0, to = 0; at < c.length; at += 1) {
    const paper = k[at]; // 255 less the key
    for (let channel = 0; channel < 3; channel += 1) {
      const product = (255 - ink[channel][at]) * paper + 128;
      out[to++] = paper - (((product >> 8) + product) >> 8);
    }
  }
  return new Uint8Array(out.buffer);
}

/** RGB pixels to planes of luminance and chrominance, each of the picture's own size. */
export function rgbToYcc(pixels, width, height) {
  const [y, cb, cr] = [0, 1, 2].map(() => ({ width, height, stride: width, data: new Uint8Array(width * height) }));
  const offset = (128 << 16) + 32768 - 1;
  for (let at = 0, from = 0; at < width * height; at += 1, from += 3) {
    const [red, green, blue] = [pixels[from], pixels[from + 1], pixels[from + 2]];
    y.data[at] = (fix(0.299) * red + fix(0.587) * green + fix(0.114) * blue + 32768) >> 16;
    cb.data[at] = (-fix(0.16874) * red - fix(0.33126) * green + fix(0.5) * blue + offset) >> 16;
    cr.data[at] = (fix(0.5) * red - fix(0.41869) * green - fix(0.08131) * blue + offset) >> 16;
  }
  return [y, cb, cr];
}

/** Halve a plane along x and, with `vertical` 2, along y; whole blocks of 8 come out, filled up with the samples at the border. */
export function downsampled(plane, horizontal, vertical) {
  const [width, height] = [Math.ceil(plane.width / horizontal), Math.ceil(plane.height / vertical)];
  const stride = 8 * Math.ceil(width / 8);
  const rows = 8 * Math.ceil(height / 8);
  const data = new Uint8Array(stride * rows);
  const lastX = plane.width - 1;
  for (let y = 0; y < height; y += 1) {
    const top = Math.min(y * vertical, plane.height - 1) * plane.stride;
    const bottom = Math.min(y * vertical + vertical - 1, plane.height - 1) * plane.stride;
    for (let x = 0; x < stride; x += 1) {
      const left = Math.min(x * horizontal, lastX);
      const right = Math.min(x * horizontal + horizontal - 1, lastX);
      const odd = x & 1; // Halves are rounded down and up in turn.
      if (horizontal === 1) data[y * stride + x] = plane.data[top + left];
      else if (vertical === 1) data[y * stride + x] = (plane.data[top + left] + plane.data[top + right] + odd) >> 1;
      else data[y * stride + x] = (plane.data[top + left] + plane.data[top + right] + plane.data[bottom + left] + plane.data[bottom + right] + 1 + odd) >> 2;
    }
  }
  for (let y = height; y < rows; y += 1) data.copyWithin(y * stride, (height - 1) * stride, height * stride);
  return { width, height, stride, data };
}

/** Bring a plane to the picture's size: `horizontal` × `vertical` samples of it for one; `fancy` weighs neighbours (a triangle), else samples repeat. */
export function upsampled(plane, horizontal, vertical, width, height, fancy) {
  if (horizontal === 1 && vertical === 1) return cut(plane, width, height);
  const smooth = fancy && ((horizontal === 2 && vertical <= 2 && plane.width > 2) || (horizontal === 1 && vertical === 2));
  if (!smooth) return repeated(plane, horizontal, vertical, width, height);
  const out = new Uint8Array(width * height);
  const sums = new Int32Array(plane.width);
  for (let y = 0; y < height; y += 1) {
    columnSums(plane, vertical, y, sums);
    const row = out.subarray(y * width, (y + 1) * width);
    if (horizontal === 1) alongY(sums, row, y);
    else alongX(sums, row, vertical);
  }
  return out;
}

/** For an output row, three parts of the nearer row and one of the other, or the row itself where the height stays. */
function columnSums(plane, vertical, y, sums) {
  const near = Math.floor(y / vertical);
  const other = Math.min(Math.max(vertical === 1 ? near : y & 1 ? near + 1 : near - 1, 0), plane.height - 1);
  const [a, b] = [near * plane.stride, other * plane.stride];
  for (let x = 0; x < sums.length; x += 1) sums[x] = vertical === 1 ? plane.data[a + x] : 3 * plane.data[a + x] + plane.data[b + x];
}

function alongY(sums, row, y) {
  const bias = y & 1 ? 2 : 1;
  for (let x = 0; x < row.length; x += 1) row[x] = (sums[x] + bias) >> 2;
}

function alongX(sums, row, vertical) {
  const last = sums.length - 1;
  const shift = vertical === 1 ? 2 : 4;
  const [left, right] = vertical === 1 ? [1, 2] : [8, 7];
  for (let x = 0; x < row.length; x += 1) {
    const near = x >> 1;
    const other = x & 1 ? Math.min(near + 1, last) : Math.max(near - 1, 0);
    row[x] = (3 * sums[near] + sums[other] + (x & 1 ? right : left)) >> shift;
  }
}

function repeated(plane, horizontal, vertical, width, height) {
  const out = new Uint8Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const from = Math.floor(y / vertical) * plane.stride;
    for (let x = 0; x < width; x += 1) out[y * width + x] = plane.data[from + Math.floor(x / horizontal)];
  }
  return out;
}

function cut(plane, width, height) {
  const out = new Uint8Array(width * height);
  for (let y = 0; y < height; y += 1) out.set(plane.data.subarray(y * plane.stride, y * plane.stride + width), y * width);
  return out;
}
