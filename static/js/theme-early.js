// Runs before the first paint, so that a chosen theme does not flash. Blocking on purpose, and tiny.
(function () {
  "use strict";
  var root = document.documentElement;
  root.dataset.js = "on";
  try {
    var theme = localStorage.getItem("pld.theme");
    if (theme === "light" || theme === "dark" || theme === "contrast") root.dataset.theme = theme;
    if (localStorage.getItem("pld.keys") === "off") root.dataset.keys = "off";
  } catch (error) {
    // Storage is refused (private window, policy): the system's theme holds.
  }
})();
