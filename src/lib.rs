//! tidegate: an egress-filtering forward proxy for coding agents.
//!
//! The gate (a running tidegate) decides each connection by what it is *for* (its [`Category`]), who
//! asks ([`Caller`]) and the tier of that caller's repository. Its policy allows, asks or denies, and
//! people review that policy like code. Every outcome is in a log, the record.
//!
//! # Tenets, in this order
//!
//! 1. **Fail closed.** What cannot be parsed, identified, decided or recorded does not pass.
//! 2. **Say why.** Every refusal names its reason, its rule and the next step.
//! 3. **Lose nothing.** One record per outcome; what is missing is itself on record.
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
//! A flow is one attempt of one caller to reach one target: a CONNECT, one plain-HTTP request, or one
//! request inside a tunnel that is inspected.
//!
//! 1. **accept** ([`proxy`]). Listeners are bound before anything else, or inherited from the
//!    service manager. After an error of `accept` the listener waits before it tries again. Where all
//!    turns are taken, a connection on which nothing is being answered makes room for the new one.
//! 2. **head**. One request head, read within its bounds and parsed once, strictly. A head that two
//!    parsers could read in two ways is refused. The origin is sent what the gate understood, written
//!    anew, never the bytes that were received.
//! 3. **permit** ([`record`]). Room to write every line of the flow, taken before the flow does
//!    anything. Where the log cannot be written, the flow is refused (503 `record_unavailable`). The
//!    permit is a type: without one there is no flow.
//! 4. **parse** ([`name`]). A canonical [`Target`]: the gate decides, dials and writes the same value.
//! 5. **identify** ([`identity`]). The listener and `Proxy-Authorization` say who asks; a session id in
//!    the username is a label. Groups and tier come from verified evidence or from the listener. The
//!    repository has evidence of its own: an issuer's claim, a `[[workspace]]`, a pin, a listener or
//!    user. A repository that only the working copy names is *asserted*: it can make the tier
//!    stricter, never looser. Branch and commit are read from the working copy here, and cached for a
//!    second. A caller that opens connections beyond its rate is refused (429 `rate_limited`).
//! 6. **decide** ([`policy`]). *The floor, then deny, then ask, then allow, then the tier's own word
//!    (ask, allow, default): the first that matches decides.* Pure, total, below a microsecond. A
//!    denied name causes no DNS query. A flow that may pass takes a place among the open flows
//!    (`limits.flows`, `limits.flows-per-caller`; none left: 429 `too_many_flows`).
//! 7. **resolve** ([`dial`]). Every address is checked: metadata and link-local addresses never pass,
//!    private ones only where the rule grants them, the proxy's own never. A look-up takes descriptors
//!    from the caller's share of the budget; none left is a 429 (`too_many_flows`).
//! 8. **decision line**. In the log before the gate connects.
//! 9. **dial**. One of the checked addresses, with a descriptor from the caller's share; no name is
//!    resolved twice. Before the 200, so that the client's status tells whether the origin was reached.
//! 10. **hello**. The whole `ClientHello`, however fragmented: its server name must be the host of the
//!     CONNECT. The gate passes no byte of the origin before.
//! 11. **relay**. Both directions in one task; half-close is passed on; bytes are counted as they
//!     move; an idle tunnel holds no buffer.
//! 12. **close line**. Written when the flow is dropped, for any reason.
//!
//! One CONNECT by its functions, each called in a file that stands before it or in the same one. A
//! test holds this list to the code. What a function calls within its module, to decide or to encode,
//! is not in it.
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
//! | | `decide` | `gate/approvals/approval.rs` | `proxy/flow.rs` |
//! | | `decide` | `gate/snapshot.rs` | `gate/approvals/approval.rs` |
//! | | `decide_with` | `policy/answer.rs` | `gate/snapshot.rs` |
//! | resolve | `find` | `proxy/dial.rs` | `proxy/tunnel/mod.rs` |
//! | | `route` | `dial/mod.rs` | `proxy/dial.rs` |
//! | decision line | `settle` | `proxy/flow.rs` | `proxy/tunnel/mod.rs` |
//! | | `decided` | `record/recorder.rs` | `proxy/flow.rs` |
//! | dial | `connect` | `proxy/dial.rs` | `proxy/tunnel/mod.rs` |
//! | | `reach` | `dial/mod.rs` | `proxy/dial.rs` |
//! | hello | `carry` | `proxy/tunnel/mod.rs` | `proxy/accept/mod.rs` |
//! | | `read` | `tls/hello.rs` | `proxy/tunnel/mod.rs` |
//! | relay | `relay` | `proxy/tunnel/relay.rs` | `proxy/tunnel/mod.rs` |
//! | close line | `closed` | `record/recorder.rs` | `proxy/flow.rs` |
//!
//! **Refusals.** Before the gate answers, the line of the refusal stands in the log. Refusals that one
//! caller repeats are counted in one line (`refusals_repeated`), which stands in the log before the
//! first refusal that it counts is answered. A caller beyond its rate of refusals is answered 429,
//! after a short wait; its flows that may pass go on.
//!
//! Each line has the hash of the line before; the gate signs the log each minute.
//!
//! Where the policy inspects, steps 9 to 12 differ, and each request inside is a flow of its own,
//! from step 2 on, with `tidegate.flow.parent`:
//!
//! ```text
//! dial ─▶ TLS with the origin ─▶ 200 ─▶ TLS with the client ─▶ head ─▶ permit ─▶ read ─▶ decide ─▶ decision ─▶ exchange ─▶ close
//!          │ 502                          │ closed              │ 400 421          │ 400    │ 403      line                   line
//! ```
//!
//! - **TLS** ([`tls`]) with the origin first, its certificate verified: so the status of the CONNECT
//!   tells whether the origin was reached, and the client is offered HTTP/2 where its origin has it.
//!   A connection that rests from another tunnel of the same caller takes the place of a new one.
//!   Then with the client, by a certificate of the local authority for exactly the host of the CONNECT.
//! - **head**. The host of each request is the host of its tunnel, or the request is refused (421).
//! - **read** ([`content`]). What the request does, in the words of its service. The head says it;
//!   for a push, GraphQL or MCP a part of the body says it. The gate reads that part before it sends
//!   anything on, and then sends it on unchanged.
//! - **exchange**. On a connection to the origin that only requests of the same caller share.
//!
//! Open flows are decided again when the policy changes, and closed if they would no longer pass.
//!
//! # Layers
//!
//! Each module uses only those below it (a test keeps it so): `cli`, `app` · `proxy`, `admin` ·
//! `gate`, `http` · `identity`, `dial`, `record`, `metrics`, `tls`, `jail`, `vcs`, `content` · `config` · `policy` ·
//! `name`, `diag`, `clock`, `decimal`. [`policy`] and [`name`] do no I/O and read no time. `http` turns bytes
//! into typed heads and bodies and back; it decides nothing.
//!
//! [`proxy`] has one room for each part of a flow's way: `accept` (sockets, PROXY protocol, protocol
//! detection, what comes from a jail), `connection` (the client's side, request after request),
//! `tunnel` (CONNECT, hello, relay), `request` (aim, judge, exchange, upgrade), `inspect` (TLS that
//! ends here), `refusal` and `flow` (facts, decision and close record).
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

pub mod gate;

pub mod admin;
pub mod proxy;

pub mod app;
pub mod cli;
pub mod replay;

pub mod manual;
