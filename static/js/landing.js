// Where a page begins: at the first field that was not accepted, and with the current page in view in both rows of links.

function centre(element) {
  const { left, width } = element.getBoundingClientRect();
  return left + width / 2;
}

export function start() {
  document.querySelector("main [aria-invalid='true']")?.focus();
  for (const row of document.querySelectorAll(".site-nav ul, .task-nav ul")) {
    const here = row.querySelector("[aria-current='page']");
    // On a phone the row scrolls sideways. Only the row: scrollIntoView would move the page as well.
    if (here) row.scrollLeft += centre(here) - centre(row);
  }
}
