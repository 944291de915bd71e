//! A flow that the policy asks people about: its request, and what its client is told.

use crate::gate::approvals::{Asks, Filed, MAX_OPEN_OF_ONE};
use crate::identity::CallerKey;
use crate::policy::{Decision, Query};

use super::flow::{Flow, Known};
use super::refusal::{Code, Refusal};

impl Flow {
    /// On whose account the flow is decided; `takes`: an approval for one flow is used up by it.
    pub(super) fn asks<'a>(&self, caller: &'a CallerKey, takes: bool) -> Asks<'a> {
        Asks {
            caller,
            flow: takes.then_some(self.facts.flow),
            parent: self.facts.parent,
            before: None,
        }
    }

    /// Files a request that the caller asks for outright, not by an attempt.
    pub(super) fn file_for(&self, known: &Known, query: &Query<'_>, decision: &Decision) -> Filed {
        let mut facts = self.facts.clone();
        facts.server_address = Some(query.target.host.to_string().into());
        facts.server_port = Some(query.target.port);
        facts.rule = Some(decision.rule.name.clone());
        facts.rule_location = Some(decision.rule.location.clone());
        facts.category = Some(decision.category);
        let caller = self.caller_key(known);
        self.gate
            .file_request(caller, query, &known.presented, &facts)
    }

    /// Files a request for what was refused with `needs_approval`; the refusal, which says so.
    pub(super) fn ask(&mut self, known: &Known, query: &Query<'_>, refusal: Refusal) -> Refusal {
        // What the gate itself asks for a caller is no attempt of the caller.
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
            .file_request(caller, query, &known.presented, &self.facts);
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
