// The page: takes photographs by choice, drop, paste or camera, asks the service, and shows what it says.
import { timing, unanswered } from "./answer.js";
import * as camera from "./camera.js";
import { byId, element, time } from "./elements.js";
import { orientation, overlay } from "./overlay.js";
import { showProof } from "./proof.js";
import * as service from "./service.js";
import { answered, flagged, summary } from "./verdict.js";

const MOST_CARDS = 60;
const MOST_LABELS = 5;
const AT_ONCE = 4;
const LOOK_EVERY_MS = 15_000;
const DECIDED_HERE = "classify"; // Its scores are all there; of boxes the service sends only those above the threshold.

const here = { models: [], model: null, threshold: null, cards: new Set() };
const line = [];
let running = 0;

const say = (text) => {
  byId("spoken").textContent = text;
};

// The service and its models

async function look() {
  let models;
  try {
    models = await service.models();
  } catch (error) {
    closed(error);
    return;
  }
  byId("door").hidden = true;
  here.models = models;
  const before = here.model?.name;
  choose(models.find(({ name }) => name === before) ?? models.find(({ state }) => state === "ready") ?? models[0]);
}

function closed(error) {
  byId("state").className = "state";
  if (error.status !== 401) {
    byId("state").textContent = `${error.title}. ${error.message}`;
    return;
  }
  byId("state").textContent = service.hasKey() ? "That key is not known here." : "";
  if (!byId("door").hidden) return;
  byId("door").hidden = false;
  byId("key").focus();
}

function choose(model) {
  const another = model.name !== here.model?.name || model.version !== here.model?.version;
  here.model = model;
  document.title = `${model.name} · Plimsoll`;
  byId("name").textContent = model.name;
  byId("description").textContent = described(model);
  byId("deployment").textContent = here.models.length > 1 ? `Served by Plimsoll, one of ${here.models.length} models` : "Served by Plimsoll";
  showState(model);
  showChoices();
  byId("bench").hidden = !model.task;
  if (!another) return;
  showPlate(model);
  setThreshold(null);
  byId("dial").hidden = !["classify", "detect", "landmarks", "text"].includes(model.task);
  showProof(model);
}

/** What the model's card calls it, without its name where that stands before: it is the heading already. */
function described({ name, origin }) {
  const title = origin?.title ?? "";
  const rest = title.startsWith(`${name}: `) ? title.slice(name.length + 2) : title;
  return rest.charAt(0).toUpperCase() + rest.slice(1);
}

function showState(model) {
  const words = { ready: "Ready", loading: "It is being loaded", unavailable: "Not available", unloaded: "Not loaded" };
  const state = `${words[model.state] ?? model.state}${model.state === "ready" ? `, version ${model.version}` : ""}${model.reason ? `: ${model.reason}` : ""}`;
  byId("state").className = `state ${model.state}`;
  if (byId("state").textContent !== state) byId("state").textContent = state;
}

function showChoices() {
  byId("chooser").hidden = here.models.length < 2;
  const names = here.models.map(({ name }) => name);
  if ([...byId("model").options].map(({ value }) => value).join() !== names.join()) {
    byId("model").replaceChildren(...names.map((name) => element("option", { value: name, textContent: name })));
  }
  byId("model").value = here.model.name;
}

function showPlate(model) {
  const labels = model.labels?.length > MOST_LABELS ? model.labels.length : model.labels?.join(", ");
  const facts = { task: model.task, labels, target: model.target, preprocessing: model.preprocessing };
  const rows = Object.entries(facts).filter(([, value]) => value);
  byId("plate").replaceChildren(...rows.map(([name, value]) => element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))));
  byId("plate").hidden = rows.length < 3;
}

// Pictures in

function listen() {
  const input = byId("files");
  input.addEventListener("change", () => {
    takeAll([...input.files]);
    input.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      byId("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop" && here.model?.task) takeAll([...event.dataTransfer.files]);
    });
  }
  addEventListener("paste", (event) => {
    if (here.model?.task) takeAll([...event.clipboardData.files]);
  });
  byId("model").addEventListener("change", () => choose(here.models.find(({ name }) => name === byId("model").value)));
  byId("door").addEventListener("submit", (event) => {
    event.preventDefault();
    service.useKey(byId("key").value);
    look();
  });
  byId("threshold").addEventListener("input", () => setThreshold(Number(byId("threshold").value)));
  byId("threshold").addEventListener("change", askAgain);
  byId("own").addEventListener("click", () => {
    setThreshold(null);
    askAgain();
    byId("threshold").focus();
  });
  camera.prepare({ ask: live, take: (file) => takeAll([file]), say, described: seen, refused, ended: service.hangUp });
}

// The camera, live

async function live(canvas) {
  return service.answerFrame(here.model.name, await camera.encoded(canvas), sent());
}

function seen(answer) {
  const { model, threshold } = here;
  const words = summary(model, answer.row, threshold);
  return { elements: [...answered(model, answer.row, threshold), timing(answer)], words, high: flagged(model, answer.row, threshold), threshold };
}

function refused(error) {
  if (!(error instanceof service.NoAnswer)) throw error;
  return { elements: unanswered(error), pause: Math.max(error.retryAfter, 1) };
}

/** The threshold that goes to the service: none until somebody moves it. */
const sent = () => here.threshold;

