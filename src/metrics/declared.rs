//! The list of all metrics, with their labels and help texts.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

/// Half a microsecond to a hundredth of a second: a decision only reads memory.
const DECIDING: &[f64] = &[5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3, 1e-2];
/// Half a millisecond to ten seconds: one or several round trips.
const ROUND_TRIP: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Ten milliseconds to four hours: from a short request to a long stream.
const OPEN: &[f64] = &[
    0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0, 14_400.0,
];

/// Declares the fields of [`Declared`], each a family: name, kind, labels or buckets, help.
macro_rules! declare {
    ($($field:ident: $kind:ident = $name:literal $labels:tt $(in $buckets:ident)?, $help:literal;)*) => {
        /// Every family, registered.
        pub(super) struct Declared {
            $(pub(super) $field: $kind,)*
        }

        impl Declared {
            /// Makes and registers every family.
            pub(super) fn register(registry: &Registry) -> Self {
                Self { $($field: $kind::declare(registry, $name, &$labels, &[$(&$buckets)?], $help),)* }
            }
        }
    };
}

declare! {
    accept_errors: IntCounterVec = "tidegate_accept_errors_total" ["error"],
        "Clients that could not be accepted: exhausted (descriptors, memory), aborted, other.";
    approval_seconds: HistogramVec = "tidegate_approval_seconds" ["result"] in OPEN,
        "Time from the first attempt of a request to its end: allowed, denied, timed_out.";
    approvals_pending: IntGauge = "tidegate_approvals_pending" [],
        "Requests for approval that wait for a reviewer.";
    build_info: IntGaugeVec = "tidegate_build_info" ["version"],
        "Always 1: which version runs.";
    bytes: IntCounterVec = "tidegate_bytes_total" ["direction", "category", "tier"],
        "Bytes carried, counted as they move: out is from the client to the origin.";
    certificate_not_after: IntGaugeVec = "tidegate_certificate_not_after_timestamp_seconds" ["kind"],
        "When the first certificate or revocation list of its kind ends.";
    certificates_minted: IntCounter = "tidegate_certificates_minted_total" [],
        "Certificates made for inspected destinations.";
    connections: IntGauge = "tidegate_connections" [],
        "Clients that are connected, also those that were answered and are waited for.";
    connections_evicted: IntCounter = "tidegate_connections_evicted_total" [],
        "Waiting connections that were ended to make room for new ones.";
    contained: IntGaugeVec = "tidegate_contained" ["probe"],
        "0 where the last report of a doctor reached the outside without the gate, else 1.";
    contained_at: IntGauge = "tidegate_contained_timestamp_seconds" [],
        "When a doctor last reported; 0 before the first report.";
    decision_duration: Histogram = "tidegate_decision_duration_seconds" [] in DECIDING,
        "Time to decide one flow by the policy.";
    decisions: IntCounterVec =
        "tidegate_decisions_total" ["verdict", "mode", "category", "tier", "reason"],
        "Flows decided.";
    shadow_decisions: IntCounterVec = "tidegate_shadow_decisions_total" ["verdict", "shadow"],
        "Flows that a shadow policy decided: the verdict in force, and that of the shadow.";
    dns_duration: Histogram = "tidegate_dns_duration_seconds" [] in ROUND_TRIP,
        "Time to resolve a name.";
    draining: IntGauge = "tidegate_draining" [],
        "1 from the beginning of shutdown on.";
    exception_next_expiry: IntGauge = "tidegate_exception_next_expiry_timestamp_seconds" [],
        "When the next exception ends; 0 where none is in force.";
    exceptions: IntGaugeVec = "tidegate_exceptions" ["state"],
        "Exceptions that have not ended: active, or spent.";
    flow_duration: HistogramVec = "tidegate_flow_duration_seconds" ["category"] in OPEN,
        "Time from a flow's beginning to its end, of flows that passed.";
    flow_ends: IntCounterVec = "tidegate_flow_ends_total" ["end", "reason"],
        "Ends of flows that passed: reason is a refusal code, io_error or none.";
    flows_active: IntGaugeVec = "tidegate_flows_active" ["kind"],
        "Flows that are open.";
    flows_unstarted: IntCounter = "tidegate_flows_unstarted_total" [],
        "Flows or clients turned away before they began: no room in the log, or too many clients.";
    http2_ended: IntCounterVec = "tidegate_http2_ended_total" ["side", "reason"],
        "Connections of HTTP/2 that were ended for what the other side sent.";
    ledger_failures: IntCounter = "tidegate_ledger_failures_total" [],
        "Attempts to read or append to the ledger that failed.";
    ledger_last_answer: IntGauge = "tidegate_ledger_last_answer_timestamp_seconds" [],
        "When the ledger last answered; 0 where there is no ledger, or it has not answered yet.";
    ledger_revision: IntGauge = "tidegate_ledger_revision" [],
        "The last entry of the ledger that this gate has read.";
    ledger_stale: IntGauge = "tidegate_ledger_stale" [],
        "1 while what the ledger grants counts as ended: it has not answered for too long.";
    issuer_fetches: IntCounterVec = "tidegate_issuer_fetches_total" ["result"],
        "Attempts to fetch the keys of issuers of OIDC tokens.";
    notifications: IntCounterVec = "tidegate_notifications_total" ["result"],
        "Messages about new requests for approval: ok or failed.";
    parent_dials: IntCounterVec = "tidegate_parent_dials_total" ["result"],
        "Flows that were to go through a parent proxy: ok, or why none took them.";
    policy_advisory: IntGauge = "tidegate_policy_advisory" [],
        "1 where a caller can change the policy: it is advice to that caller.";
    policy_info: IntGaugeVec = "tidegate_policy_info" ["digest", "generation"],
        "Always 1: which policy decides.";
    policy_reloads: IntCounterVec = "tidegate_policy_reloads_total" ["result"],
        "Attempts to load the policy anew.";
    policy_stale: IntGauge = "tidegate_policy_stale" [],
        "1 while the files do not load and an earlier policy goes on.";
    rate_limited: IntCounterVec = "tidegate_rate_limited_total" ["kind"],
        "What callers did beyond their rate, and were told 429.";
    record_file_changes: IntCounterVec = "tidegate_record_file_changes_total" ["cause"],
        "Changes of the decision log's file that the gate did not make: appended, moved, removed, \
         replaced, truncated.";
    record_queue: IntGauge = "tidegate_record_queue_length" [],
        "Lines of the decision log that wait to be written.";
    records: IntCounter = "tidegate_records_total" [],
        "Lines written to the decision log.";
    records_repeated: IntCounter = "tidegate_records_repeated_total" [],
        "Refusals and events that repeated and are counted in one line instead of having their own.";
    records_retention_short: IntGauge = "tidegate_records_retention_short" [],
        "1 while rotate-keep files do not hold the age that retain asks for: more disk is used.";
    records_lost: IntCounter = "tidegate_records_lost_total" [],
        "Lines that will never be in the decision log, for any cause.";
    sessions: IntCounterVec = "tidegate_sessions_attributed_total" ["evidence", "trust"],
        "Flows by what told their session, and how far it is trusted.";
    tls_handshakes: IntCounterVec = "tidegate_tls_handshakes_total" ["side", "result"],
        "TLS handshakes: ok, or why there was none.";
    upstream_connect: HistogramVec =
        "tidegate_upstream_connect_duration_seconds" ["category"] in ROUND_TRIP,
        "Time to connect to an origin.";
    upstream_errors: IntCounterVec = "tidegate_upstream_errors_total" ["error", "category"],
        "Flows that failed on the way out.";
}

