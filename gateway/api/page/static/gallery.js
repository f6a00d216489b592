// The pictures: a card for each request, updated in place while it is under way.

import { adviceFor } from "./api.js";
import { action, announce, byId, el, icon } from "./dom.js";
import { exactWei, moneyText } from "./money.js";
import { FORMATS, nameOf } from "./output.js";
import { isOver } from "./work.js";

/**
 * Where this page finds an image: at its own gateway, whatever name others know that by. Addresses that lead
 * to a bucket end in the same two names, and the page's policy has no other host.
 */
export function addressOf({ url }) {
  const [, names] = (!url.startsWith("data:") && /([^/?]+\/[^/?]+\.[a-z]+)(?:\?|$)/.exec(url)) || [];
  return names ? `stream/${names}` : url;
}

export class Gallery {
  /** `acts`: what the buttons do, each with a run: again, fresh, use, useSeed, share, remove, cancel, view. */
  constructor(acts) {
    this.acts = acts;
    this.cards = new Map();
    this.usdPerEth = null;
  }

  /** Runs in their order, the newest first. */
  setRuns(runs) {
    byId("runs").replaceChildren();
    this.cards.clear();
    for (const run of [...runs].reverse()) this.add(run);
    this.count();
  }

  add(run) {
    const card = el("li", { class: "run", "aria-label": run.wanted.prompt });
    this.cards.set(run.id, { card, shown: "" });
    byId("runs").prepend(card);
    this.update(run);
    this.count();
  }

  remove(run) {
    this.cards.get(run.id)?.card.remove();
    this.cards.delete(run.id);
    this.count();
  }

  count() {
    byId("empty").hidden = this.cards.size > 0;
    byId("clear").hidden = this.cards.size === 0;
  }

  update(run) {
    const entry = this.cards.get(run.id);
    if (!entry) return;
    if (entry.shown !== stage(run)) {
      const { card } = entry;
      const hadFocus = card.contains(document.activeElement);
      entry.shown = stage(run);
      card.dataset.state = run.state;
      card.replaceChildren(...this.parts(run).filter(Boolean));
      // The button that was pressed is gone: the keyboard goes on where it was.
      if (hadFocus) card.querySelector("button, a")?.focus({ preventScroll: true });
    }
    if (!isOver(run)) progress(entry.card, run);
  }

  parts(run) {
    return [
      el("div", { class: "words" }, el("p", { class: "prompt" }, run.wanted.prompt), this.facts(run)),
      run.state === "failed" || run.state === "cancelled" ? null : this.tiles(run),
      isOver(run) ? null : this.underWay(run),
      run.state === "failed" ? failure(run) : null,
      run.state === "cancelled" ? el("p", { class: "muted" }, "Cancelled; nothing was charged.") : null,
      run.warnings ? el("p", { class: "warning" }, icon("alert"), el("span", {}, run.warnings)) : null,
      isOver(run) ? this.actions(run) : null,
    ];
  }

  facts({ wanted, fee, seconds, images, origin }) {
    const list = [
      wanted.model_id,
      `${wanted.width} × ${wanted.height}`,
      wanted.num_inference_steps === null ? null : `${wanted.num_inference_steps} steps`,
      wanted.guidance_scale === null ? null : `guidance ${wanted.guidance_scale}`,
      `seed ${wanted.seed}`,
      ...Object.entries(wanted.loras).map(([name, weight]) => `${name} × ${weight}`),
      wanted.negative_prompt ? `without ${wanted.negative_prompt}` : null,
      (wanted.output_format ?? "png") === "png" ? null : FORMATS[wanted.output_format],
      seconds ? `${seconds.toFixed(1)} s` : null,
      origin || null,
    ];
    const facts = list.filter(Boolean).map((fact) => el("li", {}, fact));
    if (fee !== null && images.length) {
      facts.push(el("li", { class: "fee", title: exactWei(BigInt(fee)) }, moneyText(BigInt(fee), this.usdPerEth)));
    }
    return el("ul", { class: "chips" }, facts);
  }

