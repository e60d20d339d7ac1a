// Networks that feed each other: the first finds objects in the picture; each is turned upright, cut out, and given to the next, whose points are
// brought back. Plimsoll's `inference/cascade.py`.
import { around, Square, squareOf } from "./crops.js";
import { geometryOf } from "./geometry.js";
import { gesturesOf } from "./gestures.js";
import { boxRow, placedBoxes } from "./tasks/detect.js";
import { placedPoints } from "./tasks/landmarks.js";

/** Positions stay in the input's pixels, and nothing is cut off at its border. */
const inInput = ({ inputWidth, inputHeight }) => ({ inputWidth, inputHeight, point: (x, y) => [x, y], box: (box) => box });

/** A cascade that answers pictures; `Model.load` gives one where a package holds one. */
export class Cascade {
  constructor(base, facts, spec, networks) {
    Object.assign(this, { base, facts, spec, networks, stages: facts.stages });
    this.turn = Promise.resolve(); // One picture at a time: so the memory is that of one.
  }

  /** Answer a picture, as `Model.predict` does: {boxes: [{label, score, box, points}]}. */
  async predict(picture, options) {
    return (await this.answer(picture, options)).row;
  }

  /** As `predict`, with `milliseconds` of each step beside the row. */
  async answer(picture, { threshold = null } = {}) {
    const call = this.turn.then(() => this.answerNow(picture, threshold));
    this.turn = call.catch(() => {});
    return call;
  }

  async answerNow(picture, threshold) {
    const milliseconds = { network: 0, steps: 0 };
    const started = performance.now();
    const pixels = rgb(await this.networks[0].preprocessor.decoded(picture));
    const { width, height, orientation } = pixels;
    milliseconds.decode = performance.now() - started;
    const boxes = [];
    for (const object of await this.objects(pixels, threshold, milliseconds)) {
      const points = await this.points(pixels, object, milliseconds);
      if (points) boxes.push({ ...object, box: around(points), points });
    }
    if (this.facts.labels === "gestures") gesturesOf(boxes.map(({ points }) => points)).forEach((label, index) => Object.assign(boxes[index], { label }));
    const sent = geometryOf({ steps: [] }, width, height, orientation);
    const rows = boxes.map((object) => boxRow({ ...object, box: sent.box(object.box), points: object.points.map(([x, y, ...rest]) => [...sent.point(x, y), ...rest]) }));
    return { row: { boxes: rows.filter(({ box: [x0, y0, x1, y1] }) => x0 < x1 && y0 < y1) }, band: null, milliseconds };
  }

  /** The first stage's boxes and their points in the upright picture's pixels, not clipped to it. */
  async objects(pixels, threshold, milliseconds) {
    const { width, height } = pixels;
    const whole = new Square(width / 2, height / 2, Math.max(width, height), 0);
    const corners = this.stages[0].sampling === "corners";
    const { output, outputs, geometry } = await this.run(0, () => (corners ? whole.cut(pixels, ...this.stages[0].size, { black: true }) : pixels), milliseconds);
    const inPicture = (x, y) => (corners ? whole.toPicture(x / geometry.inputWidth, y / geometry.inputHeight) : geometry.point(x, y));
    return placedBoxes(output, outputs, threshold, inInput(geometry)).map(({ label, score, box: [x0, y0, x1, y1], points }) => ({
      label, score, box: [...inPicture(x0, y0), ...inPicture(x1, y1)], points: (points ?? []).map(([x, y]) => inPicture(x, y)),
    }));
  }

  /** An object's points after all stages; null where it isn't there. */
  async points(pixels, { box, points: first }, milliseconds) {
    let [points, edges] = [first, box];
    for (const [index, stage] of this.stages.entries()) {
      if (index === 0) continue;
      const square = squareOf(stage.crop, edges, points);
      const placed = await this.placed(index, pixels, stage.points.length ? centred(square, points, stage.points) : square, milliseconds);
      if (!placed) return null;
      points = stage.points.length ? points.map((point, at) => (stage.points.includes(at) ? [...placed[stage.points.indexOf(at)].slice(0, 2), ...point.slice(2)] : point)) : placed;
      edges = around(points);
    }
    return points;
  }

  /** The points that a stage gives for what is in a square; null where nothing is there. */
  async placed(index, pixels, square, milliseconds) {
    const stage = this.stages[index];
    const [width, height] = stage.size;
    const { output, outputs, geometry } = await this.run(index, () => square.cut(pixels, width, height), milliseconds);
    const { points, presence } = placedPoints(output, outputs, geometry);
    if (presence !== null && presence < stage.presence) return null;
    return points.map(([x, y, ...rest]) => [...square.toPicture(x / width, y / height), ...rest.map((value) => value * (square.side / width))]);
  }

  async run(index, cut, milliseconds) {
    const network = this.networks[index];
    const started = performance.now();
    const tensor = await network.preprocessor.tensor(cut());
    const prepared = performance.now();
    const outputs = await network.run(tensor);
    milliseconds.steps += prepared - started;
    milliseconds.network += performance.now() - prepared;
    return { output: network.spec.output, outputs, geometry: tensor.geometry };
  }

  /** Give the memory back. */
  async close() {
    for (const network of this.networks) await network.close();
  }
}

/** The square around the centre of the points that a stage gives anew. */
function centred({ x, y, side, angle }, points, names) {
  const [x0, y0, x1, y1] = around(points);
  const mean = (axis) => names.reduce((sum, name) => sum + points[name][axis], 0) / names.length;
  return new Square(x + (mean(0) - x0 / 2 - x1 / 2), y + (mean(1) - y0 / 2 - y1 / 2), side, angle);
}

/** Pixels of three channels. */
function rgb(pixels) {
  if (pixels.channels === 3) return pixels;
  const data = new Uint8Array(3 * pixels.data.length);
  pixels.data.forEach((level, at) => data.fill(level, 3 * at, 3 * at + 3));
  return { ...pixels, channels: 3, data };
}
