"use strict";
// The page is whole without this: it sorts the results table, and describes the mark that is pointed at.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const column = head.cellIndex;
      const current = head.getAttribute("aria-sort");
      const order = current ? (current === "ascending" ? "descending" : "ascending") : head.dataset.first;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const key = (row) => row.cells[column].dataset.value;
      const sign = order === "ascending" ? 1 : -1;
      const rows = Array.from(body.rows).sort((first, second) => {
        const [a, b] = [key(first), key(second)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const difference = head.classList.contains("number") ? Number(a) - Number(b) : a.localeCompare(b);
        return sign * difference;
      });
      body.append(...rows);
    });
  }
}
const readout = document.querySelector(".readout");
if (readout) {
  for (const mark of document.querySelectorAll("[data-tooltip]")) {
    const show = () => { readout.textContent = mark.dataset.tooltip; };
    mark.addEventListener("mouseenter", show);
    mark.addEventListener("focus", show);
  }
}
