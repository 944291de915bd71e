//! Servers and tools of the Model Context Protocol (MCP) that agents may use.
//!
//! ```toml
//! [mcp.issues]
//! url = "https://mcp.example.com/mcp"
//!
//! [[rule]]
//! id           = "issues"
//! verdict      = "allow"
//! does.servers = ["issues"]
//! does.tools   = ["search_*", "get_*"]
//! allows       = ["TOOL https://mcp.example.com/mcp search_issues"]
//! denies       = ["TOOL https://mcp.example.com/mcp delete_issue"]
//!
//! [[rule]]
//! id = "no-secrets"
//! verdict = "deny"
//! does.servers = ["issues"]
//! does.tools = ["get_secret*"]
//! ```
//!
//! **Listing a server**: `url` is its endpoint, exactly, without regard to the query. A rule with
//! `does.servers` needs no `to`: the servers set hosts and ports, and are inspected
//! (`[inspect]` is needed). Another path of that host is not that server.
//!
//! **Tools**: `does.tools` of an allow names those that may be called (none: all), of a deny those that
//! may not; `*` is any run of characters. An allow compares letters as they are written, a deny whatever
//! their case. **Methods**: `does.mcp-methods` names which other
//! messages may be sent (none: all), as `initialize`, `notifications/*`, `tools/list`,
//! `resources/read`; put those of the handshake in, or nothing works.
//!
//! **Every other server** is unlisted: where its messages are seen, by their headers, by JSON-RPC in a
//! body, or by the older transport's stream, they are of the category `mcp` whatever their host is
//! for, and no rule allows them unless a `[[destination]]` says that the host is for `mcp`. In a tunnel
//! that is not
//! inspected the gate does not see these messages: use `opaque = "deny"` or host rules there. Messages
//! to a server on the agent's standard input and output do not pass the gate; requests that such a
//! server sends to the network do.
//!
//! # What is judged
//!
//! The body, element by element where it is a batch. A body that two readers could read in two ways is
//! refused (400 `bad_request`): a key that stands twice or in other casing, a compressed body, more
//! than 1 MiB, a batch in a version that has none, and headers (`Mcp-Method`, `Mcp-Name`,
//! `MCP-Protocol-Version`) that say something else than the body. Where a version requires those
//! headers they have to be there. The stream of a server (`GET`) is the operation `stream` and reads;
//! the end of a session (`DELETE`) is `end-session` and calls.
//!
//! # What the agent sees
//!
//! - A call that is refused is answered with status 200 and an error of JSON-RPC, code -32043, under
//!   the id of the request. Its message names the rule and says that it is policy; its `data` has
//!   `error` (`mcp_tool_denied` as a rule), `rule`, `flow`, `tier` and `explain`, the command that
//!   tells a person more.
//! - A client that does not accept both `application/json` and `text/event-stream` gets the usual
//!   403 instead. So does a client for a refused notification, which has no answer in JSON-RPC.
//! - `tools/list` shows only the tools that may be called, up to 4 MiB at a time; each call is
//!   decided all the same. Nothing else of answers is changed.
//!
//! # The older transport
//!
//! The transport of 2024-11-05 has two URLs: events come from one, messages go to another that the
//! first event names. Both have to be listed, and the rule names both:
//!
//! ```toml
//! [mcp.docs]
//! url = "https://mcp.example.com/sse"
//!
//! [mcp.docs-messages]
//! url = "https://mcp.example.com/messages/"
//! ```
//!
//! Its answers come as events, so a refusal can only be a status: 403. Some clients end their
//! connection at that.
//!
//! # On record
//!
//! Each message is a flow with `tidegate.mcp.server`, `mcp.method.name`, `mcp.tool.name` (or the
//! resource or prompt), and `tool_use_id` where the agent says one (`_meta` of Claude Code).
//! Arguments and results are never kept.
