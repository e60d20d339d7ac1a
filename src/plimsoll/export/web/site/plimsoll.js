// A network with its Spec, in a browser:
//
//     import { Model } from "./plimsoll.js";
//     const model = await Model.load("./");
//     const { label, score, scores } = await model.predict(file);
import { band, row } from "./answer.js";
import { Cascade } from "./cascade.js";
import { PictureError, Preprocessor } from "./steps.js";

/** A model that answers pictures. It works on a page and in a worker; a worker leaves the page free to move meanwhile. */
export class Model {
  /**
   * Load the package at `url` (a folder, with a slash at its end). `onProgress(share)` hears how much of it has arrived, 0 to 1.
   * `threads`: how many compute one picture; more than one only where the page is cross-origin isolated (see README.md).
   * Of a package that holds a cascade it gives a `Cascade`, which answers in the same way.
   */
  static async load(url = new URL(".", import.meta.url), { onProgress = () => {}, threads } = {}) {
    const base = new URL(url, globalThis.location?.href);
    const { facts, spec } = await described(base);
    const networks = facts.stages ? await Promise.all(facts.stages.map(({ folder }) => described(new URL(`${folder}/`, base)))) : [{ base, facts, spec }];
    const files = [[facts.runtime.binary, base], ...networks.flatMap((own) => [own.facts.model, ...own.facts.model.external].map((file) => [file, own.base]))];
    const total = files.reduce((sum, [file]) => sum + file.bytes, 0);
    let arrived = 0;
    const count = (bytes) => onProgress(Math.min((arrived += bytes) / total, 1));
    const runtime = import(new URL(facts.runtime.script, base).href);
    const [binary, ...parts] = await Promise.all(files.map(([file, folder]) => fetched(new URL(file.file, folder), count)));
    const ort = await runtime;
    ort.env.logLevel = "error";
    ort.env.wasm.wasmBinary = binary;
    if (threads) ort.env.wasm.numThreads = threads;
    const models = [];
    for (const own of networks) {
      const network = parts.shift();
      const externalData = own.facts.model.external.map(({ path }) => ({ path, data: parts.shift() }));
      const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"], externalData });
      models.push(new Model(own.base, own.facts, own.spec, ort, session));
    }
    return facts.stages ? new Cascade(base, facts, spec, models) : models[0];
  }

  constructor(base, facts, spec, ort, session) {
    this.base = base;
    this.facts = facts;
    this.spec = spec;
    this.preprocessor = new Preprocessor(spec.input);
    this.ort = ort;
    this.session = session;
    this.turn = Promise.resolve(); // A session computes one call at a time.
  }

  /**
   * Answer a picture: a File or Blob, its bytes, or an ImageBitmap, canvas, image or video element. The row is that of `plimsoll predict`:
   * {label, score, scores} for a classification, {boxes}, {points} or {mask}. Throws PictureError for a picture that can't be read. `threshold` replaces the Spec's.
   */
  async predict(picture, options) {
    return (await this.answer(picture, options)).row;
  }

  /** As `predict`, with `band` (how people read the score) and `milliseconds` of each step beside the row. */
  async answer(picture, { threshold = null } = {}) {
    const tensor = await this.preprocessor.tensor(picture);
    const started = performance.now();
    const outputs = await this.run(tensor);
    const answered = row(this.spec.output, outputs, { threshold, geometry: tensor.geometry });
    return { row: answered, band: band(this.spec.output, answered.score), milliseconds: { ...tensor.milliseconds, network: performance.now() - started } };
  }

  /** Run one picture's tensor, {data, dtype, shape} without the batch axis; returns each output's {data, dims, type} by its name. */
  async run({ data, dtype, shape }) {
    const name = this.spec.input.tensor ?? this.session.inputNames[0];
    const call = this.turn.then(() => this.session.run({ [name]: new this.ort.Tensor(dtype, data, [1, ...shape]) }));
    this.turn = call.catch(() => {});
    return call;
  }

  /** Give the memory back. */
  async close() {
    await this.session.release();
  }
}

/** What a folder says of its network, or of its cascade. */
async function described(base) {
  const [facts, spec] = await Promise.all(["model.json", "spec.json"].map(async (name) => JSON.parse(new TextDecoder().decode(await fetched(new URL(name, base))))));
  return { base, facts, spec };
}

/** The bytes at an address; `count` hears of each part as it arrives. Throws where there is nothing. */
export async function fetched(url, count = () => {}) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname} can't be loaded: the server says ${response.status}`);
  const parts = [];
  const reader = response.body.getReader();
  for (let got = await reader.read(); !got.done; got = await reader.read()) {
    parts.push(got.value);
    count(got.value.length);
  }
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
  return bytes;
}

export { Cascade, PictureError, Preprocessor };
