//! Every metric, declared once (`declared`). A handle is resolved at its first use and then found
//! by index: never by label, never by flow. The only module that names `prometheus`.
//!
//! Labels come from closed sets only: never a host, session, user or repository. Those are in the
//! records.

mod declared;
mod process;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::{Registry, TextEncoder};

use crate::policy::{Category, Mode, TierId, Verdict};
use crate::record::{End, Outcome};

use declared::Declared;
use process::Process;
use table::{Counters, Family as _, Gauges, Histograms, Table};

/// The label of a flow without a tier.
const NO_TIER: &str = "none";
/// The label of an error outside the closed list of codes.
const OTHER: &str = "other";

const OUTCOMES: [Outcome; 4] = [Outcome::Allow, Outcome::Ask, Outcome::Deny, Outcome::Error];
const VERDICTS: [&str; 3] = ["allow", "ask", "deny"];
const MODES: [Mode; 2] = [Mode::Enforce, Mode::Observe];
const CATEGORIES: usize = Category::ALL.len();
/// The number of ways in which a flow may end.
const ENDS: usize = 5;
const EVIDENCE: [&str; 7] = [
    "none",
    "certificate",
    "header",
    "listener",
    "oidc",
    "token",
    "username",
];
/// The probes of a doctor in the agent's environment.
pub const PROBES: [&str; 6] = ["tcp", "udp", "dns", "ipv6", "metadata", "unix"];
/// The results of a dial through parents.
pub const PARENT_DIALS: [&str; 9] = [
    "unreachable",
    "credential",
    "garbled",
    "ok",
    "own",
    "refused",
    "resting",
    "silent",
    "tls",
];
const TRUST: [&str; 3] = ["none", "asserted", "verified"];

