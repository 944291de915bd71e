//! Checks exceptions against `[[never]]` and `[[always]]`: no exception may break an invariant.
//!
//! The proof decides each part of the flows as the gate does, with the exceptions in force. An
//! exception counts for all time and for every session, so a proof holds at any clock time.
//! Exceptions are proved together: one may open the tunnel and another may let the request in it
//! pass.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::diag::{Diagnostic, Place};

use super::compare::{Outcome, Part, Selectors, Space};
use super::compiled::Policy;
use super::exception::{Exception, Exceptions};
use super::invariant::{Broken, MAX_BRANCHES, Proof};
use super::invariant_rule::Invariant;
use super::pattern::TooComplex;
use super::source;
use super::verdict::{ByException, Decision};

/// An exception that breaks an invariant.
#[derive(Clone, Debug)]
pub struct Forbidden {
    /// The id of the exception.
    pub id: Arc<str>,
    /// The invariant: `` `[[never]]` "no uploads" ``.
    invariant: String,
    /// The location of the invariant.
    place: Place,
    /// An example of the flows.
    flow: String,
    /// The reason why a flow counts that the invariant does not name.
    how: Option<&'static str>,
    /// The command that shows the flow.
    to_see: String,
}

impl Policy {
    /// Returns the exceptions of `new` that break an invariant, together with the `proved` ones in
    /// force. The rest of `new` breaks no invariant, if the rules alone break none.
    ///
    /// # Errors
    ///
    /// If the policy and the exceptions have too many patterns to compare.
    pub fn forbidden(
        &self,
        proved: &[Arc<Exception>],
        new: &[Arc<Exception>],
    ) -> Result<Vec<Forbidden>, TooComplex> {
        let mut found: Vec<Forbidden> = Vec::new();
        if new.is_empty() || !self.invariants.iter().any(|(it, _)| it.forbids()) {
            return Ok(found);
        }
        let widest = |it: &Arc<Exception>| Arc::new(it.at_its_widest());
        let proved: Vec<Arc<Exception>> = proved.iter().map(widest).collect();
        let mut left: Vec<Arc<Exception>> = new.iter().map(widest).collect();
        // If one exception is removed, the next may let the same flow pass.
        while !left.is_empty() {
            let more = self.first_forbidden(&proved, &left)?;
            if more.is_empty() {
                break;
            }
            left.retain(|it| !more.iter().any(|more| *more.id == *it.grant.id));
            found.extend(more);
        }
        Ok(found)
    }

    /// Returns the exceptions of `new` that are the first to let some forbidden flow pass.
    fn first_forbidden(
        &self,
        proved: &[Arc<Exception>],
        new: &[Arc<Exception>],
    ) -> Result<Vec<Forbidden>, TooComplex> {
        let of_new = Exceptions::new(new.to_vec());
        let all = Exceptions::new(new.iter().chain(proved).cloned().collect());
        let selectors = Selectors::excepting(&self.invariants, &all, of_new.hosts());
        let proof = Proof {
            policy: self,
            selectors: &selectors,
        };
        let ids = new.iter().map(|it| it.grant.id.as_str()).collect();
        proof.forbidden(&ids)
    }
}

impl Proof<'_> {
    /// Returns the exceptions with an id in `new` that break an invariant.
    fn forbidden(&self, new: &BTreeSet<&str>) -> Result<Vec<Forbidden>, TooComplex> {
        let space = Space::new(&[self.policy], self.selectors)?;
        let mut found: Vec<Forbidden> = Vec::new();
        for part in space.parts(MAX_BRANCHES, |part| self.is_of_both(part)) {
            let part = part?;
            let Some(outcome) = space.outcome(&part, 0) else {
                continue;
            };
            let ids: Vec<Arc<str>> = exceptions(&part, &outcome)
                .map(|it| it.named.name.clone())
                .filter(|id| new.contains(&**id) && !found.iter().any(|it| it.id == *id))
                .collect();
            if ids.is_empty() {
                continue;
            }
            let invariants = part.selectors.iter().filter_map(|at| {
                let (invariant, _) = self.policy.invariants.get(*at as usize)?;
                let broken = self.breaks(*at, &space, &part, &outcome)?;
                invariant.forbids().then_some((invariant, broken))
            });
            if let Some((invariant, broken)) = { invariants }.next() {
                found.extend(ids.iter().map(|id| Forbidden::new(id, invariant, &broken)));
            }
        }
        Ok(found)
    }

    /// Whether an invariant and an exception may both cover some flow of a part.
    fn is_of_both(&self, part: &Part) -> bool {
        let invariants = &self.policy.invariants;
        let tunnels = part.tunnels.iter();
        let tunnels = tunnels.flat_map(|tunnel| &tunnel.decision.exceptions);
        let (mut forbids, mut excepts) = (false, tunnels.count() > 0);
        for at in &part.selectors {
            match invariants.get(*at as usize) {
                Some((invariant, _)) => forbids |= invariant.forbids(),
                None => excepts = true,
            }
        }
        forbids && excepts
    }
}

/// Returns the exceptions that let the request or the tunnel of a flow pass.
fn exceptions<'p>(part: &'p Part, outcome: &'p Outcome) -> impl Iterator<Item = &'p ByException> {
    let tunnels = part.tunnels.iter().map(|tunnel| &tunnel.decision);
    let decisions = tunnels.chain([&outcome.decision]);
    decisions.flat_map(|decision: &Arc<Decision>| &decision.exceptions)
}

impl Forbidden {
    fn new(id: &Arc<str>, invariant: &Invariant, broken: &Broken) -> Self {
        let witness = &broken.witness;
        Self {
            id: id.clone(),
            invariant: invariant.to_string(),
            place: invariant.place.clone(),
            flow: format!("{} would reach {}", witness.callers, witness.flow),
            how: broken.how(),
            to_see: witness.to_see(),
        }
    }

    /// The finding for an exception of a file.
    pub(super) fn finding(&self, source: &source::Policy) -> Diagnostic {
        let written = source.exceptions.iter();
        let mut written = written.filter(|it| **it.value.id.get_ref() == *self.id);
        let place = written.next().map(|it| it.at(&it.value.id));
        let place = place.unwrap_or_else(|| self.place.clone());
        Diagnostic::error("exception-forbidden", place, self.summary())
            .label(self.how.unwrap_or("it lets that flow pass"))
            .help(format!(
                "name fewer hosts, callers or requests, or take it out; {}",
                self.to_see
            ))
            .related(self.place.clone(), "this forbids it".to_owned())
    }

    fn summary(&self) -> String {
        format!(
            "exception `{}` lets pass what {} forbids: {}",
            self.id, self.invariant, self.flow
        )
    }
}

/// Writes one sentence, with the location of the invariant.
impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.summary(), self.place)?;
        if let Some(how) = self.how {
            write!(f, "; {how}")?;
        }
        write!(f, "; {}", self.to_see)
    }
}
