// What stays in the browser: pictures' addresses and parameters, the draft, the theme, and the key if asked to.

const PREFIX = "limner.";
const MOST_RUNS = 60;

/** Storage may be forbidden, full or from another version: the page goes on without it. */
function read(storage, name, otherwise) {
  try {
    const text = storage().getItem(PREFIX + name);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

function write(storage, name, value) {
  try {
    if (value === null) storage().removeItem(PREFIX + name);
    else storage().setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

const here = () => sessionStorage;
const always = () => localStorage;

export const key = {
  get: () => read(here, "key", "") || read(always, "key", ""),
  isKept: () => Boolean(read(always, "key", "")),
  set(value, keep) {
    write(here, "key", value);
    write(always, "key", keep ? value : null);
  },
  forget() {
    write(here, "key", null);
    write(always, "key", null);
  },
};

export const theme = {
  get: () => read(always, "theme", ""),
  set: (value) => write(always, "theme", value || null),
};

export const draft = {
  get: () => read(here, "draft", null),
  set: (fragment) => write(here, "draft", fragment),
};

/** Wei spent from this tab. */
export const spent = {
  get: () => BigInt(read(here, "spent", "0")),
  add: (wei) => write(here, "spent", (spent.get() + wei).toString()),
};

export const history = {
  get() {
    const runs = read(always, "history", []);
    return Array.isArray(runs) ? runs.filter((run) => run?.wanted && Array.isArray(run.images)) : [];
  },
  /** The newest that fit; an image that is its own address is too large to keep. */
  set(runs) {
    let kept = runs.filter((run) => run.images.every((image) => !image.url.startsWith("data:"))).slice(0, MOST_RUNS);
    while (!write(always, "history", kept) && kept.length) kept = kept.slice(0, Math.floor(kept.length / 2));
  },
};
