// The files that pictures come in, and how their answer came about.

/** By the API's names. */
export const FORMATS = { png: "PNG", jpeg: "JPEG", webp: "WebP" };

/** Those that this gateway makes, the usual one first. */
export const offered = document.documentElement.dataset.formats.split(" ");

/** What to call a file. Addresses end in what it is; an image that is its own address begins with it. */
export function nameOf({ url, seed }) {
  const [, told] = /^data:image\/([a-z]+)/.exec(url) ?? /\.([a-z]+)(?:\?|$)/.exec(url) ?? [];
  return `limner-${seed}.${{ jpeg: "jpg", jpg: "jpg", webp: "webp" }[told] ?? "png"}`;
}

/** Where images came from that were not made for this request (`Cache-Status`); "" where they were. */
export function originOf(status) {
  if (/^Limner; hit/.test(status)) return "made before";
  return /; collapsed/.test(status) ? "made together with an equal request" : "";
}
