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
//! - A **session token** may: `tidegate session start` at the control socket, in the name of another
//!   session (`TIDEGATE_TOKEN`; it only grows narrower), or by hand with `--key`
//!   (`tidegate session keygen`). `--narrow-tier`, `--within`, `--bind-address` and `--bind-listener`
//!   take away from it; `tidegate session revoke NAME` ends it and its open flows.
//!   What a session only says of itself makes it stricter, never looser: one that is started at the
//!   control socket without evidence (`identity.session.local = "narrow"`) is `asserted`, and the id
//!   and the repository that a child names are its own word (`tidegate.session.root` has the
//!   evidence). Open flows end when a token or session is revoked or its key is gone, not when it
//!   expires.
//!   Where TLS is ended, the agent names its session itself (`x-claude-code-session-id`). Where that
//!   is not the session of verified evidence the record says `tidegate.session.mismatch = "header"`;
//!   with `identity.session.header-mismatch = "deny"` the request is refused (403 `denied`, by the
//!   rule of that name).
//!
//! - A **token of an issuer** may: CI jobs and Claude Code on hosts of your own have one
//!   (`[[identity.issuer]]`). It is presented as `Bearer`, or as the password of `Basic`.
//!
//! # Tokens of CI
//!
//! ```toml
//! [[identity.issuer]]
//! name     = "github"
//! preset   = "github-actions"
//! audience = "tidegate.acme.example"
//! require  = { repository_owner_id = "1234" }
//! claims   = { tier = "repo_property_tidegate_tier" }
//!
//! [[identity.issuer]]
//! name     = "gitlab"
//! preset   = "gitlab"
//! issuer   = "https://gitlab.acme.example"
//! audience = "tidegate.acme.example"
//! ```
//!
//! A job of GitHub asks for its token with `permissions: id-token: write`, of GitLab with
//! `id_tokens: { TIDEGATE: { aud: tidegate.acme.example } }`. These hold for minutes: a step before
//! the agent exchanges it, and drops it.
//!
//! ```text
//! curl --data-urlencode "subject_token@token" \
//!   -d grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
//!   -d subject_token_type=urn:ietf:params:oauth:token-type:jwt \
//!   http://127.0.0.1:3130/v1/sessions/exchange
//! ```
//!
//! The answer (RFC 8693) has `access_token`, `expires_in` and `session`. The form also takes `scope`
//! (categories: what the session reaches at most), `tier` (no looser than it), `session`, `agent`,
//! `channel`, `permission_mode` and `lifetime` (seconds). Errors are those of RFC 6749 section 5.2.
//! Where `session` is not said the gate chooses it, and it is `verified`; a name that the job chose
//! is `asserted`, and revoked with the `jti` of the token.
//!
//! - Claims are members of groups: `claim:repository_id=5678`. Names change hands, ids do not: after
//!   a rename, policy by `[[repository]]` follows the new name, a group of ids stays. `sub` is never
//!   taken apart.
//! - A merge request of a GitLab fork has the repository of the fork, although its parent runs it, and
//!   is no looser than its parent either.
//! - Tokens of Buildkite name no repository: `repositories` does, by `organization/pipeline`.
//! - A tier that a claim names makes its repository stricter than `[[repository]]` says, not looser;
//!   one that no tier is called is the strictest.
//! - Each fetch of keys is a flow on record, before anything is dialled: `user.id` is `tidegate`,
//!   `tidegate.channel` is `gate`, and the rule is `identity.issuer.NAME`. What cannot be recorded is
//!   not fetched.
//! - Keys are fetched over https by the guarded dialer, hold for as long as their server says (a
//!   minute to a day), and are fetched again for an unknown key at most once a minute
//!   (`tidegate_issuer_fetches_total`). Where an issuer cannot be reached they are used for `stale`
//!   longer; then its tokens are refused.
//!
//! A caller can never choose a looser tier than its evidence gives. After a failed authentication
//! the next request starts from nothing.
