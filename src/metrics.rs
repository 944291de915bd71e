//! Every metric, declared once; handles resolved at start or when a generation is built, never by
//! flow. The only file that names `prometheus`.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::{Category, Mode, TierId};
use crate::record::Outcome;

/// All metrics of one gate.
#[derive(Clone, Debug)]
pub struct Metrics {}

impl Metrics {
    /// `reasons`: the closed list of reason codes; index `i` names `reasons[i]` below.
    pub fn new(_reasons: &'static [&'static str]) -> Self {
        todo!()
    }

    /// The text exposition format 0.0.4.
    pub fn render(&self) -> String {
        todo!()
    }

    /// Handles for a generation with these tiers; sets `tidegate_policy_info`.
    pub fn generation(
        &self,
        _tiers: &[Arc<str>],
        _digest: &str,
        _generation: u64,
    ) -> GenerationMetrics {
        todo!()
    }

    /// `tidegate_flows_active{kind}`.
    pub fn flow_began(&self, _kind: FlowKind) {
        todo!()
    }

    /// `tidegate_flows_active{kind}`.
    pub fn flow_ended(&self, _kind: FlowKind) {
        todo!()
    }

    /// `tidegate_flows_unstarted_total`: clients that left while a flow waited for its permit.
    pub fn flow_unstarted(&self) {
        todo!()
    }

    /// `tidegate_dns_duration_seconds`.
    pub fn dns(&self, _took: Duration) {
        todo!()
    }

    /// `tidegate_upstream_connect_duration_seconds{category}`.
    pub fn connected(&self, _category: Category, _took: Duration) {
        todo!()
    }

    /// `tidegate_upstream_errors_total{error,category}`: `error` is a refusal code.
    pub fn upstream_error(&self, _error: &'static str, _category: Category) {
        todo!()
    }

    /// `tidegate_sessions_attributed_total{evidence,trust}`.
    pub fn attributed(&self, _evidence: &'static str, _trust: &'static str) {
        todo!()
    }

    /// `tidegate_policy_reloads_total{result}` and `tidegate_policy_stale`.
    pub fn reloaded(&self, _ok: bool) {
        todo!()
    }

    /// `tidegate_draining`.
    pub fn draining(&self) {
        todo!()
    }

    /// `tidegate_records_total`.
    pub fn records_written(&self, _lines: u64) {
        todo!()
    }

    /// `tidegate_records_lost_total`.
    pub fn records_lost(&self, _lines: u64) {
        todo!()
    }

    /// `tidegate_record_queue_length`.
    pub fn record_queue(&self, _lines: usize) {
        todo!()
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

/// Handles whose labels depend on the tiers of a generation; lazily resolved, then an index.
#[derive(Debug)]
pub struct GenerationMetrics {}

impl GenerationMetrics {
    /// `tidegate_decisions_total{verdict,mode,category,tier,reason}` and
    /// `tidegate_decision_duration_seconds`. A flow without a tier has the label `none`.
    pub fn decision(
        &self,
        _outcome: Outcome,
        _mode: Mode,
        _category: Category,
        _tier: Option<TierId>,
        _reason: usize,
        _took: Duration,
    ) {
        todo!()
    }

    /// `tidegate_bytes_total{direction,category,tier}` (called as bytes move, in steps) and, at the
    /// end of a flow, `tidegate_flow_duration_seconds{category}`.
    pub fn bytes(&self, _category: Category, _tier: TierId, _out: u64, _in: u64) {
        todo!()
    }

    /// `tidegate_flow_duration_seconds{category}`.
    pub fn flow_duration(&self, _category: Category, _took: Duration) {
        todo!()
    }
}
