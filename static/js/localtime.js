// Times are UTC on every page; those that somebody plans or waits for also say the time where the reader is.
export function start(root = document) {
  const zone = Intl.DateTimeFormat().resolvedOptions();
  for (const time of root.querySelectorAll("time[data-local]:not([title])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const style = { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" };
    const words = new Intl.DateTimeFormat(document.documentElement.lang, style).format(at);
    time.title = `${words} ${zone.timeZone}`;
    if (zone.timeZone !== "UTC") time.append(` (${words})`);
  }
}
