// Draw boxes, points and masks on a picture. Positions are those of the file's pixels, before its EXIF orientation: the drawing is turned with it.
import { drawn, score } from "./elements.js";

const COLOURS = 6;
const MASKED = 150;
const HEAD_BYTES = 131072;
const SWAPPED = new Set([5, 6, 7, 8]);

/** The matrices (as SVG has them) that turn what is stored, w x h, into what is shown; Exif 2.32, tag 0x0112. */
const TURNS = {
  1: () => [1, 0, 0, 1, 0, 0],
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

/** The EXIF orientation of a JPEG file, 1 to 8; 1 where there is none. */
export async function orientation(blob) {
  const view = new DataView(await blob.slice(0, HEAD_BYTES).arrayBuffer());
  try {
    if (view.getUint16(0) !== 0xffd8) return 1;
    let at = 2;
    while (view.getUint8(at) === 0xff) {
      const marker = view.getUint8(at + 1);
      if (marker === 0xe1 && view.getUint32(at + 4) === 0x45786966) return inExif(view, at + 10);
      if (marker === 0xda || marker === 0xd9) return 1;
      at += 2 + view.getUint16(at + 2);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the file ends here
  }
  return 1;
}

function inExif(view, start) {
  const little = view.getUint16(start) === 0x4949;
  const table = start + view.getUint32(start + 4, little);
  for (let entry = 0; entry < view.getUint16(table, little); entry += 1) {
    const index = table + 2 + 12 * entry;
    if (view.getUint16(index, little) !== 0x0112) continue;
    const value = view.getUint16(index + 8, little);
    return value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

/** An overlay for an answer, or null where there is nothing to draw. `shown`: the picture's size as the browser shows it. */
export function overlay(row, shown, turn, threshold = null) {
  const stored = SWAPPED.has(turn) ? [shown[1], shown[0]] : shown;
  const unit = Math.max(...shown) / 100;
  const group = drawn("g", { transform: `matrix(${TURNS[turn](...stored).join(" ")})` });
  const names = drawn("g");
  if (row.boxes) boxes(row.boxes.filter((box) => threshold === null || box.score >= threshold), { group, names, unit, stored, turn });
  else if (row.points) points(row.points, group, unit);
  else if (row.mask) group.append(mask(row.mask, stored));
  else return null;
  const svg = drawn("svg", { class: "overlay", viewBox: `0 0 ${shown[0]} ${shown[1]}`, "aria-hidden": "true" }, group, names);
  svg.style.setProperty("--unit", `${unit}px`);
  return svg;
}

export const colour = (index) => `c${index % COLOURS}`;

function boxes(shown, { group, names, unit, stored, turn }) {
  const labels = [...new Set(shown.map(({ label }) => label))];
  const [a, b, c, d, e, f] = TURNS[turn](...stored);
  const masks = shown.filter((box) => box.mask).toReversed(); // the surest last, on top
  if (masks.length) group.append(masked(masks[0].mask.size, masks.map((box) => [box.mask.counts, 1 + labels.indexOf(box.label), MASKED]), stored));
  for (const { box, label, score: value, points: own } of shown) {
    const [x0, y0, x1, y1] = box;
    const kind = colour(labels.indexOf(label));
    // Hundreds of points in a small box would hide it.
    points(own ?? [], group, Math.min(unit / 2, Math.sqrt(((x1 - x0) * (y1 - y0)) / Math.max(own?.length ?? 1, 1)) / 5));
    group.append(drawn("rect", { class: `box ${kind}`, x: x0, y: y0, width: Math.max(x1 - x0, 0), height: Math.max(y1 - y0, 0) }));
    const left = Math.min(a * x0 + c * y0 + e, a * x1 + c * y1 + e);
    const top = Math.min(b * x0 + d * y0 + f, b * x1 + d * y1 + f);
    names.append(drawn("text", { class: `name ${kind}`, x: left + unit / 2, y: Math.max(top - unit, 4 * unit) }, `${label} ${score(value)}`));
  }
}

function points(shown, group, unit) {
  for (const [x, y] of shown) group.append(drawn("circle", { class: "point", cx: x, cy: y, r: unit, "stroke-width": 0.35 * unit }));
}

/** A mask as a picture: every label has its colour, but the first of several, which is the ground. */
function mask({ size, labels, rle }, stored) {
  return masked(size, Object.values(rle ?? {}).map((counts, index) => [counts, labels.length > 1 ? index : 1, labels.length > 1 && index === 0 ? 0 : MASKED]), stored);
}

/** Masks as a picture: [COCO's counts (column by column), number of its colour, opacity of 255] each. */
function masked([height, width], masks, [storedWidth, storedHeight]) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const palette = getComputedStyle(document.documentElement);
  for (const [counts, index, opacity] of masks) {
    const [red, green, blue] = palette.getPropertyValue(`--mask${index % COLOURS}`).trim().split(" ").map(Number);
    fill(picture.data, counts, { width, height }, [red, green, blue, opacity]);
  }
  context.putImageData(picture, 0, 0);
  return drawn("image", { href: canvas.toDataURL(), width: storedWidth, height: storedHeight, preserveAspectRatio: "none" });
}

function fill(data, counts, { width, height }, rgba) {
  let at = 0;
  counts.forEach((count, index) => {
    if (index % 2) {
      for (let pixel = at; pixel < at + count; pixel += 1) data.set(rgba, 4 * ((pixel % height) * width + Math.floor(pixel / height)));
    }
    at += count;
  });
}
