// Makes one call with the official client and prints what a program using it would see, as one JSON line.
// stdin: {"url": gateway, "key": bearer, "request": fields as the client names them}
import { readFileSync } from "node:fs";
import { Livepeer } from "@livepeer/ai";

const { url, key, request } = JSON.parse(readFileSync(0, "utf8"));
const livepeer = new Livepeer({ httpBearer: key, serverURL: url });

let seen;
try {
  const result = await livepeer.generate.textToImage(request);
  seen = { status: result.statusCode, images: result.imageResponse.images };
} catch (error) {
  seen = {
    error: error.name,
    status: error.statusCode ?? error.rawResponse?.status ?? null,
    detail: error.detail ?? null,
    body: error.body ?? null,
  };
}
console.log(JSON.stringify(seen));
