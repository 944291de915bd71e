//! What was decided, counted as it is recorded: for the summary of a command, without reading a
//! file that others write as well.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::policy::{Category, Verdict};

use super::line::{FlowFacts, Outcome};

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
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// Whether it was plain HTTP.
    pub plain: bool,
    /// What it was for.
    pub category: Option<Category>,
    /// A code of the closed list.
    pub reason: &'static str,
}

/// Decisions by kind.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// How often each kind was decided.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By kind.
    pub kinds: HashMap<Kind, u64>,
    /// Of kinds beyond the bound.
    pub others: u64,
}

impl Tally {
    /// Counts one decision.
    pub(super) fn add(&self, facts: &FlowFacts) {
        let kind = Kind {
            outcome: facts.outcome,
            would: facts.would,
            host: facts.server_address.clone().unwrap_or_default(),
            port: facts.server_port.unwrap_or_default(),
            plain: facts.protocol == Some("http"),
            category: facts.category,
            reason: facts.reason,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.kinds.len() >= KINDS && !counts.kinds.contains_key(&kind) {
            counts.others += 1;
        } else {
            *counts.kinds.entry(kind).or_default() += 1;
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
