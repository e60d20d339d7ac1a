// What the browser itself decodes: WebP and BMP files, and pictures that are on the page already. Browsers share libwebp, so an
// opaque WebP has the reference's pixels; profile and orientation are cut out of the file, so that no browser follows them unasked.
import { PictureError } from "./errors.js";
import { orientationOf } from "./exif.js";
import { checkSize, text } from "./formats.js";

const AS_STORED = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

/** Decode a WebP file's bytes; returns {width, height, channels: 4, data, orientation}. */
export async function decodeWebp(data, step) {
  const file = bare(data, step);
  return { ...(await decoded(file.bytes, "image/webp", file.transparent)), orientation: file.orientation };
}

/** Decode a BMP file's bytes; its alpha, which hardly any file means, is dropped as Pillow drops it. */
export async function decodeBmp(data, step) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (data.length < 26) throw new PictureError("can't be decoded: the BMP file is truncated");
  const old = view.getUint32(14, true) === 12;
  const size = old ? [view.getUint16(18, true), view.getUint16(20, true)] : [view.getInt32(18, true), Math.abs(view.getInt32(22, true))];
  checkSize(...size, step);
  return { ...(await decoded(data, "image/bmp", false)), orientation: 1 };
}

async function decoded(bytes, type, transparent) {
  if (typeof createImageBitmap === "undefined") throw new PictureError(`${type} is decoded by a browser, and this is none`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes], { type }), AS_STORED);
  } catch (error) {
    throw new PictureError(`can't be decoded: ${error.message}`);
  }
  try {
    return (transparent && exactPixels(bitmap)) || canvasPixels(bitmap);
  } finally {
    bitmap.close();
  }
}

/** The file without its colour profile and metadata, its EXIF orientation, and whether it may be transparent. */
function bare(data, step) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const chunks = [];
  const facts = { orientation: 1, transparent: false };
  for (let at = 12; at + 8 <= data.length; ) {
    const kind = text(data, at, 4);
    const length = view.getUint32(at + 4, true);
    const whole = data.subarray(at, at + 8 + length + (length & 1));
    if (kind === "EXIF") facts.orientation = orientationOf(whole.subarray(8));
    else if (kind === "VP8X") {
      const size = (index) => 1 + (data[index] | (data[index + 1] << 8) | (data[index + 2] << 16));
      checkSize(size(at + 12), size(at + 15), step);
      facts.transparent = Boolean(data[at + 8] & 0x10);
      const flags = whole.slice();
      flags[8] &= ~0x2c; // profile, EXIF, XMP
      chunks.push(flags);
    } else if (kind !== "ICCP" && kind !== "XMP ") {
      if (kind === "VP8L") facts.transparent = Boolean(data[at + 12] & 0x10);
      chunks.push(whole);
    }
    at += whole.length || 8;
  }
  const total = chunks.reduce((sum, part) => sum + part.length, 4);
  const head = new Uint8Array(12);
  head.set(data.subarray(0, 12));
  new DataView(head.buffer).setUint32(4, total, true);
  return { ...facts, bytes: new Blob([head, ...chunks]) };
}

/** Pixels by way of a 2D canvas, which multiplies colours with alpha and back: exact where the picture is opaque. */
function canvasPixels(source) {
  const [width, height] = sizeOf(source);
  const canvas = newCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(source, 0, 0, width, height);
  return { width, height, channels: 4, data: new Uint8Array(context.getImageData(0, 0, width, height).data.buffer) };
}

/** Pixels by way of WebGL, which leaves colours under transparency as they are; null where there is none, or the picture is too large. */
function exactPixels(bitmap) {
  const { width, height } = bitmap;
  const gl = newCanvas(1, 1).getContext("webgl2");
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const data = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  const failed = gl.getError() !== gl.NO_ERROR;
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return failed ? null : { width, height, channels: 4, data };
}

/** The pixels of an ImageBitmap, canvas, image or video frame: {width, height, channels: 4, data, orientation: 1}. */
export function shown(source, step) {
  const [width, height] = sizeOf(source);
  checkSize(width, height, step);
  return { ...canvasPixels(source), orientation: 1 };
}

function sizeOf(source) {
  return [source.videoWidth ?? source.naturalWidth ?? source.displayWidth ?? source.width, source.videoHeight ?? source.naturalHeight ?? source.displayHeight ?? source.height];
}

function newCanvas(width, height) {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}
