// What the gateway tells of its models, in words and in order.

// Livepeer's default, which nodes take for "not chosen".
const USUAL_STEPS = 50;

/** Those that can be used at once come first, the quickest before the others. */
export function inOrder(models) {
  const rank = ({ limner = {} }) => (limner.available ? 0 : 2) + (limner.warm ? 0 : 1);
  const pace = ({ limner = {} }) => limner.seconds_per_pixel_step ?? Infinity;
  return [...models].sort((a, b) => rank(a) - rank(b) || pace(a) - pace(b) || (a.id < b.id ? -1 : 1));
}

/** Seconds that a request is likely to take; null where nobody measured. */
export function secondsOf(model, wanted) {
  const { overhead_seconds: overhead, seconds_per_pixel_step: pace } = model?.limner ?? {};
  if (pace === null || pace === undefined) return null;
  const pixels = wanted.width * wanted.height * wanted.num_images_per_prompt;
  return overhead + pixels * (wanted.num_inference_steps ?? USUAL_STEPS) * pace;
}

export function secondsText(seconds) {
  if (seconds < 1) return "under a second";
  return seconds < 90 ? `about ${Math.round(seconds)} s` : `about ${Math.round(seconds / 60)} min`;
}

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

export function stateOf(told) {
  if (!told.available) return told.reason === "no free place" ? "busy" : "away";
  return told.warm ? "ready" : "cold";
}

export function optionText({ id, limner }) {
  if (!limner) return id;
  return { ready: id, cold: `${id} (not loaded)`, busy: `${id} (busy)`, away: `${id} (${limner.reason})` }[stateOf(limner)];
}

/** How a request would fare now. */
export function factsOf(told) {
  return {
    ready: `ready at ${count(told.orchestrators, "node")}, ${count(told.free, "free place")}`,
    cold: "has to be loaded first",
    busy: "busy: a request waits for a free place",
    away: `nobody takes it now: ${told.reason}`,
  }[stateOf(told)];
}
