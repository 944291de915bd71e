//! `tidegate test --redteam`: known attacks, judged by the policy, and rules that would stop the
//! ones that pass.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::Loaded;
use crate::policy::redteam::{self, Played, Player, Remedy, Scenario};
use crate::policy::{Policy, canonical_repository};

use super::super::{Answer, check, print};
use super::Test;

/// The width of the table's columns: scenario, tier, result.
pub(in crate::cli) const SCENARIO: usize = 26;
pub(in crate::cli) const TIER: usize = 14;
pub(in crate::cli) const RESULT: usize = 9;

/// Plays the red team against a policy; `Yes` if every expectation holds.
pub(super) fn perform(test: &Test, loaded: &Loaded) -> Answer {
    if !test.json {
        loaded.show();
    }
    let (Some(config), Some(policy)) = (&loaded.config, &loaded.policy) else {
        return not_run(test, loaded);
    };
    let scenarios = match scenarios() {
        Ok(scenarios) => scenarios,
        Err((answer, message)) => {
            print::err(&format!("tidegate: {message}\n"));
            return answer;
        }
    };
    let caller = match player(&test.group, test.repo.as_deref(), policy) {
        Ok(caller) => caller,
        Err(error) => {
            print::err(&format!("tidegate: {error}\n"));
            return Answer::Wrong;
        }
    };
    let played = redteam::play(policy, &scenarios, &caller);
    let remedies = redteam::remedies(&config.policy, policy, &scenarios, &caller);
    if test.json {
        print::json(&as_json(&played, &remedies, loaded));
    } else {
        print::out(&table(&played));
        print::out(&remedies_text(&remedies));
    }
    Answer::whether(played.iter().all(Played::holds))
}

fn not_run(test: &Test, loaded: &Loaded) -> Answer {
    if test.json {
        print::json(&as_json(&[], &[], loaded));
    } else {
        print::out("not run: the configuration is wrong\n");
    }
    Answer::Wrong
}

/// Returns every scenario.
pub(in crate::cli) fn scenarios() -> Result<Vec<Scenario>, (Answer, String)> {
    let failed = |error| {
        (
            Answer::Failed,
            format!("the red team cannot be read: {error}"),
        )
    };
    redteam::scenarios().map_err(failed)
}

/// Returns the caller of the scenarios, for a policy that has its groups. `repository` is a clone
/// URL.
pub(in crate::cli) fn player(
    groups: &[Arc<str>],
    repository: Option<&str>,
    policy: &Policy,
) -> Result<Player, String> {
    if let Some(unknown) = groups.iter().find(|it| policy.group(it).is_none()) {
        return Err(format!("--group {unknown}: no such group"));
    }
    let repository = repository.map(|text| {
        let canonical = canonical_repository(text);
        canonical.ok_or_else(|| format!("--repo {text}: not a clone URL"))
    });
    Ok(Player {
        groups: groups.to_vec(),
        repository: repository.transpose()?.map(Into::into),
    })
}

