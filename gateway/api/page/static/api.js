// The gateway's HTTP API. Addresses are relative, so that the gateway may live under any path.

import { readEvents } from "./events.js";
import { originOf } from "./output.js";

/** What the gateway refused, in its own words. */
export class Refusal extends Error {
  constructor(status, error, retryAfter) {
    super(error.message || `The gateway answered ${status}.`);
    this.status = status;
    this.code = error.code || "";
    this.param = error.param || "";
    this.retryAfter = retryAfter;
  }
}

/** No answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The gateway cannot be reached.");
    this.code = "unreachable";
  }
}

/** What there is to do about a refusal; "" where its own words say it all. */
export function adviceFor(error) {
  const wait = error.retryAfter ? `in ${duration(error.retryAfter)}` : "a little later";
  const known = {
    invalid_api_key: "Check the key: it may be mistyped, revoked or expired.",
    budget_exceeded: "A key with a larger budget helps; nothing was charged.",
    above_rate_limit: "Ask for a smaller picture, or fewer of them.",
    authentication_unavailable: `Try again ${wait}; the gateway cannot tell now whose key this is.`,
    rate_limited: `Try again ${wait}.`,
    no_capacity: `Try again ${wait}; nothing was charged.`,
    orchestrators_failed: `Try again ${wait}, or choose another model; nothing was charged.`,
    deadline_exceeded: "Ask for fewer steps or a smaller picture, or try again; nothing was charged.",
    price_above_cap: "Try again later, or choose another model; nothing was charged.",
    payments_unavailable: `Try again ${wait}; the gateway cannot pay at the moment.`,
    content_policy_violation: "Another prompt or another seed may pass; nothing was charged.",
    model_not_found: "Choose another model.",
    permission_denied: "Ask for what is allowed, or use another key.",
    lora_not_found: "Remove it, or use one of those named.",
    validation_error: "Mend what is named, and send it again.",
    internal_error: "Try again; if it stays, tell the operator.",
    unreachable: "Look whether the gateway runs and the network is up, then try again.",
  };
  return known[error.code] ?? "";
}

function duration(seconds) {
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** 128 random bits. Not `randomUUID`, which plain HTTP does not have. */
export function newRequestId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The body of a request for these parameters; what is null is the model's own. */
export function bodyOf(wanted) {
  const body = { ...wanted, loras: Object.keys(wanted.loras).length ? JSON.stringify(wanted.loras) : "" };
  for (const [name, value] of Object.entries(body)) if (value === null) delete body[name];
  return JSON.stringify(body);
}

export class Gateway {
  /** `keyOf` tells the key, "" for none; `onRate` hears what is left of a limit of requests. */
  constructor(keyOf, onRate) {
    this.keyOf = keyOf;
    this.onRate = onRate;
  }

  async ask(path, options = {}) {
    const key = this.keyOf();
    const headers = { ...(key ? { Authorization: `Bearer ${key}` } : {}), ...options.headers };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers, credentials: "omit", redirect: "error" });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Unreachable();
    }
    const left = answer.headers.get("RateLimit-Remaining");
    if (left !== null) {
      this.onRate({ left, limit: answer.headers.get("RateLimit-Limit"), reset: answer.headers.get("RateLimit-Reset") });
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    throw new Refusal(answer.status, told.error ?? {}, Number(answer.headers.get("Retry-After")) || 0);
  }

  async models() {
    return (await (await this.ask("v1/models")).json()).data;
  }

  async ownKey() {
    return (await this.ask("key")).json();
  }

  /** Have images made; to abort is to cancel. */
  async generate(wanted, id, signal) {
    const headers = { "Content-Type": "application/json", "X-Request-Id": id };
    const answer = await this.ask("text-to-image", { method: "POST", headers, body: bodyOf(wanted), signal });
    return {
      images: (await answer.json()).images,
      fee: answer.headers.get("Limner-Fee"),
      warnings: answer.headers.get("Limner-Warnings") ?? "",
      origin: originOf(answer.headers.get("Cache-Status") ?? ""),
    };
  }

  /** What happens to a request meanwhile. */
  async *watch(id, signal) {
    yield* readEvents(await this.ask(`jobs/${id}/events`, { signal }));
  }
}