function setThreshold(value) {
  here.threshold = value;
  const own = here.model.threshold ?? (here.model.positive ? 0.5 : null);
  byId("threshold").value = value ?? own ?? 0;
  byId("at").textContent = value === null && own === null ? "the model’s own" : (value ?? own).toFixed(2);
  byId("own").hidden = value === null;
  if (here.model.task === DECIDED_HERE) for (const card of here.cards) if (card.model.name === here.model.name) show(card);
}

function askAgain() {
  if (here.model.task === DECIDED_HERE) return;
  for (const card of here.cards) if (card.model.name === here.model.name) enqueue(card);
}

// Answers out

/** Show pictures in their order before all others, and ask about the first one first. */
function takeAll(files) {
  const cards = files.slice(-MOST_CARDS).reverse().map(placeholder);
  forget();
  cards.reverse().forEach(enqueue);
}

function placeholder(file) {
  const name = file.name || "pasted picture";
  const image = element("img", { src: URL.createObjectURL(file), alt: "" });
  const body = element("div", { className: "body" });
  const picture = element("div", { className: "picture" }, image);
  const item = element("li", { className: `card ${here.model.task}` }, element("div", { className: "frame" }, picture), body);
  const card = { file, name, image, picture, body, item, model: here.model, answer: null, error: null };
  image.addEventListener("error", () => item.classList.add("blank"));
  body.append(element("p", { className: "file", textContent: name, title: name }), element("p", { className: "soft", textContent: "Waiting …" }));
  byId("answers").prepend(item);
  here.cards.add(card);
  return card;
}

function forget() {
  for (const card of [...here.cards].slice(0, Math.max(here.cards.size - MOST_CARDS, 0))) {
    URL.revokeObjectURL(card.image.src);
    card.item.remove();
    here.cards.delete(card);
  }
}

function enqueue(card) {
  if (!line.includes(card)) line.push(card);
  work();
}

async function work() {
  if (running >= AT_ONCE || line.length === 0) return;
  running += 1;
  await answer(line.shift());
  running -= 1;
  work();
}

async function answer(card) {
  if (!here.cards.has(card)) return;
  card.model = here.models.find(({ name }) => name === card.model.name) ?? card.model;
  try {
    card.answer = await service.predict(card.model.name, card.file, card.name, sent());
    card.error = null;
    await card.image.decode().catch(() => {});
    card.turn = card.model.task === DECIDED_HERE ? 1 : await orientation(card.file);
  } catch (error) {
    if (!(error instanceof service.NoAnswer)) throw error;
    [card.answer, card.error] = [null, error];
    if (error.status === 401) closed(error);
  }
  show(card);
  const words = card.error ? [`unknown: ${card.error.title}`, card.error.message] : summary(card.model, card.answer.row, here.threshold);
  say(`${card.name}: ${words.filter(Boolean).join(", ")}`);
  tally();
}

function show(card) {
  if (!card.answer && !card.error) return;
  const [file] = card.body.children;
  card.item.classList.toggle("refused", card.error !== null);
  card.picture.querySelector(".overlay")?.remove();
  if (card.error) {
    const again = element("button", { type: "button", className: "link", textContent: "Ask again" });
    again.addEventListener("click", () => enqueue(card));
    card.body.replaceChildren(file, ...unanswered(card.error), again);
    return;
  }
  const drawing = overlay(card.answer.row, [card.image.naturalWidth || 1, card.image.naturalHeight || 1], card.turn, here.threshold);
  if (drawing) card.picture.append(drawing);
  const parts = [...answered(card.model, card.answer.row, here.threshold), timing(card.answer)];
  if (here.models.length > 1) parts.push(element("p", { className: "soft by", textContent: `by ${card.model.name}` }));
  card.body.replaceChildren(file, ...parts);
  veil(card, flagged(card.model, card.answer.row, here.threshold));
}

/** What is flagged is blurred until somebody wants to see it. */
function veil(card, high) {
  const button = card.item.querySelector(".veil");
  card.item.classList.toggle("high", high);
  if (!high) {
    button?.remove();
    card.item.classList.remove("shown");
  } else if (!button) {
    const cover = element("button", { type: "button", className: "veil", textContent: "Show", ariaLabel: `Show ${card.name}` });
    cover.setAttribute("aria-pressed", "false");
    cover.addEventListener("click", () => {
      const shown = card.item.classList.toggle("shown");
      cover.textContent = shown ? "Hide" : "Show";
      cover.setAttribute("aria-pressed", String(shown));
      cover.ariaLabel = `${cover.textContent} ${card.name}`;
    });
    card.item.querySelector(".frame").append(cover);
  }
}

function tally() {
  const answers = [...here.cards].filter((card) => card.answer);
  const trips = answers.map((card) => card.answer.roundTrip).sort((a, b) => a - b);
  const unknown = [...here.cards].filter((card) => card.error).length;
  const words = [`${answers.length} answered`];
  if (trips.length === 1) words.push(`in ${time(trips[0])} ms`);
  if (trips.length > 1) words.push(`half of them within ${time(trips[Math.ceil(trips.length / 2) - 1])} ms, all within ${time(trips.at(-1))} ms`);
  if (unknown) words.push(`${unknown} unknown`);
  byId("tally").textContent = words.join(" · ");
  byId("tally").hidden = here.cards.size < 2;
}

listen();
byId("camera").hidden = !camera.possible();
await look();
setInterval(() => document.hidden || !byId("door").hidden || look(), LOOK_EVERY_MS);
document.documentElement.dataset.ready = "true";