fn table(played: &[Played<'_>]) -> String {
    let mut text = format!(
        "{:SCENARIO$}{:TIER$}{:RESULT$}STEP AND RULE\n",
        "SCENARIO", "TIER", "RESULT"
    );
    let mut before = "";
    for one in played {
        let id = &*one.scenario.id;
        let shown = if id == before { "" } else { id };
        before = id;
        let tier = print::clean(&one.tier, TIER - 1);
        let start = format!("{shown:SCENARIO$}{tier:TIER$}{:RESULT$}", result(one));
        let room = print::WIDTH - start.chars().count();
        let _ = writeln!(text, "{start}{}", print::clean(&why(one), room));
    }
    let stopped = played.iter().filter(|one| one.is_stopped()).count();
    let failed = played.iter().filter(|one| !one.holds()).count();
    let _ = writeln!(
        text,
        "{stopped} stopped, {} pass, {failed} of them against expectation",
        played.len() - stopped
    );
    text
}

/// Formats `stopped`, `passes`, or `FAIL` if it should be stopped.
fn result(played: &Played<'_>) -> &'static str {
    match (played.is_stopped(), played.holds()) {
        (true, _) => "stopped",
        (false, true) => "passes",
        (false, false) => "FAIL",
    }
}

/// Formats the step that must be stopped, what decides it, and why it passes if it does.
fn why(played: &Played<'_>) -> String {
    let Some((step, decided)) = decisive(played) else {
        return String::new();
    };
    let rule = &decided.decision.rule.name;
    let reason = decided.decision.reason.code();
    let name = &step.id;
    if decided.is_stopped() {
        return format!("{name}: {reason} by {rule}");
    }
    let cause = match (&decided.decision.would, decided.hidden) {
        (Some(would), _) => format!(", would {would}: the tier observes"),
        (None, true) => ", in a tunnel".to_owned(),
        (None, false) => String::new(),
    };
    let expected = match played.expected() {
        Some(code) if !played.holds() => format!(", expected {code}"),
        _ => String::new(),
    };
    format!("{name}: by {rule}{cause}{expected}")
}

fn decisive<'p>(played: &'p Played<'_>) -> Option<(&'p redteam::Step, &'p redteam::PlayedStep)> {
    let step = played.scenario.steps.get(played.scenario.stop)?;
    Some((step, played.decisive()?))
}

fn remedies_text(remedies: &[Remedy<'_>]) -> String {
    let mut text = String::new();
    for remedy in remedies {
        let _ = writeln!(text, "\n# tier {}", remedy.tier);
        text.push_str(&listed("stopped by these lines", &remedy.stops));
        text.push_str(&listed("stopped by no line", &remedy.leaves));
        if remedy.lines.contains("grant.inspect") {
            text.push_str(
                "# inspection needs [inspect] with an authority: `tidegate help interception`\n",
            );
        }
        text.push_str(&remedy.lines);
    }
    text
}

/// Formats the names of scenarios as lines of a comment; empty if there are none.
fn listed(what: &str, scenarios: &[&Scenario]) -> String {
    if scenarios.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    let mut line = format!("# {what}:");
    for scenario in scenarios {
        if line.len() + 1 + scenario.id.len() > print::WIDTH {
            let _ = writeln!(text, "{line}");
            "#  ".clone_into(&mut line);
        }
        let _ = write!(line, " {}", scenario.id);
    }
    let _ = writeln!(text, "{line}");
    text
}

fn as_json(played: &[Played<'_>], remedies: &[Remedy<'_>], loaded: &Loaded) -> Value {
    let findings = loaded.findings.iter().map(check::finding);
    json!({
        "ok": loaded.policy.is_some() && played.iter().all(Played::holds),
        "results": played.iter().map(one_as_json).collect::<Vec<_>>(),
        "remedies": remedies.iter().map(remedy_as_json).collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}

fn one_as_json(played: &Played<'_>) -> Value {
    let scenario = played.scenario;
    let steps = scenario.steps.iter().zip(&played.steps);
    let steps = steps.map(|(step, result)| {
        let decision = &result.decision;
        json!({
            "step": step.id,
            "flow": step.flow,
            "does": step.does,
            "verdict": decision.verdict,
            "would": decision.would,
            "reason": decision.reason,
            "rule": decision.rule.name,
            "location": decision.rule.location,
            "hidden": result.hidden,
        })
    });
    json!({
        "scenario": scenario.id,
        "story": scenario.story,
        "status": scenario.status,
        "tier": played.tier,
        "stop": scenario.steps.get(scenario.stop).map(|step| &step.id),
        "stopped": played.is_stopped(),
        "expected": played.expected(),
        "ok": played.holds(),
        "evidence": scenario.evidence,
        "steps": steps.collect::<Vec<_>>(),
    })
}

fn remedy_as_json(remedy: &Remedy<'_>) -> Value {
    let ids =
        |scenarios: &[&Scenario]| -> Vec<_> { scenarios.iter().map(|it| it.id.clone()).collect() };
    json!({
        "tier": remedy.tier,
        "stops": ids(&remedy.stops),
        "leaves": ids(&remedy.leaves),
        "lines": remedy.lines,
    })
}
