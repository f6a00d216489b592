import {
  TimeChart, amount, byId, bytes, count, dollars, duration, el, failing, imageCost, meter, money, poll, reasonSeries,
  rows, say, share, spans, themes,
} from "/page/console.js";

const STATES = { ready: "good", paused: "warn", stale: "warn", unreachable: "bad" };
const PAYMENTS = {
  deposit_wei: "Deposit", reserve_wei: "Reserve", outstanding_wei: "Worth of open tickets",
  outstanding_face_value_wei: "If all of them won", credit_wei: "Paid and not worked off",
  paid_in_the_last_hour_wei: "Paid in the last hour",
};

let rate = null;

themes();
const span = spans(() => askHistory());
const charts = {
  requests: new TimeChart(byId("requests"), "bars", short),
  latency: new TimeChart(byId("latency"), "lines", duration),
  spending: new TimeChart(byId("spending"), "bars", (wei) => money(BigInt(Math.round(wei)))),
  refusals: new TimeChart(byId("refusals"), "bars", short),
};
const failed = failing("gateway");
poll(() => "/status", 2, showStatus, failed);
const askHistory = poll(() => `/history?seconds=${span()}`, 5, showHistory, failed);

function short(number) {
  return Number.isInteger(number) ? count(number) : number.toFixed(1);
}

function showStatus(status) {
  rate = status.rate;
  const pill = byId("state");
  pill.className = `pill ${status.serving ? "good" : "bad"}`;
  say("state", status.serving ? "serving" : "no orchestrator is ready");
  say("facts", [status.url, status.network, `up ${duration(status.uptime_seconds)}`, `version ${status.version}`].join(" · "));
  say("in-flight", count(status.in_flight));
  say("waiting", `${count(status.waiting)} wait for a place`);
  const ready = status.orchestrators.filter((one) => one.state === "ready").length;
  byId("ready").replaceChildren(count(ready), el("small", {}, `of ${count(status.orchestrators.length)}`));
  say("ready-note", `${count(status.models.length)} models, ${bytes(status.images.bytes)} of images`);
  rows(byId("orchestrators"), status.orchestrators.flatMap(orchestratorRows));
  showExtras(status);
  showPayments(status.payments);
}

/** What an operator may have switched on. */
function showExtras({ hedges, repeats, spot_checks: checks, access }) {
  const counted = (figures) => Object.entries(figures).map(([name, number]) => `${name} ${count(number)}`).join(", ");
  const { anonymous, auth_webhook: webhook } = access;
  const facts = [
    hedges && ["Late jobs, by whose images were taken", counted(hedges)],
    repeats && ["Answers that can be given again", `${count(repeats.remembered)}, ${count(repeats.waiting)} wait for a run of others`],
    checks && ["Spot checks", counted(checks)],
    anonymous && ["Addresses without a key", count(anonymous.addresses)],
    webhook && ["Service that knows keys", webhook.is_away ? `away: ${webhook.problem}` : `answers; ${count(webhook.known)} keys known`],
  ].filter(Boolean);
  byId("extras").hidden = facts.length === 0;
  byId("extras-facts").replaceChildren(...facts.map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, value))));
}

function orchestratorRows(one) {
  const models = one.models.length ? one.models : [null];
  return models.map((model, index) => {
    const first = index === 0;
    const price = model && model.price !== null ? model.price : null;
    const cost = price === null ? null : imageCost(price);
    const place = `${first ? "" : "more "}${index < models.length - 1 ? "open" : ""}`;
    return el("tr", { class: place },
      el("td", {}, first ? el("span", { class: "uri" }, one.uri) : "", first && one.version ? el("small", {}, one.version) : null),
      el("td", {}, first ? el("span", { class: `dot ${STATES[one.state] || ""}` }, one.state) : ""),
      el("td", { "data-label": "Model" }, model ? model.id : "-", model ? el("small", {}, model.warm ? "warm" : "cold") : null,
        model && model.objection ? el("small", { class: "bad" }, `cannot be paid: ${model.objection}`) : null),
      el("td", { class: "n", "data-label": "Wei a pixel" }, price ?? "-"),
      el("td", { class: "n", "data-label": "1024 × 1024" }, cost === null ? "-" : money(cost), cost === null ? null : el("small", {}, dollars(cost, rate))),
      el("td", { class: "n", "data-label": "Free" }, model ? count(model.free) : "-"),
      el("td", { class: "n", "data-label": "Our jobs" }, first ? count(one.in_flight) : ""),
      el("td", { class: "n", "data-label": "Last answer" }, first ? (one.age_seconds === null ? "never" : `${duration(one.age_seconds)} ago`) : ""),
      el("td", { "data-label": "Standing" }, ...(first ? standing(one) : [])),
    );
  });
}

