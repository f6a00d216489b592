// Dark or light: as the system has it, until the switch says otherwise.

import { byId, icon } from "./dom.js";
import { theme } from "./keep.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const current = () => theme.get() || (dark.matches ? "dark" : "light");

function show() {
  document.documentElement.dataset.theme = theme.get();
  const other = current() === "dark" ? "light" : "dark";
  const button = byId("theme");
  button.setAttribute("aria-label", `Switch to ${other}`);
  button.replaceChildren(icon(other === "dark" ? "moon" : "sun"));
}

export function setUpTheme() {
  show();
  dark.addEventListener("change", show);
  byId("theme").addEventListener("click", () => {
    theme.set(current() === "dark" ? "light" : "dark");
    show();
  });
}
