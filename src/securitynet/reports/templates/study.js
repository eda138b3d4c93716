"use strict";
/* Tables in a study's report can be sorted by clicking a heading and filtered by typing. */
const asNumber = (text) => {
  const number = parseFloat(text.replace(/[−]/g, "-").replace(/,/g, ""));
  return Number.isNaN(number) ? null : number;
};
for (const box of document.querySelectorAll(".sortable")) {
  const table = box.querySelector("table");
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => [row.cells[column].textContent, row]);
      keyed.sort(([a], [b]) => {
        const [x, y] = [asNumber(a), asNumber(b)];
        return x !== null && y !== null ? x - y : a.localeCompare(b);
      });
      if (down) keyed.reverse();
      body.append(...keyed.map(([, row]) => row));
    });
  });
  if (body.rows.length > 12) {
    const label = document.createElement("label");
    label.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    label.append("Show rows with ", input);
    box.before(label);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.every((word) => text.includes(word));
      }
    });
  }
}