/// All metrics of one gate.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    declared: Declared,
    reasons: &'static [&'static str],
    connect: Table<Histograms>,
    duration: Table<Histograms>,
    upstream_errors: Table<Counters>,
    attributed: Table<Counters>,
    shadow: Table<Counters>,
    active: Table<Gauges>,
    ends: Table<Counters>,
    /// The current label values of `tidegate_policy_info`.
    policy: Mutex<Option<(String, String)>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// `reasons`: the closed list of reason codes; index `i` names `reasons[i]` below.
    pub fn new(reasons: &'static [&'static str]) -> Self {
        let registry = Registry::new();
        let declared = Declared::register(&registry);
        Process::register(&registry);
        declared
            .build_info
            .series(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        for error in ["aborted", "exhausted", "other"] {
            declared.accept_errors.series(&[error]);
        }
        for result in ["failed", "ok"] {
            declared.policy_reloads.series(&[result]);
            declared.issuer_fetches.series(&[result]);
            declared.notifications.series(&[result]);
        }
        for cause in ["appended", "moved", "removed", "replaced", "truncated"] {
            declared.record_file_changes.series(&[cause]);
        }
        Self(Arc::new(Inner {
            connect: Table::new(declared.upstream_connect.clone(), CATEGORIES),
            duration: Table::new(declared.flow_duration.clone(), CATEGORIES),
            upstream_errors: Table::new(
                declared.upstream_errors.clone(),
                CATEGORIES * (reasons.len() + 1),
            ),
            shadow: Table::new(
                declared.shadow_decisions.clone(),
                VERDICTS.len() * VERDICTS.len(),
            ),
            attributed: Table::new(declared.sessions.clone(), EVIDENCE.len() * TRUST.len()),
            active: Table::new(declared.flows_active.clone(), FlowKind::ALL.len()),
            ends: Table::new(declared.flow_ends.clone(), ENDS * (reasons.len() + 2)),
            policy: Mutex::new(None),
            registry,
            declared,
            reasons,
        }))
    }

    /// The text exposition format 0.0.4.
    pub fn render(&self) -> String {
        let families = self.0.registry.gather();
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }

    /// Returns the handles of a generation with these tiers; sets `tidegate_policy_info`.
    pub fn generation(
        &self,
        tiers: &[Arc<str>],
        digest: &str,
        generation: u64,
    ) -> GenerationMetrics {
        let labels = (digest.to_owned(), generation.to_string());
        let info = &self.0.declared.policy_info;
        let mut current = self.0.policy.lock().unwrap_or_else(PoisonError::into_inner);
        info.series(&[labels.0.as_str(), labels.1.as_str()]).set(1);
        if let Some(before) = current
            .replace(labels.clone())
            .filter(|before| *before != labels)
        {
            info.forget(&[before.0.as_str(), before.1.as_str()]);
        }
        GenerationMetrics::new(self.0.clone(), tiers)
    }

    /// `tidegate_policy_advisory`.
    pub fn policy_advisory(&self) {
        self.0.declared.policy_advisory.set(1);
    }

    /// `tidegate_issuer_fetches_total{result}`.
    pub fn issuer_fetched(&self, well: bool) {
        let result = if well { "ok" } else { "failed" };
        self.0.declared.issuer_fetches.series(&[result]).inc();
    }

    /// `tidegate_notifications_total{result}`.
    pub fn notified(&self, well: bool) {
        let result = if well { "ok" } else { "failed" };
        self.0.declared.notifications.series(&[result]).inc();
    }

    /// `tidegate_ledger_revision`, `tidegate_ledger_last_answer_timestamp_seconds`,
    /// `tidegate_ledger_stale` and `tidegate_ledger_failures_total`.
    pub fn ledger(&self, revision: u64, answered: Option<Timestamp>, stale: bool, failures: u64) {
        let declared = &self.0.declared;
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        declared.ledger_revision.set(revision);
        let answered = answered.map_or(0, Timestamp::as_second);
        declared.ledger_last_answer.set(answered);
        declared.ledger_stale.set(stale.into());
        let counted = declared.ledger_failures.get();
        declared
            .ledger_failures
            .inc_by(failures.saturating_sub(counted));
    }

    /// `tidegate_parent_dials_total{result}`: `result` is a word of [`PARENT_DIALS`].
    pub fn parent_dial(&self, result: &'static str) {
        let (_, result) = word_of(&PARENT_DIALS, result);
        self.0.declared.parent_dials.series(&[result]).inc();
    }

    /// `tidegate_flows_active{kind}`.
    pub fn flow_began(&self, kind: FlowKind) {
        self.0.active.at(kind as usize, || [kind.as_str()]).inc();
    }

    /// `tidegate_flows_active{kind}`.
    pub fn flow_ended(&self, kind: FlowKind) {
        self.0.active.at(kind as usize, || [kind.as_str()]).dec();
    }

    /// `tidegate_flow_ends_total{end,reason}`, for a flow that passed. `error` is a refusal code or
    /// the name of an I/O error; all I/O errors have one label.
    pub fn flow_end(&self, end: End, error: Option<&'static str>) {
        let reasons = self.0.reasons;
        let known = error.map(|error| reasons.iter().position(|reason| *reason == error));
        let (index, reason) = match (error, known.flatten()) {
            (None, _) => (0, "none"),
            (Some(_), None) => (1, "io_error"),
            (Some(error), Some(at)) => (at + 2, error),
        };
        let cell = end as usize * (reasons.len() + 2) + index;
        self.0.ends.at(cell, || [end.as_str(), reason]).inc();
    }

    /// `tidegate_flows_unstarted_total`: clients that left while their flow waited for its permit.
    pub fn flow_unstarted(&self) {
        self.0.declared.flows_unstarted.inc();
    }

    /// `tidegate_dns_duration_seconds`.
    pub fn dns(&self, took: Duration) {
        self.0.declared.dns_duration.observe(took.as_secs_f64());
    }

    /// `tidegate_upstream_connect_duration_seconds{category}`.
    pub fn connected(&self, category: Category, took: Duration) {
        self.0
            .connect
            .at(category as usize, || [category.as_str()])
            .observe(took.as_secs_f64());
    }

    /// `tidegate_upstream_errors_total{error,category}`: `error` is a refusal code.
    pub fn upstream_error(&self, error: &'static str, category: Category) {
        let reasons = self.0.reasons;
        let index = reasons
            .iter()
            .position(|reason| *reason == error)
            .unwrap_or(reasons.len());
        let error = reasons.get(index).copied().unwrap_or(OTHER);
        self.0
            .upstream_errors
            .at(index * CATEGORIES + category as usize, || {
                [error, category.as_str()]
            })
            .inc();
    }

    /// `tidegate_sessions_attributed_total{evidence,trust}`.
    pub fn attributed(&self, evidence: &'static str, trust: &'static str) {
        let (row, evidence) = word_of(&EVIDENCE, evidence);
        let (column, trust) = word_of(&TRUST, trust);
        self.0
            .attributed
            .at(row * TRUST.len() + column, || [evidence, trust])
            .inc();
    }

    /// `tidegate_approvals_pending`.
    pub fn approvals_pending(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.0.declared.approvals_pending.set(count);
    }

    /// `tidegate_approval_seconds{result}`.
    pub fn approval_settled(&self, result: &'static str, took: Duration) {
        let seconds = took.as_secs_f64();
        self.0
            .declared
            .approval_seconds
            .series(&[result])
            .observe(seconds);
    }

    /// `tidegate_shadow_decisions_total{verdict,shadow}`.
    pub fn shadow_decided(&self, verdict: Verdict, shadow: Verdict) {
        let (row, column) = (verdict as usize, shadow as usize);
        let labels = || [row, column].map(|at| VERDICTS.get(at).copied().unwrap_or(OTHER));
        self.0
            .shadow
            .at(row * VERDICTS.len() + column, labels)
            .inc();
    }

    /// `tidegate_policy_reloads_total{result}` and `tidegate_policy_stale`.
    pub fn reloaded(&self, ok: bool) {
        self.0
            .declared
            .policy_reloads
            .series(&[if ok { "ok" } else { "failed" }])
            .inc();
        self.0.declared.policy_stale.set(i64::from(!ok));
    }

    /// `tidegate_accept_errors_total{error}`: `error` is a word of a closed list.
    pub fn accept_failed(&self, error: &'static str) {
        self.0.declared.accept_errors.series(&[error]).inc();
    }

    /// `tidegate_tls_handshakes_total{side,result}`: `result` is a word of a closed list.
    pub fn handshake(&self, side: &'static str, result: &'static str) {
        self.0.declared.tls_handshakes.series(&[side, result]).inc();
    }

    /// `tidegate_http2_ended_total{side,reason}`: `reason` is a word of a closed list.
    pub fn http2_ended(&self, side: &'static str, reason: &'static str) {
        self.0.declared.http2_ended.series(&[side, reason]).inc();
    }

    /// `tidegate_certificate_not_after_timestamp_seconds{kind}`: the earliest end of each kind.
    pub fn certificates(&self, ends: impl Iterator<Item = (&'static str, Timestamp)>) {
        let family = &self.0.declared.certificate_not_after;
        let mut first = std::collections::BTreeMap::new();
        for (kind, end) in ends {
            let known = first.entry(kind).or_insert(end);
            *known = end.min(*known);
        }
        for (kind, end) in &first {
            family.series(&[kind]).set(end.as_second());
        }
        // Remove the series of certificates that are no longer configured.
        for gone in ["parent", "upstream", "upstream-crl", "upstream-root"] {
            if !first.contains_key(gone) {
                family.forget(&[gone]);
            }
        }
    }

    /// `tidegate_exceptions{state}` and `tidegate_exception_next_expiry_timestamp_seconds`.
    pub fn exceptions(&self, active: usize, spent: usize, next: Option<Timestamp>) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let declared = &self.0.declared;
        declared.exceptions.series(&["active"]).set(count(active));
        declared.exceptions.series(&["spent"]).set(count(spent));
        let next = next.map_or(0, Timestamp::as_second);
        declared.exception_next_expiry.set(next);
    }

    /// `tidegate_certificates_minted_total`.
    pub fn minted(&self) {
        self.0.declared.certificates_minted.inc();
    }

    /// `tidegate_contained{probe}` and the time of the report, in seconds since 1970. `probe` is a
    /// word of [`PROBES`]; a probe without a result has no series.
    pub fn contained(&self, probes: &[(&'static str, Option<bool>)], at: i64) {
        let family = &self.0.declared.contained;
        for (probe, contained) in probes.iter().filter(|(probe, _)| PROBES.contains(probe)) {
            match contained {
                Some(contained) => family.series(&[probe]).set(i64::from(*contained)),
                None => family.forget(&[probe]),
            }
        }
        self.0.declared.contained_at.set(at);
    }

    /// `tidegate_connections`.
    pub fn connected_clients(&self, more: i64) {
        self.0.declared.connections.add(more);
    }

    /// `tidegate_connections_evicted_total`.
    pub fn connection_evicted(&self) {
        self.0.declared.connections_evicted.inc();
    }

    /// `tidegate_rate_limited_total{kind}`: `kind` is a word of a closed list.
    pub fn rate_limited(&self, kind: &'static str) {
        self.0.declared.rate_limited.series(&[kind]).inc();
    }

    /// `tidegate_draining`.
    pub fn draining(&self) {
        self.0.declared.draining.set(1);
    }

    /// `tidegate_records_total`.
    pub fn records_written(&self, lines: u64) {
        self.0.declared.records.inc_by(lines);
    }

    /// `tidegate_records_lost_total`.
    pub fn records_lost(&self, lines: u64) {
        self.0.declared.records_lost.inc_by(lines);
    }

    /// `tidegate_records_repeated_total`.
    pub fn records_repeated(&self, refusals: u64) {
        self.0.declared.records_repeated.inc_by(refusals);
    }

    /// `tidegate_record_file_changes_total`.
    pub fn record_file_changed(&self, cause: &'static str) {
        self.0.declared.record_file_changes.series(&[cause]).inc();
    }

    /// `tidegate_records_retention_short`; returns whether `short` became true with this call.
    pub fn retention_short(&self, short: bool) -> bool {
        let gauge = &self.0.declared.records_retention_short;
        let before = gauge.get();
        gauge.set(short.into());
        short && before == 0
    }

    /// `tidegate_record_queue_length`.
    pub fn record_queue(&self, lines: usize) {
        self.0
            .declared
            .record_queue
            .set(i64::try_from(lines).unwrap_or(i64::MAX));
    }
}

/// The kind of an open flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlowKind {
    /// A CONNECT.
    Connect,
    /// A plain-HTTP request.
    Http,
    /// A connection that a jail captured.
    Captured,
    /// A DNS query from a jail.
    Dns,
}

impl FlowKind {
    const ALL: [Self; 4] = [Self::Connect, Self::Http, Self::Captured, Self::Dns];

    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Http => "http",
            Self::Captured => "captured",
            Self::Dns => "dns",
        }
    }
}

