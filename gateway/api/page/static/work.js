// Requests under way: a few at a time, each followed by its events until its answer.

import { newRequestId } from "./api.js";

// A browser has six connections to a host, and each request takes two.
const AT_A_TIME = 2;

let numbers = 0;

/** A request and what became of it; `state` is waiting, sent, running, done, failed or cancelled. */
export function newRun(wanted) {
  numbers += 1;
  return {
    id: `${Date.now().toString(36)}-${numbers}`,
    at: Date.now(),
    wanted,
    state: "waiting",
    position: 0,
    done: 0,
    total: 0,
    previews: [],
    images: [],
    fee: null,
    seconds: 0,
    warnings: "",
    origin: "",
    error: null,
  };
}

export const isOver = (run) => ["done", "failed", "cancelled"].includes(run.state);

export class Work {
  /** `onChange` is told of a run each time something of it is new. */
  constructor(gateway, onChange) {
    this.gateway = gateway;
    this.onChange = onChange;
    this.line = [];
    this.running = new Map();
  }

  start(run) {
    this.line.push(run);
    this.next();
  }

  cancel(run) {
    this.line = this.line.filter((other) => other !== run);
    this.running.get(run)?.abort();
    this.change(run, { state: "cancelled" });
  }

  next() {
    while (this.running.size < AT_A_TIME && this.line.length) this.carryOut(this.line.shift());
    this.line.forEach((run, index) => this.change(run, { position: index + 1 }));
  }

  change(run, news) {
    if (run.state === "cancelled") return;
    Object.assign(run, news);
    this.onChange(run);
  }

  async carryOut(run) {
    const abort = new AbortController();
    const watching = new AbortController();
    const id = newRequestId();
    const began = performance.now();
    this.running.set(run, abort);
    this.change(run, { state: "sent", position: 0 });
    const watched = this.follow(run, id, watching.signal);
    try {
      const answer = await this.gateway.generate(run.wanted, id, abort.signal);
      this.change(run, { ...answer, state: "done", seconds: (performance.now() - began) / 1000 });
    } catch (error) {
      const { message, code = "", param = "", retryAfter = 0 } = error;
      if (!abort.signal.aborted) this.change(run, { state: "failed", error: { message, code, param, retryAfter } });
    } finally {
      watching.abort();
      await watched;
      this.running.delete(run);
      this.next();
    }
  }

  /** Progress is worth having, and no reason to fail. */
  async follow(run, id, signal) {
    try {
      for await (const { name, data } of this.gateway.watch(id, signal)) {
        if (isOver(run) || name === "over") return;
        if (name === "queued") this.change(run, { position: data.position });
        if (name === "progress") this.change(run, { state: "running", position: 0, done: data.done_steps, total: data.total_steps });
        if (name === "preview") {
          run.previews[data.image] = `data:image/jpeg;base64,${data.jpeg}`;
          this.change(run, { state: "running" });
        }
      }
    } catch {
      // The answer itself tells what went wrong.
    }
  }
}
