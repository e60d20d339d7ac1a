// A JPEG file to pixels, as libjpeg-turbo decodes it: the same whole numbers, hence the same pixels in every browser.
// Browsers decode JPEG themselves, but each as it likes, without a choice of transform, and on a canvas that some blur on purpose.
import { PictureError } from "./errors.js";
import { orientationOf, orientationOfXmp } from "./exif.js";
import { checkSize, text } from "./formats.js";
import { cmykToRgb, interleaved, upsampled, yccToRgb } from "./jpeg_colour.js";
import { inverseAccurate, inverseFast } from "./jpeg_cosine.js";
import { decoder, decodeScan } from "./jpeg_entropy.js";
import { fastMultipliers, STANDARD_CODES, ZIGZAG } from "./jpeg_tables.js";

const UNKNOWN_FRAMES = { 0xc3: "lossless", 0xc9: "arithmetic-coded", 0xca: "arithmetic-coded", 0xcb: "arithmetic-coded" };
const XMP = "http://ns.adobe.com/xap/1.0/\0";

/** Decode a file's bytes as the `decode` step says; returns {width, height, channels: 1 or 3, data, orientation}. */
export function decodeJpeg(data, step) {
  const file = parse(data, step);
  if (!file.frame) throw new PictureError("can't be decoded: the JPEG file holds no picture");
  if (file.cut && step.truncated === "error") throw new PictureError("can't be decoded: the JPEG file is truncated");
  return { width: file.frame.width, height: file.frame.height, orientation: file.orientation, ...pixels(file, step) };
}

function parse(data, step) {
  const file = {
    data, tables: [], dc: STANDARD_CODES.dc.map(decoder), ac: STANDARD_CODES.ac.map(decoder),
    interval: 0, frame: null, jfif: false, adobe: null, orientation: 1, cut: false,
  };
  let at = 2;
  for (;;) {
    while (at < data.length && data[at] !== 0xff) at += 1;
    while (data[at] === 0xff) at += 1;
    const marker = data[at];
    if (marker === 0xd9) return file;
    if (at + 2 >= data.length) break;
    if (marker === 0 || marker === 1 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    const length = (data[at + 1] << 8) | data[at + 2];
    const segment = data.subarray(at + 3, at + 1 + length);
    at += 1 + length;
    if (marker !== 0xda) read(file, marker, segment, step);
    else if (scan(file, segment, at)) return file;
    else at = file.at;
  }
  // Where all coefficients have come to their last bit, nothing but the end marker is missing.
  file.cut ||= !file.frame?.components.every((component) => component.bitsMissing.every((bits) => bits === 0));
  return file;
}

function read(file, marker, segment, step) {
  if (marker === 0xdb) readTables(file, segment);
  else if (marker === 0xc4) readCodes(file, segment);
  else if (marker === 0xdd) file.interval = (segment[0] << 8) | segment[1];
  else if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc8 && marker !== 0xcc) readFrame(file, marker, segment, step);
  else if (marker === 0xe0 && segment.length >= 12 && text(segment, 0, 5) === "JFIF\0") file.jfif = true;
  else if (marker === 0xee && segment.length >= 12 && text(segment, 0, 5) === "Adobe") file.adobe = segment[11];
  else if (marker === 0xe1 && text(segment, 0, 6) === "Exif\0\0") file.orientation = orientationOf(segment);
  else if (marker === 0xe1 && text(segment, 0, XMP.length) === XMP && file.orientation === 1) file.orientation = orientationOfXmp(segment);
}

function readTables(file, segment) {
  for (let at = 0; at < segment.length; ) {
    const [wide, index] = [segment[at] >> 4, segment[at] & 15];
    const table = new Uint16Array(64);
    at += 1;
    for (let k = 0; k < 64; k += 1) {
      table[ZIGZAG[k]] = wide ? (segment[at] << 8) | segment[at + 1] : segment[at];
      at += wide ? 2 : 1;
    }
    file.tables[index] = table;
  }
}

function readCodes(file, segment) {
  for (let at = 0; at + 17 <= segment.length; ) {
    const counts = segment.subarray(at + 1, at + 17);
    const total = counts.reduce((sum, count) => sum + count, 0);
    (segment[at] >> 4 ? file.ac : file.dc)[segment[at] & 15] = decoder({ counts, symbols: segment.subarray(at + 17, at + 17 + total) });
    at += 17 + total;
  }
}

function readFrame(file, marker, segment, step) {
  if (marker > 0xc2) throw new PictureError(`can't be decoded: a ${UNKNOWN_FRAMES[marker] ?? "differential"} JPEG file; store it as an ordinary one`);
  if (segment[0] !== 8) throw new PictureError(`can't be decoded: a JPEG file of ${segment[0]} bits a sample; 8 are expected`);
  const frame = { progressive: marker === 0xc2, height: (segment[1] << 8) | segment[2], width: (segment[3] << 8) | segment[4], components: [] };
  checkSize(frame.width, frame.height, step);
  const count = segment[5];
  if (![1, 3, 4].includes(count)) throw new PictureError(`can't be decoded: a JPEG file of ${count} components; 1, 3 or 4 are expected`);
  for (let at = 6; at < 6 + 3 * count; at += 3) {
    const [horizontal, vertical] = [segment[at + 1] >> 4, segment[at + 1] & 15];
    if (horizontal < 1 || horizontal > 4 || vertical < 1 || vertical > 4) throw new PictureError("can't be decoded: a damaged JPEG file");
    frame.components.push({ id: segment[at], horizontal, vertical, table: segment[at + 2] });
  }
  if (count === 1) Object.assign(frame.components[0], { horizontal: 1, vertical: 1 }); // Nothing to be sampled against.
  frame.horizontal = Math.max(...frame.components.map((component) => component.horizontal));
  frame.vertical = Math.max(...frame.components.map((component) => component.vertical));
  frame.mcusAcross = Math.ceil(frame.width / (8 * frame.horizontal));
  frame.mcusDown = Math.ceil(frame.height / (8 * frame.vertical));
  for (const component of frame.components) {
    component.width = Math.ceil((frame.width * component.horizontal) / frame.horizontal);
    component.height = Math.ceil((frame.height * component.vertical) / frame.vertical);
    component.blocksAcross = Math.ceil(component.width / 8);
    component.blocksDown = Math.ceil(component.height / 8);
    component.stride = frame.mcusAcross * component.horizontal;
    component.coefficients = new Int16Array(64 * component.stride * frame.mcusDown * component.vertical);
    component.seen = false;
    component.bitsMissing = new Uint8Array(64).fill(255);
  }
  file.frame = frame;
}

