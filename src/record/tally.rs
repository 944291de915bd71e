//! What was decided, counted as it is recorded: for the summary of a command, without reading a
//! file that others write as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::policy::{Category, Verdict};

use super::line::{CloseFacts, End, FlowFacts, Outcome};

/// Kinds of decisions that are told apart; what comes on top is only counted.
const KINDS: usize = 10_000;

/// What one kind of decision has in common.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Kind {
    /// What became of it, the worst first.
    pub outcome: Outcome,
    /// What it would have been, where nothing is enforced.
    pub would: Option<Verdict>,
    /// The host; empty where none was understood.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// Whether it was plain HTTP, and not inside TLS either.
    pub plain: bool,
    /// Whether it was a request inside a tunnel that is inspected.
    pub inside: bool,
    /// What it was for.
    pub category: Option<Category>,
    /// A code of the closed list.
    pub reason: &'static str,
}

/// Decisions by kind.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// How often a kind was decided, and the first flow of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counted {
    /// How often.
    pub count: u64,
    /// The first flow, which has a line of its own on record.
    pub first: Uuid,
    /// Whether the first was a CONNECT: host and port are all that was asked.
    pub is_connect: bool,
}

/// How often each kind was decided.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By kind.
    pub kinds: HashMap<Kind, Counted>,
    /// Of kinds beyond the bound.
    pub others: u64,
}

impl Tally {
    /// Counts one decision.
    pub(super) fn add(&self, facts: &FlowFacts) {
        self.lock().count(Kind::of(facts), facts);
    }

    /// Counts what passed the policy and was refused for what it then turned out to be as refused.
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

    /// What was counted so far.
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

    /// Takes one back; says whether there was one.
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
