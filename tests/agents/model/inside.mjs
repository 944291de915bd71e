// What the gate and its agents have on loopback: name servers, a receiver of OTLP, an MCP server.
import http from "node:http";
import { mcp } from "./mcp.mjs";
import { nameServer } from "./names.mjs";
import { telemetry } from "./telemetry.mjs";

async function answer(request, response) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts).toString();
  if (request.url.startsWith("/mcp")) return mcp(request, response, body);
  if (request.headers["content-type"]?.includes("json")) telemetry(JSON.parse(body));
  response.writeHead(200, { "content-type": "application/json" });
  return response.end("{}");
}

nameServer(53, "programs");
nameServer(5300, "gate", process.env.ADDRESS);
http.createServer(answer).listen(4318, "127.0.0.1", () => console.log("ready"));
