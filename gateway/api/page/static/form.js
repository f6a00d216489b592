// The form: what is wanted, within the bounds of the chosen model.

import { byId, el, icon } from "./dom.js";
import { factsOf, inOrder, optionText, secondsOf, secondsText, stateOf } from "./models.js";
import { exactWei, feeOf, moneyTexts } from "./money.js";
import { FORMATS, offered } from "./output.js";
import { RATIOS, SCALES, fitSide, presetOf, sizeOf } from "./sizes.js";

const LARGEST_SEED = 2 ** 32 - 1;
const ANY_LIMITS = {
  size_multiple: 8, min_side: 64, max_width: 1024, max_height: 1024, max_steps: 100,
  max_images: 4, max_prompt_chars: 2000, max_guidance: 30, max_loras: 0,
};

export function drawSeed(count) {
  const [drawn] = crypto.getRandomValues(new Uint32Array(1));
  return Math.min(drawn, LARGEST_SEED - count + 1);
}

export class AskForm {
  constructor(onChange) {
    this.models = [];
    this.usdPerEth = null;
    this.onChange = onChange;
    this.form = byId("ask");
    this.drawShapes();
    this.drawFormats();
    this.listen();
    this.bound();
  }

  get model() {
    return this.models.find((model) => model.id === byId("model").value);
  }

  get limits() {
    return this.model?.limner?.limits ?? ANY_LIMITS;
  }

  // What it holds

  /** The parameters as they stand; an empty seed is null. */
  read() {
    const seed = byId("seed").value;
    return {
      prompt: byId("prompt").value.trim(),
      negative_prompt: byId("negative").value.trim(),
      model_id: byId("model").value,
      width: Number(byId("width").value),
      height: Number(byId("height").value),
      num_inference_steps: byId("steps-auto").checked ? null : Number(byId("steps").value),
      guidance_scale: byId("guidance-auto").checked ? null : Number(byId("guidance").value),
      num_images_per_prompt: Number(byId("count").value),
      seed: seed === "" ? null : Number(seed),
      loras: this.readLoras(),
      safety_check: byId("safety").checked,
      deterministic: byId("deterministic").checked,
      output_format: this.chosen("format"),
      embed_metadata: byId("embed").checked,
      embed_prompt: byId("embed").checked && byId("embed-prompt").checked,
    };
  }

  /** Parameters from elsewhere; what they do not say stays. `lock` keeps their seed for the next request. */
  fill(wanted, { lock }) {
    if (wanted.prompt !== undefined) byId("prompt").value = wanted.prompt;
    if (wanted.negative_prompt !== undefined || wanted.prompt !== undefined) {
      byId("negative").value = wanted.negative_prompt ?? "";
    }
    if (wanted.model_id) this.choose(wanted.model_id);
    byId("seed").value = wanted.seed ?? "";
    this.setLock(lock && wanted.seed !== null && wanted.seed !== undefined);
    if (wanted.safety_check !== undefined) byId("safety").checked = wanted.safety_check;
    if (wanted.deterministic !== undefined) byId("deterministic").checked = wanted.deterministic;
    this.fillOutput(wanted);
    this.fillBounded(wanted);
    // The bounds of a model that is not known yet may be wider.
    this.pending = this.models.length ? null : wanted;
  }

  fillBounded(wanted) {
    this.bound();
    if (wanted.width && wanted.height) this.setSize(wanted.width, wanted.height);
    this.setAuto("steps", wanted.num_inference_steps ?? null);
    this.setAuto("guidance", wanted.guidance_scale ?? null);
    if (wanted.num_images_per_prompt) byId("count").value = wanted.num_images_per_prompt;
    byId("lora-rows").replaceChildren();
    for (const [name, weight] of Object.entries(wanted.loras ?? {})) this.addLora(name, weight);
    this.show();
  }

  fillOutput({ output_format: format, embed_metadata: embed, embed_prompt: prompt }) {
    if (offered.includes(format)) byId(`format-${format}`).checked = true;
    if (embed !== undefined) byId("embed").checked = embed;
    if (prompt !== undefined) byId("embed-prompt").checked = prompt;
  }

  /** What to send: with a seed drawn now, unless one is kept. */
  take() {
    const wanted = this.read();
    if (!this.isLocked || wanted.seed === null) {
      wanted.seed = drawSeed(wanted.num_images_per_prompt);
      byId("seed").value = wanted.seed;
    }
    wanted.seed = Math.min(wanted.seed, LARGEST_SEED - wanted.num_images_per_prompt + 1);
    return wanted;
  }