/** Decode a scan; returns whether the picture is complete with it, as in a sequential file after its last component. */
function scan(file, segment, at) {
  const { frame } = file;
  if (!frame) throw new PictureError("can't be decoded: a damaged JPEG file (a scan before its frame)");
  const count = segment[0];
  const components = [];
  for (let index = 1; index < 1 + 2 * count; index += 2) {
    const component = frame.components.find((component) => component.id === segment[index]);
    const [dc, ac] = [file.dc[segment[index + 1] >> 4], file.ac[segment[index + 1] & 15]];
    if (!component) throw new PictureError("can't be decoded: a damaged JPEG file (a scan of an unknown component)");
    component.quantization ??= file.tables[component.table]; // The table of its first scan holds.
    component.seen = true;
    components.push({ component, dc, ac });
  }
  const tail = 1 + 2 * count;
  const band = { first: segment[tail], last: segment[tail + 1], high: segment[tail + 2] >> 4, low: segment[tail + 2] & 15 };
  const missing = components.some(({ dc, ac }) => (frame.progressive && band.first > 0 ? !ac : !dc || (!frame.progressive && !ac)));
  if (missing || band.last > 63) throw new PictureError("can't be decoded: a damaged JPEG file (its tables are missing)");
  for (const { component } of components) {
    if (frame.progressive) component.bitsMissing.fill(band.low, band.first, band.last + 1);
    else component.bitsMissing.fill(0);
  }
  const done = decodeScan(file.data, at, frame, { components, ...band }, file.interval);
  file.at = done.at;
  file.cut ||= done.cut;
  return !frame.progressive && frame.components.every((component) => component.seen);
}

/** Samples of one component, from its coefficients. */
function plane(component, dct) {
  const stride = 8 * component.stride;
  const rows = 8 * component.blocksDown;
  const data = new Uint8ClampedArray(stride * rows);
  const raw = component.quantization ?? new Uint16Array(64);
  const [inverse, table] = dct === "fast" ? [inverseFast, fastMultipliers(raw)] : [inverseAccurate, Int32Array.from(raw)];
  for (let y = 0; y < component.blocksDown; y += 1) {
    for (let x = 0; x < component.blocksAcross; x += 1) {
      inverse(component.coefficients, 64 * (y * component.stride + x), table, data, 8 * (y * stride + x), stride);
    }
  }
  component.coefficients = null;
  return { width: component.width, height: component.height, stride, data };
}

function pixels(file, step) {
  const { frame } = file;
  const full = (component) => {
    const [across, down] = [frame.horizontal / component.horizontal, frame.vertical / component.vertical];
    if (across % 1 || down % 1) throw new PictureError("can't be decoded: a JPEG file whose components have no whole ratio of sizes");
    return upsampled(plane(component, step.dct), across, down, frame.width, frame.height, step.upsampling === "fancy");
  };
  const space = colourSpace(file);
  const custom = step.dct !== "accurate" || step.upsampling !== "fancy";
  if (custom && frame.components.length === 4) throw new PictureError("a CMYK JPEG: dct and upsampling can be chosen for grey and YCbCr files only");
  // Where Pillow decodes, grey is made of the colours; where simplejpeg does (another transform, another filter), it is the luminance as stored.
  if (frame.components.length === 1 || (custom && step.colour === "grey" && space === "YCbCr")) return { channels: 1, data: full(frame.components[0]) };
  const planes = frame.components.map(full);
  if (space === "YCbCr") return { channels: 3, data: yccToRgb(...planes) };
  if (space === "RGB") return { channels: 3, data: interleaved(...planes) };
  if (space === "YCCK") {
    const inks = yccToRgb(...planes.slice(0, 3)).map((value) => 255 - value);
    const ink = (channel) => Uint8Array.from({ length: planes[0].length }, (_, at) => inks[3 * at + channel]);
    return { channels: 3, data: cmykToRgb(ink(0), ink(1), ink(2), planes[3]) };
  }
  return { channels: 3, data: cmykToRgb(...planes) };
}

/** What the components mean, by libjpeg's rules. */
function colourSpace({ frame, jfif, adobe }) {
  const ids = frame.components.map((component) => component.id);
  if (ids.length === 4) return adobe === null || adobe === 0 ? "CMYK" : "YCCK";
  if (jfif) return "YCbCr";
  if (adobe !== null) return adobe === 0 ? "RGB" : "YCbCr";
  return ids.join() === "82,71,66" ? "RGB" : "YCbCr";
}
