// <button data-theme-toggle data-js-only> goes round system, light, dark, high contrast, and says which one holds.

import { read, write } from "./store.js";
import { text } from "./text.js";

const ORDER = ["system", "light", "dark", "contrast"];
const WORDS = { system: "ThemeSystem", light: "ThemeLight", dark: "ThemeDark", contrast: "ThemeContrast" };

function current() {
  const saved = read("theme");
  return ORDER.includes(saved) ? saved : "system";
}

function show(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  for (const button of document.querySelectorAll("[data-theme-toggle]")) {
    button.textContent = text(WORDS[theme]);
  }
}

export function start() {
  show(current());
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-theme-toggle]")) return;
    const next = ORDER[(ORDER.indexOf(current()) + 1) % ORDER.length];
    write("theme", next === "system" ? null : next);
    show(next);
  });
}
