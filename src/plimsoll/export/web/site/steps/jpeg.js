// The `jpeg` step: what a picture looks like after it was stored as JPEG. The Huffman coding loses nothing and is left out;
// what remains is libjpeg-turbo's arithmetic, so the pixels equal those of the reference.
import { downsampled, rgbToYcc, upsampled, yccToRgb } from "./jpeg_colour.js";
import { forward, inverseAccurate, inverseFast } from "./jpeg_cosine.js";
import { fastMultipliers, quantization } from "./jpeg_tables.js";

const SAMPLING = { "4:4:4": [1, 1], "4:2:2": [2, 1], "4:2:0": [2, 2] };

/** Encode and decode again; the channels keep their order. */
export function jpeg(picture, step) {
  const { width, height, channels } = picture;
  const [luminance, chrominance] = quantization(step.quality);
  if (channels === 1) {
    const plane = stored({ width, height, stride: width, data: picture.data }, 1, 1, luminance, step.dct);
    return { ...picture, data: upsampled(plane, 1, 1, width, height, false) };
  }
  const [across, down] = SAMPLING[step.subsampling];
  const swap = picture.colour === "BGR" ? swapped : (data) => data;
  const planes = rgbToYcc(swap(picture.data), width, height).map((plane, index) => {
    const [h, v] = index === 0 ? [1, 1] : [across, down];
    const rounded = stored(plane, h, v, index === 0 ? luminance : chrominance, step.dct);
    return upsampled(rounded, h, v, width, height, step.upsampling === "fancy");
  });
  return { ...picture, data: swap(yccToRgb(...planes)) };
}

/** A plane as it comes back from its quantized coefficients. */
function stored(plane, horizontal, vertical, table, dct) {
  const samples = downsampled(plane, horizontal, vertical);
  const { stride } = samples;
  const data = new Uint8ClampedArray(samples.data.length);
  const block = new Int32Array(64);
  const [inverse, multipliers] = dct === "fast" ? [inverseFast, fastMultipliers(table)] : [inverseAccurate, Int32Array.from(table)];
  for (let top = 0; top < data.length; top += 8 * stride) {
    for (let left = 0; left < stride; left += 8) {
      for (let index = 0; index < 64; index += 1) block[index] = samples.data[top + left + (index >> 3) * stride + (index & 7)] - 128;
      forward(block);
      quantize(block, table);
      inverse(block, 0, multipliers, data, top + left, stride);
    }
  }
  return { ...samples, data };
}

/** Divide by the table and by the 8 that `forward` leaves in, halves away from zero. */
function quantize(block, table) {
  for (let index = 0; index < 64; index += 1) {
    const divisor = 8 * table[index];
    const size = Math.trunc((Math.abs(block[index]) + divisor / 2) / divisor);
    block[index] = block[index] < 0 ? -size : size;
  }
}

function swapped(data) {
  const out = new Uint8Array(data.length);
  for (let at = 0; at < data.length; at += 3) {
    out[at] = data[at + 2];
    out[at + 1] = data[at + 1];
    out[at + 2] = data[at];
  }
  return out;
}
