// Gives the rows that a web package's answer.js makes of scores: reads a JSON list of [output, scores, threshold] from the file named
// first (the second is answer.js), and prints for each {row, band}, or {error}.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { row, band } = await import(pathToFileURL(process.argv[3]).href);
const answers = JSON.parse(readFileSync(process.argv[2], "utf8")).map(([output, outputs, threshold]) => {
  try {
    const made = Object.fromEntries(Object.entries(outputs).map(([name, { data, dims }]) => [name, { data: Float32Array.from(data), dims }]));
    const found = row(output, made, threshold);
    return { row: found, band: band(output, found.score) };
  } catch (error) {
    return { error: error.message };
  }
});
process.stdout.write(JSON.stringify(answers));
