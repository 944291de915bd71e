//! The table and the JSON of a live run.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::policy::redteam::Step;

use super::super::test::redteam::{RESULT, SCENARIO, TIER};
use super::super::{Answer, print};
use super::clients::Ended;
use super::outcome::{End, Live, LiveStep, StepResult};

/// Characters of a reason, at most.
const MAX_REASON: usize = 400;

/// `No` if a scenario failed or differs; `Failed` if one was not played.
pub(super) fn answer(live: &[Live<'_>]) -> Answer {
    let ends: Vec<End> = live.iter().map(Live::end).collect();
    if ends
        .iter()
        .any(|end| matches!(end, End::Fails | End::Differs(_)))
    {
        return Answer::No;
    }
    let is_whole = !ends.iter().any(|end| matches!(end, End::NotPlayed(_)));
    if is_whole {
        Answer::Yes
    } else {
        Answer::Failed
    }
}

/// Formats a row for each scenario in each tier.
pub(super) fn table(live: &[Live<'_>]) -> String {
    let mut text = format!(
        "{:SCENARIO$}{:TIER$}{:RESULT$}STEP AND RULE\n",
        "SCENARIO", "TIER", "RESULT"
    );
    let mut before = "";
    for one in live {
        let id = &*one.played.scenario.id;
        let shown = if id == before { "" } else { id };
        before = id;
        let tier = print::clean(&one.played.tier, TIER - 1);
        let end = one.end();
        let start = format!("{shown:SCENARIO$}{tier:TIER$}{:RESULT$}", result(&end));
        let room = print::WIDTH - start.chars().count();
        let _ = writeln!(text, "{start}{}", print::clean(&why(one, &end), room));
    }
    text.push_str(&sums(live));
    text
}

/// Formats the counts, the chains that were stopped at an earlier step, and the reasons of rows in
/// full.
fn sums(live: &[Live<'_>]) -> String {
    let count = |word: &str| live.iter().filter(|one| result(&one.end()) == word).count();
    let mut text = format!(
        "{} stopped, {} pass, {} against expectation, {} differ from the policy, {} not played\n",
        count("stopped"),
        count("passes"),
        count("FAIL"),
        count("DIFFERS"),
        count("not run")
    );
    for one in live {
        let place = format!("{} in {}", one.played.scenario.id, one.played.tier);
        if let Some(step) = stopped_earlier(one) {
            let _ = writeln!(text, "{place}: stopped at its earlier step {step} as well");
        }
        if let End::Differs(why) | End::NotPlayed(why) = one.end() {
            let _ = writeln!(
                text,
                "{}",
                print::clean(&format!("{place}: {why}"), MAX_REASON)
            );
        }
    }
    text
}

/// Returns the first step of a chain that the gate refused, if that is before the step that must be
/// stopped.
fn stopped_earlier<'l>(one: &'l Live<'_>) -> Option<&'l str> {
    let scenario = one.played.scenario;
    let first = one.first_stopped().filter(|first| *first < scenario.stop)?;
    scenario.steps.get(first).map(|step| &*step.id)
}

fn result(end: &End) -> &'static str {
    match end {
        End::Stopped => "stopped",
        End::Passes => "passes",
        End::Fails => "FAIL",
        End::Differs(_) => "DIFFERS",
        End::NoCaller(_) => "none",
        End::NotPlayed(_) => "not run",
    }
}

/// Formats the step that must be stopped, with its reason and rule.
fn why(one: &Live<'_>, end: &End) -> String {
    match end {
        End::Differs(why) | End::NotPlayed(why) => return why.clone(),
        End::NoCaller(tier) => return format!("the policy puts this caller in tier {tier}"),
        _ => {}
    }
    let scenario = one.played.scenario;
    let (Some(step), Some(live)) = (scenario.steps.get(scenario.stop), one.decisive()) else {
        return String::new();
    };
    let rule = live.field("security_rule.name");
    let (name, reason) = (&step.id, live.field("tidegate.reason"));
    if live.result == StepResult::Stopped {
        return format!("{name}: {reason} by {rule}");
    }
    let would = live.field("tidegate.would");
    let cause = match (would, live.field("tidegate.tls.mode")) {
        ("", "opaque") => ", in a tunnel".to_owned(),
        ("", _) => String::new(),
        (would, _) => format!(", would {would}: the tier observes"),
    };
    let expected = match one.played.expected() {
        Some(code) if *end == End::Fails => format!(", expected {code}"),
        _ => String::new(),
    };
    format!("{name}: by {rule}{cause}{expected}")
}

/// The JSON of a live run.
pub(super) fn as_json(live: &[Live<'_>]) -> Value {
    json!({
        "ok": answer(live) == Answer::Yes,
        "results": live.iter().map(one_as_json).collect::<Vec<_>>(),
    })
}

fn one_as_json(one: &Live<'_>) -> Value {
    let scenario = one.played.scenario;
    let end = one.end();
    let why = match &end {
        End::Differs(why) | End::NotPlayed(why) => Some(why.clone()),
        End::NoCaller(tier) => Some(format!("the policy puts this caller in tier {tier}")),
        _ => None,
    };
    let id = |at: usize| scenario.steps.get(at).map(|step| &step.id);
    let steps = one.steps.iter().flatten().zip(&scenario.steps);
    json!({
        "scenario": scenario.id,
        "tier": one.played.tier,
        "result": result(&end).replace(' ', "_").to_ascii_lowercase(),
        "why": why,
        "stop": id(scenario.stop),
        "first_stopped": one.first_stopped().and_then(id),
        "expected": one.played.expected(),
        "evidence": scenario.evidence,
        "steps": steps.map(|(live, step)| step_as_json(step, live)).collect::<Vec<_>>(),
    })
}

fn step_as_json(step: &Step, live: &LiveStep) -> Value {
    let (exit, said) = match &live.taken.end {
        Ended::Exit(code, said) => (*code, Some(said.as_str())),
        Ended::NotStarted(why) => (None, Some(why.as_str())),
        Ended::TooLate => (None, Some("did not end in time")),
    };
    json!({
        "step": step.id,
        "flow": step.flow,
        "client": live.taken.client.as_str(),
        "exit": exit,
        "said": said,
        "result": match live.result {
            StepResult::Stopped => "stopped",
            StepResult::Passed => "passed",
            StepResult::Unknown(_) => "unknown",
        },
        "reached_origin": live.taken.arrived,
        "record": live.record,
    })
}
