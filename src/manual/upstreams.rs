//! mTLS for callers without keys: `[upstream.NAME]`.
//!
//! Where the gate ends TLS (`inspect`), or makes a plain request TLS, it can present a client
//! certificate of its own to the destination. The agent asks for `https://internal.example/` and has
//! neither key nor certificate.
//!
//! ```toml
//! [upstream.internal-mtls]
//! client-cert = "certs/agent.pem"
//! client-key = "certs/agent.key"
//! roots = ["certs/internal-ca.pem"]
//! hosts = ["internal.example"]
//! ```
//!
//! **Which one**: the rule that decides may name one (`upstream = "internal-mtls"`); else the one
//! whose `hosts` or `categories` the destination has; else the system's roots and no certificate.
//!
//! **Keys** are PKCS#8, SEC1 or PKCS#1 in PEM, mode 600: a key or a passphrase that others can read
//! is refused. An encrypted key is PKCS#8 with PBES2 (AES; PBKDF2 or scrypt), as `openssl pkcs8
//! -topk8` writes it; `client-key-passphrase` names the file of its passphrase, one line.
//!
//! **Trust**: `roots` replace the system's for these destinations. `pins` come on top: the
//! chain is verified as always, and then one key of that chain, leaf, authority or root, has to be
//! pinned. No key of the configuration turns verification off. `server-name` is for a destination that
//! is reached under another name than its certificate has.
//!
//! **Revocation**: `crl` names revocation lists in PEM, for internal authorities. Every certificate of
//! the chain below the root needs a list of its issuer that is fresh, and must not be on it: no list is
//! `crl_missing`, a stale one `crl_expired`, one of another key `crl_invalid`, and none of them passes. A
//! file that cannot be read does not load. Lists are read anew when their files change; with `crl` no TLS
//! session is resumed.
//!
//! **What is looked at** in every chain, with or without `[upstream.*]`: names, times, signatures and
//! purposes (RFC 5280, without SHA-1); the root's own times; RSA keys of 2,048 bits and more; that each
//! authority may sign certificates (`cA`, `keyCertSign`, path length, name constraints); that a leaf
//! with a key usage may sign (`digitalSignature`); that a leaf that says `status_request` (RFC 7633, "must
//! staple") comes with a stapled OCSP response that says `successful`.
//!
//! **What is not looked at**: the signature and the content of that OCSP response; OCSP servers; lists
//! that a certificate names (`cRLDistributionPoints`); signed certificate timestamps (CT); the lists of
//! revoked certificates that browsers ship. Without `crl`, a certificate that its authority revoked is
//! taken until it ends: only destinations with `crl` can fail with `certificate_revoked`.
//!
//! **Rotation**: write the new certificate and its key; within seconds the gate takes both. A file that
//! is half written, or a key that does not match, changes nothing (`tidegate_policy_stale`). Requests that
//! are under way go on; from the next one on, in open tunnels as well, the new certificate is shown,
//! and no TLS session is resumed across a change. A certificate that has expired is taken with a
//! warning.
//!
//! **Reuse**: a TLS session is resumed only by the caller that began it, at the same host and port, and
//! for an hour at most; early data (0-RTT) is never sent. A tunnel takes a connection that an earlier
//! tunnel of the same caller left, where the origin speaks HTTP/1.1: judged by the same policy, with the
//! same upstream and parent, to an address that still passes, not closed by the origin, unused for less
//! than 30 seconds and opened less than an hour ago. The record says so: `tidegate.connection.reused`.
//! With `crl` or `client-cert`, where a certificate can be revoked at any time, each tunnel opens a
//! connection of its own.
//!
//! **Watching**: `tidegate_certificate_not_after_timestamp_seconds` says when the first one ends, of
//! kind `upstream` (our own), `upstream-root` and `upstream-crl`; `tidegate doctor` names each, and
//! those that end within two weeks are findings.
//!
//! **When it fails**, refusal, record (`error.type`) and `tidegate_tls_handshakes_total` say why:
//!
//! | word | meaning |
//! |---|---|
//! | `client_certificate_required` | The upstream wants a certificate: name one. |
//! | `client_certificate_expired` | It says that ours has expired. |
//! | `client_certificate_revoked` | It says that ours is revoked. |
//! | `client_certificate_rejected` | It does not take ours: an authority that it does not know, the wrong kind. |
//! | `certificate_expired`, `certificate_not_yet_valid` | The upstream's certificate is not valid now. |
//! | `certificate_name` | It is for another name. |
//! | `certificate_unknown_issuer` | No root that is trusted vouches for it. |
//! | `certificate_root_expired` | The root of its chain has expired, or is not valid yet. |
//! | `certificate_signature` | One of that name vouches for it, with another key than the root that is trusted. |
//! | `certificate_weak_key` | An RSA key in its chain has less than 2,048 bits. |
//! | `certificate_algorithm` | A signature in its chain is of a kind that is not allowed, e.g. SHA-1. |
//! | `certificate_not_authority` | A certificate of its chain signs another, and may not (`cA`, `keyCertSign`). |
//! | `certificate_path_length`, `certificate_chain` | More authorities than one of them permits; too long a chain. |
//! | `certificate_name_constraints` | An authority of its chain may not sign for its name. |
//! | `certificate_purpose` | It is not for servers (extended key usage). |
//! | `certificate_key_usage` | It may not sign a handshake (`digitalSignature`). |
//! | `certificate_is_authority` | It is the certificate of an authority itself. |
//! | `certificate_extension`, `certificate_malformed`, `certificate_version` | A critical extension that is unknown; not well-formed; not of version 3. |
//! | `certificate_not_pinned` | None of the keys in its verified chain is pinned. |
//! | `certificate_not_stapled` | It asks for a stapled OCSP response, and there is none that says `successful`. |
//! | `certificate_revoked` | It is, or an authority of its chain is, on a list in `crl`. |
//! | `crl_missing`, `crl_expired`, `crl_invalid` | `crl` has no list of one of its issuers; a stale one; one that its issuer did not sign. |
//! | `certificate_invalid`, `no_certificate` | It is not good in another way; there is none. |
//! | `version` | No version of TLS is left that both speak. |
//! | `handshake_failure` | The upstream gave up without a reason: in TLS 1.2 a missing certificate looks like this. |
//! | `unrecognized_name`, `alert`, `failed`, `name`, `not_tls` | Something else about TLS. |
//! | `network` | The connection broke off: nothing was said about certificates. |
//!
//! Some servers (nginx) take any certificate in the handshake and answer 400 later: that answer is
//! passed on as it is.
