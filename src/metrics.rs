//! Every metric, declared once (`declared`); handles resolved the first time they are needed, then
//! found by index: never by label, never by flow. The only module that names `prometheus`.
//!
//! Labels come from closed sets only: never a host, session, user or repository. Those belong in
//! records.

mod declared;
mod process;
mod table;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Registry, TextEncoder};

use crate::policy::{Category, Mode, TierId};
use crate::record::Outcome;

use declared::Declared;
use process::Process;
use table::{Counters, Family as _, Gauges, Histograms, Table};

/// The label of a flow without a tier.
const NO_TIER: &str = "none";
/// The label of an error that is no code of the closed list.
const OTHER: &str = "other";

const OUTCOMES: [Outcome; 4] = [Outcome::Allow, Outcome::Ask, Outcome::Deny, Outcome::Error];
const MODES: [Mode; 2] = [Mode::Enforce, Mode::Observe];
const CATEGORIES: usize = Category::ALL.len();
const EVIDENCE: [&str; 7] = [
    "none",
    "certificate",
    "header",
    "listener",
    "oidc",
    "token",
    "username",
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
    active: Table<Gauges>,
    /// The label values of `tidegate_policy_info` now.
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
        for result in ["failed", "ok"] {
            declared.policy_reloads.series(&[result]);
        }
        Self(Arc::new(Inner {
            connect: Table::new(declared.upstream_connect.clone(), CATEGORIES),
            duration: Table::new(declared.flow_duration.clone(), CATEGORIES),
            upstream_errors: Table::new(
                declared.upstream_errors.clone(),
                CATEGORIES * (reasons.len() + 1),
            ),
            attributed: Table::new(declared.sessions.clone(), EVIDENCE.len() * TRUST.len()),
            active: Table::new(declared.flows_active.clone(), FlowKind::ALL.len()),
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

    /// Handles for a generation with these tiers; sets `tidegate_policy_info`.
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

    /// `tidegate_flows_active{kind}`.
    pub fn flow_began(&self, kind: FlowKind) {
        self.0.active.at(kind as usize, || [kind.as_str()]).inc();
    }

    /// `tidegate_flows_active{kind}`.
    pub fn flow_ended(&self, kind: FlowKind) {
        self.0.active.at(kind as usize, || [kind.as_str()]).dec();
    }

    /// `tidegate_flows_unstarted_total`: clients that left while a flow waited for its permit.
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

    /// `tidegate_policy_reloads_total{result}` and `tidegate_policy_stale`.
    pub fn reloaded(&self, ok: bool) {
        self.0
            .declared
            .policy_reloads
            .series(&[if ok { "ok" } else { "failed" }])
            .inc();
        self.0.declared.policy_stale.set(i64::from(!ok));
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

    /// `tidegate_record_queue_length`.
    pub fn record_queue(&self, lines: usize) {
        self.0
            .declared
            .record_queue
            .set(i64::try_from(lines).unwrap_or(i64::MAX));
    }
}

/// What kind of flow is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlowKind {
    /// A CONNECT.
    Connect,
    /// A plain-HTTP request.
    Http,
}

impl FlowKind {
    const ALL: [Self; 2] = [Self::Connect, Self::Http];

    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Http => "http",
        }
    }
}

/// Handles whose labels depend on the tiers of a generation; lazily resolved, then an index.
#[derive(Debug)]
pub struct GenerationMetrics {
    all: Arc<Inner>,
    /// The tiers, and behind them the label of none.
    tiers: Box<[Arc<str>]>,
    /// By tier and category; each by verdict, mode and reason.
    decisions: Box<[table::Lazy<Table<Counters>>]>,
    /// By tier, category and direction.
    bytes: Table<Counters>,
}

impl GenerationMetrics {
    fn new(all: Arc<Inner>, tiers: &[Arc<str>]) -> Self {
        let tiers = Box::from_iter(tiers.iter().cloned().chain([Arc::from(NO_TIER)]));
        let cells = tiers.len() * CATEGORIES;
        let bytes = Table::new(all.declared.bytes.clone(), cells * 2);
        let decisions = Box::from_iter((0..cells).map(|_| table::Lazy::new()));
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

    /// The place and name of a tier; what is no tier of this generation is none.
    fn tier(&self, tier: Option<TierId>) -> (usize, &str) {
        let none = self.tiers.len().saturating_sub(1);
        let row = tier.map_or(none, |tier| usize::from(tier.0).min(none));
        (row, self.tiers.get(row).map_or(NO_TIER, AsRef::as_ref))
    }
}

/// The place of a word in a closed list; a word that is not in it is taken for the first.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const REASONS: &[&str] = &["allowed", "not_allowed", "connect_failed"];

    fn tiers() -> [Arc<str>; 2] {
        [Arc::from("standard"), Arc::from("strict")]
    }

    /// Touches every family, so that each is written.
    fn all() -> Metrics {
        let metrics = Metrics::new(REASONS);
        let generation = metrics.generation(&tiers(), "abc", 1);
        let took = Duration::from_millis(3);
        for outcome in OUTCOMES {
            for mode in MODES {
                generation.decision(outcome, mode, Category::Mcp, Some(TierId(1)), 1, took);
            }
        }
        generation.decision(
            Outcome::Error,
            Mode::Enforce,
            Category::Unknown,
            None,
            2,
            took,
        );
        generation.bytes(Category::Webfetch, TierId(0), 10, 20);
        generation.flow_duration(Category::Auth, took);
        metrics.flow_began(FlowKind::Connect);
        metrics.flow_began(FlowKind::Http);
        metrics.flow_ended(FlowKind::Http);
        metrics.flow_unstarted();
        metrics.dns(took);
        metrics.connected(Category::Update, took);
        metrics.upstream_error("connect_failed", Category::Plugin);
        metrics.attributed("username", "asserted");
        metrics.reloaded(false);
        metrics.draining();
        metrics.records_written(7);
        metrics.records_lost(2);
        metrics.record_queue(3);
        metrics
    }

    /// `name type labels` of every family.
    fn shape(text: &str) -> String {
        let mut kinds = BTreeMap::new();
        for line in text.lines() {
            if let Some((name, kind)) = line
                .strip_prefix("# TYPE ")
                .and_then(|rest| rest.split_once(' '))
            {
                kinds.insert(name.to_owned(), (kind.to_owned(), String::new()));
            } else if let Some((name, labels)) = line
                .split_once('}')
                .and_then(|(head, _)| head.split_once('{'))
            {
                let names = labels
                    .split("\",")
                    .filter_map(|label| label.split('=').next());
                let names = names
                    .filter(|name| *name != "le")
                    .collect::<Vec<_>>()
                    .join(",");
                let family = ["_bucket", "_sum", "_count"]
                    .into_iter()
                    .find_map(|end| {
                        name.strip_suffix(end)
                            .filter(|name| kinds.contains_key(*name))
                    })
                    .unwrap_or(name);
                kinds.get_mut(family).expect("TYPE comes first").1 = names;
            }
        }
        kinds
            .iter()
            .map(|(name, (kind, labels))| format!("{name} {kind} {{{labels}}}\n"))
            .collect()
    }

    #[test]
    fn names_types_and_labels_are_frozen() {
        insta::assert_snapshot!(shape(&all().render()));
    }

    #[test]
    fn every_family_has_a_help() {
        let text = all().render();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().expect("a name");
            assert!(
                text.contains(&format!("# HELP {name} ")),
                "{name} has no help"
            );
        }
    }

    #[test]
    fn counts_stand_at_their_labels() {
        let text = all().render();
        for line in [
            "tidegate_decisions_total{category=\"mcp\",mode=\"observe\",reason=\"not_allowed\",\
             tier=\"strict\",verdict=\"deny\"} 1",
            "tidegate_decisions_total{category=\"unknown\",mode=\"enforce\",\
             reason=\"connect_failed\",tier=\"none\",verdict=\"error\"} 1",
            "tidegate_bytes_total{category=\"webfetch\",direction=\"in\",tier=\"standard\"} 20",
            "tidegate_flows_active{kind=\"http\"} 0",
            "tidegate_upstream_errors_total{category=\"plugin\",error=\"connect_failed\"} 1",
            "tidegate_sessions_attributed_total{evidence=\"username\",trust=\"asserted\"} 1",
            "tidegate_policy_stale 1",
            "tidegate_records_lost_total 2",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in {text}"
            );
        }
    }

    #[test]
    fn only_the_current_policy_has_an_info() {
        let metrics = Metrics::new(REASONS);
        metrics.generation(&tiers(), "abc", 1);
        metrics.generation(&tiers(), "def", 2);
        metrics.generation(&tiers(), "def", 2);
        let text = metrics.render();
        let info: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("tidegate_policy_info{"))
            .collect();
        assert_eq!(
            info,
            ["tidegate_policy_info{digest=\"def\",generation=\"2\"} 1"]
        );
    }

    #[test]
    fn counts_go_on_over_a_reload() {
        let metrics = Metrics::new(REASONS);
        for generation in 1..=2 {
            metrics
                .generation(&tiers(), "abc", generation)
                .bytes(Category::Mcp, TierId(0), 5, 0);
        }
        assert!(
            metrics
                .render()
                .contains("direction=\"out\",tier=\"standard\"} 10")
        );
    }

    #[test]
    fn what_is_in_no_closed_list_makes_no_label() {
        let metrics = Metrics::new(REASONS);
        metrics.attributed("made-up", "made-up");
        metrics.upstream_error("made-up", Category::Mcp);
        metrics.generation(&tiers(), "abc", 1).decision(
            Outcome::Deny,
            Mode::Enforce,
            Category::Mcp,
            Some(TierId(200)),
            99,
            Duration::ZERO,
        );
        assert!(!metrics.render().contains("made-up"));
        assert!(metrics.render().contains("reason=\"other\",tier=\"none\""));
    }
}
