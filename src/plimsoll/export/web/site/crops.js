// Turned squares: what a cascade cuts out of a picture for its next network, and the way back. Plimsoll's `inference/crops.py`, in the same arithmetic.
import { halfToEven } from "./steps/resample.js";

const f32 = Math.fround;
const clamped = (value, least, most) => Math.min(Math.max(value, least), most);

/** A square of `side` pixels around (x, y), turned clockwise by `angle` radians. */
export class Square {
  constructor(x, y, side, angle) {
    Object.assign(this, { x, y, side, angle, cosine: Math.cos(angle), sine: Math.sin(angle) });
  }

  /** Where a position, as shares of the square, lies in the picture. */
  toPicture(shareX, shareY) {
    const [x, y] = [(shareX - 0.5) * this.side, (shareY - 0.5) * this.side];
    return [this.x + x * this.cosine - y * this.sine, this.y + x * this.sine + y * this.cosine];
  }

  /** What is in it, {width, height, channels: 3, data}, bilinear; beyond the picture (RGB) its border repeats, or is black. */
  cut({ width: wide, height: tall, data }, width, height, { black = false } = {}) {
    const out = new Uint8Array(3 * width * height);
    const edge = black ? 1 : 0;
    for (let row = 0, to = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1, to += 3) {
        const [x, y] = this.toPicture(column / width, row / height);
        const [inX, inY] = [clamped(x, -edge, wide - 1 + edge), clamped(y, -edge, tall - 1 + edge)];
        const [left, top] = [Math.floor(inX), Math.floor(inY)];
        let [red, green, blue] = [0, 0, 0];
        for (let corner = 0; corner < 4; corner += 1) {
          const [right, under] = [corner >> 1, corner & 1];
          const [atX, atY] = [left + right, top + under];
          if (atX < 0 || atX >= wide || atY < 0 || atY >= tall) continue;
          const share = f32((right ? inX - left : 1 - (inX - left)) * (under ? inY - top : 1 - (inY - top)));
          const from = 3 * (atY * wide + atX);
          red = f32(red + f32(data[from] * share));
          green = f32(green + f32(data[from + 1] * share));
          blue = f32(blue + f32(data[from + 2] * share));
        }
        out[to] = halfToEven(red);
        out[to + 1] = halfToEven(green);
        out[to + 2] = halfToEven(blue);
      }
    }
    return { width, height, channels: 3, data: out };
  }
}

/** The square to cut out around a box [x0, y0, x1, y1] with its points, all in the picture's pixels; `crop` is the stage's. Throws for a point that isn't there. */
export function squareOf(crop, [x0, y0, x1, y1], points) {
  const [width, height] = [x1 - x0, y1 - y0];
  let angle = 0;
  if (crop.upright) {
    const [first, second] = crop.upright.map((index) => points[index]);
    if (!first || !second) throw new Error(`crop.upright = [${crop.upright.join(", ")}]: the stage before gives ${points.length} points in a box`);
    const turn = crop.angle * (Math.PI / 180) - Math.atan2(first[1] - second[1], second[0] - first[0]);
    angle = turn - 2 * Math.PI * Math.floor((turn + Math.PI) / (2 * Math.PI));
  }
  const [dx, dy] = [width * crop.shift[0], height * crop.shift[1]];
  const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
  return new Square((x0 + x1) / 2 + dx * cosine - dy * sine, (y0 + y1) / 2 + dx * sine + dy * cosine, crop.scale * Math.max(width, height), angle);
}

/** The box around points. */
export function around(points) {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}
