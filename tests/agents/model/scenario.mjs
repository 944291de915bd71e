// The script that the model follows, and the list of the calls that it asked for.
//
// A scenario is a list of turns. A turn is a list of calls, which the agent makes at once:
//   { "as": "a", "shell": "curl …" }           the shell tool; "background": true has an effect
//     "late": true: its connections come after its end
//   { "as": "b", "fetch": "https://…" }        the tool that fetches a page
//   { "as": "c", "mcp": "remote", "tool": "echo_c", "args": {} }
//   { "as": "d", "agent": "helper" }           a subagent: "agents": { "helper": [turn, …] }
// Each destination of a call has the call's name as its first label, so a host says which call
// reached it. The model keeps no state: a conversation says which turn is next.
import { readFileSync } from "node:fs";
import { note } from "./notes.mjs";

const scenario = JSON.parse(readFileSync(process.env.SCENARIO, "utf8"));
const SHELLS = ["Bash", "bash", "run_shell_command", "exec_command", "shell", "shell_command"];
const FETCHERS = ["WebFetch", "webfetch", "web_fetch"];
const SUBAGENTS = ["Agent", "Task", "task"];

/** What the model answers at turn `at` of a conversation: its words and its calls. */
export function turn(at, prompt, tools, newId) {
  const name = /\bfollow (\w+)/.exec(prompt)?.[1];
  const turns = (scenario.agents?.[name] ?? scenario.turns).map((calls) =>
    calls
      .map((call) => ({ ...translate(call, tools), as: call.as, late: call.late }))
      .filter((call) => call.name),
  );
  const calls = (turns.filter((calls) => calls.length)[at] ?? []).map((call) => ({
    id: newId(),
    ...call,
  }));
  return { text: calls.length ? `Turn ${at}.` : "All turns are done.", calls };
}

/** Writes down what the model asked for. */
export function asked(agent, who, calls) {
  for (const { id, as, late, name, args } of calls) {
    note("asked", { agent, call: id, as, late, tool: name, args, ...who });
  }
}

function translate(call, tools) {
  const first = (names) => names.find((name) => tools.includes(name));
  if (call.shell) return shell(first(SHELLS), call);
  if (call.fetch) return fetcher(first(FETCHERS), call.fetch, tools);
  if (call.agent) {
    const args = {
      description: call.agent,
      prompt: `follow ${call.agent}`,
      subagent_type: "general-purpose",
      ...(isCopilot(tools) ? { agent_type: "general-purpose", name: call.agent, mode: "sync" } : {}),
    };
    return { name: first(SUBAGENTS), args };
  }
  const name = tools.find((tool) => tool.includes(call.mcp) && tool.endsWith(call.tool));
  return { name, args: call.args ?? {} };
}

/** Copilot CLI and Gemini CLI have different tools of one name. */
function isCopilot(tools) {
  return tools.includes("web_fetch") && tools.includes("bash");
}

function shell(name, call) {
  const command = call.shell;
  if (name === "exec_command") return { name, args: { cmd: command, yield_time_ms: 20000 } };
  if (name === "shell") return { name, args: { command: ["bash", "-lc", command] } };
  const background = call.background ? { run_in_background: true } : {};
  return { name, args: { command, description: call.as, ...background } };
}

function fetcher(name, url, tools) {
  if (name === "WebFetch") return { name, args: { url, prompt: "What is there?" } };
  if (name === "web_fetch" && isCopilot(tools)) return { name, args: { url } };
  if (name === "webfetch") return { name, args: { url, format: "text" } };
  return { name, args: { prompt: `What is at ${url}?` } };
}
