// The model in a thread of its own. Asked {id, call, …}, it answers {id, result} or {id, error, picture: is it the picture's fault?};
// while it loads, {id, progress}.
import { Model, PictureError } from "./plimsoll.js";
import { check, goldenCount } from "./selfcheck.js";

let model;

const calls = {
  async load({ id }) {
    model = await Model.load(undefined, { onProgress: (progress) => postMessage({ id, progress }) });
    return { facts: model.facts, spec: model.spec, golden: await goldenCount(model) };
  },
  answer: ({ picture }) => model.answer(picture),
  check: ({ index }) => check(model, index),
};

onmessage = async ({ data }) => {
  try {
    postMessage({ id: data.id, result: await calls[data.call](data) });
  } catch (error) {
    postMessage({ id: data.id, error: error.message, picture: error instanceof PictureError });
  }
};
