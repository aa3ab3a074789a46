// Where a page begins: at the first field that was not accepted, and with the current step of a task in view.

export function start() {
  document.querySelector("main [aria-invalid='true']")?.focus();
  const row = document.querySelector(".task-nav ul");
  const step = row?.querySelector("[aria-current='page']");
  // On a phone the row scrolls sideways. Only the row: scrollIntoView would move the page as well.
  if (step) row.scrollLeft = step.offsetLeft + step.offsetWidth / 2 - row.clientWidth / 2;
}
