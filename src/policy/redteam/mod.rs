//! Red team: known attacks on coding agents as test cases, played against a policy.
//!
//! The cases are `config/redteam/*.toml`. Each lists the flows of one attack in the notation of
//! `[[trial]]`, and the step that a gate must stop. [`play`] judges them with
//! [`Policy::decide`](super::Policy::decide); [`remedies`] finds policy lines that stop the passing
//! attacks, and tests them before it returns them.

mod remedy;
mod scenario;

use std::sync::Arc;

use super::caller::Facts;
use super::compiled::Policy;
use super::query::TierId;
use super::verdict::{Decision, Verdict};

pub use remedy::{Remedy, remedies};
pub use scenario::{Client, Scenario, Status, Step, scenarios};

/// Evidence on the caller that plays the scenarios, besides its tier.
#[derive(Clone, Debug, Default)]
pub struct Player {
    /// The caller's groups.
    pub groups: Vec<Arc<str>>,
    /// The caller's verified repository; `None`: that of the scenario.
    pub repository: Option<Arc<str>>,
}

/// The result of a scenario in one tier.
#[derive(Clone, Debug)]
pub struct Played<'s> {
    /// The scenario.
    pub scenario: &'s Scenario,
    /// The tier.
    pub tier: Arc<str>,
    /// The result of each step, in order. A refused step does not end the scenario: an attacker may
    /// have performed it elsewhere.
    pub steps: Vec<PlayedStep>,
}

/// The result of one step.
#[derive(Clone, Debug)]
pub struct PlayedStep {
    /// The decision of the policy.
    pub decision: Decision,
    /// Whether the request is hidden in an uninspected tunnel: then the decision is about the
    /// CONNECT.
    pub hidden: bool,
    /// The operation, if the request is seen and its service has one.
    pub operation: Option<Arc<str>>,
}

/// Plays every scenario in every tier of the policy, scenario by scenario.
pub fn play<'s>(policy: &Policy, scenarios: &'s [Scenario], player: &Player) -> Vec<Played<'s>> {
    let each = scenarios.iter().flat_map(|scenario| {
        let tiers = policy.tiers.ids();
        tiers.map(move |tier| play_one(policy, scenario, tier, player))
    });
    each.collect()
}

fn play_one<'s>(
    policy: &Policy,
    scenario: &'s Scenario,
    tier: TierId,
    player: &Player,
) -> Played<'s> {
    let repository = player.repository.as_ref().or(scenario.repository.as_ref());
    let facts = Facts {
        groups: &player.groups,
        repository,
        ..Facts::default()
    };
    let who = policy.in_tier(&facts, tier);
    let steps = scenario.steps.iter().map(|step| {
        let (decision, facts) = step.example.judge(policy, &who);
        PlayedStep {
            decision,
            hidden: facts.is_none() && step.example.request.is_some(),
            operation: facts.and_then(|facts| facts.operation),
        }
    });
    Played {
        scenario,
        tier: policy.tiers.tier(tier).name.clone(),
        steps: steps.collect(),
    }
}

impl PlayedStep {
    /// Whether the step is refused. A tier that observes refuses nothing, whatever its rules.
    pub fn is_stopped(&self) -> bool {
        self.decision.verdict != Verdict::Allow
    }
}

impl Played<'_> {
    /// Returns the step that must be stopped.
    pub fn decisive(&self) -> Option<&PlayedStep> {
        self.steps.get(self.scenario.stop)
    }

    /// Whether the step that must be stopped is refused.
    pub fn is_stopped(&self) -> bool {
        self.decisive().is_some_and(PlayedStep::is_stopped)
    }

    /// Returns the expected reason of the built-in policy for that step in a tier of this name: a
    /// code of refusals, or `allowed`. `None` for a tier of another name.
    pub fn expected(&self) -> Option<&str> {
        self.scenario.expect.get(&*self.tier).map(|code| &**code)
    }

    /// Whether the expectation holds: the policy stops everything that the built-in policy stops.
    /// Stopping more is never a failure.
    pub fn holds(&self) -> bool {
        self.is_stopped() || self.expected().is_none_or(|code| code == "allowed")
    }
}

#[cfg(test)]
mod tests;
