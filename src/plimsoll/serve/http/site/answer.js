// What only a service's answers have: how long each stage took, and why there is none.
import { element, placed, time } from "./elements.js";

const STAGES = { network: "network", queue: "queue", decode: "decode", infer: "infer", answer: "answer" };

/** Where the round trip went: a bar of stages, and their names with their times. */
export function timing({ milliseconds, roundTrip, batch }) {
  const inside = Object.values(milliseconds).reduce((sum, stage) => sum + stage, 0);
  const stages = { network: Math.max(roundTrip - inside, 0), ...milliseconds };
  const total = Math.max(roundTrip, inside);
  const bar = element("div", { className: "stages", ariaHidden: "true" });
  const list = element("dl", { className: "stage-names" });
  for (const [stage, name] of Object.entries(STAGES)) {
    if (!(stage in stages)) continue;
    bar.append(placed(element("span", { className: `s-${stage}` }), { width: stages[stage] / total }));
    list.append(element("div", {}, element("dt", {}, element("span", { className: `swatch s-${stage}`, ariaHidden: "true" }), name), element("dd", { textContent: time(stages[stage]) })));
  }
  const words = `${time(total)} ms${batch > 1 ? `, computed with ${batch - 1} other${batch > 2 ? "s" : ""}` : ""}`;
  return element("div", { className: "timing wide" }, element("p", { className: "time", textContent: words }), bar, list);
}

/** The elements that show why there is no answer. */
export function unanswered(error) {
  return [
    element("p", { className: "verdict unknown" }, element("strong", { textContent: "Unknown" }), " ", element("span", { className: "soft", textContent: error.title })),
    element("p", { className: "why no", textContent: error.message }),
    ...(error.hint ? [element("p", { className: "soft why", textContent: error.hint })] : []),
  ];
}
