// Carries out input steps with the JavaScript of a web package, in Node: reads a JSON list of [input, file, out] from the file named
// first (the second is steps.js), writes each tensor's bytes to `out`, and prints for each its {dtype, shape}, or {error}.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { Preprocessor, PictureError } = await import(pathToFileURL(process.argv[3]).href);
const answers = [];
for (const [input, file, out] of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  try {
    const { data, dtype, shape, milliseconds } = await new Preprocessor(input).tensor(new Uint8Array(readFileSync(file)));
    writeFileSync(out, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    answers.push({ dtype, shape, milliseconds });
  } catch (error) {
    if (!(error instanceof PictureError)) throw error;
    answers.push({ error: error.message });
  }
}
process.stdout.write(JSON.stringify(answers));
