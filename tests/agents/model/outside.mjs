// Everything on the far side of the gate, at ports 443 and 80 of $ADDRESS.
import http from "node:http";
import http2 from "node:http2";
import { readFileSync } from "node:fs";
import zlib from "node:zlib";
import { anthropic } from "./anthropic.mjs";
import { gemini } from "./gemini.mjs";
import { mcp } from "./mcp.mjs";
import { json, note } from "./notes.mjs";
import { openai } from "./openai.mjs";
import { forge, page, registry } from "./web.mjs";
import { upgrade } from "./websocket.mjs";

const MODELS = {
  "api.anthropic.com": anthropic,
  "api.openai.com": openai,
  "chatgpt.com": openai,
  "generativelanguage.googleapis.com": gemini,
};
const DECODERS = {
  gzip: zlib.gunzipSync,
  br: zlib.brotliDecompressSync,
  deflate: zlib.inflateSync,
  zstd: zlib.zstdDecompressSync,
};

async function serve(request, response) {
  const host = (request.headers[":authority"] ?? request.headers.host ?? "").replace(/:\d+$/, "");
  const [path] = request.url.split("?");
  const parts = [];
  for await (const part of request) parts.push(part);
  const raw = Buffer.concat(parts);
  const decode = DECODERS[request.headers["content-encoding"]];
  const body = decode ? decode(raw) : raw;
  note("requests", {
    host,
    method: request.method,
    path,
    bytes: raw.length,
    headers: request.headers,
    body: body.subarray(0, 300000).toString(),
  });
  if (MODELS[host]) return MODELS[host](request, response, path, body.toString());
  if (host.endsWith(".git.example.com")) return forge(request, response, path, raw);
  if (host.endsWith(".npm.example.com")) return registry(request, response, path);
  // The registry that agents ask for their own parts has none of them.
  if (host.startsWith("registry.")) return json(response, { error: "not_found" }, 404);
  if (host === "mcp.example.com") return mcp(request, response, body.toString());
  return page(response, host, path);
}

async function answer(request, response) {
  try {
    await serve(request, response);
  } catch (error) {
    console.error(error);
    if (!response.headersSent) response.writeHead(500);
    response.end(String(error));
  }
}

const { ADDRESS, CERTIFICATES } = process.env;
const files = {
  key: readFileSync(`${CERTIFICATES}/origin.key`),
  cert: readFileSync(`${CERTIFICATES}/origin.pem`),
};
const tls = http2.createSecureServer({ ...files, allowHTTP1: true }, answer);
tls.on("upgrade", upgrade);
tls.listen(443, ADDRESS, () =>
  http.createServer(answer).listen(80, ADDRESS, () => console.log("ready")),
);
