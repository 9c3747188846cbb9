// Tables of a page: a click or a key on a column's name sorts by it; long ones can be searched. Without this they stay as written.
"use strict";
(() => {
const UNITS = {kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, ms: 1e-3, min: 60, h: 3600};
const amount = text => {
  const found = /^([-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?)(\s*[kMGT]?B|\s*(?:ms|min|h))?/.exec(text);
  return found ? parseFloat(found[1].replace(/,/g, "")) * (UNITS[(found[2] || "").trim()] || 1) : NaN;
};
const text = (row, column) => row.cells[column] ? row.cells[column].textContent.trim() : "";
function sort(table, column, head) {
  const down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0], rows = [...body.rows];
  const filled = rows.filter(row => text(row, column)), numbers = filled.every(row => !isNaN(amount(text(row, column))));
  const order = numbers ? (a, b) => amount(a) - amount(b) : (a, b) => a.localeCompare(b, "en", {numeric: true});
  filled.sort((a, b) => (down ? -1 : 1) * order(text(a, column), text(b, column)));
  body.append(...filled, ...rows.filter(row => !text(row, column)));
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
}
for (const table of document.querySelectorAll("table")) {
  if (!table.tHead || table.tBodies[0].rows.length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button"; button.append(...head.childNodes); head.append(button);
    button.addEventListener("click", () => sort(table, column, head));
  });
  if (table.tBodies[0].rows.length < 30 || table.matches(".heat")) continue;
  const label = document.createElement("label"), field = document.createElement("input"), told = document.createElement("output");
  label.className = "find"; field.type = "search"; label.append("Only rows with ", field, " ", told);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/), rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    told.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  });
  table.parentElement.before(label);
}
const open = () => { const at = location.hash && document.getElementById(location.hash.slice(1)), fold = at && at.closest("details"); if (fold) { fold.open = true; at.scrollIntoView(); } };
addEventListener("hashchange", open); open();
})();
