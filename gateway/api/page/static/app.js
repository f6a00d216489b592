// The page, put together.

import { Gateway } from "./api.js";
import { announce, byId, el, toast } from "./dom.js";
import { AskForm, drawSeed } from "./form.js";
import { Gallery } from "./gallery.js";
import { draft, history, spent } from "./keep.js";
import { askForKey, isKeyOptional, keyOf, setUpKey } from "./key.js";
import { budgetText, exactWei, moneyTexts } from "./money.js";
import { fragmentOf, linkTo, wantedIn } from "./share.js";
import { setUpTheme } from "./theme.js";
import { setUpViewer, view } from "./viewer.js";
import { Work, isOver, newRun } from "./work.js";

const REFRESH = 15_000;
const TITLE = document.title;
const EXAMPLES = {
  "limner/shapes": ["a small red circle on a blue background", "yellow star, green background", "purple moon on white"],
  "": ["a lighthouse in a storm, oil on canvas", "a fox asleep in the snow, woodcut", "an orange on a blue plate, still life"],
};

let runs = history.get();
let ownKey = null;
let left = null;
let isRefused = false;

const gateway = new Gateway(keyOf, (told) => {
  left = told;
  showPurse();
});
const form = new AskForm((wanted) => draft.set(fragmentOf(wanted)));
const gallery = new Gallery({
  again: (run) => begin({ ...run.wanted }),
  fresh: (run) => begin({ ...run.wanted, seed: drawSeed(run.wanted.num_images_per_prompt) }),
  use: (run) => use(run.wanted),
  useSeed: (run, seed) => use({ ...run.wanted, seed, num_images_per_prompt: 1 }),
  share,
  remove,
  cancel: (run) => work.cancel(run),
  view,
});
const work = new Work(gateway, changed);

// Requests

function begin(wanted) {
  const run = newRun(wanted);
  runs.unshift(run);
  gallery.add(run);
  announce("Sent");
  work.start(run);
  gallery.cards.get(run.id).card.scrollIntoView({ block: "nearest" });
}

function changed(run) {
  gallery.update(run);
  showTitle();
  if (!isOver(run)) return;
  if (run.state === "done") {
    spent.add(BigInt(run.fee ?? 0));
    announce(`Done: ${run.images.length} ${run.images.length === 1 ? "picture" : "pictures"}`);
  } else if (run.state === "cancelled") {
    announce("Cancelled");
  } else if (run.error.code === "invalid_api_key") {
    askForKey(run.error.message);
  }
  save();
  if (ownKey) refresh();
}

/** How far it is, for whoever looks at another tab meanwhile. */
function showTitle() {
  const underWay = runs.filter((run) => !isOver(run));
  const total = underWay.reduce((sum, run) => sum + run.total, 0);
  const done = underWay.reduce((sum, run) => sum + run.done, 0);
  document.title = underWay.length ? `${total ? Math.floor((100 * done) / total) : 0} % · Limner` : TITLE;
}

function save() {
  const kept = ({ id, at, wanted, images, fee, seconds, warnings, origin }) => ({ id, at, wanted, images, fee, seconds, warnings, origin, state: "done", previews: [] });
  history.set(runs.filter((run) => run.state === "done").map(kept));
}

function remove(run) {
  runs = runs.filter((other) => other !== run);
  gallery.remove(run);
  save();
  announce("Deleted");
  byId("prompt").focus();
}

function use(wanted) {
  form.fill(wanted, { lock: true });
  byId("prompt").focus();
  toast("These parameters are in the form now");
}

async function share(run) {
  const link = linkTo(run.wanted);
  try {
    await navigator.clipboard.writeText(link);
    toast("Link copied");
  } catch {
    // Plain HTTP has no clipboard.
    byId("link-field").value = link;
    byId("link-dialog").showModal();
    byId("link-field").select();
  }
}

// What the gateway offers and the key may spend

async function refresh() {
  try {
    const [models, told] = await Promise.all([gateway.models(), gateway.ownKey()]);
    ownKey = told;
    gallery.usdPerEth = told.usd_per_eth;
    form.setModels(models, { usdPerEth: told.usd_per_eth });
    showExamples();
    isRefused = false;
  } catch (error) {
    byId("model-facts").textContent = error.message;
    if (error.code === "invalid_api_key") {
      isRefused = true;
      ownKey = null;
      if (keyOf()) askForKey(error.message);
    }
  }
  showPurse();
}

function showPurse() {
  const usd = ownKey?.usd_per_eth;
  const part = (label, wei) => {
    const [first, second] = moneyTexts(wei, usd);
    const ether = second ? el("span", { class: "ether" }, ` (${second})`) : null;
    return el("span", { title: exactWei(wei) }, el("span", { class: "label" }, label), ` ${first}`, ether);
  };
  const parts = spent.get() ? [part("Spent here", spent.get())] : [];
  if (ownKey?.left_wei) parts.push(part("Left", BigInt(ownKey.left_wei)));
  if (ownKey?.left_usd) {
    const exact = { title: `$${ownKey.left_usd}` };
    parts.push(el("span", exact, el("span", { class: "label" }, "Left"), ` ${budgetText(ownKey.left_usd)}`));
  }
  if (left) parts.push(el("span", {}, el("span", { class: "label" }, "Requests left"), ` ${left.left} of ${left.limit}`));
  byId("purse").replaceChildren(...(keyOf() || ownKey ? parts : []));
}

function showExamples() {
  const examples = EXAMPLES[byId("model").value] ?? EXAMPLES[""];
  byId("examples").replaceChildren(
    ...examples.map((words) =>
      el("button", { type: "button", class: "quiet", onclick: () => {
        byId("prompt").value = words;
        form.show();
        byId("prompt").focus();
      } }, words),
    ),
  );
}

// The start

function takeLink() {
  const wanted = wantedIn(location.hash);
  if (!wanted) return false;
  form.fill(wanted, { lock: true });
  // The address is the page's again: to load it anew must not undo what is typed meanwhile.
  window.history.replaceState(null, "", location.pathname + location.search);
  return true;
}

if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const one of document.querySelectorAll("kbd")) one.textContent = one.textContent.replace("Ctrl", "⌘");
}
setUpTheme();
setUpViewer();
setUpKey(refresh);
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (form.isGood()) begin(form.take());
});
byId("model").addEventListener("change", showExamples);
byId("clear").addEventListener("click", () => {
  for (const run of runs.filter((one) => isOver(one))) gallery.remove(run);
  runs = runs.filter((run) => !isOver(run));
  save();
  byId("prompt").focus();
});
addEventListener("hashchange", takeLink);
addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, textarea, select, dialog")) {
    event.preventDefault();
    byId("prompt").focus();
  }
});
if (!takeLink()) {
  const before = wantedIn(draft.get() ?? "");
  if (before) form.fill(before, { lock: false });
}
form.show();
gallery.setRuns(runs);
showExamples();
const mayAsk = () => isKeyOptional || Boolean(keyOf());
if (mayAsk()) refresh();
else askForKey();
setInterval(() => document.visibilityState === "visible" && mayAsk() && !isRefused && refresh(), REFRESH);
