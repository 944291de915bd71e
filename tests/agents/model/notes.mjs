// What happened, one JSON object a line, in files of $NOTES: the truth for a test.
import { appendFileSync } from "node:fs";

export function note(kind, value) {
  appendFileSync(`${process.env.NOTES}/${kind}.jsonl`, JSON.stringify(value) + "\n");
}

const shown = new Set();

/** What the model was shown of a call: once for each call, however often the agent repeats it. */
export function noteShown(call, result, beside) {
  if (shown.has(call)) return;
  shown.add(call);
  note("shown", { call, result, beside });
}

let last = 0;

/** An id as the vendors form them. */
export function newId(prefix) {
  last += 1;
  return `${prefix}_${String(last).padStart(6, "0")}${Math.random().toString(36).slice(2, 12)}`;
}

export function json(response, value, status = 200, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(value));
}

const asText = (data) => (typeof data === "string" ? data : JSON.stringify(data));

export function events(response, list) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  for (const { name, data } of list) {
    response.write([name ? `event: ${name}\n` : "", "data: ", asText(data), "\n\n"].join(""));
  }
  response.end();
}
