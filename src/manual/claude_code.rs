//! Claude Code: every flow tied to its session and tool call.
//!
//! `tidegate init claude-code` shows what it changes in the settings, and writes with `--write`
//! (`--managed`: for the machine, with `allowManagedHooksOnly`; `--project`: for a repository). The
//! earlier file is kept beside it.
//!
//! - **Launched** (`tidegate exec`, or `eval "$(tidegate session start --repo . --env)"` and then
//!   `claude`): the process of the agent has a token (`TIDEGATE_TOKEN`), so its own flows and its
//!   HTTP hooks are known. Write the settings with `--launched`: the launcher sets the proxy.
//! - **By itself**: the hook at the session's start registers it at the control socket
//!   (`TIDEGATE_CONTROL`), and the commands of the agent have its token. HTTP hooks need a token in
//!   the agent's own environment (`allowedEnvVars`); without one they are answered 401, and flows
//!   carry the session but no tool call.
//!
//! `tidegate session hook` is the command for `SessionStart`, `CwdChanged` and `SessionEnd`. It
//! writes to `CLAUDE_ENV_FILE`: each command of the Bash tool gets a span of its own (in the trace
//! of `TRACEPARENT`, where there is one), which begins with the process id of its shell. By that a
//! gate on the same host tells parallel commands apart; elsewhere it goes by which calls are open. A
//! hook that fails says so and stops nothing; commands then use the proxy without a session.
//!
//! The gate takes `PreToolUse`, `PostToolUse` and `PostToolUseFailure` at
//! `POST /v1/hooks/claude-code`, from the session's own token or the one that it descends from; the
//! token of a command cannot report for its agent. What was refused during a call is told to the agent
//! when the call ends, in words of closed lists and canonical names. All of it labels records; none
//! of it grants anything.
//!
//! `tidegate.call.trust` says how far the report of the call is trusted. It is `verified` where both hold:
//!
//! - The report came from the agent's own process: the process that `exec` started, by its id and its
//!   start time, runs the executable that it was started with, and it alone holds the connection.
//!   A script counts as its interpreter (`#!/usr/bin/env node`: the `node` of the PATH). An agent that a
//!   wrapper replaces (`exec` in a shell script) is another program: its reports are `asserted`.
//! - The flow came from a process below the shell that the agent itself started for the call, or from
//!   the agent's process (`WebFetch`). A process left running in the background is `asserted`.
//!
//! It is `asserted` in every other case: any process of the session has its token and can invent a
//! report. Command hooks (`tidegate session hook`), MCP servers and every session of `tidegate run` are
//! among them. A made-up report neither ends nor replaces a call that the agent reported. A process
//! that can trace the agent (`ptrace`), and code that runs in the agent, can report as the agent.
//!
//! An MCP server on standard input and output keeps the environment that it was started with. To
//! give it a channel, start it through a shell: `sh -c 'eval "$(tidegate env --channel mcp)"; exec
//! SERVER'`, which needs `TIDEGATE_TOKEN` in the agent's environment.
//!
//! # Where TLS is inspected
//!
//! - **Trust**: `tidegate exec` and `tidegate env --config FILE` set `NODE_EXTRA_CA_CERTS`, which
//!   Claude Code adds to its own roots at start. It also takes the system's roots
//!   (`CLAUDE_CODE_CERT_STORE=bundled,system` is what it does by itself; the npm package needs Node 22.15
//!   for them), so `tidegate ca install` is enough where that was not set to `bundled`. Agents in the
//!   background inherit from whichever shell started the first: put variables in the `env` of the
//!   settings. Claude Code in a jail or container needs them in there.
//! - **The model API** may stay a tunnel. Inspected
//!   (`inspect = ["model-api"]`), its paths are told apart: `/v1/messages` calls, `/v1/files` writes,
//!   telemetry, sign-in and MCP are of their own categories, and so can be denied or allowed.
//!   `tidegate.model.tools` names the tools that run at the provider (web search, code execution):
//!   those go out from there, not through the gate. Events are passed on as they come.
//! - **Headers that are read**, as labels: `x-claude-code-session-id`, `x-claude-code-agent-id`,
//!   `x-claude-code-parent-agent-id`, `x-client-request-id`, `traceparent`, and of connectors
//!   `x-mcp-client-session-id`. They never grant anything. Where the session of a verified token is
//!   another, the record says `tidegate.session.mismatch = "header"`. They are passed on as they are,
//!   like `anthropic-*`.
//! - **MCP**: servers by HTTP are listed by URL ([`mcp`](super::mcp)). Connectors of claude.ai come
//!   through one host of the vendor with a URL for each: list those that may be used, and inspect
//!   that host. A tool that is refused is told to the model as an error that names the rule;
//!   `tool_use_id` ties the record to the call.
//! - **`WebFetch`** asks the model API first whether the name is known (operation `domain-info` of the
//!   service `anthropic`), then fetches the page itself, without a session id of its own. A page that is
//!   refused, at the CONNECT or inside, is shown to the model as blocked by the network: our answers
//!   have the two headers that it looks for.
//! - **A certificate of its own** (`CLAUDE_CODE_CLIENT_CERT`) is for the TLS peer of Claude Code: an
//!   https:// proxy ([`identity`](super::identity)), or a gateway. Where the gate inspects, it
//!   ends here and is on record where `client-ca` of `[inspect]` asks for it; give that gateway an
//!   `[upstream.NAME]`, or pass it through with `inspect = false`.
