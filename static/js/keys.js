// Single keys. <button data-key="a"> is pressed by A, outside fields, while shortcuts are on. A form is submitted, a field
// focused. `?` opens <dialog data-keys-help>, which lists what works on this page. Enter, Backspace and Space are never bound.
// <details data-menu> is closed by Escape; opened by its summary's key, it focuses its [data-focus-on-open].
// <form data-submit-ctrl-enter> is submitted by Ctrl+Enter (or Cmd+Enter) from any of its fields.

import { read, write } from "./store.js";
import { text } from "./text.js";
import { say } from "./status.js";

const FIELDS = "input:not([type=checkbox], [type=radio], [type=button], [type=submit]), textarea, select, [contenteditable]";

export const keysAreOn = () => read("keys") !== "off";

function visible(element) {
  // Content of a closed <details> has a box in some browsers; checkVisibility knows it is skipped.
  return element.checkVisibility ? element.checkVisibility() : element.getClientRects().length > 0;
}

function usable(element) {
  return visible(element) && !element.matches(":disabled, [aria-disabled=true]");
}

/** Elements with a key, in the open dialog if there is one, the innermost open menu first. */
function bound() {
  const scope = document.querySelector("dialog[open]") ?? document;
  const all = [...scope.querySelectorAll("[data-key]:not([data-key=''])")].filter(usable);
  return all.sort((one, other) => depth(other) - depth(one));
}

const depth = (element) => (element.closest("details[open] > :not(summary)") ? 1 : 0);

function press(element) {
  if (element.matches("form")) element.requestSubmit();
  else if (element.matches(FIELDS)) element.focus();
  else element.click();
  // A fold opened by key is opened to type in it.
  const fold = element.matches("summary") ? element.parentElement : null;
  if (fold?.open) fold.querySelector("[data-focus-on-open]")?.focus();
}

function nameOf(element) {
  if (element.dataset.keyLabel) return element.dataset.keyLabel;
  const copy = element.cloneNode(true);
  copy.querySelectorAll("kbd").forEach((hint) => hint.remove());
  return copy.textContent.trim().replace(/\s+/g, " ") || element.getAttribute("aria-label") || "";
}

function fillHelp(dialog) {
  const list = dialog.querySelector("[data-keys-list]");
  const rows = bound().map((element) => [element.dataset.key, nameOf(element)]);
  if (document.querySelector("[data-submit-ctrl-enter]")) rows.push(["Ctrl Enter", text("KeysSubmit")]);
  rows.push(["?", text("KeysHelp")]);
  list.replaceChildren(...rows.flatMap(([key, name]) => [term(key), description(name)]));
  dialog.querySelector("[data-keys-toggle]").checked = keysAreOn();
}

function term(key) {
  const item = document.createElement("dt");
  const hint = document.createElement("kbd");
  hint.textContent = key.length === 1 ? key.toUpperCase() : key;
  item.append(hint);
  return item;
}

function description(name) {
  const item = document.createElement("dd");
  item.textContent = name;
  return item;
}

function openHelp() {
  const dialog = document.querySelector("dialog[data-keys-help]");
  if (!dialog || dialog.open) return;
  fillHelp(dialog);
  dialog.showModal();
}

function setKeys(on) {
  write("keys", on ? null : "off");
  if (on) delete document.documentElement.dataset.keys;
  else document.documentElement.dataset.keys = "off";
  say(text(on ? "KeysOn" : "KeysOff"));
}

function submitFormAround(event) {
  const form = event.target.closest?.("form[data-submit-ctrl-enter]");
  if (!form || event.repeat) return;
  event.preventDefault();
  form.requestSubmit(form.querySelector("[data-submit-default]"));
}

function closeMenu(target) {
  const menu = target.closest?.("details[data-menu][open]") ?? document.querySelector("details[data-menu][open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary")?.focus();
}

function onKeydown(event) {
  if (event.isComposing || event.defaultPrevented) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return submitFormAround(event);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) return closeMenu(event.target);
  if (event.key.length !== 1 || event.key === " " || event.repeat || !keysAreOn()) return;
  if (event.target.closest?.(FIELDS)) return;
  if (event.key === "?") {
    event.preventDefault();
    return openHelp();
  }
  const element = bound().find((candidate) => candidate.dataset.key.toLowerCase() === event.key.toLowerCase());
  if (!element) return;
  event.preventDefault();
  press(element);
}

/** Tell assistive technology which key presses what. */
export function describeKeys(root = document) {
  for (const element of root.querySelectorAll("[data-key]:not(form, [data-key=''])")) {
    element.setAttribute("aria-keyshortcuts", element.dataset.key);
  }
}

export function start() {
  describeKeys();
  document.addEventListener("keydown", onKeydown);
  document.addEventListener("htmx:afterSwap", (event) => describeKeys(event.target));
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("[data-keys-open]")) openHelp();
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches?.("[data-keys-toggle]")) setKeys(event.target.checked);
  });
}
