// Answers a probe with TensorFlow.js itself: `node probe.cjs FOLDER`. The folder holds request.json, model.json, weights.bin
// and the inputs; the answers and result.json are left there.
"use strict";
const fs = require("fs");
const path = require("path");

async function main(folder) {
  const request = JSON.parse(fs.readFileSync(path.join(folder, "request.json"), "utf8"));
  const tf = require(request.library);
  const topology = JSON.parse(fs.readFileSync(path.join(folder, "model.json"), "utf8"));
  const bytes = fs.readFileSync(path.join(folder, "weights.bin"));
  const weightData = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const handler = { load: async () => ({ modelTopology: topology, weightSpecs: request.weights, weightData, format: request.graph ? "graph-model" : "layers-model" }) };
  const feeds = {};
  for (const one of request.inputs) {
    const data = fs.readFileSync(path.join(folder, one.file));
    const values = new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.length));
    feeds[one.name] = tf.cast(tf.tensor(values, one.shape), one.dtype);
  }
  await tf.ready();
  let answers;
  if (request.graph) {
    const model = await tf.loadGraphModel(handler);
    answers = model.execute(feeds, request.outputs);
  } else {
    const loaded = await tf.loadLayersModel(handler);
    const model = request.chosen ? tf.model({ inputs: loaded.inputs, outputs: request.outputs.map((name) => loaded.getLayer(name).output) }) : loaded;
    const ordered = request.inputs.length === 1 ? Object.values(feeds) : model.inputNames.map((name) => feeds[name]);
    answers = model.predict(ordered.length === 1 ? ordered[0] : ordered);
  }
  const listed = Array.isArray(answers) ? answers : [answers];
  const outputs = [];
  for (let place = 0; place < listed.length; place += 1) {
    const values = Float32Array.from(await listed[place].data());
    fs.writeFileSync(path.join(folder, `answer${place}.bin`), Buffer.from(values.buffer));
    outputs.push(listed[place].shape);
  }
  fs.writeFileSync(path.join(folder, "result.json"), JSON.stringify({ version: tf.version.tfjs, outputs }));
}

main(process.argv[2]).catch((error) => {
  console.error(String((error && error.stack) || error));
  process.exit(1);
});
