//! tidegate: an egress-filtering forward proxy for coding agents.
//!
//! The gate (a running tidegate) decides each connection by its *purpose* (its [`Category`]), its
//! caller ([`Caller`]) and the tier of that caller's repository. Its policy allows, asks or denies,
//! and people review that policy like code. Every outcome is in a log, the record.
//!
//! # Tenets, in this order
//!
//! 1. **Fail closed.** What cannot be parsed, identified, decided or recorded does not pass.
//! 2. **Say why.** Every refusal names its reason, its rule and the next step.
//! 3. **Lose nothing.** One record per outcome; a missing record is itself recorded.
//! 4. **Stay small.** Short files, few concepts, no feature without a user.
//! 5. **Be fast.** Measured, against the limit of the machine.
//!
//! Where two of them disagree, the earlier one wins.
//!
//! # The life of a flow
//!
//! ```text
//!          accept       connection        flow             tunnel · request                                          drop(flow)
//! client ─▶ accept ─▶ HTTP head ─▶ permit ─▶ parse ─▶ identify ─▶ decide ─▶ resolve ─▶ decision ─▶ dial ─▶ 200 ─▶ hello ─▶ relay ─▶ close
//!                      │ 400         │ 503     │ 400      │ 407 429    │ 403 429 │ 403 429   line      │ 429 502    │ closed          line
//!                                                                                │ 502                 │ 504
//!                      refused: line ─▶ answer
//! ```
//!
//! A flow is one attempt of one caller to reach one target: a CONNECT, one plain-HTTP request, or
//! one request inside an inspected tunnel.
//!
//! 1. **accept** ([`proxy`]). Listeners are bound before anything else, or inherited from the
//!    service manager. After an error of `accept` the listener waits before it tries again. At the
//!    connection limit, an idle connection is closed to make room for the new one.
//! 2. **head**. One request head, read within its bounds and parsed once, strictly. A head that two
//!    parsers could read in two ways is refused. The gate writes the head for the origin anew from
//!    the parsed value, and never forwards the received bytes.
//! 3. **permit** ([`record`]). Room to write every line of the flow, taken before the flow does
//!    anything. Where the log cannot be written, the flow is refused (503 `record_unavailable`). The
//!    permit is a type: without one there is no flow.
//! 4. **parse** ([`name`]). A canonical [`Target`]: the gate decides, dials and writes the same value.
//! 5. **identify** ([`identity`]). The listener and `Proxy-Authorization` identify the caller; a
//!    session id in the username is a label. Groups and tier come from verified evidence or from
//!    the listener. The repository has evidence of its own: an issuer's claim, a `[[workspace]]`, a
//!    pin, a listener or user. A repository that only the working copy names is *asserted*: it can
//!    make the tier stricter, never looser. Branch and commit are read from the working copy here,
//!    and cached for a second. A caller that opens connections beyond its rate is refused (429
//!    `rate_limited`).
//! 6. **decide** ([`policy`]). *The floor, then deny, then ask, then allow, then the tier's own
//!    lists (ask, allow, default): the first that matches decides.* Pure, total, below a
//!    microsecond. A denied name causes no DNS query. A flow that may pass takes a slot among the
//!    open flows (`limits.flows`, `limits.flows-per-caller`; no free slot: 429 `too_many_flows`).
//! 7. **resolve** ([`dial`]). Every address is checked: metadata and link-local addresses never
//!    pass, private ones only where the rule grants them, the proxy's own never. A look-up takes
//!    descriptors from the caller's share of the budget; without a free descriptor the answer is
//!    429 (`too_many_flows`).
//! 8. **decision line**. In the log before the gate connects.
//! 9. **dial**. One of the checked addresses, with a descriptor from the caller's share; no name is
//!    resolved twice. The dial precedes the 200, so that the status tells the client whether the
//!    origin was reached.
//! 10. **hello**. The whole `ClientHello`, however fragmented: its server name must be the host of the
//!     CONNECT. The gate passes no byte of the origin before.
//! 11. **relay**. Both directions in one task; half-close is passed on; bytes are counted as they
//!     move; an idle tunnel holds no buffer.
//! 12. **close line**. Written when the flow is dropped, for any reason.
//!
//! The functions of one CONNECT, each called in a file that is listed before it or in the same one.
//! A test compares this list with the code. Calls within a module, to decide or to encode, are left
//! out.
//!
//! | step | function | file | called in |
//! |---|---|---|---|
//! | accept | `handle_accepted` | `proxy/accept/mod.rs` | `proxy/accept/mod.rs` |
//! | | `serve_proxied` | `proxy/accept/mod.rs` | `proxy/accept/mod.rs` |
//! | head | `serve` | `proxy/connection/mod.rs` | `proxy/accept/mod.rs` |
//! | | `scan_request` | `http/http1/head.rs` | `proxy/connection/mod.rs` |
//! | | `connect` | `proxy/tunnel/mod.rs` | `proxy/connection/mod.rs` |
//! | permit | `begin` | `proxy/flow.rs` | `proxy/connection/mod.rs` |
//! | | `permit` | `record/recorder.rs` | `proxy/flow.rs` |
//! | parse | `from_connect` | `name/target.rs` | `proxy/tunnel/mod.rs` |
//! | identify | `identify` | `proxy/connection/mod.rs` | `proxy/tunnel/mod.rs` |
//! | | `present` | `identity/mod.rs` | `proxy/connection/mod.rs` |
//! | decide | `judge_attempt` | `proxy/flow.rs` | `proxy/tunnel/mod.rs` |
//! | | `decide` | `gate/snapshot.rs` | `proxy/flow.rs` |
//! | | `decide_with` | `policy/answer.rs` | `gate/snapshot.rs` |
//! | resolve | `find_route` | `proxy/flow.rs` | `proxy/tunnel/mod.rs` |
//! | | `route` | `dial/mod.rs` | `proxy/flow.rs` |
//! | decision line | `settle` | `proxy/flow.rs` | `proxy/tunnel/mod.rs` |
//! | | `decided` | `record/recorder.rs` | `proxy/flow.rs` |
//! | dial | `dial` | `proxy/flow.rs` | `proxy/tunnel/mod.rs` |
//! | | `reach` | `dial/mod.rs` | `proxy/flow.rs` |
//! | hello | `carry` | `proxy/tunnel/mod.rs` | `proxy/accept/mod.rs` |
//! | | `read` | `tls/hello.rs` | `proxy/tunnel/mod.rs` |
//! | relay | `relay` | `proxy/tunnel/relay.rs` | `proxy/tunnel/mod.rs` |
//! | close line | `closed` | `record/recorder.rs` | `proxy/flow.rs` |
//!
//! **Refusals.** The refusal is written to the log before the gate answers. Refusals that one
//! caller repeats are counted in one line (`refusals_repeated`), which is written before the first
//! refusal of its count is answered. A caller beyond its rate of refusals is answered 429, after a
//! short wait; its flows that may pass go on.
//!
//! Each line contains the hash of the line before; the gate signs the log each minute.
//!
//! Where the policy inspects, steps 9 to 12 differ. Each request inside the tunnel is a flow of its
//! own, from step 2 on, with `tidegate.flow.parent`:
//!
//! ```text
//! dial ─▶ TLS with the origin ─▶ 200 ─▶ TLS with the client ─▶ head ─▶ permit ─▶ read ─▶ decide ─▶ decision ─▶ exchange ─▶ close
//!          │ 502                          │ closed              │ 400 421          │ 400    │ 403      line                   line
//! ```
//!
//! - **TLS** ([`tls`]) with the origin first, with its certificate verified: the status of the
//!   CONNECT tells the client whether the origin was reached, and the gate offers HTTP/2 to the
//!   client if the origin supports it. An idle upstream connection of the same caller is reused.
//!   Then TLS with the client, with a certificate of the local authority for exactly the host of
//!   the CONNECT.
//! - **head**. The host of each request is the host of its tunnel, or the request is refused (421).
//! - **read** ([`content`]). The action of the request, in the terms of its service. The gate reads
//!   the action from the head; for a push, GraphQL or MCP from a part of the body, which the gate
//!   reads before it sends anything on, and then forwards unchanged.
//! - **exchange**. On an upstream connection that only requests of the same caller share.
//!
//! Open flows are decided again when the policy changes, and closed if they would no longer pass.
//!
//! # Layers
//!
//! Each module uses only modules of the layers below it (a test checks this): `cli`, `app` ·
//! `proxy`, `admin` · `gate`, `http` · `identity`, `dial`, `record`, `metrics`, `tls`, `jail`,
//! `vcs`, `content` · `config` · `policy` · `name`, `diag`, `clock`, `decimal`. [`policy`] and
//! [`name`] do no I/O and read no time. `http` parses and encodes typed heads and bodies; it
//! decides nothing.
//!
//! [`proxy`] has one module for each part of a flow: `accept` (sockets, PROXY protocol, protocol
//! detection, connections of a jail), `connection` (the client's side, request after request),
//! `tunnel` (CONNECT, hello, relay), `request` (route, decide, exchange, upgrade), `inspect` (TLS
//! that ends at the gate), `refusal` and `flow` (facts, decision and close record).
//!
//! [`Category`]: policy::Category
//! [`Caller`]: identity::Caller
//! [`Target`]: name::Target

pub mod clock;
mod decimal;
pub mod diag;
pub mod name;

pub mod policy;

pub mod config;
pub mod content;

pub mod dial;
pub mod identity;
#[cfg(target_os = "linux")]
pub mod jail;
pub mod ledger;
pub mod metrics;
pub mod record;
pub mod tls;
pub mod vcs;

mod http;
pub mod postgres;

pub mod gate;

pub mod admin;
pub mod proxy;

pub mod app;
pub mod cli;
pub mod replay;

pub mod manual;
