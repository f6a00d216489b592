// The key: asked for once, kept in this tab, or on this device if its owner says so.

import { byId } from "./dom.js";
import { key } from "./keep.js";

export const keyOf = () => key.get();

/** Whether the gateway serves those without a key. */
export const isKeyOptional = document.documentElement.dataset.key === "optional";

/** Ask for it; `problem` says why. */
export function askForKey(problem = "") {
  const dialog = byId("key-dialog");
  byId("key-optional").hidden = !isKeyOptional;
  byId("key-problem").textContent = problem;
  byId("key-problem").hidden = !problem;
  byId("key-field").value = key.get();
  byId("key-keep").checked = key.isKept();
  byId("key-forget").hidden = !key.get();
  if (!dialog.open) dialog.showModal();
  byId("key-field").select();
}

/** `onChange` is called when there is another key, or none. */
export function setUpKey(onChange) {
  byId("key").addEventListener("click", () => askForKey());
  byId("key-cancel").addEventListener("click", () => {
    byId("key-dialog").close();
    // Some gateways serve those without a key, too.
    if (!key.get()) onChange();
  });
  byId("key-forget").addEventListener("click", () => {
    key.forget();
    byId("key-field").value = "";
    byId("key-dialog").close();
    onChange();
  });
  byId("key-form").addEventListener("submit", () => {
    key.set(byId("key-field").value.trim(), byId("key-keep").checked);
    byId("key-field").value = "";
    onChange();
  });
}
