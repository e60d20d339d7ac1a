// Gives the rows that a web package's answer.js makes of outputs: reads a JSON list of [output, outputs, threshold, picture] from the file named
// first (the second is answer.js; picture is [input, width, height, orientation] or null), and prints for each {row, band}, or {error}.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const script = pathToFileURL(process.argv[3]).href;
const { row, band } = await import(script);
const { geometryOf } = await import(new URL("geometry.js", script).href);
const ARRAYS = { float32: Float32Array, float16: Uint16Array, int32: Int32Array, uint8: Uint8Array };

const array = ({ data, dims, type }) => ({ data: type === "int64" ? BigInt64Array.from(data, BigInt) : (ARRAYS[type] ?? Float32Array).from(data), dims, type });

const answers = JSON.parse(readFileSync(process.argv[2], "utf8")).map(([output, outputs, threshold, picture]) => {
  try {
    const arrays = Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, array(value)]));
    const answer = row(output, arrays, { threshold, geometry: picture && geometryOf(...picture) });
    return { row: answer, band: band(output, answer.score) };
  } catch (error) {
    return { error: error.message };
  }
});
process.stdout.write(JSON.stringify(answers));