function standing(one) {
  const found = [one.failures ? `${count(one.failures)} failures in a row` : one.state === "ready" ? "good" : "-"];
  if (one.paused_for_seconds > 0) found.push(el("small", {}, `paused for ${duration(one.paused_for_seconds)}`));
  const why = one.problem || one.last_fault;
  if (why) found.push(el("small", { class: "bad" }, why));
  return found;
}

function showPayments(payments) {
  byId("payments").hidden = payments === null;
  if (payments === null) return;
  say("payments-problem", payments.problem || "");
  const facts = Object.entries(PAYMENTS).filter(([name]) => name in payments).map(([name, title]) =>
    el("div", {}, el("dt", {}, title), el("dd", {}, money(payments[name]), " ", dollars(payments[name], rate))));
  facts.push(el("div", {}, el("dt", {}, "Attempts in doubt"), el("dd", {}, count(payments.in_doubt))));
  byId("payments-facts").replaceChildren(...facts);
}

function showHistory(history) {
  const { good, bad, wei, p50, p99 } = history.whole;
  const asked = good + bad;
  say("delivered", count(good));
  say("delivered-note", asked ? `${share(good, asked)} of ${count(asked)} asked for` : "nothing was asked for");
  say("p50", duration(p50));
  say("p99", `99 % within ${duration(p99)}`);
  const [value, unit] = amount(wei);
  byId("spent").replaceChildren(value, el("small", {}, unit));
  say("spent-note", dollars(wei, rate));
  charts.requests.show(history, [
    { name: "delivered", colour: 0, of: (bin) => bin.good, total: count(good) },
    { name: "refused", colour: 1, of: (bin) => bin.bad, total: count(bad) },
  ], asked ? `${count(good)} delivered, ${count(bad)} refused` : "");
  charts.latency.show(history, [
    { name: "median", colour: 2, of: (bin) => bin.p50, total: duration(p50) },
    { name: "99 %", colour: 3, of: (bin) => bin.p99, total: duration(p99) },
  ], good ? `of delivered requests; half within ${duration(p50)}` : "");
  charts.spending.show(history, [{ name: "spent", colour: 5, of: (bin) => Number(bin.wei), total: money(wei) }], good ? `${money(wei)} for ${count(good)} requests` : "");
  charts.refusals.show(history, reasonSeries(history), bad ? `${share(bad, asked)} of ${count(asked)} requests` : asked ? "none was refused" : "");
  rows(byId("keys"), history.keys.map(keyRow));
}

function keyRow(key) {
  const label = (title) => ({ class: "n", "data-label": title });
  return el("tr", {},
    el("td", {}, el("span", { class: "uri" }, key.name), el("small", {}, key.key_id)),
    el("td", { "data-label": "Team" }, key.team ?? ""),
    el("td", label("Today"), money(key.today_wei), el("small", {}, dollars(key.today_wei, rate))),
    el("td", { "data-label": "Of its day" }, ...budgets(key.today_wei, key.wei_per_day, key.today_usd, key.usd_per_day)),
    el("td", label("This month"), money(key.month_wei), el("small", {}, dollars(key.month_wei, rate))),
    el("td", { "data-label": "Of its month" }, ...budgets(key.month_wei, key.wei_per_month, key.month_usd, key.usd_per_month)),
  );
}

/** What is spent of limits in wei, and in dollars by the rates that held; null is no limit. */
function budgets(wei, weiLimit, usd, usdLimit) {
  const found = [];
  if (usdLimit !== null) found.push(...budget(units(usd), units(usdLimit), `$${usdLimit}`));
  if (weiLimit !== null) found.push(...budget(BigInt(wei), BigInt(weiLimit), money(weiLimit)));
  return found.length ? found : ["no limit"];
}

function budget(spent, limit, called) {
  const part = limit === 0n ? 1 : Number((spent * 1000n) / limit) / 1000;
  const text = `${share(part, 1)} of ${called}`;
  return [text, meter(part, text, part < 0.8 ? 0 : part < 1 ? 3 : 1)];
}

/** A decimal of dollars, exact, in 10**-18 of one. */
function units(text) {
  const [whole, part = ""] = text.split(".");
  return BigInt(whole + part.padEnd(18, "0"));
}
