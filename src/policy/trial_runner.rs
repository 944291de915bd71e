//! Runs the examples of rules, and trials.

use std::sync::Arc;

use crate::diag::Diagnostic;
use crate::name::Target;

use super::Action;
use super::caller::Facts;
use super::compiled::Policy;
use super::example::{Contents, Example, Request};
use super::facts::{Inspect, RequestFacts, Seen};
use super::query::{Attempt, Query, Who};
use super::trial::{Expected, Trial, TrialResult};
use super::verdict::{Decision, Verdict};

/// Decides a flow in the notation of trials, for a caller of at least that tier.
///
/// # Errors
///
/// If the text is no flow, or there is no such tier; the error is for a person.
pub fn decide_written(
    policy: &Policy,
    flow: &str,
    facts: &Facts<'_>,
    tier: &str,
) -> Result<Decision, String> {
    let tier = policy
        .tier(tier)
        .ok_or_else(|| format!("no tier `{tier}`"))?;
    let who = policy.who_in(facts, tier);
    Ok(Example::parse(flow)?.decide(policy, &who))
}

/// Runs every trial and example, and returns each result.
pub fn run_trials(policy: &Policy) -> Vec<TrialResult> {
    let run = |trial| Trial::run(trial, policy);
    policy.trials.iter().flat_map(run).collect()
}

/// Returns the trials that do not hold, as findings.
pub(super) fn failures(policy: &Policy) -> Vec<Diagnostic> {
    let failed = run_trials(policy).into_iter().filter(|result| !result.ok);
    failed.map(|result| result.finding()).collect()
}

impl Trial {
    fn run(&self, policy: &Policy) -> impl Iterator<Item = TrialResult> {
        self.callers.iter().map(move |who| {
            let decision = self.flow.decide(policy, who);
            let got = decision.would.unwrap_or(decision.verdict);
            TrialResult {
                name: self.name.clone(),
                entry: self.entry.clone(),
                place: self.place.clone(),
                caller: caller_text(policy, who),
                expected: self.expected.clone(),
                got,
                reason: decision.reason,
                ok: self.holds(policy, who, &decision, got),
                rule: decision.rule,
            }
        })
    }

    fn holds(&self, policy: &Policy, who: &Who, decision: &Decision, got: Verdict) -> bool {
        match &self.expected {
            Expected::Verdict(verdict, rule) => {
                got == *verdict && rule.as_ref().is_none_or(|rule| *rule == decision.rule.name)
            }
            Expected::NotAllowed if got != Verdict::Allow => true,
            Expected::NotAllowed => {
                policy.tiers.tier(who.tier).default == Verdict::Allow
                    && self.rule.as_ref() != Some(&decision.rule.name)
            }
        }
    }
}

fn caller_text(policy: &Policy, who: &Who) -> Arc<str> {
    let mut text = format!("tier {}", policy.tier_name(who.tier));
    for group in policy.group_names(who.groups) {
        text.push_str(", group ");
        text.push_str(group);
    }
    if let Some(subject) = &who.subject {
        text.push_str(", user ");
        text.push_str(subject);
    }
    if let Some(repository) = &who.repository {
        text.push_str(", repository ");
        text.push_str(repository);
    }
    text.into()
}

impl Example {
    /// Decides the flow: for https first the CONNECT, then, if TLS is inspected, the request.
    pub(super) fn decide(&self, policy: &Policy, who: &Who) -> Decision {
        self.judge(policy, who).0
    }

    /// Like [`Example::decide`], with the facts of the judged request; `None` if only the CONNECT
    /// was judged.
    pub(super) fn judge(&self, policy: &Policy, who: &Who) -> (Decision, Option<RequestFacts>) {
        let ask = |attempt| {
            let target = &self.target;
            policy.decide(&Query {
                who,
                target,
                attempt,
            })
        };
        let inside = match &self.request {
            None => return (ask(Attempt::Connect), None),
            Some(request) if request.tls => {
                let connect = ask(Attempt::Connect);
                let passes = connect.would.unwrap_or(connect.verdict) == Verdict::Allow;
                if !passes || connect.inspect != Inspect::Yes {
                    return (connect, None);
                }
                request
            }
            Some(request) => request,
        };
        let request_facts = inside.request_facts(policy, &self.target);
        let decision = ask(Attempt::Request {
            method: &inside.method,
            path: &inside.path,
            upgrade: false,
            tls: inside.tls,
            request_facts: Some(&request_facts),
        });
        (decision, Some(request_facts))
    }
}

impl Request {
    /// Returns the facts of its head, and of its body as written.
    fn request_facts(&self, policy: &Policy, target: &Target) -> RequestFacts {
        let mut request_facts = policy.read(target, &self.method, &self.path);
        match &self.body {
            Contents::Unknown => return request_facts,
            Contents::Push(reference) => {
                request_facts.action = Some(Action::Write);
                request_facts.reference = Some(reference.clone());
            }
            Contents::Tool(tool) => {
                let call = request_facts.mcp.get_or_insert_default();
                call.method = Some("tools/call".into());
                call.tool = Some(tool.clone());
                request_facts.action = Some(Action::Call);
            }
        }
        (request_facts.seen, request_facts.body) = (Seen::Whole, None);
        request_facts
    }
}
