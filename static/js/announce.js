// After htmx has put new content in place: say its data-announce text, move focus to its [data-focus-after-swap], and turn
// answers that bring no content (403, 500, no network) into words in the status line.

import { text } from "./text.js";
import { lastSaid, say } from "./status.js";

const handled = new WeakSet();
const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

function within(root, selector) {
  if (root.matches?.(selector)) return root;
  return root.querySelector?.(selector) ?? null;
}

/** A poll has no event behind it: it must neither take the focus nor repeat itself. */
const isPoll = (detail) => !detail?.requestConfig?.triggeringEvent || detail.requestConfig.triggeringEvent.type === "load";

function announce(root, quiet) {
  const element = within(root, "[data-announce]");
  if (!element || handled.has(element)) return;
  handled.add(element);
  const message = element.dataset.announce;
  if (quiet && message === lastSaid) return;
  say(message, element.dataset.announceTone ?? "");
}

function focus(root) {
  const element = within(root, "[data-focus-after-swap]");
  if (!element || handled.has(element)) return;
  handled.add(element);
  if (!element.matches(FOCUSABLE)) element.tabIndex = -1;
  element.focus({ preventScroll: element.hasAttribute("data-focus-no-scroll") });
}

function onAfterSwap(event) {
  const quiet = isPoll(event.detail);
  announce(event.target, quiet);
  if (!quiet) focus(event.target);
}

function onBeforeSwap(event) {
  const login = document.body.dataset.loginUrl;
  const url = event.detail.xhr?.responseURL;
  // An answer that names its own place is a refusal in words, whatever its status: show it there.
  if (event.detail.xhr?.getResponseHeader("HX-Retarget")) {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  }
  // A session that ended answers with the sign-in page: show it as a page, not inside a fragment.
  if (!login || !url || new URL(url).pathname !== login) return;
  event.detail.shouldSwap = false;
  window.location.reload();
}

function onResponseError(event) {
  const status = event.detail.xhr?.status;
  if (status === 401 || status === 403) say(text("ErrorForbidden"), "danger");
  else if (status === 404) say(text("ErrorMissing"), "danger");
  else if (status === 429) say(text("ErrorBusy"), "danger");
  else say(text("ErrorServer", { status }), "danger");
}

export function start() {
  document.addEventListener("htmx:beforeSwap", onBeforeSwap);
  document.addEventListener("htmx:afterSwap", onAfterSwap);
  document.addEventListener("htmx:responseError", onResponseError);
  document.addEventListener("htmx:sendError", () => say(text("ErrorNetwork"), "danger"));
  document.addEventListener("htmx:timeout", () => say(text("ErrorNetwork"), "danger"));
}
