// A session of Plimsoll's backend `web`: ONNX Runtime Web in a Node process that reads requests from standard input and answers on standard output.
// Each message is a line of JSON, then the bytes of its tensors: {"tensors": [{name, dtype, shape, bytes}]} or {"error": text}.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const [runtime, binary, network, ...further] = process.argv.slice(2);
for (const name of ["log", "info", "warn", "debug"]) console[name] = console.error; // Standard output is for answers.

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
  int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array,
};

function answer(head, parts = []) {
  process.stdout.write(Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), ...parts]));
}

function failure(error) {
  return { error: String(error?.message ?? error) };
}

async function open() {
  const ort = await import(pathToFileURL(runtime).href);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = readFileSync(binary);
  const folder = dirname(network);
  const externalData = further.map((path) => ({ path, data: readFileSync(join(folder, path)) }));
  return [ort, await ort.InferenceSession.create(readFileSync(network), { executionProviders: ["wasm"], externalData })];
}

async function run(ort, session, tensors, data) {
  const feeds = {};
  let at = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    const raw = data.subarray(at, at + bytes);
    const copy = raw.buffer.slice(raw.byteOffset, raw.byteOffset + bytes); // aligned
    feeds[name] = new ort.Tensor(dtype, new ARRAYS[dtype](copy), shape);
    at += bytes;
  }
  const outputs = await session.run(feeds);
  const parts = session.outputNames.map((name) => {
    const { data: values } = outputs[name];
    return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  });
  const described = session.outputNames.map((name, index) => ({ name, dtype: outputs[name].type, shape: outputs[name].dims, bytes: parts[index].length }));
  for (const output of Object.values(outputs)) output.dispose();
  answer({ tensors: described }, parts);
}

/** Messages from standard input: [head, bytes]. */
async function* messages() {
  let held = Buffer.alloc(0);
  let head = null;
  let parts = [];
  let size = 0;
  for await (const chunk of process.stdin) {
    parts.push(chunk);
    size += chunk.length;
    for (;;) {
      if (head === null) {
        held = Buffer.concat(parts);
        const end = held.indexOf(10);
        if (end < 0) break;
        head = JSON.parse(held.subarray(0, end).toString());
        [parts, size] = [[held.subarray(end + 1)], held.length - end - 1];
      }
      const expected = head.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
      if (size < expected) break;
      held = Buffer.concat(parts);
      yield [head, held.subarray(0, expected)];
      [parts, size, head] = [[held.subarray(expected)], size - expected, null];
    }
  }
}

try {
  const [ort, session] = await open();
  const described = (infos) => infos.map((info) => ({ name: info.name, dtype: info.type, shape: info.shape?.map((size) => (typeof size === "number" ? size : null)) }));
  answer({ inputs: described(session.inputMetadata), outputs: described(session.outputMetadata) });
  for await (const [{ tensors }, data] of messages()) {
    try {
      await run(ort, session, tensors, data);
    } catch (error) {
      answer(failure(error));
    }
  }
} catch (error) {
  answer(failure(error));
}
