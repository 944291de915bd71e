//! Coding agents behind the gate: what is tied to their calls, and what they contact by themselves.
//!
//! Tests run the agents below against a scripted model (`tests/agents`) and write both tables.
//!
//! # How an agent is started
//!
//! | Started | Command |
//! |---|---|
//! | `exec` | `tidegate exec -- claude`: a gate of its own for one command |
//! | `exec --jail` | `tidegate exec --jail -- claude`: the same, with no other way to the network |
//! | `exec --join` | `tidegate exec --join http://HOST:PORT -- claude`: a session at a gate that runs already; a gate that inspects says at its control socket what to trust |
//! | by hand | `tidegate init claude-code --write` (`codex`, `gemini`, `opencode`), then `claude` |
//!
//! `exec` knows Claude Code, Codex, Gemini CLI, opencode, aider, Copilot CLI and Cursor's agent by the
//! name of the program, behind `npx`, `env`, `nice` and the like, in a script of a shell, and behind a
//! link. For another name say `--agent claude`.
//!
//! # What is tied
//!
//! *Tied* means that the record has the `tool_use_id` of the call that caused the flow. In every run
//! below no flow was tied to another call.
//!
//! | Agent | Started | TLS | Tied to their calls | Session id in records | What the model reads of a refusal |
//! |---|---|---|---|---|---|
//! | Claude Code 2.1.112 | `exec --jail` | inspected | commands, fetches | the agent's | each refusal, with its reason and next step |
//! | Claude Code 2.1.112 | `exec` | opaque | commands, fetches | the agent's | each refusal, with its reason and next step |
//! | Claude Code 2.1.112 | by hand | opaque | commands, fetches | the agent's | each refusal, with its reason and next step |
//! | Claude Code 2.1.332 | `exec --jail` | inspected | commands, fetches | the agent's | each refusal, with its reason and next step |
//! | Claude Code 2.1.332 | `exec --join` | inspected | commands, fetches | the agent's | each refusal, with its reason and next step |
//! | Claude Code 2.1.332 | `exec` | opaque | commands, fetches | the agent's | each refusal, with its reason and next step |
//! | Claude Code 2.1.332 | by hand | opaque | commands, fetches | the agent's | each refusal, with its reason and next step |
//! | Codex 0.171.0 | `exec --jail` | inspected | none | the gate's | what the client prints |
//! | Codex 0.171.0 | `exec` | opaque | none | the gate's | what the client prints |
//! | Codex 0.171.0 | by hand | opaque | none | the gate's | what the client prints |
//! | Gemini CLI 0.61.0 | `exec --jail` | inspected | none | the gate's | what the client prints |
//! | Gemini CLI 0.61.0 | `exec` | opaque | none | the gate's | what the client prints |
//! | Gemini CLI 0.61.0 | by hand | opaque | none | the gate's | what the client prints |
//! | opencode 1.18.33 | `exec --jail` | inspected | none | the gate's | what the client prints |
//! | opencode 1.18.33 | `exec` | opaque | none | the gate's | what the client prints |
//!
//! Calls of MCP tools of Claude Code are tied under `exec` and `exec --jail`: by HTTP where the gate
//! inspects, and what a program on standard input and output sends. Where a script starts Claude Code,
//! its hooks come from `tidegate init claude-code --launched --write`.
//!
//! Where the gate inspects, `gen_ai.conversation.id` is the conversation that the agent names in its
//! requests: a thread of Codex, a session of opencode. It is a label, never evidence.
//!
//! # What agents contact by themselves
//!
//! Each row is a host and what it is used for there, with the verdict of each built-in tier where
//! the gate inspects. In a tunnel the first category of a host decides.
//!
//! | Agent | Host | Category | `open` | `standard` | `restricted` |
//! |---|---|---|---|---|---|
//! | Claude Code 2.1.332 | api.anthropic.com | auth | allow | allow | allow |
//! | Claude Code 2.1.332 | api.anthropic.com | mcp | allow | ask | deny |
//! | Claude Code 2.1.332 | api.anthropic.com | model-api | allow | allow | allow |
//! | Claude Code 2.1.332 | api.anthropic.com | telemetry | allow | deny | deny |
//! | Codex 0.171.0 | ab.chatgpt.com | telemetry | allow | deny | deny |
//! | Codex 0.171.0 | api.github.com | source-control | allow | allow | allow |
//! | Codex 0.171.0 | api.openai.com | model-api | allow | allow | allow |
//! | Codex 0.171.0 | chatgpt.com | model-api | allow | allow | allow |
//! | Codex 0.171.0 | chatgpt.com | plugin | allow | allow | deny |
//! | Codex 0.171.0 | github.com | source-control | allow | allow | allow |
//! | Gemini CLI 0.61.0 | generativelanguage.googleapis.com | model-api | allow | allow | allow |
//! | Gemini CLI 0.61.0 | play.googleapis.com | telemetry | allow | deny | deny |
//! | opencode 1.18.33 | api.anthropic.com | model-api | allow | allow | allow |
//! | opencode 1.18.33 | models.opencode.ai | model-api | allow | allow | allow |
//! | opencode 1.18.33 | registry of npmjs.org | package-registry | allow | allow | allow |
//!
//! # Telemetry
//!
//! Agents send telemetry to the host of their model API. In a tunnel the gate cannot tell the two
//! apart, so the built-in tiers let it pass although they deny the category `telemetry`
//! (`tidegate check` and `tidegate doctor` say so). Two ways to change that:
//!
//! - Inspect the category `model-api` ([`interception`](super::interception)): the gate then refuses
//!   the paths of telemetry. Claude Code tries a refused report again, and keeps it in its folder.
//! - Switch telemetry off: `eval "$(tidegate env --no-telemetry)"`, or `tidegate exec --no-telemetry`.
//!   Gemini CLI and Codex need a setting as well: `privacy.usageStatisticsEnabled = false` in
//!   `~/.gemini/settings.json`, `analytics.enabled = false` in `~/.codex/config.toml`.
//!
//! Telemetry that the user of an agent sets up (`OTEL_EXPORTER_OTLP_ENDPOINT`) is not switched off.
//!
//! # Services on loopback
//!
//! In a jail, 127.0.0.1 is the jail's own. `exec --jail` captures the ports of loopback URLs in the
//! command's variables (`OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318`), of rules and of
//! `[mcp.NAME]`. A connection there is decided like any other and is on record; a rule lets it reach
//! the service of this machine:
//!
//! ```toml
//! [[rule]]
//! id        = "collector"
//! verdict   = "allow"
//! hosts     = ["127.0.0.1"]
//! ports     = [4318]
//! addresses = ["127.0.0.1/32"]
//! raw       = true
//! ```