/// One kind of metric, made from its declaration.
trait Kind: Collector + Clone + Sized + 'static {
    fn make(name: &str, labels: &[&str], buckets: &[f64], help: &str) -> prometheus::Result<Self>;

    /// Makes and registers it.
    #[expect(
        clippy::expect_used,
        reason = "names are constants, and every one is made by a test"
    )]
    fn declare(
        registry: &Registry,
        name: &str,
        labels: &[&str],
        buckets: &[&&[f64]],
        help: &str,
    ) -> Self {
        let buckets = buckets.first().copied().copied().unwrap_or_default();
        let metric = Self::make(name, labels, buckets, help).expect("a valid declaration");
        registry
            .register(Box::new(metric.clone()))
            .expect("declared once");
        metric
    }
}

impl Kind for IntCounter {
    fn make(name: &str, _: &[&str], _: &[f64], help: &str) -> prometheus::Result<Self> {
        Self::new(name, help)
    }
}

impl Kind for IntGauge {
    fn make(name: &str, _: &[&str], _: &[f64], help: &str) -> prometheus::Result<Self> {
        Self::new(name, help)
    }
}

impl Kind for IntCounterVec {
    fn make(name: &str, labels: &[&str], _: &[f64], help: &str) -> prometheus::Result<Self> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Kind for IntGaugeVec {
    fn make(name: &str, labels: &[&str], _: &[f64], help: &str) -> prometheus::Result<Self> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Kind for Histogram {
    fn make(name: &str, _: &[&str], buckets: &[f64], help: &str) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
    }
}

impl Kind for HistogramVec {
    fn make(name: &str, labels: &[&str], buckets: &[f64], help: &str) -> prometheus::Result<Self> {
        Self::new(
            HistogramOpts::new(name, help).buckets(buckets.to_vec()),
            labels,
        )
    }
}
