import {
  TimeChart, amount, byId, bytes, count, dollars, duration, el, failing, imageCost, meter, money, poll, reasonSeries,
  rows, say, share, spans, themes,
} from "/page/console.js";

const STATUSES = { OK: ["good", "working"], LOADING: ["warn", "loading models"], ERROR: ["bad", "cannot work"] };
const STATES = { ready: "good", cold: "", loading: "warn", failed: "bad" };
const TICKETS = {
  pending: "Waiting or under way", redeemed: "Redeemed", written_off: "Written off", gas: "Gas paid",
};

let rate = null;

themes();
const span = spans(() => askHistory());
const charts = {
  jobs: new TimeChart(byId("jobs"), "bars", short),
  earnings: new TimeChart(byId("earnings"), "bars", (wei) => money(BigInt(Math.round(wei)))),
  times: new TimeChart(byId("times"), "lines", duration),
  refusals: new TimeChart(byId("refusals"), "bars", short),
};
const failed = failing("node");
poll(() => "/status", 2, showStatus, failed);
const askHistory = poll(() => `/history?seconds=${span()}`, 5, showHistory, failed);

function short(number) {
  return Number.isInteger(number) ? count(number) : number.toFixed(1);
}

function showStatus(status) {
  rate = status.rate;
  const [kind, words] = STATUSES[status.status] || ["bad", status.status];
  byId("state").className = `pill ${kind}`;
  say("state", words);
  say("facts", [status.service_uri, status.address, `version ${status.version}`].join(" · "));
  const sum = (name) => status.models.reduce((total, one) => total + one[name], 0);
  say("running", count(sum("running")));
  say("waiting", `${count(sum("waiting"))} in the queue, ${count(sum("free"))} places free`);
  const warm = status.models.filter((one) => one.warm).length;
  byId("warm").replaceChildren(count(warm), el("small", {}, `of ${count(status.models.length)}`));
  say("safety", `safety: ${status.safety.checker}, ${status.safety.status}`);
  rows(byId("models"), status.models.map(modelRow));
  showTickets(status.tickets);
}

function modelRow(one) {
  const number = (title) => ({ class: "n", "data-label": title });
  const cost = one.price === null ? null : imageCost(one.price);
  const state = one.status === "loading" ? `loading, ${share(one.progress, 1)}` : one.status;
  return el("tr", {},
    el("td", {}, el("span", { class: "uri" }, one.id)),
    el("td", {}, el("span", { class: `dot ${STATES[one.status] ?? ""}` }, state), one.detail ? el("small", {}, one.detail) : null,
      one.refused_pixels ? el("small", { class: "bad" }, `refuses ${count(one.refused_pixels)} pixels and more: out of memory`) : null),
    el("td", number("Wei a pixel"), one.price ?? "-", one.listed_price && one.listed_price !== one.price ? el("small", {}, one.listed_price) : null),
    el("td", number("1024 × 1024"), cost === null ? "-" : money(cost), cost === null ? null : el("small", {}, dollars(cost, rate))),
    el("td", number("A step of it"), one.seconds_per_pixel_step ? duration(one.seconds_per_pixel_step * 1048576) : "-"),
    el("td", number("Running"), count(one.running)),
    el("td", number("Waiting"), count(one.waiting)),
    el("td", number("Free"), `${count(one.free)} of ${count(one.slots)}`),
    el("td", number("Memory"), one.bytes ? bytes(one.bytes) : "-"),
  );
}

function showTickets(tickets) {
  byId("tickets").hidden = tickets === null;
  if (tickets === null) return;
  say("tickets-problem", tickets.problem || (tickets.late ? `${count(tickets.late)} are about to expire unredeemed` : ""));
  const facts = Object.entries(TICKETS).filter(([name]) => name in tickets.total).map(([name, title]) =>
    el("div", {}, el("dt", {}, title), el("dd", {}, money(tickets.total[name]), " ", dollars(tickets.total[name], rate))));
  for (const [reason, number] of Object.entries(tickets.waiting)) {
    facts.push(el("div", {}, el("dt", {}, `Waiting: ${reason}`), el("dd", {}, count(number))));
  }
  byId("tickets-facts").replaceChildren(...facts);
}

function showHistory(history) {
  const { good, bad, wei, p50, p99 } = history.whole;
  const asked = good + bad;
  say("delivered", count(good));
  say("delivered-note", asked ? `${share(good, asked)} of ${count(asked)} asked for` : "nothing was asked for");
  const [value, unit] = amount(wei);
  byId("earned").replaceChildren(value, el("small", {}, unit));
  say("earned-note", dollars(wei, rate));
  say("p50", duration(p50));
  say("p99", `99 % within ${duration(p99)}`);
  charts.jobs.show(history, [
    { name: "delivered", colour: 0, of: (bin) => bin.good, total: count(good) },
    { name: "refused", colour: 1, of: (bin) => bin.bad, total: count(bad) },
  ], asked ? `${count(good)} delivered, ${count(bad)} refused` : "");
  charts.earnings.show(history, [{ name: "earned", colour: 3, of: (bin) => Number(bin.wei), total: money(wei) }], good ? `${money(wei)} for ${count(good)} jobs` : "");
  charts.times.show(history, [
    { name: "median", colour: 2, of: (bin) => bin.p50, total: duration(p50) },
    { name: "99 %", colour: 4, of: (bin) => bin.p99, total: duration(p99) },
  ], good ? `queue and engine together; half within ${duration(p50)}` : "");
  charts.refusals.show(history, reasonSeries(history), bad ? `${share(bad, asked)} of ${count(asked)} requests` : asked ? "none was refused" : "");
  showGpus(history.gpus);
}

function showGpus(gpus) {
  const section = byId("gpus");
  section.querySelector("p.none").hidden = gpus.length > 0;
  section.querySelector(".gpus").replaceChildren(...gpus.map((gpu, index) => {
    const use = `${share(gpu.utilization, 1)} busy`;
    const held = `${bytes(gpu.memory_used_bytes)} of ${bytes(gpu.memory_bytes)} in use`;
    return el("div", {}, el("h3", {}, `${index}: ${gpu.name}`),
      el("p", { class: "sub" }, use), meter(gpu.utilization, use, 2),
      el("p", { class: "sub" }, held), meter(gpu.memory_used_bytes / gpu.memory_bytes, held, 5));
  }));
}
