// Show what a model says of a picture: a verdict, and bars or a list. `model` is {labels, positive, threshold, bands}.
import { element, placed, score } from "./elements.js";

const SHOWN = 5;

/** Whether an answer is of the model's positive label, at a threshold. */
export function flagged(model, row, threshold) {
  if (!row.scores || !model.positive) return false;
  return row.score >= (threshold ?? model.threshold ?? 0.5);
}

/** The decision in a few words, for the eye and for the ear. */
export function summary(model, row, threshold) {
  if (row.scores) return [decision(model, row, threshold), `${model.positive ?? row.label ?? "best"} ${score(row.score)}`];
  if (row.boxes) {
    const boxes = row.boxes.filter((box) => threshold === null || box.score >= threshold);
    return [boxes.length === 1 ? "1 box" : `${boxes.length || "No"} boxes`, counted(boxes)];
  }
  if (row.points) return [row.points.length ? `${row.points.length} points` : "No points", typeof row.presence === "number" ? `presence ${score(row.presence)}` : ""];
  if (row.mask) return [row.mask.labels[0]?.label ?? "Nothing", row.mask.labels.map(({ label, share }) => `${label} ${(100 * share).toFixed(0)} %`).slice(0, SHOWN).join(", ")];
  if (typeof row.text === "string") return [row.text ? `“${row.text}”` : "No text", typeof row.score === "number" ? `score ${score(row.score)}` : ""];
  return ["Answered", Object.keys(row.outputs ?? {}).join(", ")];
}

function decision(model, row, threshold) {
  if (!model.positive) {
    if (threshold === null) return row.label ?? "no label";
    return row.score >= threshold ? best(row.scores) : "no label";
  }
  const read = threshold === null ? band(model, row.score) : null; // The bands are how people read the score; a threshold of one's own decides.
  return read ?? (flagged(model, row, threshold) ? model.positive : model.labels.find((label) => label !== model.positive) ?? `not ${model.positive}`);
}

const best = (scores) => Object.entries(scores).sort(([, a], [, b]) => b - a)[0][0];

const band = (model, value) => (model.bands ?? []).find(({ below }) => below === null || below === undefined || value < below)?.label ?? null;

function counted(boxes) {
  const counts = new Map();
  for (const { label } of boxes) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, count]) => `${count} ${label}`).join(", ");
}

/** The elements that show an answer. */
export function answered(model, row, threshold) {
  const [verdict, more] = summary(model, row, threshold);
  const high = flagged(model, row, threshold);
  const line = element("p", { className: `verdict${high ? " high" : ""}` }, element("strong", { textContent: verdict }), " ", element("span", { className: "soft", textContent: row.scores ? judged(model, row, threshold) : more }));
  return [line, ...ruler(model, row, threshold), ...(row.scores ? [bars(row)] : []), ...(row.outputs ? [tensors(row.outputs)] : [])];
}

function judged(model, row, threshold) {
  if (!model.positive) return "";
  const at = threshold ?? model.threshold ?? 0.5;
  return `${model.positive} ${score(row.score)}, ${row.score >= at ? "at or above" : "below"} ${at.toFixed(2)}`;
}

/** Where the score lies among the bands that people read it by, and where the threshold. */
function ruler(model, row, threshold) {
  if (!row.scores || !model.positive || (model.bands ?? []).length < 2) return [];
  const line = element("div", { className: "ruler", ariaHidden: "true" });
  let from = 0;
  for (const { below, label } of model.bands) {
    const to = below ?? 1;
    line.append(placed(element("span", { className: "band", textContent: label }), { left: from, width: to - from }));
    from = to;
  }
  line.append(placed(element("span", { className: "tick" }), { left: threshold ?? model.threshold ?? 0.5 }));
  line.append(placed(element("span", { className: "pin" }), { left: Math.min(Math.max(row.score, 0), 1) }));
  return [line];
}

function bars({ scores }) {
  const all = Object.entries(scores).sort(([, a], [, b]) => b - a); // An object keeps labels that are numbers in their own order.
  const rows = element("tbody");
  all.forEach(([label, value], index) => {
    const bar = element("div", { className: "bar", ariaHidden: "true" }, placed(element("span"), { width: Math.min(Math.max(value, 0), 1) }));
    const cells = [element("th", { scope: "row", textContent: label, title: label }), element("td", { className: "bar-cell" }, bar), element("td", { className: "number", textContent: score(value) })];
    rows.append(element("tr", { hidden: index >= SHOWN }, ...cells));
  });
  const table = element("table", { className: "bars wide" }, element("caption", { className: "visually-hidden", textContent: "Scores" }), rows);
  if (all.length <= SHOWN) return table;
  const more = element("button", { type: "button", className: "link", textContent: `All ${all.length} labels` });
  more.addEventListener("click", () => {
    for (const line of rows.rows) line.hidden = false;
    rows.rows[SHOWN].tabIndex = -1;
    rows.rows[SHOWN].focus();
    more.remove();
  });
  return element("div", { className: "wide" }, table, more);
}

function tensors(outputs) {
  return element("pre", { className: "wide", textContent: Object.entries(outputs).map(([name, values]) => `${name}: ${JSON.stringify(values).slice(0, 400)}`).join("\n") });
}
