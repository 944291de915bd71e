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
//! hook that fails says so and stops nothing; commands then go through the proxy as nobody.
//!
//! The gate takes `PreToolUse`, `PostToolUse` and `PostToolUseFailure` at
//! `POST /v1/hooks/claude-code`, from the session's own token or the one that it descends from; a
//! command's token does not speak for its agent. What was refused during a call is told to the agent
//! when the call ends, in words of closed lists and canonical names. All of it labels records; none
//! of it grants anything.
//!
//! An MCP server on standard input and output keeps the environment that it was started with. To
//! give it a channel, start it through a shell: `sh -c 'eval "$(tidegate env --channel mcp)"; exec
//! SERVER'`, which needs `TIDEGATE_TOKEN` in the agent's environment.
