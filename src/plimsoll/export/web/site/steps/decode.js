// The `decode` step: a picture file, or a picture on the page, to 8-bit pixels in RGB or grey.
import { PictureError } from "./errors.js";
import { decodeBmp, decodeWebp, shown } from "./browser.js";
import { turned } from "./exif.js";
import { admit } from "./formats.js";
import { decodeGif } from "./gif.js";
import { decodeJpeg } from "./jpeg_file.js";
import { decodePng } from "./png.js";

const DECODERS = { jpeg: decodeJpeg, png: decodePng, gif: decodeGif, webp: decodeWebp, bmp: decodeBmp };

/** Decode a file's bytes; returns a picture `{width, height, channels, data, colour, dtype, layout, orientation}`, the last as it was followed. */
export async function decode(data, step) {
  const format = admit(data, step);
  if (step.frames !== undefined && step.frames !== "first") throw new PictureError(`frames = "${step.frames}": only the first frame is decoded here`);
  if (step.colour_profile === "srgb") throw new PictureError('colour_profile = "srgb": profiles are not followed here');
  if (!(format in DECODERS)) throw new PictureError(`${format === "tiff" ? "a TIFF" : format === "avif" ? "an AVIF" : "a HEIC"} file: it can't be decoded here; store it as PNG`);
  return finished(await DECODERS[format](data, step), step);
}

/** The same for an ImageBitmap, canvas, image or video frame. */
export function taken(source, step) {
  return finished(shown(source, step), step);
}

/** The same for pixels that a step before has made: {width, height, channels, data}. */
export function given(pixels, step) {
  return finished({ ...pixels, orientation: 1 }, step);
}

function finished(raw, step) {
  const upright = step.exif_orientation ? turned(raw, raw.orientation) : raw;
  const colours = upright.channels < 3 ? 1 : 3;
  const grey = step.colour === "grey";
  const data = alphaDone(upright, step, colours);
  const samples = grey && data.length === 3 * upright.width * upright.height ? luma(data) : !grey && colours === 1 ? tripled(data, upright) : data;
  const { width, height } = upright;
  return { width, height, channels: grey ? 1 : 3, data: samples, colour: grey ? "grey" : "RGB", dtype: "uint8", layout: "NHWC", orientation: step.exif_orientation ? raw.orientation : 1 };
}

/** Drop alpha, or blend over the background as Pillow's `alpha_composite` does; a blended grey picture becomes RGB. */
function alphaDone({ channels, data }, step, colours) {
  if (channels === colours) return data;
  const count = data.length / channels;
  const composite = step.alpha === "composite";
  const depth = composite ? 3 : colours;
  const out = new Uint8Array(count * depth);
  for (let at = 0, from = 0, to = 0; at < count; at += 1, from += channels) {
    const weight = data[from + channels - 1] * 128;
    for (let channel = 0; channel < depth; channel += 1) {
      const value = data[from + (colours === 1 ? 0 : channel)];
      out[to++] = composite ? blended(value, step.background[channel], weight) : value;
    }
  }
  return out;
}

/** `weight` is alpha times 2^7. */
function blended(value, under, weight) {
  if (weight === 0) return under;
  const sum = value * weight + under * (255 * 128 - weight) + 128 * 128;
  return (((sum >> 8) + sum) >> 8) >> 7;
}

/** ITU-R 601 luma in Pillow's whole numbers. */
function luma(data) {
  const out = new Uint8Array(data.length / 3);
  for (let at = 0, from = 0; at < out.length; at += 1, from += 3) out[at] = (data[from] * 19595 + data[from + 1] * 38470 + data[from + 2] * 7471 + 32768) >> 16;
  return out;
}

function tripled(data, { width, height }) {
  if (data.length !== width * height) return data;
  const out = new Uint8Array(3 * data.length);
  for (let at = 0; at < data.length; at += 1) out.fill(data[at], 3 * at, 3 * at + 3);
  return out;
}