/// Handles with labels of the tiers of one generation; resolved at the first use, then found by
/// index.
#[derive(Debug)]
pub struct GenerationMetrics {
    all: Arc<Inner>,
    /// The tiers, followed by the label for no tier.
    tiers: Box<[Arc<str>]>,
    /// By tier and category; each by verdict, mode and reason.
    decisions: Box<[table::Lazy<Table<Counters>>]>,
    /// By tier, category and direction.
    bytes: Table<Counters>,
}

impl GenerationMetrics {
    fn new(all: Arc<Inner>, tiers: &[Arc<str>]) -> Self {
        let tiers: Box<[_]> = tiers.iter().cloned().chain([Arc::from(NO_TIER)]).collect();
        let cells = tiers.len() * CATEGORIES;
        let bytes = Table::new(all.declared.bytes.clone(), cells * 2);
        let decisions = (0..cells).map(|_| table::Lazy::new()).collect();
        Self {
            all,
            tiers,
            decisions,
            bytes,
        }
    }

    /// `tidegate_decisions_total{verdict,mode,category,tier,reason}` and
    /// `tidegate_decision_duration_seconds`. A flow without a tier has the label `none`.
    pub fn decision(
        &self,
        outcome: Outcome,
        mode: Mode,
        category: Category,
        tier: Option<TierId>,
        reason: usize,
        took: Duration,
    ) {
        self.all
            .declared
            .decision_duration
            .observe(took.as_secs_f64());
        let (row, tier) = self.tier(tier);
        let reasons = self.all.reasons;
        let reason = reason.min(reasons.len());
        let code = reasons.get(reason).copied().unwrap_or(OTHER);
        let columns = reasons.len() + 1;
        let Some(cell) = self.decisions.get(row * CATEGORIES + category as usize) else {
            return;
        };
        let family = &self.all.declared.decisions;
        let size = OUTCOMES.len() * MODES.len() * columns;
        let table = cell.get_or_init(|| Table::new(family.clone(), size));
        let index = (outcome as usize * MODES.len() + mode as usize) * columns + reason;
        table
            .at(index, || {
                [
                    outcome_word(outcome),
                    mode_word(mode),
                    category.as_str(),
                    tier,
                    code,
                ]
            })
            .inc();
    }

