// <form data-confirm="Withdraw this ruleset?"> or <button data-confirm="…"> asks first, in <dialog data-confirm-dialog>.
// Without this script the form is sent as it is, so the server's own checks are what protects; this only prevents slips.
// Optional: data-confirm-yes="Withdraw" names the button; data-confirm-danger colours it.

let agreed = null;

const dialogElement = () => document.querySelector("dialog[data-confirm-dialog]");

/** Resolves to true when the person agrees; Escape and Cancel resolve to false. */
function ask(source) {
  const dialog = dialogElement();
  const yes = dialog.querySelector("[data-confirm-yes-button]");
  dialog.querySelector("[data-confirm-text]").textContent = source.dataset.confirm;
  yes.textContent = source.dataset.confirmYes || yes.dataset.default;
  yes.className = source.hasAttribute("data-confirm-danger") ? "btn btn-danger-solid" : "btn btn-primary";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function onSubmit(event) {
  const form = event.target;
  const button = event.submitter;
  const source = [button, form].find((element) => element?.dataset?.confirm);
  if (!source || !dialogElement()) return;
  if (agreed === form) {
    agreed = null;
    return;
  }
  // In the capture phase, so that htmx on the form does not see a submission nobody has agreed to.
  event.preventDefault();
  event.stopImmediatePropagation();
  if (!(await ask(source)) || !form.isConnected) return;
  agreed = form;
  form.requestSubmit(button?.isConnected ? button : undefined);
  agreed = null;
}

export function start() {
  document.addEventListener("submit", onSubmit, true);
}
