//! Records, metrics, reload, drain, limits.
//!
//! **Records**: JSON lines, schema `record/1` (`config/record.schema.json`). A refused flow leaves
//! one `decision`; a flow that may pass leaves a `decision` before it acts and a `close` at its end,
//! with the same `tidegate.flow.id`. The gate writes the line of a refusal before it answers the
//! client: killing the gate after an answer loses no line. While the log cannot be written, new
//! flows are refused (`on-failure = "refuse"`). After a crash the next run begins with a
//! `record_gap`, which lists the flows without a close record. SIGHUP opens the file anew;
//! `rotate-size` rotates it.
//!
//! **Repeated refusals**: after `repeat-after` refusals of one caller for one target, reason and
//! rule within `repeat-window`, or three times as many of one caller in all, the gate counts instead
//! of writing. A line `refusals_repeated` with `tidegate.repeat.state` = `open` stands in the log
//! before the first refusal that is only counted is answered. At the end of the
//! window and at the end of the run, a line with the same `tidegate.repeat.id` and the state `ended`
//! has the exact count and the times of the first and last refusal; a file that begins in between
//! names the open counts in `tidegate.checkpoint.repeats`. A caller that varies its
//! targets has 16 counts, then one for "various targets" with the number of targets
//! (`tidegate.repeat.targets`, at most 1000). The caller is the root session or the user where the
//! evidence is `verified`, else the network of the client address (IPv6: the /64; all loopback
//! addresses are one). 256 addresses are told apart, 256 verified sessions (then their users) and 256
//! verified users; the others of each share counts that name no caller. If the gate is killed, the
//! counts that are open are lost: `tidegate.gap.repeats` of the next `record_gap` says how many.
//! `events_repeated` is the same for `session_started`, `session_ended` and `session_refused` of one
//! user (8 users are told apart), and for `tool_call_started` and `tool_call_ended` of one session (64
//! sessions). A counted refusal has no line of its own:
//! `tidegate explain` of its flow id finds none.
//!
//! **How long records are kept**: files whose last line is older than `retain` are removed, younger ones never, even
//! where `rotate-keep` files are full. Then more disk is used than planned, and the gate says so:
//! `tidegate_records_retention_short` is 1, and a `records_retention_short` line is written. A full
//! disk refuses flows. `records_removed` says which files were removed.
//!
//! **Chain and signatures**: each line ends with `tidegate.chain.seq` (its number, across rotations
//! and restarts), `.prev` (the hash of the line before) and `.hash`: the SHA-256, in hex, of the line
//! without its newline and without the field `tidegate.chain.hash`. By hand:
//! `tail -n 1 FILE | sed 's/,"tidegate.chain.hash":"[0-9a-f]*"}$/}/' | tr -d '\n' | sha256sum`.
//! A `checkpoint` line is written each minute (without a key: each in which there are lines), at the
//! beginning of each further file and run, and at the end of a run. It holds an Ed25519 signature with the key of this gate
//! (`[record] key`, by default `record.key` beside the log), which covers all lines before it.
//!
//! `tidegate log verify FILES…` finds lines that were changed, removed, moved, doubled or cut off,
//! and says file, line and number. Give all files, in any order, and the public key
//! (`tidegate log key` prints it; keep it where agents cannot write): without `--public-key` the
//! command believes the key in the log. With it, a log that nothing signs is not whole. Between a
//! checkpoint and an unsigned line there are two minutes at most. `--running` accepts that the last
//! two minutes are not signed yet, and demands a signature younger than that. The last line of the
//! answer says up to which line the log is signed, and when. `--through SEQ` demands that the log reaches a line whose number was kept elsewhere. Exit
//! code 0: whole; 1: not whole; 2: the input is wrong.
//!
//! | tampering | found by |
//! |---|---|
//! | a line before the last checkpoint is changed, removed, added, moved | `log verify` |
//! | the end is cut off | `log verify`: no checkpoint of a stop; the running gate (`record_gap`, `truncated`); the next start, which compares the log with the last checkpoint (a file beside the key) |
//! | the end is cut off at the stop of an earlier run, and the file beside the key is changed too | `log verify --through SEQ` only |
//! | the oldest files are removed | `log verify` says with which line the log begins; compare with `retain` |
//! | lines of the last minute are changed or made up before the next checkpoint | the running gate, if the length changes; else not |
//!
//! A thief of the private key can write any log and sign it; only copies that left the machine
//! before can show that. A process that can write the files, but not read the key, can destroy
//! records, which `log verify` finds; it cannot make records that verify. So keep the key, like the
//! records, where agents cannot read: run agents as another user, or in the jail. Records on standard
//! output have a new chain with each start.
//!
//! **The file**: each second the gate compares the file with what it wrote, and reports a
//! change in a `record_gap` (`tidegate.gap.cause`) and in
//! `tidegate_record_file_changes_total`: `appended` (another process wrote to it), `truncated`,
//! `removed`, `replaced`, or `moved`. The gate goes on at the path of the log, with the same
//! chain. It does not write to a symbolic link, pipe or device at that path: the log fails until that
//! is removed. A log rotation from outside moves the file and sends SIGHUP within two seconds: that is
//! no gap, and the new file begins with a `checkpoint` of cause `opened`. `copytruncate` is a
//! truncation: do not use it.
//!
//! **A log shipper** that is not root reads the files where `[record] group` names its group and
//! `mode` is `"0640"`; rotated files keep both. A folder that the gate makes is then open to the group
//! as well. A mode that lets others write is an error.
//!
//! **Metrics** on the admin listener at `/metrics`; alert rules and a dashboard are under
//! `deploy/`. Labels come from closed sets: never a host, session, user or repository.
//! `/healthz` says that the process runs, `/readyz` that it takes flows, `/v1/policy` which
//! generation is in force.
//!
//! | metric | kind | labels | meaning |
//! |---|---|---|---|
//! | `tidegate_accept_errors_total` | counter | error | Clients that could not be accepted: `exhausted` (descriptors, memory), `aborted` (the client left), `other`. |
//! | `tidegate_build_info` | gauge | version | Always 1: which version runs. |
//! | `tidegate_bytes_total` | counter | direction, category, tier | Bytes carried, counted as they move: out is from the client to the origin. |
//! | `tidegate_certificate_not_after_timestamp_seconds` | gauge | kind | When the first certificate or revocation list of its kind ends: `listener`, `client-ca`, `client-crl`, `inspect-ca`, `upstream`, `upstream-root`, `upstream-crl`, `parent`. |
//! | `tidegate_certificates_minted_total` | counter |  | Certificates made for inspected destinations. |
//! | `tidegate_connections` | gauge |  | Clients that are connected, also those that were answered and are waited for. |
//! | `tidegate_connections_evicted_total` | counter |  | Waiting connections that were ended to make room for new ones. |
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
//! | `tidegate_parent_dials_total` | counter | result | Flows that were to go through a parent proxy: `ok`, or why none took them: `credential`, `descriptors`, `garbled`, `own`, `refused`, `resting`, `silent`, `tls`, `unreachable`. |
//! | `tidegate_policy_advisory` | gauge |  | 1 where a caller can change the policy: it is advice to that caller. |
//! | `tidegate_policy_info` | gauge | digest, generation | Always 1: which policy decides. |
//! | `tidegate_policy_reloads_total` | counter | result | Attempts to load the policy anew. |
//! | `tidegate_policy_stale` | gauge |  | 1 while the files do not load and an earlier policy goes on. |
//! | `tidegate_rate_limited_total` | counter | kind | What callers did beyond their rate, and were told 429: `connections`, `refusals`, `sessions`, `admin`. |
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
//! **Reload**: on SIGHUP, or two seconds after the files' content changes. All or nothing: files
//! that do not load leave the last good generation in force, set `tidegate_policy_stale`, and
//! write `policy_rejected`. Open flows are decided again. `[listen]` and `[record]` take
//! effect at the next start.
//!
//! **Connections**: TCP keep-alive on both sides finds a peer that vanished (probes after 60 s
//! without traffic, every 15 s). The gate closes the connection of a peer that takes no byte for
//! 10 minutes although bytes wait for it (`TCP_USER_TIMEOUT`). A peer that answers probes may be silent
//! for as long as `limits.idle` says. A listener that cannot accept waits a tenth of a second between
//! tries, logs at most every ten seconds, and counts in `tidegate_accept_errors_total`.
//!
//! **Room for clients**: as many clients as the descriptors permit (see there), at most `limits.flows`,
//! may be connected at once. Where one more comes, the gate ends one connection that *waits*: whose
//! client has not sent a whole PROXY header, TLS handshake or request head, or is between two
//! requests, or reads the end of an answer. It ends the connection that has waited longest, of the
//! network (an IPv4 address, an IPv6 /64) with the most waiting connections, and none that has waited
//! for less than 20 ms. The gate never ends a connection whose request it is answering, nor a tunnel;
//! where no connection waits, it turns the new client away (`tidegate_flows_unstarted_total`). So a
//! client that opens connections and sends nothing keeps no other client out. Behind a balancer the
//! network is that of the client in the PROXY header. All processes of one host are one network: among
//! them the oldest connection makes room, and an idle client of that host may have to connect again.
//! Connections that were ended are counted in `tidegate_connections_evicted_total`, and on record in
//! `connections_evicted` (`tidegate.evicted.count`; `client.address` is the network of the last one):
//! a line at once, then at most one each minute, and at the end.
//!
//! **Who could change the policy**: `run` refuses, at its start and at each reload, a policy, include,
//! key, certificate, list, password file or program, and any folder above them up to `/`, that a user
//! other than root and the gate's own owns, or that the group or the world may write to (as
//! `StrictModes` of sshd). Of a symbolic link, `run` checks the link, its folders and those of its
//! target. A folder that the world may write to passes where it is sticky (`/tmp`): no other user can
//! replace files there. The group may write where it is the private group of the gate's own user. An owner
//! who is no caller is named at the start: `run --policy-owner 1000` (a bind mount of a container keeps
//! its owner). Each finding names the path, its owner or mode, and the command that corrects it;
//! `tidegate check` shows the same as warnings. A change of the mode alone is found at
//! the next reload. Files are read after the folders were checked: a file that changes in between is
//! an error.
//!
//! **Programs** that the gate starts: `credential-command` of a parent, no other. The program is named
//! by its absolute path and is an executable regular file. The gate checks the program, arguments that
//! are files, and the folders above them as it checks the policy, at each load and before each start.
//! In `exec`, root must own them, they lie outside what the command writes, the program is no
//! interpreter (`sh`, `python`, `env` …), and arguments have letters, digits and `-_.,:=@+` only: name
//! a script of root's. The program runs in `/`, with the environment `PATH=/usr/bin:/bin` and nothing
//! else, without input, for at most 10 seconds, and may write 16 KiB; then its process group is killed.
//! `program_started` is on record before it starts, `program_ended` after, with
//! `process.executable.path`, what it is for, `tidegate.program.result` (`ok`, `failed`,
//! `not_started`, `timeout`, `too_much_output`, `cancelled`), `process.exit.code` and
//! `tidegate.ms.total`. The operator protects the files that the program itself reads or runs.
//!
//! **Advice**: `policy_advisory` is on record once, with the reason, where the gate runs as a person or
//! where a caller on this host is its own user ([`start`](super::start)).
//!
//! **Certificates** of listeners, keys, authorities and revocation lists are files of the configuration
//! like any other: an error in one keeps the last good generation in force. No TLS session is resumed
//! under another generation. A handshake has `limits.header-timeout`. Why one failed is counted
//! (`tidegate_tls_handshakes_total`): `certificate_expired`, `certificate_invalid`,
//! `certificate_nameless`, `certificate_revoked`, `certificate_unknown_issuer`, `crl_missing` (none is
//! fresh for one of its certificates), `no_certificate`, `not_tls`, `plain_http`, `timeout`, `failed`.
//! Inside inspected tunnels there are `authority_not_trusted` (a client that pins, or that has not the
//! authority), `no_authority` and `not_minted` as well; towards destinations the words in
//! [`upstreams`].
//!
//! **What to watch where TLS is inspected**: the ends of `inspect-ca`, `upstream`, `upstream-root` and
//! `upstream-crl`; handshakes of side `inside` that are not `ok` (a client does not trust the
//! authority, or the policy inspects hosts that the authority does not permit: `ca-too-narrow` at a
//! load); of side `upstream` that speak of certificates (ours was revoked, theirs has expired);
//! `tidegate_parent_dials_total` that is not `ok`. A rate of `tidegate_certificates_minted_total` that
//! stays high is a client that asks for ever new names. `deploy/prometheus/alerts.yaml` has alerts for
//! each. The end of a certificate that the gate shows to a parent proxy is of kind `parent`.
//!
//! [`upstreams`]: super::upstreams
//!
//! **HTTP/2** has these bounds for each connection: 128 streams at once; header lists of
//! `limits.header-size`, and `limits.header-count` fields, each crumb of a cookie counted; five
//! CONTINUATION frames; 1000 frames that carry nothing (PING, SETTINGS, PRIORITY, `RST_STREAM`, unknown
//! ones) and 100 more in each second after; 100 empty DATA frames; 256 streams that we had to reset
//! for what came on them. A peer beyond a bound is sent `ENHANCE_YOUR_CALM`, and its connection ends
//! (`tidegate_http2_ended_total`); a client may begin another one.
//!
//! **Descriptors** (`RLIMIT_NOFILE`, raised to its hard limit at the start): 256 stay free for the log,
//! the admin listener and name servers, half of the rest is for clients, half for what is dialled for
//! them: connections to origins (also idle ones), look-ups, and the pipes of bulk transfers. A caller
//! may have twice as many as are free: a caller alone has at most two thirds, and each further caller
//! finds some free. Beyond that, the gate closes idle connections of the caller, and then refuses the
//! flow (429 `too_many_flows`). `tidegate_connections` counts clients until their socket is closed; a
//! client that does not read has a second after its answer.
//!
//! **Retries**: the gate sends a request once more, over a new connection and as the same flow, where
//! the origin has not processed it (the connection was closed before, `REFUSED_STREAM`, GOAWAY) or where
//! the method is idempotent (`GET`, `HEAD`, `OPTIONS`, `PUT`, `DELETE`), and at most 64 KiB of the body
//! were read.
//!
//! **Balancers** that `proxy-protocol` names have to begin with a PROXY header (version 1 or 2); the
//! client address is then the one in that header. From any other peer such a header is a malformed
//! request.
//!
//! **Drain**: SIGTERM takes no new flows and waits `limits.drain` for open ones; a second signal
//! ends them at once. Each flow leaves its `close` line.
//!
//! **Doctor**: `tidegate doctor`, run where the agent runs. It looks at the variables, the proxy and
//! the policy; runs each program it finds against a proxy of its own on loopback, with the
//! variables that are set, for a name below `.invalid`; and tries to get out. `tcp`, `ipv6` and
//! `metadata` are reached where a connection is taken, `udp` where something answers QUIC, `dns`
//! where a name is resolved, `unix` where a socket answers whose owner runs programs outside. A target
//! that refuses or is silent counts as contained. The targets are public resolvers, 169.254.169.254 for
//! metadata; `--probe-tcp ADDRESS:PORT` and the like replace them. `--report ADMIN` sends the result
//! (`POST /v1/contained`). A report needs a token, which the control socket makes: doctor asks there
//! (`--control unix:PATH`), or takes `TIDEGATE_REPORT_TOKEN`. For a place without the control socket,
//! make one at the gate: `tidegate doctor --report-token 168` prints a token for 168 reports within a
//! week. Each token (`report_token_made`) and each report
//! (`containment_reported`) is on record with its sender. An agent that reads the
//! token, or that changes the doctor's surroundings, can send a false report; so can a process of the
//! gate's own user outside a jail, which can open the control socket. Use `tidegate_contained` for
//! alerts, never to permit anything.
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
//! **Admin listener**: a request's head and its body have 5 s each, an answer has to be read within 5 s.
//! At most 64 connections are open at each listener. Where one more comes, the gate closes the connection
//! that has waited longest, of the client with the most connections. So idle or slow clients cannot
//! block health or metrics. Bodies have at most 64 KiB (a report 4 KiB, a hook 16 MiB).
//!
//! **Who asked**: `session_started`, `session_ended`, `tool_call_started`, `tool_call_ended`,
//! `containment_reported` and `report_token_made` carry `tidegate.asker.door` (`admin`, `admin-tls`, `control`, `exec`), and
//! facts about the asker: at a Unix socket `tidegate.asker.uid` and `.pid` as the kernel gives
//! them, by TCP `.address`, the name in a client certificate (`.certificate`), and the session whose
//! token was shown (`.session`). A process that has ended may have left its pid to another one.
//!
//! **Other hosts** (`[listen.admin-tls]`, off by default): health, and the exchange of tokens, for CI
//! jobs elsewhere. `/metrics` and `/v1/policy` need a client certificate or the token of `token-file`;
//! no client can start or revoke sessions there. Its certificate, authorities, revocation lists and
//! token are read again when their files change. `admin-names` has the names by which clients reach
//! it, e.g. that of a Kubernetes Service; another `Host` is refused with 421.
//!
//! ```toml
//! [listen]
//! admin-names = ["tidegate.acme.example"]
//!
//! [listen.admin-tls]
//! address    = "0.0.0.0:3131"
//! cert       = "certs/admin.pem"
//! key        = "certs/admin.key"
//! token-file = "keys/metrics.token"
//! ```
//!
//! **Rates** (`[limits]`): each caller has a rate for connections, refused flows, sessions that it
//! starts and calls of the admin listener; ten seconds' worth may come at once. Beyond its rate a
//! caller is answered 429 `rate_limited` with `Retry-After`, up to eight answers at a time after 250 ms,
//! and is counted (`tidegate_rate_limited_total`). A stream of HTTP/2 to an https:// proxy counts as a
//! connection. Flows that may pass go on while refused ones are
//! limited. A caller is its session (children count as their root), else its user, else its address
//! (IPv6: its /64) at the listener. An admin call with a valid token (of a session, of an issuer, for
//! reports) counts for that token's session, user or report; calls without one never spend its rate.
//! Where callers share an address and none presents an identity, they share
//! its rates: give them sessions or users. The table has room for 65536 callers; idle ones are
//! dropped after a minute, and while it is full new callers share one entry.
//!
//! **`process.command`** is masked: the values of flags, variables, fields and keys with the name of a
//! secret; passwords where programs take them (`-p…`, `-u user:pass`); what stands behind subcommands
//! that take a secret (`login X`, `config set NAME X`, `secret set NAME X`); the value of every
//! variable that is set (`export NAME=X`, `env NAME=X`, `--env NAME=X`, `--arg NAME X`), a few like
//! `PATH` excepted; header fields, bodies and cookies of requests; a URL's user, query and fragment;
//! connection strings; the tokens of well-known issuers; random text; code behind `-c` and `-e`, of
//! which only the hosts of its URLs stay (the commands of a shell's script are masked word by word);
//! what is piped to a program that reads a password. In doubt a word is masked.
//! A secret that looks like an ordinary word and stands where no rule expects one is written as it is.
//!
//! **Exit codes**: 0 yes; 1 no (a trial failed, a gate is not ready); 2 the input is wrong; 3 not
//! contained; 4 something outside failed.
