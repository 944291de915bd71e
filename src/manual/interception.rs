//! Looking inside TLS: what is inspected, and how clients come to trust the authority.
//!
//! A client that may reach a host may do there whatever its credentials allow. Where the operator
//! chooses to inspect, the gate decides each request by what it does.
//!
//! # Turning it on
//!
//! 1. Say where: `grant.inspect = true` in a rule, `inspect = ["package-registry"]` in a tier (`"all"`:
//!    everything), or `hosts` and `categories` in `[inspect]` for every tier. This only says what is
//!    inspected; a rule or tier still has to allow it. The rule with the most specific host
//!    decides; where none says anything, `[inspect]` and the tier do.
//! 2. Name the files of an authority in `[inspect]` and run `tidegate ca init --config FILE`. Until
//!    then the file does not load (`no-such-file`).
//! 3. Make callers trust it: `eval "$(tidegate env --config FILE)"`, `tidegate exec --config FILE`, or
//!    `tidegate ca install --config FILE` as root.
//! 4. Check: `tidegate explain --config FILE --method PUT https://…` says `TLS is ended here`, what
//!    the request does, and what decides. `CLONE`, `PUSH` and `TOOL` stand in examples and trials.
//!
//! `config/inspect.toml` is a whole policy with registries, branches, tools and mTLS. Where a tier's
//! allow names an action (`package-registry:read`), say `opaque = "deny"` too: then opaque tunnels
//! do not pass.
//!
//! # What each request needs
//!
//! - The name in the CONNECT, the one in TLS (SNI) and the host of each request are the same, port
//!   included; else the tunnel ends (`sni_mismatch`, `sni_missing`), or the request is answered 421
//!   (`host_mismatch`). Clients that share connections between names (HTTP/2) ask again by their own.
//! - It is well-formed HTTP/1.1 or HTTP/2; HTTP/2 is offered where the origin speaks it. What is not
//!   HTTP ends the tunnel; what a rule with `grant.raw = true` allows is not inspected.
//! - WebSocket and other protocols within HTTP need `grant.upgrade = true` in the rule.
//! - A body that has to be judged (the refs of a push, GraphQL, LFS, MCP) is read up to 1 MiB before
//!   it goes on. All else is streamed as it comes: events, gRPC, trailers, 1xx. Of the trailers of
//!   requests only digests, checksums and those of gRPC go on. Bodies are not
//!   decompressed or changed; of answers only the tools of an MCP server are cut down ([`mcp`]).
//!
//! # Clients that show certificates
//!
//! `client-ca` in `[inspect]` names who signs the certificates of clients: the gate asks each client
//! for one, as the destination would; the certificate is verified, and its SHA-256 is on record
//! (`tls.client.hash.sha256`). `client-cert = "require"` ends the tunnels of those without. It is never
//! sent on: the destination sees that of an `[upstream.NAME]`, or none.
//!
//! # Clients that pin
//!
//! Some programs trust one certificate and no authority. Pass their hosts through by a rule with
//! `inspect = false`; the record has `tidegate.tls.mode = "opaque"`, and the host and port decide:
//!
//! ```toml
//! [[rule]]
//! id            = "updater"
//! verdict       = "allow"
//! to.hosts      = ["updates.example.com"]
//! grant.inspect = false
//! reason        = "its updater pins its certificate"
//! ```
//!
//! # What is recorded
//!
//! The tunnel and each request in it are flows; a request names its tunnel (`tidegate.flow.parent`),
//! both have `tidegate.tls.mode = "inspected"`. Of a request there are the method and what it does:
//! `tidegate.action`, `tidegate.service`, `tidegate.operation`, `tidegate.destination.repository`,
//! `tidegate.destination.ref`, `tidegate.package.name` and `.version`, the MCP server, method and tool;
//! `tidegate.model.tools` are tools that a model's own side runs. The headers in which an agent names
//! itself are labels ([`claude_code`]). Paths, queries, bodies, credentials and arguments are not.
//!
//! # What breaks, and how to recognise it
//!
//! | what is seen | why | what to do |
//! |---|---|---|
//! | `self-signed certificate in certificate chain`, `unable to get local issuer certificate`, `UnknownIssuer`, `SELF_SIGNED_CERT_IN_CHAIN`, `x509: certificate signed by unknown authority` | The client does not trust the authority. | See [Trust](#trust). Start programs anew; a variable is read once. |
//! | the same for one host only, after the policy changed | The client trusts an older authority. | `tidegate ca install`. |
//! | 503 `inspect_unavailable` on the CONNECT | The authority may not make a certificate for the host (`ca-too-narrow`), or has expired. | `tidegate ca rotate`, `tidegate ca install`. |
//! | the record of the tunnel has `error.type` `authority_not_trusted`; so does `tidegate_tls_handshakes_total{side="inside"}` | The client rejects the certificate: it pins, or has roots of its own. | A rule with `grant.inspect = false`, or its own variable for roots. |
//! | 502 `tls_failed` | The certificate of the destination is not good, or it wants one of ours. | The detail has the word: see [`upstreams`]. No switch turns verification off. |
//! | 421 `host_mismatch` | One connection for two hosts. | Nothing; or HTTP/1.1, for a client that gives up. |
//! | 403 inside TLS, with `X-Tidegate-Flow` | A request is refused. | `tidegate explain ID`. |
//! | a protocol of its own at port 443 ends at once | It is not HTTP. | `inspect = false`, or `grant.raw = true`. |
//! | an answer 400 from a server that knows no certificate | The client's own certificate ends at the gate. | [`upstreams`]: the gate shows one. |
//!
//! [`mcp`]: super::mcp
//! [`claude_code`]: super::claude_code
//! [`upstreams`]: super::upstreams
//!
//! # The authority
//!
//! For inspected hosts the gate presents a certificate of its own. A local authority signs that
//! certificate, and callers have to trust the authority.
//!
//! ```toml
//! [inspect]
//! ca-cert = "certs/inspect-ca.pem"
//! ca-key = "certs/inspect-ca.key"
//! previous = ["certs/inspect-ca-previous.pem"]
//! hosts = ["api.example.com", "*.docs.example.com"]
//! ```
//!
//! | command | what it does |
//! |---|---|
//! | `tidegate ca init --config FILE` | Makes it: a P-256 key (mode 600) and a certificate for one year. Never over one that is there, but for `--force`. |
//! | `tidegate ca show --config FILE` | The authority and the hosts that it may sign for; exit code 1 where the policy inspects more, or it has expired. |
//! | `tidegate ca install --config FILE` | As root, makes the system trust it; else says what to run. `--bundle FILE` and `--java [KEYSTORE]` only write that one file. |
//! | `tidegate ca rotate --config FILE` | A new one for what the policy inspects now. The old one is written into the first file of `previous` and published beside it until it ends. |
//!
//! The authority is as limited as possible. Critical name constraints permit what the policy inspects
//! (hosts of rules, tiers, `[inspect]`, and the catalogue's hosts of inspected categories) and no other
//! name or address; path length 0; servers only. A subtree of names always holds its own root and all
//! that is below it, so `a.example.com` permits `x.a.example.com` as well. Where a tier inspects
//! everything there are no constraints, and `ca init` warns: a thief of that key can impersonate any
//! server to each client that trusts the authority. The gate itself makes a certificate only for the
//! name that was asked for, and for none that the constraints do not permit.
//!
//! When the policy comes to inspect more, `tidegate check` and every load warn with `ca-too-narrow`:
//! run `ca rotate`, then `ca install` wherever the old one is trusted. A running gate takes the new
//! files within seconds, and signs with the new key from then on; a program that read its roots
//! before has to be started anew. `tidegate_certificate_not_after_timestamp_seconds` of kind
//! `inspect-ca` says when it ends; loading warns from 30 days before.
//!
//! A key file that its group or others can read is refused. In a jail the key does not exist.
//!
//! An authority of your own (PKCS#8 or SEC1 in PEM; P-256, P-384, RSA) does as well: the first
//! certificate of `ca-cert` signs, those behind it lead to a root and are sent along. It has to be an
//! authority that may sign for servers; the constraints of every certificate of the chain are heeded,
//! and the first end in it counts. A certificate that a client could read in another way than the gate
//! is refused at the load (`bad-pem`): an extension that cannot be read, a critical one that is
//! unknown, name constraints with a network that is none, with directory names or with an unknown kind
//! of name.
//!
//! # Certificates of destinations
//!
//! Exactly the name or address that was asked for, and nothing from the certificate of the origin.
//! One P-256 key for all of them, made at start and anew each day, in memory only; a random serial
//! of 128 bits; valid from two days ago, for clocks that are behind, for `leaf-lifetime` ("24 h" to
//! "7 d"). Made once for a name, however many ask at once; those of the last 2048 to 4096 names are
//! kept (`tidegate_certificates_minted_total`). No TLS session is resumed.
//!
//! # WebSocket
//!
//! A WebSocket is a permission of its own: a rule has to say `grant.upgrade = true`. It is judged and on
//! record as the `GET` that opens it (status 101), with the bytes of both ways; it ends when the
//! policy no longer lets it pass, when a rule loses `grant.upgrade`, or after `limits.idle` of silence.
//!
//! Over HTTP/1.1 it has a connection of its own to the origin, also where that speaks HTTP/2
//! besides. Over HTTP/2 (RFC 8441) it is a stream: offered to the client only where the connection
//! to the origin offers it, and passed on as a stream there. Such a request must be `https`, for
//! `websocket` and nothing else (501), for the host of its tunnel (421, `host_mismatch`), and leave
//! its stream open (400); what an origin says instead of 2xx is passed on. One that was not offered
//! is reset. An end is passed on as an end, a break or a cut as a reset (`CANCEL`). An `https://`
//! proxy listener offers none.
//!
//! # Trust
//!
//! The gate keeps two files beside its records: `trust-bundle.pem` has the system's roots and ours,
//! `trust-tidegate.pem` ours alone; both follow the authority. `tidegate env --config FILE` prints
//! these variables, and `tidegate exec` sets them for its command:
//!
//! | client | reads | file |
//! |---|---|---|
//! | curl | `CURL_CA_BUNDLE`, `SSL_CERT_FILE` | whole |
//! | git | `GIT_SSL_CAINFO` | whole |
//! | Go, gh, uv, httpx, rustup | `SSL_CERT_FILE` | whole |
//! | cargo | `CARGO_HTTP_CAINFO` | whole |
//! | pip | `PIP_CERT` | whole |
//! | requests | `REQUESTS_CA_BUNDLE` | whole |
//! | aws | `AWS_CA_BUNDLE` | whole |
//! | gcloud | `CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE` | whole |
//! | nix | `NIX_SSL_CERT_FILE` | whole |
//! | node, npm, pnpm, yarn, bun | `NODE_EXTRA_CA_CERTS` | ours |
//! | deno | `DENO_CERT` | ours |
//! | Java | `JAVA_TOOL_OPTIONS`, where `ca install --java` made `trust-java.p12` | a store of its own |
//! | wget, apt and others | the system's trust: `ca install` | |
//!
//! Where `SSL_CERT_FILE` is set already, the bundle has those roots instead of the system's.
//! `npm_config_cafile` is not set: it would take the place of a `cafile` in `.npmrc`. Where there is
//! one, npm reads only that: add ours to it. yarn 1 may want it, too.
//!
//! Without `tidegate` at hand, the proxy itself serves them: `http://tidegate.internal/` says what to
//! do, `/ca.pem` has the current and former certificates, `/ca.crt` the current one in DER. Who may
//! use the proxy may read these pages; nothing is resolved or dialled, each is on record (rule
//! `tidegate.internal`), and nothing else of the gate is there.
