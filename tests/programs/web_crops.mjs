// Cuts squares out of pictures and names gestures as a web package's crops.js and gestures.js do: reads {pictures, crops, hands} from the file named
// first (the second is crops.js), and prints {crops: [{square, points, data}], gestures}.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const script = pathToFileURL(process.argv[3]).href;
const { squareOf } = await import(script);
const { gesturesOf } = await import(new URL("gestures.js", script).href);

const { pictures, crops, hands } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const done = crops.map(({ picture, crop, box, points, size, black }) => {
  const square = squareOf(crop, box, points);
  const { x, y, side, angle } = square;
  const { data } = square.cut(pictures[picture], ...size, { black });
  return { square: [x, y, side, angle], points: [[0, 0], [0.25, 0.75], [1, 1]].map((share) => square.toPicture(...share)), data: [...data] };
});
process.stdout.write(JSON.stringify({ crops: done, gestures: hands.map((together) => gesturesOf(together)) }));
