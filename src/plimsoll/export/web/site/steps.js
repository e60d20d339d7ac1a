// The input steps of a Spec, in JavaScript: from a picture to the tensor that the network takes. Each step does what Plimsoll's
// reference (Pillow and NumPy) does, in the same arithmetic; README.md says where that can't be so.
import { geometryOf } from "./geometry.js";
import { channels, crop, dtype, layout, mean, scale, std } from "./steps/arithmetic.js";
import { decode, given, taken } from "./steps/decode.js";
import { PictureError } from "./steps/errors.js";
import { jpeg } from "./steps/jpeg.js";
import { resize } from "./steps/resize.js";

const STEPS = { resize, jpeg, crop, channels, scale, mean, std, layout, dtype };

/** The steps of a Spec's input (`spec.input` of spec.json), ready to run on one picture after another. */
export class Preprocessor {
  constructor(input) {
    this.input = input;
    const [first, ...rest] = input.steps;
    const unknown = rest.find((step) => !STEPS[step.step]);
    if (first.step !== "decode" || unknown) throw new Error(`these steps can't be carried out: ${(unknown ?? first).step}`);
    this.first = first;
    this.rest = rest;
  }

  /**
   * Turn a picture into a tensor without its batch axis: {data, dtype, shape, geometry, milliseconds}; the geometry leads back to the picture.
   * `picture`: a File or Blob, bytes (Uint8Array, ArrayBuffer), an ImageBitmap, canvas, image or video element, or pixels {width, height, channels, data}.
   */
  async tensor(picture) {
    const milliseconds = {};
    let started = performance.now();
    const lap = (name) => {
      const now = performance.now();
      milliseconds[name] = (milliseconds[name] ?? 0) + now - started;
      started = now;
    };
    let pixels = await this.decoded(picture);
    lap("decode");
    const geometry = geometryOf(this.input, pixels.width, pixels.height, pixels.orientation);
    for (const step of this.rest) {
      pixels = STEPS[step.step](pixels, step);
      lap(step.step);
    }
    const { width, height, channels: depth, data } = pixels;
    const shape = pixels.layout === "NCHW" ? [depth, height, width] : [height, width, depth];
    return { data, dtype: pixels.dtype, shape, geometry, milliseconds };
  }

  /** What the decode step gives: {width, height, channels, data, orientation}. */
  async decoded(picture) {
    const bytes = await bytesOf(picture);
    if (bytes) return decode(bytes, this.first);
    return picture.data instanceof Uint8Array ? given(picture, this.first) : taken(picture, this.first);
  }
}

/** The bytes of a file, or null for a picture that is on the page already. */
async function bytesOf(picture) {
  if (picture instanceof Uint8Array) return picture;
  if (picture instanceof ArrayBuffer) return new Uint8Array(picture);
  if (picture instanceof Blob) return new Uint8Array(await picture.arrayBuffer());
  return null;
}

export { PictureError };
