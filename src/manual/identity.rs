//! Who asks, and what that is worth.
//!
//! - A **listener** may say it: `[[listener]]` with `user`, `groups`, `repository`, `tier`; who can
//!   reach the listener is that caller.
//! - A **credential** may: `Proxy-Authorization: Basic` with a user of `[[identity.user]]`, whose
//!   secret is kept as SHA-256 (random tokens) or argon2id (passwords). One that is presented must
//!   be right, whether or not the listener requires one.
//! - The **username** may carry labels: `<user>.<session>.<channel>[.<traceparent>]`, the session a
//!   UUID, the channel one of `main`, `bash`, `mcp`, `hook`, `lsp`, `plugin`. They are recorded as
//!   `asserted` and never grant anything. Where no users are configured, a username is only that.
//! - A **session token** may: `tidegate session start` at the control socket, in the name of another
//!   session (`TIDEGATE_TOKEN`; it only grows narrower), or by hand with `--key`
//!   (`tidegate session keygen`). `--narrow-tier`, `--within`, `--bind-address` and `--bind-listener`
//!   take away from it; `tidegate session revoke NAME` ends it and its open flows.
//!
//! A caller can never choose a looser tier than its evidence gives. After a failed authentication
//! the next request starts from nothing.