  /** Whether it can be sent; the browser points at what cannot. */
  isGood() {
    const prompt = byId("prompt");
    prompt.setCustomValidity(prompt.value.trim() ? "" : "Say what you want to see.");
    return this.form.reportValidity();
  }

  // Models

  setModels(models, { usdPerEth }) {
    this.models = inOrder(models);
    this.usdPerEth = usdPerEth;
    const select = byId("model");
    const chosen = select.value || this.wish || this.models.find((model) => model.limner?.default)?.id;
    select.replaceChildren(
      ...this.models.map((model) => el("option", { value: model.id }, optionText(model))),
    );
    this.choose(this.wish ?? chosen);
    if (this.pending && models.length) {
      this.fillBounded(this.pending);
      this.pending = null;
    }
    this.bound();
    this.markPreset();
    this.show();
  }

  /** A model of a link may be known only later. */
  choose(id) {
    const select = byId("model");
    const isKnown = this.models.some((model) => model.id === id);
    if (isKnown) select.value = id;
    else if (select.selectedIndex < 0 && this.models.length) select.selectedIndex = 0;
    this.wish = isKnown ? undefined : id;
  }

  /** Bring every control within the model's bounds. */
  bound() {
    const limits = this.limits;
    byId("prompt").maxLength = byId("negative").maxLength = limits.max_prompt_chars;
    for (const [name, most] of [["width", limits.max_width], ["height", limits.max_height]]) {
      const side = byId(name);
      side.step = limits.size_multiple;
      side.min = fitSide(0, most, limits);
      side.max = fitSide(most, most, limits);
      if (side.value) side.value = fitSide(side.value, most, limits);
    }
    if (!byId("width").value) this.setSize(...sizeOf(1, 1, 1, limits));
    byId("steps").max = limits.max_steps;
    byId("guidance").max = limits.max_guidance;
    byId("count").max = limits.max_images;
    byId("loras").hidden = limits.max_loras === 0;
    byId("lora-names").replaceChildren(
      ...(this.model?.limner?.loras ?? []).map((name) => el("option", { value: name })),
    );
  }

  // Size

  drawShapes() {
    byId("ratios").append(
      ...RATIOS.map(([name, across, down]) => {
        const frame = el("span", { class: "frame", "aria-hidden": "true" });
        frame.style.aspectRatio = `${across} / ${down}`;
        frame.style.width = `${Math.round(22 * Math.sqrt(across / down) * (across < down ? 0.8 : 1))}px`;
        const input = el("input", { type: "radio", name: "ratio", value: name });
        return el("label", {}, input, frame, el("span", {}, name));
      }),
    );
    byId("scales").append(
      ...SCALES.map(([name, words]) => {
        const input = el("input", { type: "radio", name: "scale", value: name, "aria-label": words });
        return el("label", { title: words }, input, el("span", {}, name));
      }),
    );
  }

  chosen(name) {
    return this.form.querySelector(`input[name="${name}"]:checked`)?.value;
  }

  applyPreset() {
    const [, across, down] = RATIOS.find(([name]) => name === this.chosen("ratio")) ?? RATIOS[0];
    const [, , scale] = SCALES.find(([name]) => name === this.chosen("scale")) ?? SCALES[2];
    this.setSize(...sizeOf(across, down, scale, this.limits));
  }

  setSize(width, height) {
    byId("width").value = fitSide(width, this.limits.max_width, this.limits);
    byId("height").value = fitSide(height, this.limits.max_height, this.limits);
    this.markPreset();
  }

  markPreset() {
    const { width, height } = this.read();
    const [ratio, scale] = presetOf(width, height, this.limits) ?? [];
    for (const input of this.form.querySelectorAll('input[name="ratio"]')) input.checked = input.value === ratio;
    for (const input of this.form.querySelectorAll('input[name="scale"]')) input.checked = input.value === scale;
  }

  drawFormats() {
    const [usual] = offered;
    byId("formats").append(
      ...offered.map((name) => {
        const input = el("input", { type: "radio", name: "format", id: `format-${name}`, value: name, checked: name === usual });
        return el("label", {}, input, el("span", {}, FORMATS[name]));
      }),
    );
    byId("formats").hidden = offered.length < 2;
  }

  // Steps, guidance, seed, LoRAs

  setAuto(name, value) {
    byId(`${name}-auto`).checked = value === null;
    if (value !== null) byId(name).value = value;
  }

