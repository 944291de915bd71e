// A server of the Model Context Protocol: by HTTP inside the model, and as a program on standard
// input and output (`node mcp.mjs`). `echo_*` answers; `reach_*` fetches the URL of its arguments.
import { execFile } from "node:child_process";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { json, newId, note } from "./notes.mjs";

const NAMES = ["echo_a", "echo_b", "echo_c", "echo_d", "reach_a", "reach_b", "secret_a"];
const schema = {
  type: "object",
  properties: { url: { type: "string" }, text: { type: "string" } },
};

/** The result of one request of JSON-RPC. */
async function result({ method, params }) {
  switch (method) {
    case "initialize":
      return {
        protocolVersion: params.protocolVersion,
        capabilities: { tools: {} },
        serverInfo: { name: "scripted", version: "1" },
      };
    case "tools/list":
      return { tools: NAMES.map((name) => ({ name, description: name, inputSchema: schema })) };
    case "tools/call":
      return { content: [{ type: "text", text: await call(params) }] };
    default:
      return {};
  }
}

async function call({ name, arguments: given = {} }) {
  if (!name.startsWith("reach_")) return `${name} answers`;
  return new Promise((resolve) => {
    execFile("curl", ["-sS", "--max-time", "20", given.url], (error, stdout, stderr) =>
      resolve(stdout + stderr),
    );
  });
}

export async function mcp(request, response, body) {
  if (request.method !== "POST") return json(response, {}, 405);
  const message = JSON.parse(body);
  note("mcp", { method: message.method, tool: message.params?.name, meta: message.params?._meta });
  if (message.id === undefined) return response.writeHead(202).end();
  const headers = message.method === "initialize" ? { "mcp-session-id": newId("mcp") } : {};
  return json(
    response,
    { jsonrpc: "2.0", id: message.id, result: await result(message) },
    200,
    headers,
  );
}

async function onStandardInput() {
  for await (const line of createInterface({ input: process.stdin })) {
    const message = JSON.parse(line);
    if (message.id === undefined) continue;
    process.stdout.write(
      JSON.stringify({ jsonrpc: "2.0", id: message.id, result: await result(message) }) + "\n",
    );
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await onStandardInput();
