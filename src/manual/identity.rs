//! Who asks, which repository it is, and what counts as evidence.
//!
//! - A **listener** may name the caller: `[[listener]]` with `user`, `groups`, `repository`, `tier`.
//!   Each client that can reach the listener is that caller.
//! - A **certificate** may name the caller where the listener speaks TLS (`[listen.proxy-tls]`, or `tls` of a
//!   `[[listener]]`) and has a `client-ca`. Its names of the kinds in `client-identity` are
//!   compared with `san:` members of groups; the first of the best kind is the caller's subject:
//!   a URI (a SPIFFE id, which has to be the only URI), a DNS name, an e-mail address, the common
//!   name only when asked for. Addresses and wildcards are passed over; a name that is not plain
//!   ASCII, or a certificate without a name, is no evidence, and the connection ends. The certificate is
//!   verified again with every reload: flows end whose certificate was revoked, or whose authority was
//!   removed. A certificate satisfies `identity = "required"`.
//! - A **credential** may name the caller: `Proxy-Authorization: Basic` with a user of
//!   `[[identity.user]]`, whose secret is kept as SHA-256 (random tokens) or argon2id (passwords). A
//!   credential that is presented must be right, whether or not the listener requires one.
//! - The **username** may carry labels: `<user>.<session>.<channel>[.<traceparent>]`, the session a
//!   UUID, the channel one of `main`, `bash`, `mcp`, `hook`, `lsp`, `plugin`. They are recorded as
//!   `asserted` and never grant anything. Where no users are configured, the whole username is a label.
//! - A **session token** may name the caller. `tidegate session start` makes one at the control socket,
//!   as the child of another session (`TIDEGATE_TOKEN`; with its rights or fewer), or with `--key`
//!   (`tidegate session keygen`). `--narrow-tier`, `--within`, `--bind-address` and `--bind-listener`
//!   reduce its rights; `tidegate session revoke NAME` ends it and its open flows. Statements of a
//!   session about itself make it stricter, never looser. A session that is started at the control
//!   socket without evidence (`identity.session.local = "narrow"`) is `asserted`, and so are the id
//!   (`tidegate.session.trust`; `tidegate.session.root` has the evidence) and the repository
//!   (`tidegate.repository.trust`) that a child names. Open flows end when a token or session is
//!   revoked or its key is removed, not when the token expires. Where TLS is inspected, the agent names
//!   its session in a header (`x-claude-code-session-id`). Where that is neither the session of
//!   verified evidence, nor an id that the agent's hooks reported, nor a child's, the record has `tidegate.session.mismatch = "header"`; with
//!   `identity.session.header-mismatch = "deny"` the request is refused (403 `denied`, by the rule of
//!   that name).
//!
//! - A **token of an issuer** may name the caller: CI jobs and Claude Code on hosts of your own have one
//!   (`[[identity.issuer]]`). The client presents it as `Bearer`, or as the password of `Basic`.
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
//! `id_tokens: { TIDEGATE: { aud: tidegate.acme.example } }`. These tokens are valid for minutes: a step
//! before the agent exchanges the token, and does not keep it.
//!
//! ```text
//! curl --data-urlencode "subject_token@token" \
//!   -d grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
//!   -d subject_token_type=urn:ietf:params:oauth:token-type:jwt \
//!   http://127.0.0.1:3130/v1/sessions/exchange
//! ```
//!
//! The answer (RFC 8693) has `access_token`, `expires_in` and `session`. The form also takes `scope`
//! (categories that the session may reach at most), `tier` (no looser than it), `session`, `agent`,
//! `channel`, `permission_mode` and `lifetime` (seconds). Errors are those of RFC 6749 section 5.2.
//! Without `session` the gate chooses the id, and the id is `verified`; an id that the job chose
//! is `asserted`, and is revoked with the `jti` of the token.
//!
//! - Claims are members of groups: `claim:repository_id=5678`. Names change hands, ids do not: after
//!   a rename, policy by `[[repository]]` follows the new name, a group of ids stays. `sub` is never
//!   taken apart.
//! - A merge request of a GitLab fork has the repository of the fork, although its parent runs it, and
//!   is no looser than its parent either.
//! - Tokens of Buildkite name no repository: `repositories` does, by `organization/pipeline`.
//! - A tier that a claim names makes its repository stricter than `[[repository]]` says, not looser;
//!   an unknown name of a tier counts as the strictest tier.
//! - Each fetch of keys is a flow on record, before anything is dialled: `user.id` is `tidegate`,
//!   `tidegate.channel` is `gate`, and the rule is `identity.issuer.NAME`. Where the
//!   log cannot be written, no key is fetched.
//! - Keys are fetched over https, from addresses that the floor permits. They are used for as long as
//!   their server says (a minute to a day), and fetched again for an unknown key at most once a minute
//!   (`tidegate_issuer_fetches_total`). Where an issuer cannot be reached, its keys are used for
//!   `stale` longer; then its tokens are refused.
//!
//! # Which repository it is
//!
//! The repository of a caller needs evidence of its own; evidence of the session is not enough. Each
//! record has `tidegate.repository.trust` (`verified`, `asserted`, `none`) and
//! `tidegate.repository.basis`:
//!
//! | basis | what names the repository | trust |
//! |---|---|---|
//! | `issuer` | a claim of an issuer's token | verified |
//! | `workspace` | a `[[workspace]]` with the folder of the session | verified where a launcher (`exec`) or a trusted client (`identity.session.local = "trust"`) names the folder; else asserted |
//! | `pin` | `tidegate workspace pin`, or the first use of the folder | verified for a pin of the operator in `exec --jail`; else asserted |
//! | `listener`, `user` | `repository` of a `[[listener]]` or an `[[identity.user]]` | verified |
//! | `session` | the URL in `session start --repository` | as the session: verified with a key or `local = "trust"`; of a child, asserted |
//! | `working-copy` | the files in `.git` | asserted |
//!
//! An **asserted** repository can make the tier stricter, never looser: the tier is the strictest of
//! the tier without a repository and the tier of the repository that is named. So `git remote set-url`
//! in one session does not give the next session a looser tier.
//!
//! ```toml
//! [[workspace]]
//! path       = "/srv/src/payments/**"
//! repository = "github.com/acme/payments"
//! ```
//!
//! - A **workspace** is the folder and all below it, by the path without symbolic links. An agent that
//!   can write the file of the policy can change the workspace: keep that file where agents cannot
//!   write. A workspace says which repository the *folder* is for, not which files are in the folder:
//!   an agent that can write two folders can copy from one to the other. Where a user other than root
//!   can put another folder in its place, `tidegate check` warns. A working copy in it that names a
//!   repository of a stricter tier makes the tier as strict. No folder may be in two workspaces of
//!   different repositories.
//! - A **pin** is for folders without a workspace. `exec` pins a working copy at its first use:
//!   path, device, inode and birth of its top folder, and the repository that it named.
//!   A first use is no evidence, because an earlier session may have written what is found there. It
//!   makes changes visible: where the working copy of a pinned folder names another repository
//!   or none, or another folder has its path, `exec` runs nothing, says both values, exits with 2, and
//!   leaves a `session_refused` line. `tidegate workspace forget PATH` removes the pin.
//!   `tidegate workspace pin [PATH]` makes a pin of the operator, `tidegate workspace list` shows all
//!   (each with `--json`).
//!   The pins are one JSON file, `$XDG_STATE_HOME/tidegate/workspaces.json` (mode 0600, replaced as a
//!   whole, held locked while it changes), which does not exist in a jail. **A process of the same user
//!   outside a jail can rewrite it**, as it can that user's policy: a pin is evidence only where every
//!   command that is not trusted runs in a jail. `tidegate run` reads no
//!   pins, because its callers' folders may be on other hosts and it has no folder of its own to
//!   compare with a pin: write a `[[workspace]]`.
//! - The **working copy** counts only where its top folder, its `.git`, and what these point to
//!   (`gitdir:`, `commondir`, symbolic links) belong to the user of the process, or, for root under
//!   `sudo`, to the user who called it, as git's `safe.directory` has it. A working copy of another
//!   user does not count, and `exec` says so. `GIT_DIR` and similar variables, `include` and
//!   `url.*.insteadOf` are not looked at.
//! - Clone URLs that differ only in spelling name the same repository: scheme, user, usual port, a final
//!   dot or capitals of the host, needless percent-encoding and `.git` do not count.
//!
//! **Branch and commit** (`vcs.ref.head.name`, `vcs.ref.head.revision`) are read from the working copy
//! when a flow is decided, at most once a second; a file system that does not answer within 250 ms
//! leaves them as they were. `tidegate.vcs.trust` is `verified` where an issuer's token names them, and
//! `asserted` otherwise, because an agent can write the files of its working copy.
//!
//! A caller can never choose a looser tier than its evidence gives. After a failed authentication
//! the next request starts from nothing.
