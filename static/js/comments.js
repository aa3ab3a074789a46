// Words marked in [data-rule-text] go into the open comment form ([data-comment-quote], [data-comment-start]); threads
// ([data-comment-from], [data-comment-to], in characters) show their words in the text by the browser's own highlights.

const chars = (string) => [...string].length;

/** The marked words and where they begin in the rule's text, or null. */
function marked() {
  const selection = document.getSelection();
  const rule = document.querySelector("[data-rule-text]");
  if (!rule || !selection || selection.isCollapsed || !selection.rangeCount) return null;
  const range = selection.getRangeAt(0);
  if (!rule.contains(range.commonAncestorContainer)) return null;
  const before = document.createRange();
  before.setStart(rule, 0);
  before.setEnd(range.startContainer, range.startOffset);
  const words = range.toString();
  const lead = words.length - words.trimStart().length;
  return { words: words.trim(), start: chars(before.toString()) + lead };
}

function take() {
  const found = marked();
  const quote = document.querySelector("[data-comment-quote]");
  if (!found?.words || !quote) return;
  quote.value = found.words;
  quote.form.querySelector("[data-comment-start]").value = String(found.start);
}

/** The range of characters `from` to `to` within `root`. */
function rangeOf(root, from, to) {
  const range = document.createRange();
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  let seen = 0;
  let begun = false;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const symbols = [...node.data];
    const offset = (at) => symbols.slice(0, at - seen).join("").length;
    if (!begun && from < seen + symbols.length) {
      range.setStart(node, offset(from));
      begun = true;
    }
    if (begun && to <= seen + symbols.length) {
      range.setEnd(node, offset(to));
      return range;
    }
    seen += symbols.length;
  }
  return null;
}

function highlight(active = null) {
  if (!globalThis.CSS?.highlights) return;
  const rule = document.querySelector("[data-rule-text]");
  const ranges = (threads) => threads.map((one) => rangeOf(rule, Number(one.dataset.commentFrom), Number(one.dataset.commentTo))).filter(Boolean);
  const threads = rule ? [...document.querySelectorAll("[data-comment-from]")] : [];
  CSS.highlights.set("commented", new Highlight(...ranges(threads)));
  CSS.highlights.set("commented-now", new Highlight(...ranges(threads.filter((one) => one === active))));
}

export function start() {
  highlight();
  document.addEventListener("selectionchange", take);
  document.addEventListener("htmx:afterSettle", () => highlight());
  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, (event) => highlight(event.target.closest?.("[data-comment-from]")));
  }
}
