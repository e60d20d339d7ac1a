"use strict";
// The page is whole without this: it sorts the ladder, and shows in words the mark that is pointed at.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const column = head.cellIndex;
      const now = head.getAttribute("aria-sort");
      const order = now ? (now === "ascending" ? "descending" : "ascending") : head.dataset.first;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const key = (row) => row.cells[column].dataset.value;
      const turn = order === "ascending" ? 1 : -1;
      const rows = Array.from(body.rows).sort((first, second) => {
        const [a, b] = [key(first), key(second)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const difference = head.classList.contains("number") ? Number(a) - Number(b) : a.localeCompare(b);
        return turn * difference;
      });
      body.append(...rows);
    });
  }
}
const readout = document.querySelector(".readout");
if (readout) {
  for (const dot of document.querySelectorAll("[data-tooltip]")) {
    const show = () => { readout.textContent = dot.dataset.tooltip; };
    dot.addEventListener("mouseenter", show);
    dot.addEventListener("focus", show);
  }
}
