// Times are UTC on every page; those that somebody plans or waits for also say the time where the reader is.
const STYLE = { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" };

export function localWords(at) {
  return new Intl.DateTimeFormat(document.documentElement.lang || undefined, STYLE).format(at);
}

export function start(root = document) {
  const zone = Intl.DateTimeFormat().resolvedOptions();
  for (const time of root.querySelectorAll("time[data-local]:not([title])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const words = localWords(at);
    time.title = `${words} ${zone.timeZone}`;
    if (zone.timeZone !== "UTC") time.append(` (${words})`);
  }
}
