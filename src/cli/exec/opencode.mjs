// Reports the tool calls of opencode to tidegate, and tells the model what was refused in them.
// Written by tidegate: by `tidegate exec` at each start, or by `tidegate init opencode`.
import { spawn } from "node:child_process";

const PROGRAM = "@PROGRAM@";
// A call waits for its hook; the hook itself gives up earlier.
const HOOK_TIMEOUT_MS = 10_000;
// Calls that failed and whose refusals the model still reads.
const MAX_FAILED = 256;

/** Runs the hook; what the model is to read, or "". */
function report(event) {
  return new Promise((resolve) => {
    const hook = spawn(PROGRAM, ["session", "hook", "--agent", "opencode"], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    const timer = setTimeout(() => hook.kill(), HOOK_TIMEOUT_MS);
    const end = (text) => {
      clearTimeout(timer);
      resolve(text);
    };
    let answer = "";
    hook.on("error", () => end(""));
    hook.stdin.on("error", () => {});
    hook.stdout.on("data", (data) => (answer += data));
    hook.on("close", () => {
      try {
        end(JSON.parse(answer).hookSpecificOutput?.additionalContext ?? "");
      } catch {
        end("");
      }
    });
    hook.stdin.end(JSON.stringify(event));
  });
}

export const Tidegate = async () => {
  const parents = new Map();
  const started = new Map();
  const inputs = new Map();
  const failed = new Map();

  const rootOf = (id) => {
    while (parents.has(id)) id = parents.get(id);
    return id;
  };
  // The session of a subagent is a part of the session that started it.
  const about = (name, sessionID) => {
    const session = rootOf(sessionID);
    const agent = session === sessionID ? {} : { agent_id: sessionID };
    return { hook_event_name: name, session_id: session, cwd: process.cwd(), ...agent };
  };
  const start = (sessionID) => {
    const session = rootOf(sessionID);
    if (!started.has(session))
      started.set(session, report({ ...about("SessionStart", session), source: "startup" }));
    return started.get(session);
  };
  const call = (name, { tool, sessionID, callID }, args) => {
    const { command, url } = args ?? {};
    const about_call = { tool_name: tool, tool_use_id: callID, tool_input: { command, url } };
    return report({ ...about(name, sessionID), ...about_call });
  };

  return {
    event: async ({ event }) => {
      const { info, part } = event.properties ?? {};
      if (event.type === "session.created" && info?.parentID) parents.set(info.id, info.parentID);
      // A call that failed ends without `tool.execute.after`.
      if (part?.type === "tool" && part.state.status === "error" && inputs.has(part.callID)) {
        const { input, args } = inputs.get(part.callID);
        inputs.delete(part.callID);
        if (failed.size >= MAX_FAILED) failed.delete(failed.keys().next().value);
        failed.set(part.callID, call("PostToolUseFailure", input, args));
      }
    },
    "tool.execute.before": async (input, { args }) => {
      await start(input.sessionID);
      inputs.set(input.callID, { input, args });
      await call("PreToolUse", input, args);
    },
    "tool.execute.after": async (input, output) => {
      if (!inputs.delete(input.callID)) return;
      const text = await call("PostToolUse", input, input.args);
      if (text && typeof output.output === "string") output.output += `\n\n${text}`;
    },
    "experimental.chat.system.transform": async ({ sessionID }, output) => {
      if (!sessionID) return;
      const text = await start(sessionID);
      if (text) output.system.push(text);
    },
    "experimental.chat.messages.transform": async (_, { messages }) => {
      for (const part of messages.flatMap(({ parts }) => parts)) {
        const text = part.type === "tool" && (await failed.get(part.callID));
        if (text && part.state.status === "error") part.state.error += `\n\n${text}`;
      }
    },
  };
};
