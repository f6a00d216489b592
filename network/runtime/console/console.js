// What the operator's pages of both roles have in common: elements, amounts, charts, polling.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8;
/** Where a chart has lines across, from bottom to top. */
const LEVELS = [0, 0.5, 1];

/** An element; strings among the children are text, never markup. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Sets text only where it changed: what a screen reader was told once is not told again. */
export function say(id, text) {
  const place = byId(id);
  if (place.textContent !== text) place.textContent = text;
}

// Amounts

const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const whole = new Intl.NumberFormat("en");

export const count = (number) => whole.format(number);

/** Exact wei, as text, in the unit that reads best: ["1.25", "ETH"]. */
export function amount(weiText) {
  const wei = BigInt(weiText);
  if (wei === 0n) return ["0", "wei"];
  if (wei >= 10n ** 15n) return [digits.format(Number(wei / 10n ** 9n) / 1e9), "ETH"];
  if (wei >= 10n ** 6n) return [digits.format(Number(wei / 1000n) / 1e6), "gwei"];
  return [whole.format(wei), "wei"];
}

export const money = (weiText) => amount(weiText).join(" ");

/** In dollars, where the program knows what an ETH costs; "" otherwise. */
export function dollars(weiText, rate) {
  if (BigInt(weiText) === 0n || !rate || rate.currency !== "USD" || !rate.per_eth) return "";
  const [above, below = "1"] = String(rate.per_eth).split("/");
  const value = (Number(BigInt(weiText)) / 1e18) * (Number(above) / Number(below));
  return `$${value < 0.01 ? digits.format(value) : value.toFixed(2)}`;
}

/** A price, which may be written "7/3", for one image of 1024 x 1024, as wei text. */
export function imageCost(priceText) {
  const [number, below = "1"] = priceText.split("/");
  const [units, part = ""] = number.split(".");
  const above = BigInt(units + part) * 1048576n;
  const under = BigInt(below) * 10n ** BigInt(part.length);
  return String((above + under - 1n) / under);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "-";
  if (seconds < 1) return `${digits.format(Math.round(seconds * 1000))} ms`;
  if (seconds < 100) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = number > 0 ? Math.min(Math.floor(Math.log2(number) / 10), 4) : 0;
  return `${Number((number / 1024 ** step).toPrecision(3))} ${units[step]}`;
}

export const share = (part, all) => (all ? `${Number(((100 * part) / all).toFixed(1))} %` : "-");

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const exact = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

// Charts

/**
 * A chart of bins over time in a `figure` with `h2`, `.sub`, `svg` and `ul.legend`. `series` are
 * `{name, of, colour}`, where `of(bin)` is a number or null. "bars" are stacked, "lines" are not.
 * Arrow keys and the pointer move a cursor, whose figures are told below the title.
 */
