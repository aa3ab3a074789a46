// <article data-visible-url="..."> sends how long it was in view when it leaves: a card left open behind another window was
// not read. The server keeps its own time as well; this one only tells it what it cannot know.

let shown = null;
let since = 0;
let total = 0;

function pauseClock() {
  if (since) total += performance.now() - since;
  since = 0;
}

function send() {
  pauseClock();
  if (shown && total >= 500) {
    const body = new FormData();
    body.set("ms", String(Math.round(total)));
    const headers = JSON.parse(document.body.getAttribute("hx-headers") ?? "{}");
    fetch(shown, { method: "POST", body, headers, keepalive: true }).catch(() => {});
  }
  total = 0;
}

function look() {
  const url = document.querySelector("[data-visible-url]")?.dataset.visibleUrl ?? null;
  shown = url;
  since = url && document.visibilityState === "visible" ? performance.now() : 0;
}

export function start() {
  look();
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") send();
    else if (shown) since = performance.now();
  });
  // Before the decision itself, so that it finds the time on record.
  document.addEventListener("submit", send, true);
  document.addEventListener("htmx:beforeRequest", send);
  document.addEventListener("htmx:afterSettle", look);
}
