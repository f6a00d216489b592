// Makes calls with the official client and prints what a program using it would see, as one JSON line.
// stdin: {"url": gateway, "key": bearer, "call": "generate" | "models" | "stream", "request": fields}
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const { url, key, call, request } = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });

const calls = {
  async generate() {
    const { data } = await client.images.generate(request);
    return { images: data.map(({ url = null, b64_json = null }) => ({ url, b64_json })) };
  },
  async models() {
    const listed = [];
    for await (const model of client.models.list()) listed.push(model.id);
    return { models: listed, first: (await client.models.retrieve(listed[0])).id };
  },
  async stream() {
    const events = [];
    for await (const event of await client.images.generate({ ...request, stream: true })) {
      events.push({ type: event.type, bytes: Buffer.from(event.b64_json, "base64").length });
    }
    return { events };
  },
};

let seen;
try {
  seen = await calls[call]();
} catch (error) {
  seen = {
    error: error.constructor.name,
    status: error.status ?? null,
    code: error.code ?? null,
    param: error.param ?? null,
    message: error.message,
  };
}
console.log(JSON.stringify(seen));
