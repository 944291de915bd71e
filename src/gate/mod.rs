//! The state of a running gate: everything that flows share. No logic.

mod advisory;
mod ages;
pub mod approvals;
mod exception_report;
mod exceptions;
mod fetches;
mod flows;
mod held;
mod notify;
mod programs;
mod rates;
mod report_tokens;
mod shadow;
mod snapshot;
mod start;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::identity::RevokeError;
use crate::metrics::Metrics;
use crate::record::Recorder;
use crate::vcs::Readers;

pub use advisory::Advisory;
pub use ages::{Ages, Turn};
pub use exception_report::{ExceptionReport, Now};
pub use exceptions::{ExceptionKeeper, LedgerStatus};
pub use flows::{Asked, Counters, Cut, Flows, OpenFlow, PassedBy, Place, TooMany};
pub use held::{Held, Hold};
pub use notify::{ListedRequest, MAX_LISTED, Message, Settle};
pub use programs::ProgramRecord;
pub use rates::{CallerRates, Delay, RATE_LIMIT_DELAY, RateKey, RateKind, RateLimited, Rates};
pub use report_tokens::ReportTokens;
pub use shadow::Shadow;
pub use snapshot::{Parts, Snapshot};
pub use start::{
    EndedSession, Ground, SessionRequest, StartError, Started, Workplace, by_hand, session_facts,
};

/// A running gate.
#[derive(Debug)]
pub struct Gate {
    /// The generation of new flows.
    pub snapshot: ArcSwap<Snapshot>,
    /// The decision log.
    pub recorder: Recorder,
    /// Every metric.
    pub metrics: Metrics,
    /// Open flows.
    pub flows: Flows,
    /// The memory of bodies that are read before the decision.
    pub held: Arc<Held>,
    /// The rate limits of callers.
    pub rates: Rates,
    /// Requests for approval.
    pub requests: approvals::Requests,
    /// Tokens for the reports of a doctor.
    pub report_tokens: ReportTokens,
    /// Every task of the data path: drain waits for them.
    pub tasks: TaskTracker,
    /// Tasks beside the data path (admin, reload, sampling): they end after it.
    pub attendants: TaskTracker,
    /// Cancelled when shutdown begins: no new flow is accepted.
    pub draining: CancellationToken,
    /// Threads that read the checked-out branches.
    pub readers: Readers,
    /// The clock.
    pub clock: Clock,
    /// The name of this instance in `Via`, for loop detection.
    pub pseudonym: Arc<str>,
    /// Whether the last reload failed, and its first finding.
    pub stale: ArcSwap<Option<Box<str>>>,
    /// Whether the policy is advice to some callers.
    pub advisory: Advisory,
    /// The exceptions, and the ledger that grants them.
    pub exceptions: ExceptionKeeper,
    generation: AtomicU64,
}

impl Gate {
    /// Creates a gate with its first generation.
    pub fn new(first: Snapshot, recorder: Recorder, metrics: Metrics, clock: Clock) -> Self {
        let generation = first.generation;
        let rates = Rates::new(&first.limits, &clock);
        Self {
            rates,
            requests: approvals::Requests::default(),
            report_tokens: ReportTokens::default(),
            snapshot: ArcSwap::from_pointee(first),
            recorder,
            metrics,
            flows: Flows::default(),
            held: Arc::default(),
            tasks: TaskTracker::new(),
            attendants: TaskTracker::new(),
            draining: CancellationToken::new(),
            readers: Readers::default(),
            clock,
            pseudonym: pseudonym(),
            stale: ArcSwap::from_pointee(None),
            advisory: Advisory::default(),
            exceptions: ExceptionKeeper::default(),
            generation: AtomicU64::new(generation),
        }
    }

    /// Adds the exceptions, whose ledger was read to its end.
    #[must_use]
    pub fn with_exceptions(self, exceptions: ExceptionKeeper) -> Self {
        Self { exceptions, ..self }
    }

    /// The number of the next generation.
    pub fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Revokes a token or a session by its id, and ends its open flows.
    pub fn revoke(&self, name: &str) -> Result<(), RevokeError> {
        let snapshot = self.snapshot.load_full();
        let identity = &snapshot.identity;
        let now = self.clock.now();
        let until = now
            .saturating_add(identity.longest_validity())
            .unwrap_or(jiff::Timestamp::MAX);
        let revoked = identity.sessions().revoke(name, until, now);
        if !matches!(revoked, Err(RevokeError::Name | RevokeError::Full)) {
            self.flows.judge_again(self, &snapshot);
        }
        revoked
    }

    /// Puts a new generation in force, and ends the open flows that it no longer allows.
    pub fn adopt(&self, next: Snapshot) {
        let next = Arc::new(next);
        self.rates.adopt(&next.limits);
        self.refresh_exceptions(&next);
        self.snapshot.store(next.clone());
        self.flows.judge_again(self, &next);
        self.exceptions_changed();
    }
}

/// A name for this instance: the random part of a version 7 UUID.
fn pseudonym() -> Arc<str> {
    let id = uuid::Uuid::now_v7().simple().to_string();
    format!("tidegate-{}", id.get(20..).unwrap_or(&id)).into()
}
