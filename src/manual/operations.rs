//! Records, metrics, reload, drain, limits.
//!
//! **Records**: JSON lines, schema `record/1` (`config/record.schema.json`). A refused flow leaves
//! one `decision`; one that may pass leaves a `decision` before it acts and a `close` at its end,
//! with the same `tidegate.flow.id`. While the log cannot be written new flows are refused
//! (`on-failure = "refuse"`). After a crash the first line of the next run (`record_gap`) says
//! which flows have no end. SIGHUP opens the file anew; `rotate-size` rotates it.
//!
//! **Metrics** on the admin listener at `/metrics`; alert rules and a dashboard are under
//! `deploy/`. Labels come from closed sets: never a host, session, user or repository.
//! `/healthz` says that the process lives, `/readyz` that it takes flows, `/v1/policy` which
//! generation is in force.
//!
//! | metric | kind | labels | meaning |
//! |---|---|---|---|
//! | `tidegate_build_info` | gauge | version | Always 1: which version runs. |
//! | `tidegate_bytes_total` | counter | direction, category, tier | Bytes carried, counted as they move: out is from the client to the origin. |
//! | `tidegate_certificate_not_after_timestamp_seconds` | gauge | kind | When the first certificate or revocation list of its kind ends: `listener`, `client-ca`, `client-crl`, `inspect-ca`, `upstream`, `upstream-root`. |
//! | `tidegate_certificates_minted_total` | counter |  | Certificates made for inspected destinations. |
//! | `tidegate_contained` | gauge | probe | 0 where the last report of a doctor reached the outside without the gate, else 1. |
//! | `tidegate_contained_timestamp_seconds` | gauge |  | When a doctor last reported; 0 before the first report. |
//! | `tidegate_decision_duration_seconds` | histogram |  | Time to decide one flow by the policy. |
//! | `tidegate_decisions_total` | counter | verdict, mode, category, tier, reason | Flows decided. |
//! | `tidegate_dns_duration_seconds` | histogram |  | Time to resolve a name. |
//! | `tidegate_draining` | gauge |  | 1 from the beginning of shutdown on. |
//! | `tidegate_flow_duration_seconds` | histogram | category | Time from a flow's beginning to its end, of flows that passed. |
//! | `tidegate_flow_ends_total` | counter | end, reason | Ends of flows that passed: reason is a refusal code, `io_error` or `none`. |
//! | `tidegate_flows_active` | gauge | kind | Flows that are open. |
//! | `tidegate_flows_unstarted_total` | counter |  | Flows or clients turned away before they began: no room in the log, or too many clients. |
//! | `tidegate_http2_ended_total` | counter | side, reason | Connections of HTTP/2 that were ended for what the other side sent: `client`, `inside` (a client in an inspected tunnel) or `upstream`; `flood`, or the code of RFC 9113 that it was told, in small letters. |
//! | `tidegate_parent_dials_total` | counter | result | Flows that were to go through a parent proxy: `ok`, or why none took them: `credential`, `garbled`, `own`, `refused`, `resting`, `silent`, `tls`, `unreachable`. |
//! | `tidegate_policy_info` | gauge | digest, generation | Always 1: which policy decides. |
//! | `tidegate_policy_reloads_total` | counter | result | Attempts to load the policy anew. |
//! | `tidegate_policy_stale` | gauge |  | 1 while the files do not load and an earlier policy goes on. |
//! | `tidegate_record_queue_length` | gauge |  | Lines of the decision log that wait to be written. |
//! | `tidegate_records_total` | counter |  | Lines written to the decision log. |
//! | `tidegate_records_lost_total` | counter |  | Lines that will never be in the decision log, whatever the cause. |
//! | `tidegate_sessions_attributed_total` | counter | evidence, trust | Flows by what told their session, and how far it is trusted. |
//! | `tidegate_tls_handshakes_total` | counter | side, result | TLS handshakes: `ok`, or why there was none. Sides: `client` (an https:// proxy), `inside` (clients of inspected tunnels), `upstream` (destinations). |
//! | `tidegate_upstream_connect_duration_seconds` | histogram | category | Time to connect to an origin. |
//! | `tidegate_upstream_errors_total` | counter | error, category | Flows that failed on the way out. |
//!
//! **Reload**: on SIGHUP, or two seconds after the files' content changes. All or nothing: what
//! does not load leaves the last good generation in force, sets `tidegate_policy_stale`, and is
//! on record as `policy_rejected`. Open flows are judged again. `[listen]` and `[record]` take
//! effect at the next start.
//!
//! **Certificates** of listeners, keys, authorities and revocation lists are files of the
//! configuration like any other: what is wrong with one keeps the generation in force, and no TLS
//! session goes on under another generation. A handshake has `limits.header-timeout`. Why one failed
//! is counted (`tidegate_tls_handshakes_total`): `certificate_expired`, `certificate_invalid`,
//! `certificate_nameless`, `certificate_revoked`, `certificate_unknown_issuer`, `crl_missing` (none is
//! fresh for one of its certificates), `no_certificate`, `not_tls`, `plain_http`, `timeout`, `failed`.
//! Inside inspected tunnels there are `authority_not_trusted` (a client that pins, or was not told),
//! `no_authority` and `not_minted` as well; towards destinations the words of [`upstreams`].
//!
//! **What to watch where TLS is inspected**: the ends of `inspect-ca`, `upstream` and `upstream-root`;
//! handshakes of side `inside` that are not `ok` (someone does not trust the authority, or the policy
//! outgrew it: `ca-too-narrow` at a load); of side `upstream` that speak of certificates (ours was
//! revoked, theirs has expired); `tidegate_parent_dials_total` that is not `ok`. A rate of
//! `tidegate_certificates_minted_total` that stays high is somebody who asks for ever new names.
//! `deploy/prometheus/alerts.yaml` has alerts for each. A certificate that the gate shows to a parent
//! is not among those ends.
//!
//! [`upstreams`]: super::upstreams
//!
//! **HTTP/2** has these bounds for each connection: 128 streams at once; header lists of
//! `limits.header-size`, and `limits.header-count` fields, each crumb of a cookie counted; five
//! CONTINUATION frames; 1000 frames that carry nothing (PING, SETTINGS, PRIORITY, `RST_STREAM`, unknown
//! ones) and 100 more in each second after; 100 empty DATA frames; 256 streams that we had to reset
//! for what came on them. Who goes beyond is told `ENHANCE_YOUR_CALM`, and the connection ends
//! (`tidegate_http2_ended_total`); a client may begin another one.
//!
//! **Balancers** that `proxy-protocol` names have to begin with a PROXY header (version 1 or 2); the
//! client is then who they say. From anyone else such a header is a malformed request.
//!
//! **Drain**: SIGTERM takes no new flows and waits `limits.drain` for open ones; a second signal
//! ends them at once. Each leaves its `close`.
//!
//! **Doctor**: `tidegate doctor`, run where the agent runs. It looks at the variables, the proxy and
//! the policy; runs each program it finds against a proxy of its own on loopback, with the
//! variables that are set, for a name below `.invalid`; and tries to get out. `tcp`, `ipv6` and
//! `metadata` are reached where a connection is taken, `udp` where something answers QUIC, `dns`
//! where a name is resolved, `unix` where a socket answers whose owner runs programs outside. What
//! is refused or silent is contained. The targets are public resolvers, 169.254.169.254 for
//! metadata; `--probe-tcp ADDRESS:PORT` and the like replace them. `--report ADMIN` sends the result
//! (`POST /v1/contained`): what it says is asserted by whoever reaches the admin listener.
//!
//! In a jail `doctor` tries each promise of the jail from inside, and prints `yes` or `no` with what
//! it saw: `network`, `files`, `writes`, `processes`, `signals`, `ipc`, `sockets`, `descriptors`,
//! `environment`, `system-calls`, `privileges`. It says `contained` only where every row says `yes`;
//! a `no` makes exit code 1. `TIDEGATE_JAIL`, which `exec --jail` sets, only makes it print these
//! rows. The report is as good as the account that runs `doctor`: an agent can replace the program.
//!
//! **Watch**: while a command runs in a jail, its gate looks at the jail from outside every two
//! seconds. It ends the flows and takes no more where a process of the jail is in a namespace of the
//! gate, has a capability, has lost `no_new_privs` or the filter of system calls, or sees a network
//! interface beside `lo`, and where the mounts of the jail have changed. The record is
//! `containment_lost`; `tidegate.detail` and standard error name the promise and what was seen. The
//! kernel shows no other process's Landlock rules: the watch does not cover them.
//!
//! **Exit codes**: 0 yes; 1 no (a trial failed, a gate is not ready); 2 the input is wrong; 3 not
//! contained; 4 something outside failed.
