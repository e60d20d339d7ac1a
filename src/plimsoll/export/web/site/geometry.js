// The way back from a network's input to the picture: `ImageGeometry` of Plimsoll's preprocessing. Positions are x, y in pixels.
import { origin } from "./steps/arithmetic.js";
import { padding, resizedSize, squareAround } from "./steps/resize.js";

const SWAPPED = new Set([5, 6, 7, 8]);
const FLIPPED_X = new Set([2, 3, 7, 8]);
const FLIPPED_Y = new Set([3, 4, 6, 7]);

/** One axis: position in the picture = scale * position in the input + origin. */
const after = (axis, scale, start) => ({ scale: axis.scale * scale, origin: axis.scale * start + axis.origin });

/** The geometry that input steps give a picture of this size after decoding; `orientation` is the EXIF orientation that they followed. */
export function geometryOf(input, width, height, orientation = 1) {
  let [wide, tall] = [width, height];
  let [x, y] = [{ scale: 1, origin: 0 }, { scale: 1, origin: 0 }];
  let visible = [0, 0, width, height];
  for (const step of input.steps.slice(1)) {
    if (step.step === "resize") {
      if (step.pad_first) {
        const [before, above, side] = squareAround(wide, tall, step);
        [x, y, wide, tall] = [after(x, 1, -before), after(y, 1, -above), side, side];
      }
      const [across, down] = resizedSize(wide, tall, step);
      [x, y] = [after(x, ...resizeAxis(wide, across, step)), after(y, ...resizeAxis(tall, down, step))];
      const [left, top, ...size] = padding(across, down, step);
      [x, y] = [after(x, 1, -left), after(y, 1, -top)];
      [wide, tall] = size;
    } else if (step.step === "crop") {
      const [left, top] = origin(wide, tall, step);
      [x, y] = [after(x, 1, left), after(y, 1, top)];
      [wide, tall] = [step.width, step.height];
      const [lastX, lastY] = [x.scale * wide + x.origin, y.scale * tall + y.origin];
      visible = [Math.max(visible[0], x.origin), Math.max(visible[1], y.origin), Math.min(visible[2], lastX), Math.min(visible[3], lastY)];
    }
  }
  return new Geometry({ upright: [width, height], input: [wide, tall], x, y, visible, orientation });
}

/** [scale, origin] of a resize along one axis. */
function resizeAxis(before, out, step) {
  const scale = before / out;
  if (step.filter === "nearest" && (step.convention === "opencv" || step.coordinates === "asymmetric")) return [scale, 0.5 - 0.5 * Math.max(scale, 1)];
  if (step.coordinates === "half_pixel") return [scale, 0];
  const aligned = step.coordinates === "align_corners" && before > 1 && out > 1 ? (before - 1) / (out - 1) : scale;
  return [aligned, step.filter === "area" ? 0 : 0.5 - 0.5 * aligned];
}

class Geometry {
  constructor({ upright, input, x, y, visible, orientation }) {
    Object.assign(this, { upright, x, y, visible, orientation });
    [this.inputWidth, this.inputHeight] = input;
    [this.width, this.height] = SWAPPED.has(orientation) ? [upright[1], upright[0]] : upright;
  }

  /** Where a position in the input's pixels lies in the picture; it may lie outside of it. */
  point(inX, inY) {
    const position = [inX * this.x.scale + this.x.origin, inY * this.y.scale + this.y.origin];
    const [first, second] = SWAPPED.has(this.orientation) ? position.reverse() : position;
    return [FLIPPED_X.has(this.orientation) ? this.width - first : first, FLIPPED_Y.has(this.orientation) ? this.height - second : second];
  }

  /** A box [x0, y0, x1, y1] in the input's pixels as a box in the picture, clipped to it. */
  box([x0, y0, x1, y1]) {
    const [a, b] = [this.point(x0, y0), this.point(x1, y1)];
    const inside = (value, most) => Math.min(Math.max(value, 0), most);
    return [
      inside(Math.min(a[0], b[0]), this.width), inside(Math.min(a[1], b[1]), this.height),
      inside(Math.max(a[0], b[0]), this.width), inside(Math.max(a[1], b[1]), this.height),
    ];
  }

  /** Where the centres of the upright picture's columns (0) or rows (1) lie in the input, in its pixels; NaN for what was cropped away. */
  centres(axis) {
    const { scale, origin: start } = axis === 0 ? this.x : this.y;
    const [first, last] = [this.visible[axis], this.visible[axis + 2]];
    return Float64Array.from({ length: this.upright[axis] }, (_, index) => (first <= index + 0.5 && index + 0.5 <= last ? (index + 0.5 - start) / scale : NaN));
  }

  /** The column and row of the upright picture that a pixel of the picture as it was sent shows. */
  uprightAt(column, row) {
    const position = [FLIPPED_X.has(this.orientation) ? this.width - 1 - column : column, FLIPPED_Y.has(this.orientation) ? this.height - 1 - row : row];
    return SWAPPED.has(this.orientation) ? position.reverse() : position;
  }

  /** A rectangle of the upright picture [left, top, right, bottom] (whole pixels, the last two just behind it) as it was sent. */
  sentRectangle([left, top, right, bottom]) {
    const { orientation, width, height } = this;
    const [across, down] = SWAPPED.has(orientation) ? [[top, bottom], [left, right]] : [[left, right], [top, bottom]];
    const [x0, x1] = FLIPPED_X.has(orientation) ? [width - across[1], width - across[0]] : across;
    const [y0, y1] = FLIPPED_Y.has(orientation) ? [height - down[1], height - down[0]] : down;
    return [x0, y0, x1, y1];
  }
}
