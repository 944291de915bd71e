//! Every reason for a refusal, and what to do then.
//!
//! A refused CONNECT carries the code in the HTTP reason phrase, in `Proxy-Status`, and in the JSON
//! body; the flow id in `X-Tidegate-Flow` finds its record: `tidegate explain ID`. Status `closed`
//! means that the tunnel was open already and is closed instead. A malformed request gets the
//! status that HTTP has for it (400, or 405, 417, 431, 505, 508). A request inside TLS that is
//! inspected is answered inside: its client shows status and body.
//!
//! | code | status | what happened | what to do |
//! |---|---|---|---|
//! | `action_denied` | 403 | What the request does is not allowed at this destination. | Ask for a rule that allows the action, or use a read-only form of the request. |
//! | `address_denied` | 403 | The destination is, or resolves to, an address that is not reachable from here. | If it is an internal service, name its network in `addresses` of the rule that allows it. |
//! | `bad_client_hello` | closed | TLS in the tunnel does not begin with a well-formed hello. | Send a hello as RFC 8446 writes it; the detail says what is wrong with this one. |
//! | `bad_path` | 400 | The path has a dot segment, a backslash, a needless or double escape; or a rule with `paths` decides it differently for servers that read it differently. | Send the path without them. |
//! | `bad_request` | 400 | The request is not well-formed HTTP/1.1. | Send one well-formed request; use CONNECT for https. |
//! | `bad_response` | 502 | The destination is allowed but its answer cannot be passed on. | Tell the operator of the service: the detail says what is wrong with its answer. |
//! | `bad_target` | 400 | The destination is not a canonical host and port, or the URL contains `#` (in HTTP/2: the `:path`). | Send a plain host name or address with a port from 1 to 65535, and no fragment. |
//! | `category_denied` | 403 | The tier denies this category of destination. | Do without it; this repository's tier is set by its operator. |
//! | `connect_failed` | 502 | The destination is allowed but did not accept a connection. | Check that the service is up; the policy is not the cause. |
//! | `connect_timeout` | 504 | The destination is allowed but did not answer in time. | Try again later; the policy is not the cause. |
//! | `credential_denied` | 403 | The credential of the request is not one that may be used at this destination. | Use the credential that was issued for this work, or none. |
//! | `denied` | 403 | A rule denies this destination. | Do without it; a deny rule is a decision of the policy's owners. |
//! | `dns_failed` | 502 | The name is allowed but could not be resolved. | Check the spelling of the host and the resolver of the proxy. |
//! | `draining` | 503 | The proxy is shutting down and takes no new flows. | Try again when it is back. |
//! | `ech_denied` | closed | TLS in the tunnel may hide its true server name (encrypted client hello). | Turn encrypted client hello off in the client, or have the tier say `ech = "allow"`. |
//! | `host_mismatch` | 421 | The host of the request is not the host of its tunnel. | Open a connection of its own to that host. |
//! | `identity_invalid` | 407 | The proxy credential is not valid. | Set the proxy URL with the right user and secret. |
//! | `identity_required` | 407 | This proxy wants to know who is asking. | Set the proxy URL with a user and secret: http://USER:SECRET@HOST:PORT. |
//! | `idle` | closed | Nothing moved for as long as a flow may rest. | Open it again; the bound is `limits.idle`. |
//! | `inspect_unavailable` | 503 | The policy inspects this destination, and there is no certificate for it to do so. | Tell the operator: run `tidegate ca rotate` and `tidegate ca install`, or allow it by a rule with `inspect = false`. |
//! | `limit` | closed | The first bytes of the tunnel are larger than any TLS handshake. | Send a TLS `ClientHello` of at most 64 KiB. |
//! | `mcp_tool_denied` | 403 | No rule allows this tool or method of the MCP server. | Use another tool of the server, or ask for a rule that names this one. |
//! | `needs_approval` | 403 | A person has to approve this destination first. | Ask a reviewer of the policy for a rule; do not retry until there is one. |
//! | `not_allowed` | 403 | No rule allows this destination. | If it should be allowed, ask for a rule in the policy. |
//! | `not_tls` | closed | The tunnel does not begin with TLS. | Use TLS, or have the rule say `raw = true`. |
//! | `package_too_new` | 403 | This version of the package is not as old as it has to be, or nobody tells its age. | Use an older version; this one may pass when it is old enough. |
//! | `parent_failed` | 502 | The destination is allowed but the parent proxy did not lead there. | Tell the operator: the parent proxy refuses, or cannot be reached. |
//! | `port_denied` | 403 | The host is allowed, but not at this port. | Use the port that the rule names: 443 for https, 80 for http unless it says more. |
//! | `rate_limited` | 429 | This caller asks more often than it may. | Stop asking for what is refused; wait before the next try. The bounds are in `[limits]`. |
//! | `record_unavailable` | 503 | The decision cannot be recorded, so nothing may pass. | Tell the operator: the record file cannot be written or does not keep up. |
//! | `revoked` | closed | The policy changed and no longer lets this flow pass. | See what the policy allows now. |
//! | `sni_mismatch` | closed | The name inside the tunnel is not the name that was asked for. | Ask for the host that TLS is going to name. |
//! | `sni_missing` | closed | TLS in the tunnel names no server. | Use a client that sends SNI, or have the rule say `raw = true`. |
//! | `tls_failed` | 502 | The destination is allowed but there is no TLS with it. | Look at the certificates that the detail names; the policy is not the cause. |
//! | `too_many_flows` | 429 | Too many flows are open at once. | Close some, or try again in a moment. |
//!
//! # Details of some refusals
//!
//! - `bad_request`: the detail says what is wrong. The gate also refuses requests that an origin could
//!   read as another request than the one that the gate decides: a field that names another method
//!   (`X-HTTP-Method-Override` and its kin), another path or host (`X-Original-URL`, `X-Rewrite-URL`,
//!   `X-Original-Host` and their kin), and content of a `GET`, `HEAD` or `OPTIONS`, which are judged as
//!   reading. Status 408 (`error.type` is `request_timeout`): the client announced a body and did not
//!   send all of it within `limits.idle`. `request_chunks`: its chunks are malformed.
//! - `bad_response`: nothing of the answer was passed on. `error.type` says why:
//!   `response_status_line`, `response_field`, `response_unprintable`, `response_content_length`,
//!   `response_transfer_encoding`, `response_unexpected_body`, `response_protocol`,
//!   `response_too_large`, `response_interim`; `response_missing` (the origin closed before its first
//!   byte), `unexpected_eof` or `connection_reset` (in the head of its answer);
//!   `response_proxy_authentication` (it answered 407: a client would send it the credential that is
//!   for the gate). `response_chunks` stands in records only: the answer had begun.
//! - `action_denied`: a request that only reads would pass, this one does not. `tidegate explain ID`
//!   says what the request does in the words of its service. A push is refused before a byte of its
//!   pack leaves: push to a branch that `refs` of a rule names. Where the tunnel is opaque and the tier
//!   says `opaque = "deny"`, the operator has to inspect the host.
//! - `mcp_tool_denied`: inside MCP it is an error of JSON-RPC with status 200, which the agent reads;
//!   over the older transport it is a 403 ([`mcp`](super::mcp)).
//! - `credential_denied`: every other condition of a rule holds, but the request presents another
//!   credential. The gate sent nothing on. Use the credential that was issued for this work.
//! - `bad_client_hello`: the client gets the TLS alert `decode_error`. A hello that is well-formed, but
//!   names another host, two, or none that DNS could have, is `sni_mismatch` (`unrecognized_name`).
//! - `ech_denied`: the client gets the TLS alert `access_denied`. Which clients send the extension, and
//!   how it is switched off, is in [`policy`](super::policy#a-name-behind-the-name).
//! - `inspect_unavailable`: the detail says why: `[inspect]` names no authority, the authority has
//!   expired, or its name constraints do not permit the host (`ca-too-narrow` at the load). The
//!   `CONNECT` is refused before the host is resolved or dialled.
//! - `host_mismatch`: a client asks for one host on a connection that was opened for another. Clients
//!   of HTTP/2 repeat the request on another connection. Other clients must not set `Host` by hand.
//! - `too_many_flows`: `limits.flows` or `limits.flows-per-caller` is reached; or the gate holds too many
//!   bytes of bodies that it has to read before it decides; or the caller has used its share of the
//!   descriptors ([`operations`](super::operations)).
//! - `tls_failed`: nothing of the request was sent. The detail begins with a word for the
//!   error; [`upstreams`](super::upstreams) lists these words. Where the gate finds the error before the
//!   tunnel opens, it refuses the tunnel itself. A fault of the network is
//!   `connect_failed` or `connect_timeout` instead.
//! - `parent_failed`: the detail says what the parent answered, or that none could be reached
//!   ([`parents`](super::parents)). Nothing went past the parents.
//!
//! # Marks that only the gate sets
//!
//! An origin cannot mark an answer as a refusal of the gate. Of every answer that the gate reads (plain
//! HTTP, requests inside inspected tunnels, upgrades, 1xx) these are left out: `X-Deny-Reason`,
//! `X-Proxy-Error`, every `Proxy-…`, every `X-Tidegate-…`, the same with `_` or `.` for `-`, elements of
//! `Via` that name a gate, and a reason phrase that does. Bodies are passed on as they are, whatever
//! they say. In a tunnel that is not inspected the answers are the origin's alone.
