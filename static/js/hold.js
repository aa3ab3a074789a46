// The element [data-hold-url] on a card says every ten seconds that its reader is there, and shows who else is. While the
// reader is active the lease on the card is renewed; two minutes before it ends, they are told how to keep it. Without
// this script the lease simply ends: the text on the server stays, and a decision is refused only if a colleague took it.

import { text } from "./text.js";
import { say } from "./status.js";

const EVERY_MS = 10_000;
const ACTIVE_MS = 5 * 60_000;
const WARN_S = 120;

let lastActive = Date.now();
let warned = false;

const token = () => JSON.parse(document.body.getAttribute("hx-headers") ?? "{}")["X-CSRFToken"] ?? "";
const holder = () => document.querySelector("[data-hold-url]");
const isActive = () => Date.now() - lastActive < ACTIVE_MS;

function send(url, fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  return fetch(url, { method: "POST", body, headers: { "X-CSRFToken": token() }, redirect: "manual" });
}

function put(element, words) {
  if (element && element.textContent !== words) element.textContent = words;
}

function warn(answer) {
  if (!answer.mine || isActive()) warned = false;
  else if (answer.seconds < WARN_S && !warned) {
    warned = true;
    say(text("HoldEnding", { seconds: answer.seconds }), "danger");
  }
}

function show(element, answer) {
  const changed = String(answer.version) !== element.dataset.holdVersion;
  put(element.querySelector("[data-hold-held]"), changed ? text("HoldChanged") : answer.held);
  put(element.querySelector("[data-hold-others]"), answer.others);
  if (changed && !element.dataset.holdSaid) {
    element.dataset.holdSaid = "yes";
    say(text("HoldChanged"), "danger");
  }
  warn(answer);
}

async function ping() {
  const element = holder();
  if (!element || document.visibilityState === "hidden") return;
  try {
    const response = await send(element.dataset.holdUrl, isActive() ? { keep: "1" } : {});
    if (response.ok && element.isConnected) show(element, await response.json());
  } catch {
    // No network: the next ping says the same, and what is typed is kept by draft.js.
  }
}

function letGo() {
  const element = holder();
  if (!element) return;
  const body = new FormData();
  body.append("csrfmiddlewaretoken", token());
  navigator.sendBeacon(element.dataset.holdRelease, body);
}

export function start() {
  for (const type of ["keydown", "pointerdown", "pointermove", "input", "scroll"]) {
    document.addEventListener(type, () => { lastActive = Date.now(); }, { passive: true, capture: true });
  }
  ping();
  setInterval(ping, EVERY_MS);
  document.addEventListener("visibilitychange", ping);
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.querySelector?.("[data-hold-url]") || event.target.matches?.("[data-hold-url]")) ping();
  });
  window.addEventListener("pagehide", letGo);
}
