//! Makes the decision that records and the proxy use from a judgement.

use std::sync::Arc;

use super::compiled::Policy;
use super::decide::{Judgement, Stage};
use super::exception::InForce;
use super::facts::{Inspect, RequestFacts};
use super::inspection::Inspection;
use super::query::{Attempt, Query};
use super::rule::{Fit, Miss, Rule};
use super::verdict::{Decision, DeniedNetwork, MinAge, Mode, Named, Reason, Verdict};
use crate::name::Host;

impl Policy {
    /// Decides one flow by its name, before anything is resolved or dialled, without exceptions.
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        self.decide_with(query, None)
    }

    /// Like [`Policy::decide`], with the exceptions in force.
    pub fn decide_with(&self, query: &Query<'_>, live: Option<InForce<'_>>) -> Decision {
        let read = self.read_for(query);
        self.judge(query, facts_of(query, read.as_ref()), live)
            .answer(self)
    }
}

/// Returns the facts of the query, or otherwise the facts of its head.
pub(super) fn facts_of<'q>(
    query: &Query<'q>,
    read: Option<&'q RequestFacts>,
) -> Option<&'q RequestFacts> {
    match query.attempt {
        Attempt::Connect => None,
        Attempt::Request { request_facts, .. } => request_facts.or(read),
    }
}

impl Judgement<'_> {
    pub(super) fn answer(&self, policy: &Policy) -> Decision {
        let stage = self.stage();
        let (verdict, reason, named) = match stage {
            Stage::Exception(it) => (Verdict::Allow, Reason::Allowed, &it.named),
            Stage::Rule(rule) => (rule.verdict, self.spent_or(rule.reason), &rule.named),
            Stage::Default => {
                let reason = self.spent_or(self.default_reason());
                (self.tier.default, reason, &self.tier.named)
            }
            Stage::Floor => (Verdict::Deny, Reason::AddressDenied, &policy.floor),
            Stage::Narrowed => (Verdict::Deny, Reason::CategoryDenied, &policy.narrowed),
        };
        let mode = if self.flow.who.enforced {
            Mode::Enforce
        } else {
            self.tier.mode
        };
        let observed = mode == Mode::Observe && verdict != Verdict::Allow && !self.is_final();
        let passes = observed || verdict == Verdict::Allow;
        let (decides, grants) = match stage {
            Stage::Rule(rule) => (Some(rule), (verdict == Verdict::Allow).then_some(rule)),
            Stage::Exception(_) | Stage::Default | Stage::Floor | Stage::Narrowed => (None, None),
        };
        // An approval may allow a flow that requires one: within the same bounds as an allowed
        // flow.
        let may_pass = passes || verdict == Verdict::Ask;
        let exception = match stage {
            Stage::Exception(exception) => Some(exception),
            _ => None,
        };
        // A flow that passes without a matching rule (an observed refusal, an approved ask, an
        // exception) may reach the private addresses that an allow grants there.
        let lifts = self.found.lifts;
        let lifts = lifts.filter(|_| observed || verdict == Verdict::Ask || exception.is_some());
        let addresses = grants.or(lifts).map(|rule| &rule.grant.addresses);
        // Most rules grant none: sharing one empty list spares a cache line.
        let addresses = addresses.filter(|all| !all.is_empty());
        let upstream = grants.and_then(|rule| rule.grant.upstream.as_ref());
        Decision {
            verdict: if passes { Verdict::Allow } else { verdict },
            would: observed.then_some(verdict),
            mode,
            reason,
            rule: named.clone(),
            category: self.flow.category,
            basis: self.label.basis,
            action: self.flow.action,
            addresses: addresses.unwrap_or(&policy.no_addresses).clone(),
            raw: grants.is_some_and(|rule| rule.grant.raw),
            upgrade: grants.is_some_and(|rule| rule.grant.upgrade)
                || verdict == Verdict::Allow && self.is_expected_upgrade(),
            inspect: match self.inspection {
                Inspection::Passed(named) if may_pass => Inspect::Passed(named.name.clone()),
                Inspection::Yes if may_pass => Inspect::Yes,
                Inspection::No | Inspection::Passed(_) | Inspection::Yes => Inspect::No,
            },
            upstream: upstream
                .or_else(|| {
                    policy
                        .routing
                        .upstream(&self.query.target.host, self.flow.category)
                })
                .cloned(),
            min_age: self
                .found
                .unless_old
                .filter(|_| may_pass && exception.is_none())
                .and_then(min_age),
            exceptions: exception.map(|it| it.passes()).into_iter().collect(),
            denied: self
                .denied_networks(policy)
                .filter(|_| may_pass && !observed),
            why: decides
                .and_then(|rule| rule.why.clone())
                .filter(|_| !passes),
        }
    }

    /// Whether the request asks for another protocol and the destination's entry expects it: the
    /// WebSocket of a model API.
    fn is_expected_upgrade(&self) -> bool {
        match (self.flow.attempt, self.label.entry) {
            (
                Attempt::Request {
                    path,
                    upgrade: true,
                    request_facts,
                    ..
                },
                Some(entry),
            ) => match request_facts.and_then(|request_facts| request_facts.unseen_path) {
                Some(unseen) => unseen.lenient && entry.may_expect_upgrade(),
                None => entry.expects_upgrade(path.path()),
            },
            _ => false,
        }
    }

    /// Returns the reason of a refusal: the reason of a spent exception if that would allow the
    /// flow.
    fn spent_or(&self, reason: Reason) -> Reason {
        let spent = self.found.excepted.spent.is_some() && reason != Reason::Allowed;
        if spent {
            Reason::ExceptionSpent
        } else {
            reason
        }
    }

    /// Returns the reason of a tier's default.
    fn default_reason(&self) -> Reason {
        match (self.tier.default, self.found.near) {
            (Verdict::Allow, _) => Reason::Allowed,
            (Verdict::Ask, _) => Reason::NeedsApproval,
            (Verdict::Deny, Some(Miss::Port)) => Reason::PortDenied,
            (Verdict::Deny, Some(Miss::Path)) => Reason::BadPath,
            (Verdict::Deny, Some(Miss::Tool)) => Reason::McpToolDenied,
            (Verdict::Deny, Some(Miss::Request)) => Reason::ActionDenied,
            (Verdict::Deny, _) => Reason::NotAllowed,
        }
    }

    /// Returns the networks of deny rules that match this flow except for its host, which is a
    /// name.
    fn denied_networks(&self, policy: &Policy) -> Option<Arc<[DeniedNetwork]>> {
        if policy.network_denies.is_empty() || !matches!(self.query.target.host, Host::Name(_)) {
            return None;
        }
        let rules = policy.network_denies.iter();
        let rules = rules.filter_map(|id| policy.rule(*id));
        let met = rules.filter(|rule| rule.fit(&self.flow) == Fit::Matches);
        let named = |rule: &Arc<Named>, network| DeniedNetwork {
            network,
            rule: rule.clone(),
        };
        let denied: Arc<[DeniedNetwork]> = met
            .flat_map(|rule| rule.to.networks.iter().map(|net| named(&rule.named, *net)))
            .collect();
        (!denied.is_empty()).then_some(denied)
    }
}

fn min_age(rule: &Rule) -> Option<MinAge> {
    Some(MinAge {
        least: rule.min_age()?,
        rule: rule.named.clone(),
        why: rule.why.clone(),
    })
}
