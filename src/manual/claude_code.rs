//! Claude Code: every flow tied to its session and tool call.
//!
//! Every hook of Claude Code is one command, `tidegate session hook`. It reports the event to the gate
//! and prints the gate's answer; at `SessionStart` and `CwdChanged` it also registers the session for the
//! agent's commands and writes their variables to `CLAUDE_ENV_FILE`. A hook that fails says so on standard
//! error and exits with 0: it stops nothing, and commands then use the proxy without a session.
//!
//! | started as | hooks come from | the hook finds its gate by | flows that carry the session |
//! |---|---|---|---|
//! | `tidegate exec -- claude` | `--settings` on the command line; no file of the user is changed | `TIDEGATE_ADMIN` of the run | all |
//! | `eval "$(tidegate session start --repo . --env)"`, then `claude` | `tidegate init claude-code --launched --write` | `TIDEGATE_ADMIN` and `TIDEGATE_TOKEN` | all |
//! | `claude` alone | `tidegate init claude-code --write` | the control socket (`TIDEGATE_CONTROL`) | commands; the agent's own, by its process, where the gate runs on the same host and may read `/proc` |
//!
//! - `tidegate init claude-code` shows what it changes in the settings, and writes with `--write`
//!   (`--managed`: for the machine, with `allowManagedHooksOnly`; `--project`: for a repository). The
//!   earlier file is kept beside it, and HTTP hooks of earlier versions are replaced.
//! - Where the command line has a `--settings` with JSON, `exec` adds the hooks to it; where it names
//!   a file, `exec` says that the hooks are missing, and how to write them.
//! - **A token goes to no other user's process.** Before the hook sends the session token to a port of
//!   this host, it looks up which user listens there (Linux): this user, root, or the user that
//!   `TIDEGATE_GATE_USER` (`--gate-user`) names. At a Unix socket it asks the kernel for the peer. The
//!   owner of an address of another host cannot be seen.
//!
//! # Which call a flow belongs to
//!
//! The hooks report `PreToolUse`, `PostToolUse` and `PostToolUseFailure`. `tidegate.call.basis` says what
//! ties a flow to its call:
//!
//! | basis | evidence |
//! |---|---|
//! | `environment` | The span in the username of a command's proxy: it begins with the process id of the command's shell, whose command line is that of the call. Background processes keep it. |
//! | `ancestry` | The shell that the agent started, above the process that asks: for connections and names that the jail captures, which have no username. |
//! | `url` | The agent's own process asks for the host that exactly one open `WebFetch` names (of several to one host, the one with the path); or an inspected request goes to the `[mcp.NAME]` of exactly one open `mcp__NAME__…` call. |
//! | `meta` | `_meta["claudecode/toolUseId"]` of an inspected MCP message. |
//! | `header` | No tool call; `agent_id`, `prompt.id` or `client_request_id` stand in the agent's own header fields. |
//! | `none` | Nothing ties the flow, in a session whose hooks report calls. |
//!
//! Two kinds of evidence that disagree tie the flow to no call: `none`, and `tidegate.call.conflict`. Two
//! calls that fit equally well (the same command twice at once, two pages of one host in tunnels) are
//! neither. What the agent asks on its own account (categories `model-api`, `telemetry`, `auth`, `update`)
//! belongs to no call. An MCP server on standard input and output is a process that the agent started: its flows
//! belong to the one open MCP call, as long as they came during calls of one server only.
//!
//! `tidegate.call.trust` is `verified` where both hold, and else `asserted`:
//!
//! - **The agent itself reported the call.** Either the gate read the report from the standard input of
//!   the hook, and that is an end of a pair of sockets that the agent's process made (the kernel says
//!   which process did). Or the agent's process, alone, holds the connection of the report. The agent's
//!   process is the one that `exec` started, by its id and start time, and it still runs the executable
//!   that it was started with (a script counts as its interpreter). A hook that a command of the agent starts
//!   has another input: its reports are `asserted`, whatever they say. So are reports by a pipe, of an agent
//!   that a wrapper replaced, and of every session of `tidegate run`.
//! - **The flow shows it.** It came from a process below the shell that the agent started for the call, or from
//!   the agent's process. A process left running in the background is `asserted`.
//!
//! A made-up report neither ends nor replaces a call that the agent reported. A process that can trace
//! the agent (`ptrace`), and code that runs in the agent, can report as the agent.
//!
//! # Sessions
//!
//! `/clear`, `--resume`, `-c` and `--fork-session` give the agent another id. `SessionStart` reports the id,
//! and from then on the agent's own flows have it as `session.id`, with the session of the launcher as
//! `tidegate.session.root`; commands keep the id that they were started with. Each id that was reported
//! belongs to the session: a request that names one is no mismatch (`header-mismatch`). Once the agent itself
//! has reported an id, reports of other processes no longer change it.
//!
//! # What the model is told
//!
//! - At the start: that commands go through tidegate, the tier, and that a refusal is policy.
//! - After a call (`PostToolUse`, `PostToolUseFailure`): each refusal of the call with host, port, method and
//!   operation where they were seen, reason, category, tier and count, and the command that explains
//!   it. Names that the jail did not resolve are among them.
//! - After the next call or prompt (`UserPromptSubmit`), once: what was refused to a background process after
//!   its call had ended.
//!
//! The texts consist of canonical hosts, words of closed lists and names of tiers. Refusals of the agent's own
//! telemetry stand in the record only.
//!
//! # MCP servers that the agent starts
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
//!   `x-claude-code-parent-agent-id`, `x-claude-code-prompt-id`, `x-client-request-id`, `traceparent`, and of connectors
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
