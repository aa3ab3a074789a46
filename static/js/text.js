// Words shown by scripts come from the page, where the server has translated them: <body data-text-draft-restored="…">.

/** The text called `name` (camelCase after `text`), with `%(key)s` filled in. */
export function text(name, values = {}) {
  const template = document.body.dataset[`text${name}`] ?? "";
  return template.replace(/%\((\w+)\)s/g, (whole, key) => String(values[key] ?? whole));
}
