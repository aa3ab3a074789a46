// <button type="button" data-dismiss="#refusal" data-js-only> empties what it names, and gives the focus back to the page.

export function start() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-dismiss]");
    const region = button && document.querySelector(button.dataset.dismiss);
    if (!region) return;
    region.replaceChildren();
    document.getElementById("content")?.focus();
  });
}
