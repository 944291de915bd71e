//! tidegate: the one way out for a coding agent.
//!
//! An egress-filtering forward proxy. It knows what each connection is *for* (its [`Category`]),
//! who asks ([`Caller`]) and how exposed that caller's repository may be (its tier); it allows,
//! asks or denies by a policy that people review like code; and it leaves a record of every
//! outcome.
//!
//! # Tenets, in this order
//!
//! 1. **Fail closed.** What cannot be parsed, identified, judged or recorded does not pass.
//! 2. **Say why.** Every refusal names its reason, its rule and the next step.
//! 3. **Lose nothing.** One record per outcome; what is missing is itself on record.
//! 4. **Stay small.** Short files, few concepts, nothing that no one asked for.
//! 5. **Be fast.** Measured, against the limit of the machine.
//!
//! Where two of them disagree, the earlier one wins.
//!
//! # The life of a flow
//!
//! ```text
//!          listen       connection        flow             connect · forward                                         drop(flow)
//! client ─▶ accept ─▶ HTTP head ─▶ permit ─▶ parse ─▶ identify ─▶ decide ─▶ resolve ─▶ decision ─▶ dial ─▶ 200 ─▶ hello ─▶ relay ─▶ close
//!                      │ 400         │ 503     │ 400      │ 407        │ 403     │ 403/502   line      │ 502/504     │ closed          line
//! ```
//!
//! A flow is one attempt of one caller to reach one target: a CONNECT, one plain-HTTP request, or one
//! request inside a tunnel that is inspected.
//!
//! 1. **accept** ([`proxy`]). Listeners are bound before anything else, or inherited from the
//!    service manager. Out of descriptors, accepting rests instead of spinning.
//! 2. **head**. One request head, read within its bounds and taken apart once, strictly. Whatever
//!    two readers could take in two ways is refused: the origin is sent what was understood,
//!    written anew, never what was received.
//! 3. **permit** ([`record`]). Room to write every line of the flow, taken before it does
//!    anything. Where the log cannot be kept, the flow is refused (503 `record_unavailable`): that
//!    nothing passes unrecorded is a type, not a promise.
//! 4. **parse** ([`name`]). A canonical [`Target`]: what is decided is what is dialled and what is
//!    written out.
//! 5. **identify** ([`identity`]). The listener and `Proxy-Authorization` say who asks. Tier,
//!    groups and repository come only from verified evidence or from the listener; a session id in
//!    the username is a label.
//! 6. **decide** ([`policy`]). *The floor, then an exception, then deny, then ask, then allow, then
//!    the tier's default: the first that matches decides.* Pure, total, below a microsecond. A
//!    denied name causes no DNS query.
//! 7. **resolve** ([`dial`]). Every answer is judged: metadata and link-local addresses never pass,
//!    private ones only where the rule names them, the proxy's own never.
//! 8. **decision line**. Written, and in the log, before anything goes out.
//! 9. **dial**. One of the judged addresses; nothing is resolved twice. Before the 200, so that the
//!    client's status tells the truth.
//! 10. **hello**. The whole `ClientHello`, however fragmented: the name inside must be the name that
//!     was asked for. Nothing of the origin passes before.
//! 11. **relay**. Both directions in one task; half-close is passed on; bytes are counted as they
//!     move; no buffer is held while a tunnel rests.
//! 12. **close line**. Written when the flow is dropped, for whatever reason.
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
//!   tells the truth, and the client is offered HTTP/2 where its origin speaks it. Then with the
//!   client, by a certificate of the local authority for exactly the name that was asked for.
//! - **head**. The host of each request is the host of its tunnel, or it is refused (421).
//! - **read** ([`content`]). What the request does, in the words of its service: by the head, and
//!   where only the body tells (a push, GraphQL, MCP), by the part of it that does. That is read
//!   before anything is sent on, and then sent on as it was.
//! - **exchange**. On a connection that is shared only with what was judged the same way.
//!
//! Open flows are judged again when the policy changes, and closed if they would no longer pass.
//!
//! # Layers
//!
//! Each module looks only at those below it (a test keeps it so): `cli`, `app` · `proxy`, `admin` ·
//! `gate` · `identity`, `dial`, `record`, `metrics`, `tls`, `jail`, `vcs`, `content` · `config` · `policy` ·
//! `name`, `diag`, `clock`. [`policy`] and [`name`] do no I/O and read no time.
//!
//! [`Category`]: policy::Category
//! [`Caller`]: identity::Caller
//! [`Target`]: name::Target

pub mod clock;
pub mod diag;
pub mod name;

pub mod policy;

pub mod config;
pub mod content;

pub mod dial;
pub mod identity;
#[cfg(target_os = "linux")]
pub mod jail;
pub mod metrics;
pub mod record;
pub mod tls;
pub mod vcs;

pub mod gate;

pub mod admin;
pub mod proxy;

pub mod app;
pub mod cli;

pub mod manual;
