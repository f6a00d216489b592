// Server-sent events of a fetched answer: EventSource cannot send a key.

/** The events in a text that ends between two of them. */
export function parseEvents(text) {
  return text
    .split("\n\n")
    .map((block) => {
      const fields = { event: "message", data: "" };
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
      }
      return fields;
    })
    .filter((fields) => fields.data)
    .map((fields) => ({ name: fields.event, data: JSON.parse(fields.data) }));
}

/** Each event as it arrives. */
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const end = text.lastIndexOf("\n\n");
      if (end < 0) continue;
      yield* parseEvents(text.slice(0, end));
      text = text.slice(end + 2);
    }
  } finally {
    // Whoever stops listening frees the connection.
    reader.cancel().catch(() => {});
  }
}
