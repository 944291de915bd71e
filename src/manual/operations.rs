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
//! **Reload**: on SIGHUP, or two seconds after the files' content changes. All or nothing: what
//! does not load leaves the last good generation in force, sets `tidegate_policy_stale`, and is
//! on record as `policy_rejected`. Open flows are judged again. `[listen]` and `[record]` take
//! effect at the next start.
//!
//! **Drain**: SIGTERM takes no new flows and waits `limits.drain` for open ones; a second signal
//! ends them at once. Each leaves its `close`.
//!
//! **Exit codes**: 0 yes; 1 no (a trial failed, a gate is not ready); 2 the input is wrong; 3 not
//! contained; 4 something outside failed.
