// EXIF orientation: read from a file's metadata, and followed where the Spec asks for it, as Pillow's `ImageOps.exif_transpose`.
import { text } from "./formats.js";

const ORIENTATION = 0x0112;

/** The orientation, 1 to 8, in a block of EXIF (a small TIFF file, with or without "Exif\0\0" before it); 1 where there is none. */
export function orientationOf(exif) {
  const start = text(exif, 0, 4) === "Exif" ? 6 : 0;
  const order = text(exif, start, 2);
  if (order !== "II" && order !== "MM") return 1;
  const view = new DataView(exif.buffer, exif.byteOffset + start, exif.byteLength - start);
  const little = order === "II";
  try {
    const first = view.getUint32(4, little);
    const count = view.getUint16(first, little);
    for (let entry = 0; entry < count; entry += 1) {
      const at = first + 2 + 12 * entry;
      if (view.getUint16(at, little) === ORIENTATION) return valid(view.getUint16(at + 8, little));
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // The block is shorter than it says.
  }
  return 1;
}

/** The orientation in a packet of XMP, which Pillow reads where EXIF has none. */
export function orientationOfXmp(bytes) {
  const match = /tiff:Orientation(?:="|>)([0-9])/.exec(new TextDecoder("latin1").decode(bytes));
  return match ? valid(Number(match[1])) : 1;
}

function valid(value) {
  return value >= 1 && value <= 8 ? value : 1;
}

/** For each orientation: is the picture transposed, and then mirrored along x, along y? */
const TURNS = [
  null,
  null,
  [false, true, false],
  [false, true, true],
  [false, false, true],
  [true, false, false],
  [true, true, false],
  [true, true, true],
  [true, false, true],
];

/** Turn a picture `{width, height, channels, data}` as its orientation says. */
export function turned(picture, orientation) {
  const turn = TURNS[orientation];
  if (!turn) return picture;
  const [transposed, mirrorX, mirrorY] = turn;
  const { channels, data } = picture;
  const [width, height] = transposed ? [picture.height, picture.width] : [picture.width, picture.height];
  const out = new Uint8Array(data.length);
  let to = 0;
  for (let y = 0; y < height; y += 1) {
    const row = mirrorY ? height - 1 - y : y;
    for (let x = 0; x < width; x += 1) {
      const column = mirrorX ? width - 1 - x : x;
      const [sourceX, sourceY] = transposed ? [row, column] : [column, row];
      const from = (sourceY * picture.width + sourceX) * channels;
      for (let channel = 0; channel < channels; channel += 1) out[to++] = data[from + channel];
    }
  }
  return { ...picture, width, height, data: out };
}
