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

const isText = (value) => typeof value === "string";
const isAmount = (value) => isText(value) && /^[0-9]+$/.test(value);
const isTable = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Whether the gallery can show it, whichever version of the page wrote it down. */
function isRun(run) {
  const { wanted, images, fee = null, seconds = 0 } = isTable(run) ? run : {};
  return (
    isText(run?.id) && isTable(wanted) && isText(wanted.prompt) && isTable(wanted.loras) && typeof seconds === "number" &&
    Array.isArray(images) && images.every((image) => isText(image?.url)) && (fee === null || isAmount(fee))
  );
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
  get() {
    const fragment = read(here, "draft", null);
    return isText(fragment) ? fragment : null;
  },
  set: (fragment) => write(here, "draft", fragment),
};

/** Wei spent from this tab. */
export const spent = {
  get() {
    const wei = read(here, "spent", "0");
    return isAmount(wei) ? BigInt(wei) : 0n;
  },
  add: (wei) => write(here, "spent", (spent.get() + wei).toString()),
};

export const history = {
  get() {
    const runs = read(always, "history", []);
    return Array.isArray(runs) ? runs.filter(isRun) : [];
  },
  /** The newest that fit; an image that is its own address is too large to keep. */
  set(runs) {
    let kept = runs.filter((run) => run.images.every((image) => !image.url.startsWith("data:"))).slice(0, MOST_RUNS);
    while (!write(always, "history", kept) && kept.length) kept = kept.slice(0, Math.floor(kept.length / 2));
  },
};