    /// `tidegate_bytes_total{direction,category,tier}` (called as bytes move, in steps).
    pub fn bytes(&self, category: Category, tier: TierId, out: u64, r#in: u64) {
        let (row, tier) = self.tier(Some(tier));
        let index = (row * CATEGORIES + category as usize) * 2;
        if out > 0 {
            self.bytes
                .at(index, || ["out", category.as_str(), tier])
                .inc_by(out);
        }
        if r#in > 0 {
            self.bytes
                .at(index + 1, || ["in", category.as_str(), tier])
                .inc_by(r#in);
        }
    }

    /// `tidegate_flow_duration_seconds{category}`.
    pub fn flow_duration(&self, category: Category, took: Duration) {
        self.all
            .duration
            .at(category as usize, || [category.as_str()])
            .observe(took.as_secs_f64());
    }

    /// The index and name of a tier; an unknown tier counts as no tier.
    fn tier(&self, tier: Option<TierId>) -> (usize, &str) {
        let none = self.tiers.len().saturating_sub(1);
        let row = tier.map_or(none, |tier| usize::from(tier.0).min(none));
        (row, self.tiers.get(row).map_or(NO_TIER, AsRef::as_ref))
    }
}

/// The index of a word in a closed list, and the word; an unknown word counts as the first.
fn word_of(words: &'static [&'static str], word: &str) -> (usize, &'static str) {
    let index = words.iter().position(|known| *known == word).unwrap_or(0);
    (index, words.get(index).copied().unwrap_or(OTHER))
}

fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allow => "allow",
        Outcome::Ask => "ask",
        Outcome::Deny => "deny",
        Outcome::Error => "error",
    }
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}
