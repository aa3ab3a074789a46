// <textarea data-draft-key="instruction-57"> keeps what is typed in this browser until the server has saved it: the answer
// then holds an element with data-draft-clear="instruction-57". A reload brings the text back, says so, and can discard it.
// The server keeps the same text (hx-post on the field); data-draft-at says when, in seconds, and the newer of both counts.

import { localWords } from "./localtime.js";
import { names, read, write } from "./store.js";
import { text } from "./text.js";
import { say } from "./status.js";

const WAIT_MS = 400;
const KEPT_MS = 30 * 24 * 3600 * 1000;
const timers = new Map();

// The account is part of the name: a colleague at the same browser must not meet another's text.
const nameOf = (key) => `draft.${document.body.dataset.userId || "0"}.${key}`;
const fieldsIn = (root) => [...root.querySelectorAll("textarea[data-draft-key]")];

function parse(stored) {
  try {
    const draft = JSON.parse(stored ?? "null");
    return typeof draft?.text === "string" ? draft : null;
  } catch {
    return null;
  }
}

function save(field) {
  clearTimeout(timers.get(field));
  timers.delete(field);
  const changed = field.value !== field.defaultValue;
  const draft = { text: field.value, base: field.defaultValue, at: Date.now() };
  const kept = write(nameOf(field.dataset.draftKey), changed ? JSON.stringify(draft) : null);
  if (!kept) say(text("DraftNotKept"), "danger");
}

// Not put off by further keys: someone who types without a pause is saved as well.
function saveSoon(field) {
  if (timers.has(field)) return;
  timers.set(field, setTimeout(() => save(field), WAIT_MS));
}

function saveWaiting() {
  for (const field of [...timers.keys()]) save(field);
}

function note(field, draft) {
  const words = draft.base === field.defaultValue ? "DraftRestored" : "DraftRestoredChanged";
  const when = localWords(new Date(draft.at));
  const line = document.createElement("p");
  line.className = "draft-note";
  line.append(text(words, { when }));
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn btn-small btn-quiet";
  button.textContent = text("DraftDiscard");
  button.addEventListener("click", () => discard(field, line));
  line.append(button);
  return line;
}

function discard(field, line) {
  field.value = field.defaultValue;
  write(nameOf(field.dataset.draftKey), null);
  line.remove();
  field.focus();
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

function restore(field) {
  const draft = parse(read(nameOf(field.dataset.draftKey)));
  const kept = Number(field.dataset.draftAt || 0) * 1000;
  if (!draft || draft.text === field.value || draft.at < kept) return;
  field.closest("form")?.querySelector(".draft-note")?.remove();
  field.value = draft.text;
  field.before(note(field, draft));
  // A restored text inside a closed fold would be there and unseen.
  const fold = field.closest("details:not([open])");
  if (fold) fold.open = true;
  // What only this browser had goes to the server as well.
  field.dispatchEvent(new Event("keepdraft"));
}

function clearTaken(root) {
  const taken = [...root.querySelectorAll("[data-draft-clear]")];
  if (root.matches?.("[data-draft-clear]")) taken.push(root);
  for (const element of taken) write(nameOf(element.dataset.draftClear), null);
}

function dropOld() {
  for (const name of names("draft.")) {
    const draft = parse(read(name));
    if (!draft || Date.now() - draft.at > KEPT_MS) write(name, null);
  }
}

function arrive(root) {
  clearTaken(root);
  fieldsIn(root).forEach(restore);
}

export function start() {
  dropOld();
  arrive(document);
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("textarea[data-draft-key]")) saveSoon(event.target);
  });
  document.addEventListener("submit", saveWaiting, true);
  document.addEventListener("htmx:beforeRequest", saveWaiting);
  document.addEventListener("htmx:afterSwap", (event) => arrive(event.target));
  document.addEventListener("visibilitychange", saveWaiting);
  window.addEventListener("pagehide", saveWaiting);
  // Typed while the network was away: the server hears of it as soon as it is back.
  window.addEventListener("online", () => {
    for (const field of fieldsIn(document)) if (field.value !== field.defaultValue) field.dispatchEvent(new Event("keepdraft"));
  });
}
