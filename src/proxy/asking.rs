//! Flows that need approval: files their requests, and waits for reviewers.

use crate::gate::approvals::{Asks, Filed, MAX_OPEN_OF_ONE};
use crate::identity::CallerKey;
use crate::name::Target;
use crate::policy::{Attempt, Decision, Query};

use super::connection::Connection;
use super::flow::{Flow, Known};
use super::refusal::{Code, Refusal};

impl Flow {
    /// The account of the flow for its decision. `takes`: the flow uses up an approval for one
    /// flow.
    pub(super) fn asks<'a>(&self, caller: &'a CallerKey, takes: bool) -> Asks<'a> {
        Asks {
            caller,
            flow: takes.then_some(self.facts.flow),
            parent: self.facts.parent,
            before: None,
        }
    }

    /// If the policy asks and the tier has a `hold` time, waits so long for a reviewer: an approval
    /// allows this attempt. Otherwise returns `judged`.
    pub(super) async fn hold(
        &mut self,
        connection: &Connection,
        (known, target): (&Known, &Target),
        attempt: Attempt<'_>,
        judged: Result<Decision, Refusal>,
    ) -> Result<Decision, Refusal> {
        match judged {
            Err(refusal) if refusal.code == Code::NeedsApproval => {
                // Boxed: few flows wait.
                Box::pin(self.wait_for_reviewer(connection, (known, target), attempt, refusal))
                    .await
            }
            judged => judged,
        }
    }

    async fn wait_for_reviewer(
        &mut self,
        connection: &Connection,
        (known, target): (&Known, &Target),
        attempt: Attempt<'_>,
        refusal: Refusal,
    ) -> Result<Decision, Refusal> {
        let hold = self.snapshot().policy.asking(known.caller.who.tier).hold;
        let (Some(request), false) = (self.facts.request, hold.is_zero()) else {
            return Err(refusal);
        };
        let gate = self.gate.clone();
        let Some(_place) = gate.requests.hold(&self.caller_key(known)) else {
            return Err(refusal);
        };
        let settled = async {
            loop {
                let changed = gate.requests.changed();
                let mut changed = std::pin::pin!(changed);
                // Register before the check, so that no change is missed.
                changed.as_mut().enable();
                if !gate.requests.is_pending(request) {
                    return;
                }
                changed.await;
            }
        };
        tokio::select! {
            () = settled => self.judge_attempt(known, target, attempt),
            () = tokio::time::sleep(hold) => Err(refusal.with_code(Code::ApprovalTimedOut)),
            () = connection.stream.closed() => Err(refusal),
            () = gate.draining.cancelled() => Err(Code::Draining.into()),
        }
    }

    /// Files a request that the caller sends explicitly, not by an attempt.
    pub(super) fn file_for(
        &self,
        known: &Known,
        query: &Query<'_>,
        decision: &Decision,
        reason: Option<&str>,
    ) -> Filed {
        let mut facts = self.facts.clone();
        facts.server_address = Some(query.target.host.to_string().into());
        facts.server_port = Some(query.target.port);
        facts.rule = Some(decision.rule.name.clone());
        facts.rule_location = Some(decision.rule.location.clone());
        facts.category = Some(decision.category);
        let caller = self.caller_key(known);
        self.gate
            .file_request(caller, query, (&known.presented, &facts), reason)
    }

    /// Files a request for a flow refused with `needs_approval`; the returned refusal names the
    /// request.
    pub(super) fn ask(&mut self, known: &Known, query: &Query<'_>, refusal: Refusal) -> Refusal {
        // A fetch of the gate itself is no attempt of the caller.
        if self.is_own {
            return refusal;
        }
        let snapshot = self.snapshot();
        let tier = query.who.tier;
        if !snapshot.policy.asking(tier).has_reviewers() {
            let tier = snapshot.policy.tier_name(tier);
            let detail = format!("no request was filed: `[tier.{tier}]` names no `reviewers`");
            return refusal.with_detail(detail);
        }
        let caller = self.caller_key(known);
        let filed = self
            .gate
            .file_request(caller, query, (&known.presented, &self.facts), None);
        match filed {
            Filed::New(request) => {
                self.facts.request = Some(request.id);
                refusal
            }
            Filed::Known(id) => {
                self.facts.request = Some(id);
                refusal
            }
            Filed::Denied(id) => {
                self.facts.request = Some(id);
                Code::ApprovalRefused.into()
            }
            Filed::Full => {
                let detail = format!(
                    "no request was filed: at most {MAX_OPEN_OF_ONE} of one caller are open"
                );
                refusal.with_detail(detail)
            }
        }
    }
}
