//! Counts of decisions, kept as the decisions are recorded: for the summary of a command, without
//! reading a file that other processes also write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::policy::{Category, Verdict};

use super::line::{CloseFacts, End, FlowFacts, Outcome};

/// Maximum number of kinds with counts of their own; decisions of further kinds are only counted in
/// total.
const KINDS: usize = 10_000;

/// The facts that decisions of one kind have in common.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Kind {
    /// The outcome, the worst first.
    pub outcome: Outcome,
    /// The verdict that `enforce` mode would carry out, if the mode only observes.
    pub would: Option<Verdict>,
    /// The host; empty if no host could be parsed.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// Whether the flow was plain HTTP outside any TLS.
    pub plain: bool,
    /// Whether the flow was a request inside an inspected tunnel.
    pub inside: bool,
    /// The category of the flow.
    pub category: Option<Category>,
    /// The reason: a code of the closed list.
    pub reason: &'static str,
}

/// The counts of decisions by kind.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// The count of one kind, and the first flow of that kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counted {
    /// The number of decisions.
    pub count: u64,
    /// The first flow, which has a line of its own in the log.
    pub first: Uuid,
    /// Whether the first flow was a CONNECT, of which only host and port are known.
    pub is_connect: bool,
}

/// The counts of each kind.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The counts by kind.
    pub kinds: HashMap<Kind, Counted>,
    /// The number of decisions of kinds beyond the bound.
    pub others: u64,
}

impl Tally {
    /// Counts one decision.
    pub(super) fn add(&self, facts: &FlowFacts) {
        self.lock().count(Kind::of(facts), facts);
    }

    /// Moves a flow from its allowed kind to a refused kind, if the gate refused the flow after the
    /// policy allowed it.
    pub(super) fn correct(&self, facts: &FlowFacts, close: &CloseFacts) {
        if close.end != End::Refused {
            return;
        }
        let before = Kind::of(facts);
        let now = Kind {
            outcome: Outcome::Deny,
            reason: close.error.unwrap_or(facts.reason),
            ..before.clone()
        };
        let mut counts = self.lock();
        if counts.forget(&before) {
            counts.count(now, facts);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }
}

impl Kind {
    fn of(facts: &FlowFacts) -> Self {
        Self {
            outcome: facts.outcome,
            would: facts.would,
            host: facts.server_address.clone().unwrap_or_default(),
            port: facts.server_port.unwrap_or_default(),
            plain: facts.protocol == Some("http") && facts.parent.is_none(),
            inside: facts.parent.is_some(),
            category: facts.category,
            reason: facts.reason,
        }
    }
}

impl Counts {
    fn count(&mut self, kind: Kind, facts: &FlowFacts) {
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(&kind) {
            self.others += 1;
            return;
        }
        let first = Counted {
            count: 0,
            first: facts.flow,
            is_connect: facts.protocol == Some("connect"),
        };
        self.kinds.entry(kind).or_insert(first).count += 1;
    }

    /// Subtracts one decision from a kind; returns whether there was one.
    fn forget(&mut self, kind: &Kind) -> bool {
        let Some(counted) = self.kinds.get_mut(kind) else {
            return false;
        };
        counted.count -= 1;
        if counted.count == 0 {
            self.kinds.remove(kind);
        }
        true
    }
}
