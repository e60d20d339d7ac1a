// What the bundle's report proves, and where the model comes from.
import { byId, element } from "./elements.js";
import * as service from "./service.js";

export async function showProof(model) {
  byId("links").replaceChildren();
  showOrigin(model.origin ?? {});
  showCandidate(model.candidate);
  byId("checks").hidden = true;
  let proof = null;
  try {
    proof = model.report ? await service.proof(model.name) : null;
  } catch (error) {
    byId("verdict").textContent = `Its report can’t be read: ${error.message}`;
    byId("proof").hidden = false;
    return;
  }
  byId("proof").hidden = !model.task;
  if (proof === null) {
    byId("verdict").textContent = `No report came with this model, so nothing is proven of it here.`;
    return;
  }
  const good = proof.rows.filter(({ passed }) => passed).length;
  const all = good === proof.rows.length && good > 0;
  const words = proof.rows.length ? `${good} of ${proof.rows.length} checks passed` : "Measured, not checked";
  const headline = proof.headline ? ` · ${proof.headline}` : "";
  byId("verdict").replaceChildren(element("strong", { className: all ? "yes" : "no", textContent: words }), `${headline} · ${proof.subject}`);
  if (proof.page) byId("links").append(link(model));
  if (proof.rows.length) table(proof.rows);
}

/** Who made the model, what for, and where it ends. */
function showOrigin({ intended_use: use, known_limits: limits, authors, year, licence }) {
  byId("use").textContent = use ?? "";
  byId("limits").replaceChildren(...(limits ?? []).map((text) => element("li", { textContent: text })));
  const words = [authors?.length ? `By ${authors.join(", ")}` : "", year ?? "", licence ? `licence ${licence}` : ""];
  byId("origin").textContent = words.filter(Boolean).join(" · ");
}

/** What is on trial beside the model, and how its answers compare so far. */
function showCandidate(candidate) {
  byId("candidate").hidden = !candidate;
  if (!candidate) return;
  const { model, share, shadow, same, different, failed, largest_deviation: deviation } = candidate;
  const percent = (value) => value.toLocaleString("en", { style: "percent", maximumFractionDigits: 2 });
  const compared = same + different + failed;
  const words = [`The model “${model}” is on trial beside this one.`];
  if (share) words.push(`It answers ${percent(share)} of the requests.`);
  if (shadow) words.push(`${percent(shadow)} are computed by both, and their answers compared: ${compared.toLocaleString("en")} pictures so far.`);
  if (compared) words.push(different + failed ? `${different.toLocaleString("en")} were decided differently, ${failed.toLocaleString("en")} had no answer.` : "All were decided alike.");
  if (deviation !== null) words.push(`The largest deviation is ${deviation.toPrecision(2)}.`);
  byId("candidate").textContent = words.join(" ");
}

/** A link to the report; with a key the browser can't follow one, so the report is saved as a file. */
function link(model) {
  if (!service.hasKey()) return element("a", { className: "button quiet", href: service.reportAddress(model.name), target: "_blank", rel: "noopener", textContent: "Open the whole report" });
  const button = element("button", { type: "button", className: "button quiet", textContent: "Save the whole report" });
  button.addEventListener("click", async () => {
    const address = URL.createObjectURL(await service.report(model.name));
    element("a", { href: address, download: `${model.name}-report.html` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  });
  return button;
}

/** The figures come in words: the same as on the report's page and in the terminal. */
function table(checks) {
  const rows = checks.map((check) => {
    const cells = [check.measured, check.bound, check.limit].map((text) => element("td", { className: "number", textContent: text }));
    const name = element("th", { scope: "row", textContent: check.name });
    if (check.detail) name.append(element("small", { textContent: check.detail }));
    return element("tr", {}, name, ...cells, element("td", { className: check.passed ? "yes" : "no", textContent: check.result }));
  });
  byId("checks").querySelector("tbody").replaceChildren(...rows);
  byId("checks").hidden = false;
}
