// The page: takes photographs by choice, drop, paste or camera, and shows what the worker answers.
import * as camera from "./camera.js";
import { byId, element } from "./elements.js";
import { orientation, overlay } from "./overlay.js";
import { answered, flagged, summary } from "./verdict.js";

const waiting = new Map();
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const MOST_CARDS = 60;
let calls = 0;
let spec;

worker.onmessage = ({ data }) => {
  const call = waiting.get(data.id);
  if ("progress" in data) return call.progress(data.progress);
  waiting.delete(data.id);
  if ("error" in data) return call.reject(Object.assign(new Error(data.error), { picture: data.picture }));
  return call.resolve(data.result);
};
worker.onerror = (event) => fail(event.message || "this browser can't run module workers; a newer one can");

function ask(call, more = {}, transfer = [], progress = () => {}) {
  const id = (calls += 1);
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, progress });
    worker.postMessage({ id, call, ...more }, transfer);
  });
}

function fail(message) {
  byId("progress").hidden = true;
  byId("state").textContent = `It can't be loaded: ${message}`;
}

async function start() {
  byId("state").textContent = "Loading the network …";
  byId("progress").hidden = false;
  const { facts, spec: loaded, golden } = await ask("load", {}, [], (share) => {
    byId("progress").value = share;
  });
  spec = loaded;
  document.title = `${spec.name} · Plimsoll`;
  byId("name").textContent = spec.name;
  byId("description").textContent = spec.description;
  byId("deployment").textContent = `In your browser, ${facts.precision}`;
  byId("versions").textContent = `Plimsoll ${facts.plimsoll} · ONNX Runtime Web ${facts.runtime.version} · this page loads nothing from anywhere but its own folder`;
  byId("progress").hidden = true;
  byId("state").textContent = `Ready: ${((facts.model.bytes + facts.runtime.binary.bytes) / 1e6).toFixed(0)} MB are loaded.`;
  document.querySelector("main").hidden = false;
  byId("camera").hidden = !camera.possible();
  listen();
  await selfCheck(golden);
}

// Pictures in

function listen() {
  const input = byId("files");
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  const drop = byId("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take([...event.dataTransfer.files]);
    });
  }
  addEventListener("paste", (event) => take([...event.clipboardData.files]));
  camera.prepare({ ask: live, take: (file) => take([file]), say, described, refused });
}

const say = (text) => {
  byId("spoken").textContent = text;
};

function take(files) {
  for (const file of files) show(file.name || "pasted picture", file, URL.createObjectURL(file));
}

// The camera, live

async function live(canvas) {
  const picture = await createImageBitmap(canvas);
  return ask("answer", { picture }, [picture]);
}

function described(answer) {
  return { elements: [...answered(spec.output, answer.row, null), timing(answer)], words: summary(spec.output, answer.row, null), high: flagged(spec.output, answer.row, null), threshold: null };
}

const refused = (error) => ({ elements: [element("p", { className: "no", textContent: error.message })], pause: 1 });

// Answers out

async function show(name, file, address) {
  const body = element("div", {}, element("p", { className: "file", textContent: name, title: name }), element("p", { className: "soft", textContent: "…" }));
  const image = element("img", { src: address, alt: "" });
  const picture = element("div", { className: "picture" }, image);
  const card = element("li", { className: `card ${spec.output.task}` }, element("div", { className: "frame" }, picture), body);
  image.addEventListener("error", () => image.remove());
  byId("answers").prepend(card);
  for (const old of [...byId("answers").children].slice(MOST_CARDS)) {
    URL.revokeObjectURL(old.querySelector("img")?.src);
    old.remove();
  }
  try {
    const answer = await ask("answer", { picture: file });
    const { elements, words } = described(answer);
    say(`${name}: ${words.filter(Boolean).join(", ")}`);
    await image.decode().catch(() => {});
    const drawing = overlay(answer.row, [image.naturalWidth || 1, image.naturalHeight || 1], await orientation(file));
    if (drawing) picture.append(drawing);
    body.replaceChildren(body.firstChild, ...elements);
  } catch (error) {
    card.classList.add("refused");
    body.replaceChildren(body.firstChild, element("p", { className: "no", textContent: error.message }));
    say(`${name}: ${error.message}`);
  }
}

function timing({ milliseconds }) {
  const total = Object.values(milliseconds).reduce((sum, stage) => sum + stage, 0);
  return element("p", { className: "time soft", textContent: `${total.toFixed(0)} ms (network ${milliseconds.network.toFixed(0)} ms)` });
}

// The self-check, one picture at a time, so that a photograph that comes meanwhile is not kept waiting for all

async function selfCheck(count) {
  const results = [];
  for (let index = 0; index < count; index += 1) {
    byId("checked").textContent = `Answering golden picture ${index + 1} of ${count} …`;
    try {
      results.push(await ask("check", { index }));
    } catch (error) {
      results.push({ picture: `golden picture ${index + 1}`, checks: [{ name: error.message, measured: NaN, limit: NaN, passed: false }] });
    }
  }
  const body = byId("checks").tBodies[0];
  for (const { picture, checks } of results) {
    for (const check of checks) {
      const cells = [check.name, figure(check.measured), figure(check.limit)].map((text, index) => element("td", { className: index ? "number" : "", textContent: text }));
      const verdict = element("td", { className: check.passed ? "yes" : "no", textContent: check.passed ? "as in Python" : "too far" });
      body.append(element("tr", {}, element("th", { scope: "row", textContent: picture.replace("golden/", "") }), ...cells, verdict));
    }
  }
  byId("checks").hidden = count === 0;
  const good = results.filter(({ checks }) => checks.every(({ passed }) => passed)).length;
  byId("checked").textContent = count === 0 ? "This package brings no golden pictures." : `${good} of ${count} golden pictures are answered here as Python answered them.`;
  byId("checked").className = `section-lead ${good === count ? "yes" : "no"}`;
  document.documentElement.dataset.checked = `${good}/${count}`;
}

function figure(value) {
  if (!Number.isFinite(value)) return "–";
  return value === 0 ? "0" : Number(value.toPrecision(2)).toString();
}

start().catch((error) => fail(error.message));