export class TimeChart {
  constructor(figure, kind, format) {
    this.svg = figure.querySelector("svg");
    this.sub = figure.querySelector(".sub");
    this.legend = figure.querySelector("ul.legend");
    this.title = figure.querySelector("h2").textContent;
    this.kind = kind;
    this.format = format;
    this.cursor = null;
    this.history = null;
    fill(this.svg, { tabindex: 0, role: "img" }, []);
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.move(null));
    this.svg.addEventListener("blur", () => this.move(null));
    new ResizeObserver(() => this.history && this.draw()).observe(this.svg);
  }

  show(history, series, summary) {
    Object.assign(this, { history, series, summary });
    this.bins = new Map(history.bins.map((bin) => [bin.at, bin]));
    this.slots = (history.until - history.since) / history.bin_seconds;
    this.draw();
  }

  at = (slot) => this.history.since + slot * this.history.bin_seconds;

  values = (slot) => {
    const bin = this.bins.get(this.at(slot));
    return this.series.map((one) => (bin ? one.of(bin) : null));
  };

  draw() {
    const width = this.svg.clientWidth || 430;
    const height = 180;
    const most = ceiling(Math.max(...[...this.bins.values()].map((bin) => this.peak(bin)), 0));
    const widest = Math.max(...LEVELS.map((part) => this.level(most * part).length));
    const box = { left: 14 + 6.4 * widest, right: width - 6, top: 8, bottom: height - 22 };
    const x = (slot) => box.left + ((box.right - box.left) * slot) / this.slots;
    const y = (value) => box.bottom - ((box.bottom - box.top) * value) / most;
    Object.assign(this, { x });
    const parts = [...this.grid(box, most, y)];
    parts.push(...(this.kind === "bars" ? this.bars(x, y) : this.lines(x, y)));
    if (!this.bins.size) {
      parts.push(svg("text", { class: "empty", x: (box.left + box.right) / 2, y: height / 2, "text-anchor": "middle" }, "nothing yet"));
    }
    this.line = svg("line", { class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden" });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...parts, this.line);
    this.svg.setAttribute("aria-label", `${this.title}: ${this.summary || "nothing yet"}. Arrow keys read it bin by bin.`);
    this.legend.replaceChildren(...this.series.map((one) => el("li", { class: `c${one.colour}` }, one.name, one.total ? el("b", {}, one.total) : null)));
    this.tell();
  }

  level = (value) => (value ? this.format(value) : "0");

  peak(bin) {
    const values = this.series.map((one) => one.of(bin) || 0);
    return this.kind === "bars" ? values.reduce((sum, value) => sum + value, 0) : Math.max(...values, 0);
  }

  *grid(box, most, y) {
    for (const part of LEVELS) {
      const level = y(most * part);
      yield svg("line", { class: "grid", x1: box.left, x2: box.right, y1: level, y2: level });
      yield svg("text", { class: "axis", x: box.left - 6, y: level + 4, "text-anchor": "end" }, this.level(most * part));
    }
    for (const part of [0, 0.25, 0.5, 0.75, 1]) {
      const moment = this.history.since + (this.history.until - this.history.since) * part;
      const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
      const place = box.left + (box.right - box.left) * part;
      yield svg("text", { class: "axis", x: place, y: box.bottom + 16, "text-anchor": anchor }, clock.format(moment * 1000));
    }
  }

  *bars(x, y) {
    const wide = Math.max(x(1) - x(0) - 1.5, 1.5);
    for (let slot = 0; slot < this.slots; slot += 1) {
      let below = 0;
      for (const [index, value] of this.values(slot).entries()) {
        if (!value) continue;
        const top = y(below + value);
        const high = Math.max(y(below) - top, 1);
        yield svg("rect", { class: `bar c${this.series[index].colour}`, x: x(slot) + 0.75, y: top, width: wide, height: high, rx: Math.min(2, wide / 2) });
        below += value;
      }
    }
  }

  *lines(x, y) {
    for (const [index, one] of this.series.entries()) {
      let path = "";
      let last = null;
      for (let slot = 0; slot < this.slots; slot += 1) {
        const value = this.values(slot)[index];
        if (value === null || value === undefined) continue;
        const [px, py] = [x(slot + 0.5), y(value)];
        path += `${last !== null && slot - last <= 4 ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`;
        yield svg("circle", { class: `spot c${one.colour}`, cx: px, cy: py, r: 2.2 });
        last = slot;
      }
      if (path) yield svg("path", { class: `line c${one.colour}`, d: path });
    }
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.move(null);
    if (!step || !this.history) return;
    event.preventDefault();
    const filled = [...this.bins.keys()].map((at) => (at - this.history.since) / this.history.bin_seconds).sort((a, b) => a - b);
    const here = this.cursor === null ? (step > 0 ? -1 : this.slots) : this.cursor;
    const ahead = step > 0 ? filled.filter((slot) => slot > here)[0] : filled.filter((slot) => slot < here).at(-1);
    if (ahead !== undefined) this.move(ahead);
  }

  point(event) {
    if (!this.history) return;
    const box = this.svg.getBoundingClientRect();
    const slot = Math.floor(((event.clientX - box.left - this.x(0)) / (this.x(this.slots) - this.x(0))) * this.slots);
    this.move(slot >= 0 && slot < this.slots ? slot : null);
  }

  move(slot) {
    this.cursor = slot;
    if (this.history) this.tell();
  }

  tell() {
    const slot = this.cursor;
    this.line.setAttribute("visibility", slot === null ? "hidden" : "visible");
    let text = this.summary || "";
    if (slot !== null) {
      const place = this.x(slot + 0.5);
      fill(this.line, { x1: place, x2: place }, []);
      const told = this.values(slot).map((value, index) => (value ? `${this.series[index].name} ${this.format(value)}` : null));
      text = `${exact.format(this.at(slot) * 1000)}: ${told.filter(Boolean).join(", ") || "nothing"}`;
    }
    if (this.sub.textContent !== text) this.sub.textContent = text;
  }
}

/** The least round number that is not below. */
function ceiling(value) {
  if (value <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * unit).find((step) => step >= value * 0.999);
}

/** Series for reasons, the most frequent first, each with its count. */
export function reasonSeries(history) {
  const names = Object.keys(history.whole.reasons);
  const shown = names.slice(0, COLOURS - 1);
  const rest = names.slice(COLOURS - 1);
  const order = [1, 3, 2, 4, 5, 6, 7];
  const series = shown.map((name, index) => ({
    name: name.replaceAll("_", " "),
    colour: order[index],
    of: (bin) => bin.reasons[name] || 0,
    total: count(history.whole.reasons[name]),
  }));
  if (rest.length) {
    const sum = (reasons) => rest.reduce((total, name) => total + (reasons[name] || 0), 0);
    series.push({ name: "others", colour: 8, of: (bin) => sum(bin.reasons), total: count(sum(history.whole.reasons)) });
  }
  return series;
}

/** A bar from 0 to 1. */
export function meter(part, label, colour = 0) {
  const held = Math.min(Math.max(part, 0), 1);
  return svg(
    "svg",
    { class: `meter c${colour}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("rect", { class: "track", width: 100, height: 6 }),
    svg("rect", { class: "fill", width: 100 * held, height: 6 }),
  );
}

/** Rows into a table; without any, the words of its `p.none` stand there instead. */
export function rows(section, found) {
  section.querySelector("tbody").replaceChildren(...found);
  section.querySelector(".scroll").hidden = !found.length;
  section.querySelector("p.none").hidden = found.length > 0;
}

// Life

/** Asks again and again while the page is seen; `failed(seconds)` after answers stay away. */
export function poll(address, seconds, told, failed) {
  let timer = 0;
  let since = null;
  let number = 0;
  async function ask() {
    clearTimeout(timer);
    const mine = (number += 1);
    try {
      const response = await fetch(address(), { signal: AbortSignal.timeout(8000), cache: "no-store" });
      if (!response.ok) throw new Error(String(response.status));
      const value = await response.json();
      if (mine !== number) return; // another was asked meanwhile
      since = null;
      failed(null);
      told(value);
    } catch {
      if (mine !== number) return;
      since ??= Date.now();
      failed((Date.now() - since) / 1000);
    }
    if (!document.hidden) timer = setTimeout(ask, seconds * 1000);
  }
  document.addEventListener("visibilitychange", () => !document.hidden && ask());
  ask();
  return ask;
}

/** A banner says so while nothing answers. */
export function failing(what) {
  const banner = byId("banner");
  return (seconds) => {
    banner.hidden = seconds === null;
    if (seconds !== null) banner.textContent = `The ${what} does not answer. What stands here is old; it is asked again.`;
  };
}

/** The radio buttons of `fieldset.spans`; answers what tells the chosen span in seconds. */
export function spans(changed) {
  const fieldset = document.querySelector("fieldset.spans");
  fieldset.addEventListener("change", changed);
  return () => Number(fieldset.querySelector("input:checked").value);
}

/** Light or dark as the system has it, until the button says otherwise. */
export function themes() {
  const button = document.querySelector("button.theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  function apply() {
    const theme = localStorage.getItem("theme") || (system.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    button.textContent = theme === "dark" ? "☀" : "☾";
    button.setAttribute("aria-label", theme === "dark" ? "Light colours" : "Dark colours");
  }
  button.addEventListener("click", () => {
    localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
