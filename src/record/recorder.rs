//! Hands out the right to write records, and writes them.

use std::io;

use crate::clock::Clock;
use crate::config;
use crate::metrics::Metrics;

use super::line::{CloseFacts, Event, FlowFacts};

/// Records cannot be kept now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("records cannot be kept: {0}")]
pub struct RecordUnavailable(pub Unavailable);

/// Why records cannot be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unavailable {
    /// Shutdown has begun.
    #[error("the log is closed")]
    Closed,
    /// The sink fails.
    #[error("the log cannot be written")]
    Failing,
    /// The sink is too slow.
    #[error("the log does not keep up")]
    Full,
}

/// Writes the decision log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {}

impl Recorder {
    /// Opens the log, says which flows of an earlier run had no end (`record_gap`), starts writing.
    /// `flows` bounds the permits given out at once.
    pub fn start(
        _config: &config::Record,
        _flows: usize,
        _clock: Clock,
        _metrics: &Metrics,
    ) -> io::Result<Self> {
        todo!()
    }

    /// Room for every line of one flow. Waits a bounded time for room, then says why there is none.
    pub async fn permit(&self) -> Result<Permit, RecordUnavailable> {
        todo!()
    }

    /// Writes an event that is not a flow's.
    pub fn event(&self, _event: &Event) {
        todo!()
    }

    /// Opens the file anew (SIGHUP, after a rotation from outside).
    pub fn reopen(&self) {
        todo!()
    }

    /// Writes what is queued, then ends. Called after every permit is gone.
    pub async fn close(&self) {
        todo!()
    }
}

/// Room for the lines of one flow: one `decision`, and one `close` where it may pass.
#[derive(Debug)]
pub struct Permit {}

impl Permit {
    /// Writes the `decision` line of a flow that may pass and waits until the log has it (with
    /// `on-failure = "continue"`: does not fail). Only then may the flow act.
    pub async fn decided(&mut self, _facts: &FlowFacts) -> Result<(), RecordUnavailable> {
        todo!()
    }

    /// Writes the one `decision` line of a flow that does not pass.
    pub fn refused(self, _facts: &FlowFacts) {
        todo!()
    }

    /// Writes the `close` line of a flow that passed.
    pub fn closed(self, _facts: &FlowFacts, _close: &CloseFacts) {
        todo!()
    }
}
