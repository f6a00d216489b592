// One picture as large as the window, and the others of its request beside it.

import { byId } from "./dom.js";
import { addressOf } from "./gallery.js";
import { nameOf } from "./output.js";

let run = null;
let index = 0;

function show() {
  const image = run.images[index];
  const picture = byId("viewer-image");
  picture.src = addressOf(image);
  picture.alt = run.wanted.prompt;
  byId("viewer-text").textContent =
    run.images.length > 1 ? `${index + 1} of ${run.images.length}, seed ${image.seed}` : `seed ${image.seed}`;
  const down = byId("viewer-down");
  down.href = addressOf(image);
  down.download = nameOf(image);
  byId("viewer-left").disabled = index === 0;
  byId("viewer-right").disabled = index === run.images.length - 1;
}

function turn(by) {
  index = Math.min(Math.max(index + by, 0), run.images.length - 1);
  show();
}

export function view(shown, at) {
  run = shown;
  index = at;
  show();
  byId("viewer").showModal();
}

export function setUpViewer() {
  const dialog = byId("viewer");
  byId("viewer-left").addEventListener("click", () => turn(-1));
  byId("viewer-right").addEventListener("click", () => turn(1));
  byId("viewer-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", ({ key }) => {
    if (key === "ArrowLeft") turn(-1);
    if (key === "ArrowRight") turn(1);
  });
}