  get isLocked() {
    return byId("lock").getAttribute("aria-pressed") === "true";
  }

  setLock(locked) {
    byId("lock").setAttribute("aria-pressed", locked);
    byId("lock").replaceChildren(icon(locked ? "lock" : "unlock"));
  }

  readLoras() {
    const found = {};
    for (const row of byId("lora-rows").children) {
      const [name, weight] = row.querySelectorAll("input");
      if (name.value.trim()) found[name.value.trim()] = Number(weight.value);
    }
    return found;
  }

  addLora(name = "", weight = 1) {
    const rows = byId("lora-rows");
    if (rows.children.length >= this.limits.max_loras) return;
    const changed = () => this.show();
    const field = el("input", {
      type: "text", list: "lora-names", value: name, placeholder: "name", "aria-label": "LoRA",
      pattern: "[A-Za-z0-9._\\/\\-]{1,128}", maxlength: 128, oninput: changed,
    });
    const strength = el("input", {
      type: "number", min: 0, max: 99, step: 0.05, value: weight, "aria-label": "Strength", oninput: changed,
    });
    const remove = el("button", {
      type: "button", class: "quiet square", "aria-label": "Remove this LoRA",
      onclick: () => {
        row.remove();
        this.show();
        byId("lora-add").focus();
      },
    }, icon("close"));
    const row = el("div", { class: "joined" }, field, strength, remove);
    rows.append(row);
    this.show();
    if (!name) field.focus();
  }

  // Events and what is shown

  listen() {
    const on = (id, event, listener) => byId(id).addEventListener(event, listener);
    on("model", "change", () => {
      this.wish = undefined;
      this.bound();
      this.markPreset();
    });
    byId("shapes").addEventListener("change", ({ target }) => {
      if (target.type === "radio") this.applyPreset();
      else this.setSize(byId("width").value, byId("height").value);
    });
    on("swap", "click", () => {
      this.setSize(byId("height").value, byId("width").value);
      this.show();
    });
    for (const name of ["steps", "guidance"]) on(name, "input", () => (byId(`${name}-auto`).checked = false));
    on("dice", "click", () => {
      byId("seed").value = drawSeed(Number(byId("count").value));
      this.show();
    });
    on("lock", "click", () => {
      if (!byId("seed").value) byId("seed").value = drawSeed(Number(byId("count").value));
      this.setLock(!this.isLocked);
      this.show();
    });
    on("seed", "input", () => this.setLock(byId("seed").value !== ""));
    on("lora-add", "click", () => this.addLora());
    this.form.addEventListener("input", () => this.show());
    this.form.addEventListener("change", () => this.show());
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.form.requestSubmit(byId("go"));
      }
    });
    on("prompt", "input", () => byId("prompt").setCustomValidity(""));
  }

  show() {
    const wanted = this.read();
    for (const [name, value] of [["steps", wanted.num_inference_steps], ["guidance", wanted.guidance_scale]]) {
      byId(`${name}-shown`).textContent = value ?? "";
      byId(name).classList.toggle("idle", value === null);
    }
    byId("embed-prompt").disabled = !wanted.embed_metadata;
    byId("count-shown").textContent = wanted.num_images_per_prompt;
    byId("lora-add").hidden = byId("lora-rows").children.length >= this.limits.max_loras;
    this.showModel();
    this.showCost(wanted);
    this.onChange(wanted);
  }

  showModel() {
    const facts = byId("model-facts");
    const told = this.model?.limner;
    if (!told) return facts.replaceChildren();
    facts.replaceChildren(el("span", { class: `dot ${stateOf(told)}` }), factsOf(told));
    return undefined;
  }

  showCost(wanted) {
    const told = this.model?.limner;
    const cost = byId("cost");
    if (!told?.wei_per_pixel) return cost.replaceChildren();
    const pixels = wanted.width * wanted.height * wanted.num_images_per_prompt;
    const fee = feeOf(pixels, told.wei_per_pixel);
    const seconds = secondsOf(this.model, wanted);
    const [first, second] = moneyTexts(fee, this.usdPerEth);
    const parts = [el("strong", {}, first)];
    if (second) parts.push(el("span", {}, second));
    if (seconds !== null) parts.push(el("span", {}, secondsText(seconds)));
    cost.replaceChildren(el("span", { class: "unseen" }, "This will cost"), ...parts);
    cost.title = exactWei(fee);
    return undefined;
  }
}
