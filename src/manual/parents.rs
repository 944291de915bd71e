//! Targets that are reached through another proxy.
//!
//! ```toml
//! [[dial.parent]]
//! url = "https://proxy.acme.example:3129"
//! client-cert = "certs/gate.pem"
//! client-key = "certs/gate.key"
//! roots = ["certs/acme-ca.pem"]
//! credential-file = "parent.credential"
//! except = ["*.acme.example", "10.0.0.0/8"]
//! ```
//!
//! One parent may also stand in `[dial]` as `parent = { url = "…" }`.
//!
//! **What goes where**: the policy decides first, as ever; a parent only says how the target is
//! reached. `categories` and `hosts` say what a parent is for (nothing said: everything), `except`
//! what it is not for. A target that no parent is for is dialled directly. Networks in `hosts` and
//! `except` have the addresses that are asked for literally. What the gate itself fetches (keys of
//! issuers) is dialled directly.
//!
//! **How**: a tunnel is asked for with CONNECT; a plain request is sent to the parent in absolute form.
//! Both carry `Via` with our name, so that a proxy in a loop refuses the request that it has sent
//! before (508). No session, user, trace or header of ours goes to a parent besides `Via` and the
//! credential; what a client says to its proxy (`Proxy-Authorization`) ends here.
//!
//! **Names** are looked up by the parent (`resolve = "parent"`): the gate then sees no address, so the
//! floor cannot look at what a name resolves to, and the parent has to keep its own private
//! addresses closed. Addresses that are asked for literally are judged here as ever. With
//! `resolve = "local"` every answer is judged here and the tunnel is asked for by a judged address;
//! the URL of a plain request still has the name, which the parent looks up once more.
//!
//! **Order**: of the parents that are for a target the first is asked. One that cannot be reached (no
//! connection, no TLS, no HTTP) is passed over for 1 s, then 2 s, up to 30 s, and the next is
//! asked within the same `limits.connect-timeout`. A parent that refuses has the last word. Where
//! none can be reached the flow is refused with `parent_failed`: never silently past them, unless each
//! of them says `fall-back = "direct"`; then the target is resolved, judged and dialled here.
//!
//! **Credentials**: a file, or the standard output of a command, with `user:password` (sent as Basic),
//! or `Basic …` or `Bearer …` as they are. A file belongs to the configuration: a change is a reload. A
//! command (never through a shell; at most 10 s and 16 KiB) is run again after
//! `credential-lifetime`. Where the parent answers 407 the file is read, or the command run, once more.
//! A 407 of the parent is never passed on: the client would take it for a 407 of the gate.
//!
//! **Records** have the parent in `tidegate.parent` and its address in `network.peer.address`; the
//! detail of a `parent_failed` says what it answered. `tidegate_parent_dials_total` counts, and the
//! log says when a parent is passed over.
