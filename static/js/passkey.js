// Passkeys. A form with data-passkey-form holds a hidden field "passkey" for the browser's answer.
// <button data-passkey-create="URL"> asks URL what to make; data-passkey-get has its question in data-passkey-options;
// data-passkey-sign asks the ceremony's data-passkey-question with the whole form, so that the answer is for this act alone.

import { text } from "./text.js";

const toBytes = (value) => Uint8Array.from(atob(value.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const toText = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const csrf = () => JSON.parse(document.body.getAttribute("hx-headers") ?? "{}")["X-CSRFToken"] ?? "";

function decoded(options) {
  const list = (credentials) => (credentials ?? []).map((one) => ({ ...one, id: toBytes(one.id) }));
  const made = { ...options, challenge: toBytes(options.challenge) };
  if (options.user) made.user = { ...options.user, id: toBytes(options.user.id) };
  if (options.allowCredentials) made.allowCredentials = list(options.allowCredentials);
  if (options.excludeCredentials) made.excludeCredentials = list(options.excludeCredentials);
  return made;
}

function encoded(credential) {
  const from = credential.response;
  const response = { clientDataJSON: toText(from.clientDataJSON) };
  if (from.attestationObject) {
    response.attestationObject = toText(from.attestationObject);
    response.transports = from.getTransports?.() ?? [];
  } else {
    response.authenticatorData = toText(from.authenticatorData);
    response.signature = toText(from.signature);
    if (from.userHandle) response.userHandle = toText(from.userHandle);
  }
  return JSON.stringify({
    id: credential.id,
    rawId: toText(credential.rawId),
    type: credential.type,
    clientExtensionResults: {},
    response,
  });
}

async function ask(url, body) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "X-CSRFToken": csrf(), Accept: "application/json" },
    body,
    redirect: "error",
  });
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.json();
}

function field(form, name) {
  return form.querySelector(`input[name="${name}"]`);
}

async function answer(button, form) {
  if (button.dataset.passkeyCreate !== undefined) {
    const options = await ask(button.dataset.passkeyCreate);
    field(form, "passkey").value = encoded(await navigator.credentials.create({ publicKey: decoded(options) }));
  } else if (button.dataset.passkeyGet !== undefined) {
    const options = JSON.parse(button.dataset.passkeyOptions);
    field(form, "passkey").value = encoded(await navigator.credentials.get({ publicKey: decoded(options) }));
  } else {
    const url = button.closest("[data-passkey-question]").dataset.passkeyQuestion;
    const asked = await ask(url, new URLSearchParams(withoutSecrets(form)));
    const credential = await navigator.credentials.get({ publicKey: decoded(asked.options) });
    field(form, "ceremony").value = asked.ceremony;
    field(form, "passkey").value = encoded(credential);
  }
}

/** The question needs to know the act, not the password. */
function withoutSecrets(form) {
  const data = new FormData(form);
  for (const name of ["password", "code", "passkey"]) data.delete(name);
  return data;
}

async function onClick(event) {
  const button = event.target.closest?.("[data-passkey-create], [data-passkey-get], [data-passkey-sign]");
  if (!button) return;
  event.preventDefault();
  const form = button.closest("form");
  const status = form.querySelector("[data-passkey-status]");
  if (button.dataset.passkeyGet === undefined && !form.reportValidity()) return;
  status.textContent = text("PasskeyWait");
  button.disabled = true;
  try {
    await answer(button, form);
  } catch (error) {
    // The person closed the browser's dialogue, or the device has no such passkey: both are NotAllowedError.
    status.textContent = text(error.name === "InvalidStateError" ? "PasskeyKnown" : "PasskeyFailed");
    button.disabled = false;
    return;
  }
  status.textContent = "";
  form.submit();
}

export function start() {
  if (!window.PublicKeyCredential) {
    for (const button of document.querySelectorAll("[data-passkey-create], [data-passkey-get], [data-passkey-sign]")) {
      button.hidden = true;
    }
    return;
  }
  document.addEventListener("click", onClick);
}
