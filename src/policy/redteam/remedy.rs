//! Policy lines that stop passing scenarios: written, compiled and tested.

use std::fmt::Write;
use std::sync::Arc;

use crate::diag::Source;
use crate::policy::compile::{compile, default_policy};
use crate::policy::compiled::Policy;
use crate::policy::example::Request;
use crate::policy::facts::Inspect;
use crate::policy::query::TierId;
use crate::policy::source;
use crate::policy::verdict::Verdict;

use super::{Played, Player, Scenario, play_one};

/// Maximum number of successive changes for one scenario: end the default of the tier, inspect the
/// host, deny the request.
const MAX_CHANGES: usize = 3;

/// The remedies for the passing scenarios of one tier.
#[derive(Debug)]
pub struct Remedy<'s> {
    /// The tier.
    pub tier: Arc<str>,
    /// The scenarios that pass now and are stopped with the lines.
    pub stops: Vec<&'s Scenario>,
    /// The scenarios that still pass with the lines.
    pub leaves: Vec<&'s Scenario>,
    /// The lines, as TOML; empty if no line stops any scenario.
    pub lines: String,
}

/// Finds the remedies for each tier in which some scenario passes. Every line was tested: the
/// policy with the lines of one tier compiles, and stops the scenarios in [`Remedy::stops`].
///
/// The lines are one possible remedy. They still allow reading from inspected hosts, and deny the
/// operations of the scenarios; the operator adds rules for the own work.
pub fn remedies<'s>(
    source: &source::Policy,
    policy: &Policy,
    scenarios: &'s [Scenario],
    player: &Player,
) -> Vec<Remedy<'s>> {
    let mut bare = source.clone();
    // Examples and invariants describe flows that pass today, which the lines may change on
    // purpose.
    bare.trials.clear();
    bare.never.clear();
    bare.always.clear();
    for rule in &mut bare.rules {
        rule.value.allows.clear();
        rule.value.denies.clear();
    }
    let tiers = policy.tiers.ids();
    let each = tiers.filter_map(|tier| {
        let mut trial = Trial {
            source: bare.clone(),
            changed: None,
            policy,
            player,
            tier,
            lines: Vec::new(),
        };
        trial.run(scenarios)
    });
    each.collect()
}

/// The policy with the changes so far, for one tier.
struct Trial<'p> {
    source: source::Policy,
    changed: Option<Policy>,
    policy: &'p Policy,
    player: &'p Player,
    tier: TierId,
    lines: Vec<String>,
}

impl Trial<'_> {
    fn run<'s>(&mut self, scenarios: &'s [Scenario]) -> Option<Remedy<'s>> {
        let (mut stops, mut leaves) = (Vec::new(), Vec::new());
        let name = &self.policy.tiers.tier(self.tier).name;
        for scenario in scenarios {
            if play_one(self.policy, scenario, self.tier, self.player).is_stopped() {
                continue;
            }
            if self.stop(scenario) {
                stops.push(scenario);
            } else {
                leaves.push(scenario);
            }
        }
        let passes = !stops.is_empty() || !leaves.is_empty();
        passes.then(|| Remedy {
            tier: name.clone(),
            stops,
            leaves,
            lines: self.lines.join("\n"),
        })
    }

    /// Changes the policy until it stops the scenario; reverts the changes if it does not.
    fn stop(&mut self, scenario: &Scenario) -> bool {
        let before = (self.source.clone(), self.lines.len());
        for _ in 0..=MAX_CHANGES {
            let policy = self.changed.as_ref().unwrap_or(self.policy);
            let played = play_one(policy, scenario, self.tier, self.player);
            if played.is_stopped() {
                return true;
            }
            let Some(change) = change(&played) else { break };
            if self.lines.contains(&change) || !self.apply(change) {
                break;
            }
        }
        self.source = before.0;
        self.lines.truncate(before.1);
        self.changed = compile(&self.source, &self.policy.catalogue).0;
        false
    }

    /// Adds a change; returns whether the policy compiles with it.
    fn apply(&mut self, change: String) -> bool {
        let text = Arc::new(Source::new("red team", change.clone()));
        let Ok(more) = default_policy::parse(&text) else {
            return false;
        };
        self.source.rules.extend(more.rules);
        for (name, tier) in more.tier {
            let mut known = self.source.tier.iter_mut();
            match known.find(|(known, _)| known.get_ref() == name.get_ref()) {
                Some((_, known)) => {
                    let new = tier.value;
                    known.value.default = new.default.or(known.value.default.take());
                    known.value.mode = new.mode.or(known.value.mode.take());
                }
                None => self.source.tier.push((name, tier)),
            }
        }
        let changed = compile(&self.source, &self.policy.catalogue).0;
        let compiles = changed.is_some();
        self.changed = changed.or(self.changed.take());
        self.lines.push(change);
        compiles
    }
}

/// Returns the next change that could stop a scenario.
fn change(played: &Played<'_>) -> Option<String> {
    let step = played.scenario.steps.get(played.scenario.stop)?;
    let (decision, hidden) = played.decisive().map(|it| (&it.decision, it.hidden))?;
    let tier = &played.tier;
    if decision.would.is_some_and(|would| would != Verdict::Allow) {
        return Some(format!("[tier.{tier}]\nmode = \"enforce\"\n"));
    }
    if *decision.rule.name == format!("tier.{tier}.default") {
        return Some(format!("[tier.{tier}]\ndefault = \"deny\"\n"));
    }
    let target = &step.example.target;
    let host = target.host.to_string().replace(['[', ']'], "");
    let (kind, verdict) = match (hidden, &decision.inspect) {
        (true, Inspect::Passed(_)) => return None,
        (true, _) => ("inspect", "allow"),
        (false, _) => ("deny", "deny"),
    };
    let name = if hidden { &host } else { &*played.scenario.id };
    let name: String = name
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() { it } else { '-' })
        .collect();
    let mut text = format!(
        "[[rule]]\nid = \"{kind}-{name}-{tier}\"\nverdict = \"{verdict}\"\n\
         from.tiers = [\"{tier}\"]\nto.hosts = [\"{host}\"]\n"
    );
    if hidden {
        if target.port != 443 {
            let _ = writeln!(text, "to.ports = [{}]", target.port);
        }
        text.push_str("grant.inspect = true\ndoes.actions = [\"read\"]\n");
    } else if let Some(request) = &step.example.request {
        text.push_str(&request_conditions(played, request));
    }
    Some(text)
}

/// Returns the deny conditions for a request: its operation, or otherwise its method.
fn request_conditions(played: &Played<'_>, request: &Request) -> String {
    let operation = played.decisive().and_then(|it| it.operation.as_deref());
    match operation {
        Some(word) => format!("does.operations = [\"{word}\"]\n"),
        None => format!("does.methods = [\"{}\"]\n", request.method),
    }
}
