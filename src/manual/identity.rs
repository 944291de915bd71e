//! Who asks, and what that is worth.
//!
//! - A **listener** may say it: `[[listener]]` with `user`, `groups`, `repository`, `tier`; who can
//!   reach the listener is that caller.
//! - A **certificate** may, where the listener speaks TLS (`[listen.proxy-tls]`, or `tls` of a
//!   `[[listener]]`) and has a `client-ca`. Its names of the kinds in `client-identity` are what
//!   `san:` members of groups are held against; the first of the best kind is the caller's subject:
//!   a URI (a SPIFFE id, which has to be the only URI), a DNS name, an e-mail address, the common
//!   name only when asked for. Addresses and wildcards are passed over; a name that is not plain
//!   ASCII, or a certificate that names nobody, is no evidence, and the connection ends. It is
//!   verified again with every reload: flows of one that was revoked or whose authority is gone end.
//!   It satisfies `identity = "required"`.
//! - A **credential** may: `Proxy-Authorization: Basic` with a user of `[[identity.user]]`, whose
//!   secret is kept as SHA-256 (random tokens) or argon2id (passwords). One that is presented must
//!   be right, whether or not the listener requires one.
//! - The **username** may carry labels: `<user>.<session>.<channel>[.<traceparent>]`, the session a
//!   UUID, the channel one of `main`, `bash`, `mcp`, `hook`, `lsp`, `plugin`. They are recorded as
//!   `asserted` and never grant anything. Where no users are configured, a username is only that.
//!
//! A caller can never choose a looser tier than its evidence gives. After a failed authentication
//! the next request starts from nothing.
