//! An approval in force, and what it makes of a decision.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::gate::{Gate, Snapshot};
use crate::identity::CallerKey;
use crate::policy::{Category, Decision, Query, Reason, Verdict};

use super::RequestKey;
use super::request::CONNECT;

/// What a reviewer allowed: it lifts the ask of one rule in one tier, for one caller at one host,
/// port and operation. It is bound to the policy by these names: where another rule asks, or a deny
/// matches, it lifts nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Approval {
    /// `tidegate.exception.id`.
    pub id: Arc<str>,
    /// The request that it settles.
    pub request: Uuid,
    /// Who may do what, and where.
    pub key: RequestKey,
    /// The name of the tier that asked.
    pub tier: Arc<str>,
    /// The name of the rule that asked.
    pub rule: Arc<str>,
    /// What the destination was for.
    pub category: Category,
    /// When it ends.
    pub until: Timestamp,
    /// Whether it is good for one flow.
    pub once: bool,
    /// The flow that used it up.
    pub used_by: Option<Uuid>,
    /// Whether the ledger has that flow; `true` where there is no ledger.
    pub is_claimed: bool,
}

/// On whose account a decision is made.
#[derive(Clone, Debug)]
pub struct Asks<'a> {
    /// The caller.
    pub caller: &'a CallerKey,
    /// The flow; none: nothing is used up.
    pub flow: Option<Uuid>,
    /// The tunnel that the flow is inside of.
    pub parent: Option<Uuid>,
    /// The approval that the flow passed by before.
    pub before: Option<&'a Arc<str>>,
}

impl<'a> Asks<'a> {
    /// For a flow that passed before, by an approval where it is said.
    pub fn again(caller: &'a CallerKey, before: Option<&'a Arc<str>>) -> Self {
        Self {
            caller,
            flow: None,
            parent: None,
            before,
        }
    }
}

impl Gate {
    /// Decides under the policy of a generation and the approvals in force; the id of the approval that
    /// lets the flow pass, where one does.
    pub fn decide(
        &self,
        snapshot: &Snapshot,
        query: &Query<'_>,
        asks: &Asks<'_>,
    ) -> (Decision, Option<Arc<str>>) {
        self.approved(snapshot, query, asks, snapshot.decide(query))
    }

    /// As [`Gate::decide`], for a flow that is open.
    pub(in crate::gate) fn decide_again(
        &self,
        snapshot: &Snapshot,
        query: &Query<'_>,
        asks: &Asks<'_>,
    ) -> Decision {
        let decision = snapshot.decide_again(query);
        self.approved(snapshot, query, asks, decision).0
    }

    /// The decision, with an approval that is in force where the policy asks.
    fn approved(
        &self,
        snapshot: &Snapshot,
        query: &Query<'_>,
        asks: &Asks<'_>,
        mut decision: Decision,
    ) -> (Decision, Option<Arc<str>>) {
        if decision.verdict != Verdict::Ask {
            return (decision, None);
        }
        let tier = snapshot.policy.tier_name(query.who.tier);
        let key = RequestKey::new(asks.caller.clone(), query.target, &query.attempt);
        let approval = self.approval(&key, tier, &decision, asks);
        if approval.is_some() {
            decision.verdict = Verdict::Allow;
            decision.reason = Reason::Allowed;
            decision.why = None;
        }
        (decision, approval)
    }

    fn approval(
        &self,
        key: &RequestKey,
        tier: &str,
        decision: &Decision,
        asks: &Asks<'_>,
    ) -> Option<Arc<str>> {
        let now = self.clock.now();
        // What may pass in a tunnel, may pass in one that is inspected.
        let tunnel = RequestKey {
            operation: CONNECT.into(),
            ..key.clone()
        };
        [key, &tunnel].into_iter().find_map(|key| {
            let lift = |all: &mut Vec<Approval>| {
                let fits = |it: &&mut Approval| it.lifts(tier, decision, asks, now);
                let approval = all.iter_mut().find(fits)?;
                if approval.once && approval.used_by.is_none() {
                    approval.used_by = asks.flow;
                }
                Some(approval.id.clone())
            };
            self.requests.approvals(key, lift).flatten()
        })
    }
}

impl Approval {
    fn lifts(&self, tier: &str, decision: &Decision, asks: &Asks<'_>, now: Timestamp) -> bool {
        let unused = !self.once
            || self.used_by.is_none()
            || self.used_by == asks.flow
            || self.used_by == asks.parent
            || asks.before == Some(&self.id);
        unused
            && self.until > now
            && *self.tier == *tier
            && self.rule == decision.rule.name
            && self.category == decision.category
    }
}
