//! An approval in force, and its effect on a decision.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::gate::{Gate, Snapshot};
use crate::identity::CallerKey;
use crate::policy::{Category, Decision, Query, Reason, Verdict};

use super::RequestKey;
use super::request::CONNECT;

/// An approval by a reviewer. It lifts the ask of one rule in one tier, for one caller at one host,
/// port and operation. It is bound to the policy by these names: if another rule asks, or a deny
/// rule matches, it has no effect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Approval {
    /// `tidegate.exception.id`.
    pub id: Arc<str>,
    /// The request that was allowed.
    pub request: Uuid,
    /// The caller, host, port and operation.
    pub key: RequestKey,
    /// The name of the tier of the rule.
    pub tier: Arc<str>,
    /// The name of the rule that asked.
    pub rule: Arc<str>,
    /// The category of the destination.
    pub category: Category,
    /// The end of the approval.
    pub until: Timestamp,
    /// Whether the approval is for one flow only.
    pub once: bool,
    /// The flow that used it up.
    pub used_by: Option<Uuid>,
    /// Whether the ledger has the claim of that flow; `true` without a ledger.
    pub is_claimed: bool,
}

/// The account of a decision.
#[derive(Clone, Debug)]
pub struct Asks<'a> {
    /// The caller.
    pub caller: &'a CallerKey,
    /// The flow; `None`: the decision uses up no approval.
    pub flow: Option<Uuid>,
    /// The tunnel of the flow.
    pub parent: Option<Uuid>,
    /// The approval by which the flow passed before.
    pub before: Option<&'a Arc<str>>,
}

impl<'a> Asks<'a> {
    /// For a flow that passed before, with its approval if there was one.
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
    /// Applies an approval in force to a decision that asks.
    pub(in crate::gate) fn approved(
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
        // An approval for a tunnel also allows each operation in an inspected tunnel.
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
