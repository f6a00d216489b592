// Parameters in the fragment of a link, which no server is sent. The key is never among them.

const TEXTS = ["prompt", "negative_prompt", "model_id", "output_format"];
const NUMBERS = ["width", "height", "num_inference_steps", "guidance_scale", "num_images_per_prompt", "seed"];
const FLAGS = ["safety_check", "deterministic", "embed_metadata", "embed_prompt"];
const LONGEST = 20_000;
const LORA = /^[A-Za-z0-9._/-]{1,128}$/;

/** The fragment, without "#". */
export function fragmentOf(wanted) {
  const fields = new URLSearchParams();
  for (const name of [...TEXTS, ...NUMBERS]) {
    const value = wanted[name];
    if (value !== null && value !== undefined && value !== "") fields.set(name, value);
  }
  for (const name of FLAGS) if (typeof wanted[name] === "boolean") fields.set(name, wanted[name] ? "1" : "0");
  for (const [name, weight] of Object.entries(wanted.loras ?? {})) fields.append("lora", `${name}*${weight}`);
  return fields.toString();
}

/** What a fragment says, as far as it says something of use; null where it is none of ours. */
export function wantedIn(fragment) {
  const text = fragment.replace(/^#/, "");
  if (!text.includes("=") || text.length > LONGEST) return null;
  const fields = new URLSearchParams(text);
  const found = {};
  for (const name of TEXTS) if (fields.has(name)) found[name] = fields.get(name);
  for (const name of NUMBERS) {
    const value = Number(fields.get(name));
    if (fields.get(name) && Number.isFinite(value)) found[name] = value;
  }
  for (const name of FLAGS) if (fields.has(name)) found[name] = fields.get(name) === "1";
  found.loras = {};
  for (const one of fields.getAll("lora")) {
    const star = one.lastIndexOf("*");
    const weight = Number(one.slice(star + 1));
    if (star > 0 && LORA.test(one.slice(0, star)) && weight >= 0 && weight < 100) {
      found.loras[one.slice(0, star)] = weight;
    }
  }
  return "prompt" in found ? found : null;
}

/** A link that others open to find the same parameters. */
export const linkTo = (wanted) => `${location.origin}${location.pathname}#${fragmentOf(wanted)}`;