  tiles(run) {
    const { width, height, num_images_per_prompt: count } = run.wanted;
    const number = run.state === "done" ? run.images.length : count;
    const tiles = el("div", { class: "tiles", "data-count": number });
    for (let index = 0; index < number; index += 1) {
      const tile = el("figure", { class: "tile" });
      tile.style.setProperty("--ratio", width / height);
      if (run.state === "done") tile.append(...this.picture(run, index, tile));
      else tile.append(el("img", { class: "preview", alt: "", hidden: true }));
      tiles.append(tile);
    }
    return tiles;
  }

  picture(run, index, tile) {
    const image = run.images[index];
    const address = addressOf(image);
    const picture = el("img", {
      src: address, alt: run.wanted.prompt, width: run.wanted.width, height: run.wanted.height,
      decoding: "async", loading: "lazy",
      onerror: () => tile.replaceChildren(el("p", { class: "gone" }, "This picture’s time here is over. Run it again: the same seed gives the same picture.")),
    });
    const words = `image ${index + 1} of ${run.images.length}, seed ${image.seed}`;
    const flag = { flagged: "flagged as unsafe", blurred: "blurred as unsafe" }[image.safety];
    return [
      el("button", { type: "button", class: "open", "aria-label": `Look at ${words}`, onclick: () => this.acts.view(run, index) }, picture),
      el("figcaption", {},
        el("button", { type: "button", class: "seed", title: "Use this seed", "aria-label": `Use seed ${image.seed}`, onclick: () => this.acts.useSeed(run, image.seed) }, image.seed),
        flag ? el("span", { class: "flag" }, flag) : null,
        el("a", { class: "quiet square", href: address, download: nameOf(image), "aria-label": `Download ${words}` }, icon("down")),
      ),
    ];
  }

  underWay(run) {
    return el("div", { class: "under-way" },
      el("progress", { "aria-label": "Progress" }),
      el("p", { class: "stage" }),
      action("close", "Cancel", () => this.acts.cancel(run), { class: "quiet cancel" }),
    );
  }

  actions(run) {
    const { acts } = this;
    return el("div", { class: "actions" },
      action("again", run.state === "done" ? "Run again" : "Try again", () => acts.again(run), { title: "The same parameters and the same seed" }),
      action("dice", "New seed", () => acts.fresh(run)),
      action("pen", "Use", () => acts.use(run), { title: "Put these parameters into the form" }),
      action("link", "Share", () => acts.share(run), { title: "Copy a link to these parameters" }),
      action("bin", "Delete", () => acts.remove(run)),
    );
  }
}

/** What decides how a card is built; all else is changed in place. */
const stage = (run) => (isOver(run) ? run.state : "under way");

function stageText(run) {
  if (run.state === "waiting") return "Waits for your other requests";
  if (run.position > 0) return `In line: place ${run.position}`;
  if (run.state === "sent") return "Sent";
  return run.total ? `Step ${run.done} of ${run.total}` : "Painting";
}

function progress(card, run) {
  const bar = card.querySelector("progress");
  if (run.total) {
    bar.max = run.total;
    bar.value = run.done;
  }
  const words = stageText(run);
  const told = card.querySelector(".stage");
  if (told.textContent !== words) {
    told.textContent = words;
    if (run.state !== "running") announce(words);
  }
  card.querySelectorAll("img.preview").forEach((preview, index) => {
    if (run.previews[index] && preview.src !== run.previews[index]) {
      preview.src = run.previews[index];
      preview.hidden = false;
    }
  });
}

function failure({ error }) {
  const advice = adviceFor(error);
  return el("div", { class: "problem", role: "alert" },
    el("p", { class: "reason" }, icon("alert"), el("span", {}, error.message)),
    advice ? el("p", {}, advice) : null,
  );
}
