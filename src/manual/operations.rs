//! Records, metrics, reload, drain, limits.
//!
//! **Records**: JSON lines, schema `record/1` (`config/record.schema.json`). A refused flow leaves
//! one `decision`; a flow that may pass leaves a `decision` before it acts and a `close` at its end,
//! with the same `tidegate.flow.id`. The gate writes the line of a refusal before it answers the
//! client: killing the gate behind an answer loses no line. While the log cannot be written, new
//! flows are refused (`on-failure = "refuse"`). After a crash the next run begins with a
//! `record_gap`, which says which flows have no end. SIGHUP opens the file anew; `rotate-size`
//! rotates it.
//!
//! **Repeated refusals**: after `repeat-after` refusals of one caller for one target, reason and
//! rule within `repeat-window`, or three times as many of one caller in all, the gate counts instead
//! of writing. A line `refusals_repeated` with `tidegate.repeat.state` = `open` stands in the log
//! before the first refusal that is only counted is answered. At the end of the window, at a
//! rotation and at the end of the run, a line with the same `tidegate.repeat.id` and the state `ended`
//! has the exact count and the times of the first and last refusal. A caller that varies its
//! targets has 16 counts, then one for "various targets" with the number of targets
//! (`tidegate.repeat.targets`, at most 1000). The caller is the root session or the user where the
//! evidence is `verified`, else the client address (IPv6: the /64). 256 callers are told apart, the
//! others share their counts. If the gate is killed, the counts that are open are lost:
//! `tidegate.gap.repeats` of the next `record_gap` says how many. `events_repeated` is the same for
//! `session_started` and `session_ended` of one user (8 users are told apart). A counted refusal has no line of its own:
//! `tidegate explain` of its flow id finds none.
//!
//! **How long records are kept**: files older than `retain` are removed, younger ones never, even
//! where `rotate-keep` files are full. Then more disk is used than planned, and the gate says so:
//! `tidegate_records_retention_short` is 1, and a `records_retention_short` line is written. A full
//! disk refuses flows. `records_removed` says which files were removed.
//!
//! **Chain and signatures**: each line ends with `tidegate.chain.seq` (its number, across rotations
//! and restarts), `.prev` (the hash of the line before) and `.hash`: the SHA-256, in hex, of the line
//! without its newline and without the field `tidegate.chain.hash`. By hand:
//! `tail -n 1 FILE | sed 's/,"tidegate.chain.hash":"[0-9a-f]*"}$/}/' | tr -d '\n' | sha256sum`.
//! A `checkpoint` line is written each minute in which there are lines, at the beginning of each
//! file and at the end of a run. It holds an Ed25519 signature with the key of this gate
//! (`[record] key`, by default `record.key` beside the log), which covers all lines before it.
//!
//! `tidegate log verify FILES…` finds lines that were changed, removed, moved, doubled or cut off,
//! and says file, line and number. Give all files, in any order, and the public key
//! (`tidegate log key` prints it; keep it where agents cannot write): without `--public-key` the
//! command believes the key in the log. `--running` accepts that the last two minutes are not signed
//! yet. `--through SEQ` demands that the log reaches a line whose number was kept elsewhere. Exit
//! code 0: whole; 1: not whole; 2: the input is wrong.
//!
//! | tampering | found by |
//! |---|---|
//! | a line before the last checkpoint is changed, removed, added, moved | `log verify` |
//! | the end is cut off | `log verify`: no checkpoint of a stop; the running gate (`record_gap`, `truncated`); the next start, which remembers the last checkpoint beside the key |
//! | the end is cut off at the stop of an earlier run, and the memory beside the key is changed too | `log verify --through SEQ` only |
//! | the oldest files are removed | `log verify` says with which line the log begins; compare with `retain` |
//! | lines of the last minute are changed or made up before the next checkpoint | the running gate, if the length changes; else not |
//!
//! A thief of the private key can write any log and sign it; only copies that left the machine
//! before show it. A process that can write the files, but not read the key, can destroy records
//! and is found out; it cannot make others that verify. So keep the key, like the records, where
//! agents cannot read: they run as another user, or in the jail. Records on standard output have a
//! new chain with each start.
//!
//! **The file**: each second the gate compares the file with what it wrote, and says in a
//! `record_gap` what became of it (`tidegate.gap.cause`), and in
//! `tidegate_record_file_changes_total`: `appended` (another process wrote to it), `truncated`,
//! `removed`, `replaced`, or `moved`. It goes on at its path, with the same chain. It writes to no
//! symbolic link, pipe or device that was put there: then the log fails until that is removed. A log
//! rotation from outside moves the file and sends SIGHUP within two seconds: that is no gap, the new
//! file begins with a `checkpoint` of cause `opened`. `copytruncate` is a truncation: do not use it.
//!
//! **A log shipper** that is not root reads the files where `[record] group` names its group and
//! `mode` is `"0640"`; rotated files keep both. A folder that the gate makes is then open to the group
//! as well. A mode that lets others write is an error.
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
//! | `tidegate_record_file_changes_total` | counter | cause | Changes of the decision log's file that the gate did not make: `appended`, `moved`, `removed`, `replaced`, `truncated`. |
//! | `tidegate_record_queue_length` | gauge |  | Lines of the decision log that wait to be written. |
//! | `tidegate_records_total` | counter |  | Lines written to the decision log. |
//! | `tidegate_records_lost_total` | counter |  | Lines that will never be in the decision log, whatever the cause. |
//! | `tidegate_records_repeated_total` | counter |  | Refusals and events that repeated and are counted in one line instead of having their own; counted at the end of a window. |
//! | `tidegate_records_retention_short` | gauge |  | 1 while `rotate-keep` files do not hold the age that `retain` asks for: more disk is used. |
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
//! **Exit codes**: 0 yes; 1 no (a trial failed, a gate is not ready); 2 the input is wrong; 3 not
//! contained; 4 something outside failed.
