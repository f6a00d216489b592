// Elements from values. Text goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element; `on...` attributes are listeners, `true` is an attribute without a value, null is none. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null));
  return made;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon and words. */
export const action = (name, words, onclick, attributes = {}) =>
  el("button", { type: "button", class: "quiet", onclick, ...attributes }, icon(name), el("span", {}, words));

/** Whoever hears the page instead of seeing it is told. */
export function announce(words) {
  byId("news").textContent = words;
}

let fading = 0;

/** A short note for everybody. */
export function toast(words) {
  const note = byId("toast");
  note.textContent = words;
  note.hidden = false;
  announce(words);
  clearTimeout(fading);
  fading = setTimeout(() => (note.hidden = true), 3500);
}
