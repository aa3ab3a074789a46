// One line, read out by screen readers and shown for a while, says what just happened.

const SHOWN_MS = 6000;
let clearing = 0;
let saying = 0;

const line = () => document.querySelector("[data-status-line]");

/** The last message, so that a poll need not repeat it. */
export let lastSaid = "";

/** Say `message`; `tone` is "" or "danger". A danger stays until something else is said. */
export function say(message, tone = "") {
  const element = line();
  if (!element || !message) return;
  clearTimeout(clearing);
  clearTimeout(saying);
  lastSaid = message;
  // Emptied first: the same words twice in a row are two events, and must be read twice.
  element.textContent = "";
  element.dataset.tone = tone;
  saying = setTimeout(() => {
    element.textContent = message;
  }, 50);
  if (!tone) clearing = setTimeout(() => element.replaceChildren(), SHOWN_MS);
}
