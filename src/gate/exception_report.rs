//! What the gate says of each exception: `GET /v1/exceptions`.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::ledger::{Does, From, Grant, Limit, ReviewResult, Settled, To};
use crate::policy::{Exception, Policy, Verdict};

use super::Gate;
use super::approvals::approval_id;

/// One exception, of the files or of the ledger, or one approval of a request.
#[derive(Clone, Debug, Serialize)]
pub struct ExceptionReport {
    /// Whether it is the approval of a request.
    pub is_approval: bool,
    /// The exception; what an approval amounts to.
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
    /// Every exception that the gate has heard of: those of the files, then those of the ledger, then
    /// the approvals of the ledger.
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
        let in_force: HashMap<&str, &Arc<Exception>> =
            all.iter().map(|it| (&*it.grant.id, it)).collect();
        let report = |grant: &Grant, location: Arc<str>, granted, revoked: Option<Timestamp>| {
            let live = in_force.get(&*grant.id);
            let word = match live {
                _ if revoked.is_some() => "revoked",
                _ if now >= grant.expires => "expired",
                Some(live) if live.is_spent() => "spent",
                Some(_) => "active",
                None => "not-in-force",
            };
            ExceptionReport {
                is_approval: false,
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
        let settled = state.iter().flat_map(|state| state.settled.values());
        let mut approvals: Vec<&Settled> = settled
            .filter(|it| it.review.result == ReviewResult::Allowed)
            .map(Arc::as_ref)
            .collect();
        approvals.sort_unstable_by_key(|it| it.revision);
        reports.extend(approvals.into_iter().map(|it| of_approval(policy, it, now)));
        reports
    }
}

/// An approval as an exception for its tier, host and port.
fn of_approval(policy: &Policy, settled: &Settled, now: Timestamp) -> ExceptionReport {
    let review = &settled.review;
    let grant = Grant {
        id: approval_id(review.request).to_string(),
        tool: None,
        reason: match &review.note {
            Some(note) => format!("{}: {note}", review.operation),
            None => review.operation.clone(),
        },
        reviewer: review.reviewers.clone(),
        control: None,
        expires: review.until,
        policy_digest: review.policy_digest.clone(),
        from: From {
            tiers: vec![review.tier.clone()],
            ..From::default()
        },
        to: To {
            hosts: vec![review.host.clone()],
            ports: vec![review.port],
            ..To::default()
        },
        does: Does::default(),
        limit: Limit::default(),
    };
    let state = match settled {
        it if it.revoked.is_some() => "revoked",
        it if now >= it.review.until => "expired",
        it if it.used_by.is_some() => "spent",
        _ => "active",
    };
    ExceptionReport {
        is_approval: true,
        state,
        why: None,
        location: format!("ledger:{}", settled.revision).into(),
        granted: Some(settled.at),
        revoked: settled.revoked.as_ref().map(|it| it.at),
        reserved: Limit::default(),
        used: u64::from(settled.used_by.is_some()),
        now: if matches!(state, "active" | "spent") {
            Vec::new()
        } else {
            retested(policy, &grant)
        },
        grant,
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
