// The page: takes photographs by choice, drop, paste or camera, and shows what the worker answers.
const byId = (id) => document.getElementById(id);
const waiting = new Map();
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const SHOWN = 5;
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

function element(name, properties = {}, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  created.append(...children);
  return created;
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
  byId("camera").hidden = !navigator.mediaDevices?.getUserMedia;
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
  byId("camera").addEventListener("click", openCamera);
  byId("shoot").addEventListener("click", shoot);
  byId("stop").addEventListener("click", closeCamera);
}

function take(files) {
  for (const file of files) show(file.name || "pasted picture", file, URL.createObjectURL(file));
}

async function openCamera() {
  try {
    byId("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    await byId("video").play();
    byId("viewfinder").hidden = false;
    byId("camera").hidden = true;
    byId("shoot").focus();
  } catch (error) {
    byId("spoken").textContent = "";
    byId("answers").prepend(element("li", { className: "card refused" }, element("div", {}, element("p", { className: "file", textContent: "Camera" }), element("p", { className: "no", textContent: `It can't be used: ${error.message}` }))));
  }
}

async function shoot() {
  const video = byId("video");
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve));
  const bitmap = await createImageBitmap(canvas);
  show("camera", bitmap, URL.createObjectURL(blob), [bitmap]);
}

function closeCamera() {
  byId("video").srcObject?.getTracks().forEach((track) => track.stop());
  byId("video").srcObject = null;
  byId("viewfinder").hidden = true;
  byId("camera").hidden = false;
  byId("camera").focus();
}

// Answers out

async function show(name, picture, address, transfer = []) {
  const body = element("div", {}, element("p", { className: "file", textContent: name, title: name }), element("p", { className: "soft", textContent: "…" }));
  const image = element("img", { src: address, alt: "" });
  const card = element("li", { className: "card" }, element("div", { className: "frame" }, image), body);
  image.addEventListener("error", () => image.remove());
  byId("answers").prepend(card);
  for (const old of [...byId("answers").children].slice(MOST_CARDS)) {
    URL.revokeObjectURL(old.querySelector("img")?.src);
    old.remove();
  }
  try {
    const answer = await ask("answer", { picture }, transfer);
    body.replaceChildren(body.firstChild, ...answered(answer));
    byId("spoken").textContent = `${name}: ${summary(answer)}`;
  } catch (error) {
    card.classList.add("refused");
    body.replaceChildren(body.firstChild, element("p", { className: "no", textContent: error.message }));
    byId("spoken").textContent = `${name}: ${error.message}`;
  }
}

function summary({ row, band }) {
  if (!row.scores) return "answered";
  const score = `${spec.output.positive ?? row.label ?? "best"} ${row.score.toFixed(3)}`;
  return [band ?? row.label ?? "no label", score].join(", ");
}

function answered(answer) {
  const times = Object.values(answer.milliseconds);
  const total = times.reduce((sum, stage) => sum + stage, 0);
  const time = element("p", { className: "time soft", textContent: `${total.toFixed(0)} ms (network ${answer.milliseconds.network.toFixed(0)} ms)` });
  if (!answer.row.scores) return [tensors(answer.row.outputs), time];
  const verdict = element("p", { className: "verdict" }, element("strong", { textContent: answer.band ?? answer.row.label ?? "no label" }));
  return [verdict, ...ruler(answer.row.score), bars(answer.row), time];
}

/** Where the score lies among the bands that people read it by. */
function ruler(score) {
  const { bands } = spec.output;
  if (bands.length < 2) return [];
  const line = element("div", { className: "ruler", ariaHidden: "true" });
  let from = 0;
  for (const { below, label } of bands) {
    const to = below ?? 1;
    line.append(placed(element("span", { className: "band", textContent: label }), { left: from, width: to - from }));
    from = to;
  }
  line.append(placed(element("span", { className: "pin" }), { left: score }));
  return [line];
}

function placed(child, shares) {
  for (const [property, share] of Object.entries(shares)) child.style[property] = `${100 * share}%`;
  return child;
}

function bars({ scores }) {
  const all = Object.entries(scores).sort(([, a], [, b]) => b - a); // An object keeps labels that are numbers in their own order.
  const table = element("table", { className: "bars" }, element("caption", { className: "visually-hidden", textContent: "Scores" }));
  const rows = element("tbody");
  all.forEach(([label, score], index) => {
    const bar = element("div", { className: "bar", ariaHidden: "true" }, placed(element("span"), { width: Math.min(Math.max(score, 0), 1) }));
    const line = element("tr", { hidden: index >= SHOWN }, element("th", { scope: "row", textContent: label }), element("td", { className: "bar-cell" }, bar), element("td", { className: "number", textContent: score.toFixed(3) }));
    rows.append(line);
  });
  table.append(rows);
  if (all.length <= SHOWN) return table;
  const more = element("button", { type: "button", className: "link", textContent: `All ${all.length} labels` });
  more.addEventListener("click", () => {
    for (const line of rows.rows) line.hidden = false;
    more.remove();
  });
  return element("div", {}, table, more);
}

function tensors(outputs) {
  return element("pre", { textContent: Object.entries(outputs).map(([name, values]) => `${name}: ${JSON.stringify(values).slice(0, 400)}`).join("\n") });
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
