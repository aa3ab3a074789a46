// <input type="radio" data-remember="compare"> keeps the reader's choice in this browser, for every card that offers it.

import { read, write } from "./store.js";

function restore(root) {
  for (const input of root.querySelectorAll("input[type=radio][data-remember]")) {
    if (read(input.dataset.remember) === input.value) input.checked = true;
  }
}

export function start() {
  restore(document);
  document.addEventListener("htmx:afterSwap", (event) => restore(event.target));
  document.addEventListener("change", (event) => {
    if (event.target.matches?.("input[type=radio][data-remember]")) write(event.target.dataset.remember, event.target.value);
  });
}
