// Ticking rows: <form data-bulk> counts its ticked [data-bulk-row] boxes in [data-bulk-count], [data-bulk-page] ticks all of
// the page, Shift with a click ticks from the last one to this, and [data-bulk-toggle] (a key presses it) ticks the row in
// which the focus is, else the first. On a card [data-alike] boxes are counted on [data-alike-button].
// Without this script the boxes and buttons are a plain form.

let last = null;

const rowsOf = (form) => [...form.querySelectorAll("[data-bulk-row]")];

function worded(template, n) {
  return template.replace("%(n)s", String(n));
}

function count(form) {
  const rows = rowsOf(form);
  const ticked = rows.filter((row) => row.checked).length;
  const all = form.querySelector("[data-bulk-all]");
  const line = form.querySelector("[data-bulk-count]");
  line.textContent = all?.checked ? all.parentElement.textContent.trim()
    : worded(ticked ? line.dataset.textSome : line.dataset.textNone, ticked);
  const page = form.querySelector("[data-bulk-page]");
  page.checked = ticked === rows.length;
  page.indeterminate = ticked > 0 && ticked < rows.length;
}

function through(form, row) {
  const rows = rowsOf(form);
  const [from, to] = [rows.indexOf(last), rows.indexOf(row)].sort((one, other) => one - other);
  if (from < 0) return;
  for (const between of rows.slice(from, to + 1)) between.checked = row.checked;
}

function onClick(event) {
  const form = event.target.closest?.("form[data-bulk]");
  if (!form) return;
  if (event.target.closest("[data-bulk-toggle]")) return toggle(form);
  if (event.target.matches("[data-bulk-row]")) {
    if (event.shiftKey && last && last !== event.target) through(form, event.target);
    last = event.target;
  }
  if (event.target.matches("[data-bulk-page]")) {
    for (const row of rowsOf(form)) row.checked = event.target.checked;
  }
  count(form);
}

/** Tick or untick the row of the focus, and let the focus stand on its box. */
function toggle(form) {
  const row = document.activeElement?.closest?.("tr")?.querySelector("[data-bulk-row]") ?? rowsOf(form)[0];
  if (!row) return;
  row.checked = !row.checked;
  last = row;
  row.focus();
  count(form);
}

function countAlike() {
  const button = document.querySelector("[data-alike-button]");
  if (!button) return;
  const n = document.querySelectorAll("[data-alike]:checked").length;
  const { textNone, textOne, textSome } = button.dataset;
  button.textContent = n === 0 ? textNone : n === 1 ? textOne : worded(textSome, n);
}

export function start() {
  document.addEventListener("click", onClick);
  document.addEventListener("change", (event) => {
    if (event.target.matches?.("[data-bulk-all]")) count(event.target.form);
    if (event.target.matches?.("[data-alike]")) countAlike();
  });
  // A browser that goes back brings ticks back with it.
  const again = () => {
    document.querySelectorAll("form[data-bulk]").forEach(count);
    countAlike();
  };
  again();
  window.addEventListener("pageshow", again);
  document.addEventListener("htmx:afterSwap", again);
}
