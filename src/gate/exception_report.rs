//! What the gate says of each exception: `GET /v1/exceptions`.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::ledger::{Grant, Limit};
use crate::policy::{Policy, Verdict};

use super::Gate;

/// One exception, of the files or of the ledger.
#[derive(Clone, Debug, Serialize)]
pub struct ExceptionReport {
    /// The exception.
    pub grant: Grant,
    /// `active`, `spent`, `expired`, `revoked`, or `not-in-force` where the policy cannot read it or
    /// an invariant forbids it.
    pub state: &'static str,
    /// Why it is not in force.
    pub why: Option<Arc<str>>,
    /// A line of a file, or `ledger:12`.
    pub location: Arc<str>,
    /// When it was granted; `None`: it stands in a file.
    pub granted: Option<Timestamp>,
    /// When it ended before its time.
    pub revoked: Option<Timestamp>,
    /// What the gates reserved of its limit.
    pub reserved: Limit,
    /// Flows that it let pass since this gate started.
    pub used: u64,
    /// What decides about its hosts without it; only of an exception that ended.
    pub now: Vec<Now>,
}

/// What decides about one host of an exception that ended.
#[derive(Clone, Debug, Serialize)]
pub struct Now {
    /// The host and port.
    pub target: String,
    /// The verdict of the rules.
    pub verdict: Verdict,
    /// The rule that decides.
    pub rule: Arc<str>,
    /// Where it is written.
    pub location: Arc<str>,
}

impl Gate {
    /// Every exception that the gate has heard of: those of the files first.
    pub fn exception_reports(&self) -> Vec<ExceptionReport> {
        let snapshot = self.snapshot.load_full();
        let (policy, now) = (&snapshot.policy, self.clock.now());
        let all = snapshot.exceptions.load_full();
        let state = self.exceptions.ledger.as_ref().map(|ledger| ledger.state());
        let reserved = |id: &str| {
            let budget = state.as_ref().and_then(|it| it.budgets.get(id));
            budget.map_or(Limit::default(), |it| Limit {
                bytes_out: Some(it.bytes_out),
                requests: Some(it.requests),
            })
        };
        let in_force = |id: &str| all.iter().find(|it| it.grant.id == *id);
        let report = |grant: &Grant, location: Arc<str>, granted, revoked: Option<Timestamp>| {
            let live = in_force(&grant.id);
            let word = match live {
                _ if revoked.is_some() => "revoked",
                _ if now >= grant.expires => "expired",
                Some(live) if live.is_spent() => "spent",
                Some(_) => "active",
                None => "not-in-force",
            };
            ExceptionReport {
                state: word,
                why: all.why_not(&grant.id).cloned(),
                location,
                granted,
                revoked,
                reserved: reserved(&grant.id),
                used: self.exceptions.uses(&grant.id),
                now: if matches!(word, "expired" | "revoked") {
                    retested(policy, grant)
                } else {
                    Vec::new()
                },
                grant: grant.clone(),
            }
        };
        let written = policy.exceptions().iter();
        let mut reports: Vec<ExceptionReport> = written
            .map(|it| report(&it.grant, it.named.location.clone(), None, None))
            .collect();
        let granted = state.iter().flat_map(|state| state.granted.values());
        reports.extend(granted.map(|it| {
            let location = format!("ledger:{}", it.revision).into();
            let revoked = it.revoked.as_ref().map(|it| it.at);
            report(&it.grant, location, Some(it.at), revoked)
        }));
        reports
    }
}

fn retested(policy: &Policy, grant: &Grant) -> Vec<Now> {
    let retested = policy.retest(grant).into_iter();
    retested
        .map(|it| Now {
            target: it.target,
            verdict: it.verdict,
            rule: it.rule.name.clone(),
            location: it.rule.location.clone(),
        })
        .collect()
}
