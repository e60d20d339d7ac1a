// Tells a picture's format from its first bytes, never from its name, and checks its size before anything is decoded.
import { PictureError } from "./errors.js";

const MAX_FILE_BYTES = 200_000_000;
/** Progressive JPEGs have about ten scans; thousands in a small file keep a decoder busy for minutes. */
const MAX_JPEG_SCANS = 100;

const SIGNATURES = [
  ["jpeg", [0xff, 0xd8, 0xff]],
  ["png", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]],
  ["gif", [..."GIF87a"].map(code)],
  ["gif", [..."GIF89a"].map(code)],
  ["bmp", [..."BM"].map(code)],
  ["tiff", [0x49, 0x49, 0x2a, 0x00]],
  ["tiff", [0x4d, 0x4d, 0x00, 0x2a]],
];

function code(letter) {
  return letter.charCodeAt(0);
}

/** The format that the first bytes announce, or null. */
export function sniff(data) {
  const format = SIGNATURES.find(([, bytes]) => bytes.every((byte, index) => data[index] === byte));
  if (format) return format[0];
  if (text(data, 0, 4) === "RIFF" && text(data, 8, 4) === "WEBP") return "webp";
  return text(data, 4, 4) === "ftyp" ? coded(text(data, 8, 4), text(data, 16, 64)) : null;
}

/** HEIC or AVIF by the brands of their container (ISO/IEC 14496-12, 4.3). */
function coded(major, others) {
  if (["avif", "avis"].includes(major) || (["mif1", "msf1"].includes(major) && others.includes("avif"))) return "avif";
  return ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"].includes(major) ? "heif" : null;
}

/** ASCII text out of a file. */
export function text(data, at, length) {
  return String.fromCharCode(...data.subarray(at, at + length));
}

/** The format of a picture that the `decode` step accepts; throws PictureError for all others. */
export function admit(data, step) {
  if (data.length === 0) throw new PictureError("the file is empty (0 bytes)");
  if (data.length > MAX_FILE_BYTES) throw new PictureError(`the file is larger than ${MAX_FILE_BYTES / 1e6} MB`);
  const allowed = step.formats.join(", ");
  const format = sniff(data);
  if (format === null) throw new PictureError(`not a picture in any format that is known here; accepted formats: ${allowed}`);
  if (!step.formats.includes(format)) throw new PictureError(`${format === "avif" ? "an" : "a"} ${format} file; accepted formats: ${allowed}`);
  if (format === "jpeg" && scans(data) > MAX_JPEG_SCANS) {
    throw new PictureError(`a JPEG file with too many scans; at most ${MAX_JPEG_SCANS} are decoded`);
  }
  return format;
}

/** Refuse a picture of more pixels than the Spec allows. */
export function checkSize(width, height, step) {
  if (width < 1 || height < 1) throw new PictureError(`the picture has no pixels (${width}×${height})`);
  if (width * height > step.max_megapixels * 1e6) {
    throw new PictureError(`${width}×${height} = ${((width * height) / 1e6).toFixed(1)} megapixels; the limit is ${step.max_megapixels}`);
  }
}

/** Count the scans of a JPEG file's picture, marker by marker (ITU-T T.81, B.1.1); stops above the maximum. */
function scans(data) {
  let count = 0;
  let at = 2;
  while (count <= MAX_JPEG_SCANS && at + 1 < data.length) {
    const kind = data[at + 1];
    if (data[at] !== 0xff || kind === 0 || kind === 0xff || (kind >= 0xd0 && kind <= 0xd7)) {
      at += 1;
      continue;
    }
    if (kind === 0xd9) break;
    if (kind === 0xda) count += 1;
    at += 2;
    if (kind !== 0x01 && kind !== 0xd8) at += (data[at] << 8) | data[at + 1];
  }
  return count;
}
