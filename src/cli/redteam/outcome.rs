//! The result of a scenario, from the records of the gate and the requests that reached the origin.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::policy::redteam::{Client, Played, PlayedStep, Step};
use crate::replay::{self, Line};

use super::clients::Ended;

/// The run of the client of one step.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// The session of the client.
    pub(super) session: String,
    /// The program that made the flow.
    pub(super) client: Client,
    /// How the client ended.
    pub(super) end: Ended,
    /// Whether the flow reached its destination.
    pub(super) arrived: bool,
}

/// The records of the run, by session.
pub(super) struct Log(HashMap<String, Vec<Map<String, Value>>>);

/// A scenario in a tier, as it was played live.
pub(super) struct Live<'p> {
    /// The scenario as the policy judges it without a gate.
    pub(super) played: &'p Played<'p>,
    /// The steps in their order; `Err`: why the scenario was not played.
    pub(super) steps: Result<Vec<LiveStep>, NotTaken>,
}

/// A step as it was played live.
pub(super) struct LiveStep {
    pub(super) taken: Taken,
    pub(super) result: StepResult,
    /// The record of the refusal, else of the last decision.
    pub(super) record: Option<Map<String, Value>>,
}

/// The result of a step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum StepResult {
    /// The gate refused the step, and its request did not reach the destination.
    Stopped,
    /// The request reached the destination.
    Passed,
    /// Neither refused nor at the destination. Contains the reason, if one was found.
    Unknown(String),
}

/// The result of a scenario.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// The step that must be stopped was refused, for the reason that the policy gives.
    Stopped,
    /// The step passed, as the policy says and as the built-in policy allows.
    Passes,
    /// The step passed, and the built-in policy refuses it in the tier of this name.
    Fails,
    /// The gate decided otherwise than the policy. Contains the difference.
    Differs(String),
    /// The policy puts the caller in another tier. Contains that tier.
    NoCaller(Arc<str>),
    /// The scenario was not played. Contains the reason.
    NotPlayed(String),
}

/// Why a scenario was not played.
#[derive(Clone, Debug)]
pub(super) enum NotTaken {
    /// The policy puts the caller in another tier. Contains that tier.
    OtherTier(Arc<str>),
    /// The scenario could not be played. Contains the reason.
    Failed(String),
}

/// Evidence fields that the gate reads from a body. The earlier requests of a client lack them.
const OF_BODIES: [&str; 2] = ["tidegate.destination.ref", "gen_ai.tool.name"];

impl Log {
    /// Reads the lines of flows.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        let mut sessions: HashMap<String, Vec<_>> = HashMap::new();
        replay::each_line(path, |line| {
            let Line::Whole(text) = line else { return };
            let Ok(Value::Object(line)) = serde_json::from_slice(text) else {
                return;
            };
            let session = word(&line, "session.id").to_owned();
            if ["decision", "close"].contains(&word(&line, "event.name")) {
                sessions.entry(session).or_default().push(line);
            }
        })?;
        Ok(Self(sessions))
    }

    /// The lines of a session about the destination of a step.
    fn of(&self, session: &str, step: &Step) -> impl Iterator<Item = &Map<String, Value>> {
        let target = step.target();
        let (host, port) = (target.host.to_string(), u64::from(target.port));
        let lines = self.0.get(session).into_iter().flatten();
        lines.filter(move |line| {
            let at = line.get("server.port").and_then(Value::as_u64);
            word(line, "server.address") == host && at == Some(port)
        })
    }
}

impl<'p> Live<'p> {
    pub(super) fn new(
        played: &'p Played<'p>,
        taken: Result<Vec<Taken>, NotTaken>,
        log: &Log,
    ) -> Self {
        let expected = played.scenario.steps.len();
        let taken = taken.and_then(|taken| match taken.len() {
            count if count == expected => Ok(taken),
            _ => Err(NotTaken::Failed("out of time".to_owned())),
        });
        let steps = taken.map(|taken| {
            let steps = played.scenario.steps.iter().zip(taken);
            steps
                .map(|(step, taken)| LiveStep::new(step, taken, log))
                .collect()
        });
        Self { played, steps }
    }

    /// Returns the index of the first step that the gate refused.
    pub(super) fn first_stopped(&self) -> Option<usize> {
        let steps = self.steps.as_ref().ok()?;
        steps
            .iter()
            .position(|step| step.result == StepResult::Stopped)
    }

    /// Returns the step that must be stopped.
    pub(super) fn decisive(&self) -> Option<&LiveStep> {
        self.steps.as_ref().ok()?.get(self.played.scenario.stop)
    }

    /// Returns the result.
    pub(super) fn end(&self) -> End {
        let steps = match &self.steps {
            Ok(steps) => steps,
            Err(NotTaken::OtherTier(tier)) => return End::NoCaller(tier.clone()),
            Err(NotTaken::Failed(why)) => return End::NotPlayed(why.clone()),
        };
        let scenario = self.played.scenario;
        let both = scenario.steps.iter().zip(&self.played.steps).zip(steps);
        for ((step, said), live) in both.clone() {
            if let StepResult::Unknown(why) = &live.result {
                return End::NotPlayed(format!("{}: {why}", step.id));
            }
            if let Some(difference) = live.difference(step, said, &self.played.tier) {
                return End::Differs(format!("{}: {difference}", step.id));
            }
        }
        let Some(decisive) = self.decisive() else {
            return End::NotPlayed("no step".to_owned());
        };
        if decisive.result != StepResult::Stopped {
            let holds = self.played.holds();
            return if holds { End::Passes } else { End::Fails };
        }
        let decided = scenario.steps.get(scenario.stop);
        let is_earlier = decided.is_some_and(|it| decisive.is_before(it));
        let mut lacks = decisive.lacks(&scenario.evidence);
        lacks.retain(|name| !(is_earlier && OF_BODIES.contains(name)));
        match lacks.as_slice() {
            [] => End::Stopped,
            missing => End::Differs(format!("the record lacks {}", missing.join(", "))),
        }
    }
}

impl LiveStep {
    fn new(step: &Step, taken: Taken, log: &Log) -> Self {
        let lines: Vec<_> = log.of(&taken.session, step).collect();
        let refused = lines.iter().find(|line| is_refusal(line));
        let mut decisions = lines
            .iter()
            .filter(|line| word(line, "event.name") == "decision");
        let record = refused.or_else(|| decisions.next_back());
        let record = record.map(|line| Map::clone(line));
        let result = match (taken.arrived, refused) {
            (true, _) => StepResult::Passed,
            (false, Some(_)) => StepResult::Stopped,
            (false, None) => StepResult::Unknown(why_unknown(&taken, &lines)),
        };
        Self {
            taken,
            result,
            record,
        }
    }

    /// Returns a field of the record that is a text.
    pub(super) fn field(&self, name: &str) -> &str {
        self.record.as_ref().map_or("", |record| word(record, name))
    }

    /// Returns how the step differs from the judgement of the policy.
    fn difference(&self, step: &Step, said: &PlayedStep, tier: &Arc<str>) -> Option<String> {
        let is_stopped = self.result == StepResult::Stopped;
        let decision = &said.decision;
        let (reason, rule) = (decision.reason.code(), &*decision.rule.name);
        // Only a gate resolves names and judges their addresses.
        let by_address = self.record.as_ref();
        if is_stopped && by_address.is_some_and(|it| it.contains_key("dns.answers")) {
            return None;
        }
        if is_stopped != said.is_stopped() {
            let live = if is_stopped { "stopped" } else { "passed" };
            return Some(format!(
                "{live} live ({} by {}), and the policy says {reason} by {rule}",
                self.field("tidegate.reason"),
                self.field("security_rule.name")
            ));
        }
        if self.field("tidegate.tier") != &**tier {
            return Some(format!("recorded in tier {}", self.field("tidegate.tier")));
        }
        if !is_stopped || self.is_before(step) {
            return None;
        }
        let same = [("tidegate.reason", reason), ("security_rule.name", rule)];
        let other = same.iter().find(|(name, value)| self.field(name) != *value);
        other.map(|(name, value)| {
            format!(
                "the record has {name} {}, and the policy says {value}",
                self.field(name)
            )
        })
    }

    /// Whether the record is of an earlier request of the same client: git asks for the refs of a
    /// repository before it pushes.
    fn is_before(&self, step: &Step) -> bool {
        let method = self.field("http.request.method");
        let request = step.request();
        request.is_some_and(|(own, _)| !["", "CONNECT", own].contains(&method))
    }

    /// Returns the evidence fields that the record lacks.
    fn lacks<'e>(&self, evidence: &'e [Box<str>]) -> Vec<&'e str> {
        let record = self.record.as_ref();
        let is_there = |name: &str| record.is_some_and(|record| record.contains_key(name));
        let missing = evidence.iter().filter(|name| !is_there(name));
        missing.map(|name| &**name).collect()
    }
}

/// Whether a line records that the policy refused the flow.
fn is_refusal(line: &Map<String, Value>) -> bool {
    ["deny", "ask"].contains(&word(line, "tidegate.verdict"))
}

fn why_unknown(taken: &Taken, lines: &[&Map<String, Value>]) -> String {
    let failed = lines
        .iter()
        .rev()
        .find(|line| word(line, "tidegate.verdict") == "error" || line.contains_key("error.type"));
    let failed = failed.map(|line| {
        let reason = word(line, "error.type");
        let reason = if reason.is_empty() {
            word(line, "tidegate.reason")
        } else {
            reason
        };
        format!(" ({reason} on record)")
    });
    let failed = failed.unwrap_or_default();
    match &taken.end {
        Ended::NotStarted(why) => why.clone(),
        Ended::TooLate => format!("{} did not end in time{failed}", taken.client.as_str()),
        Ended::Exit(code, said) => {
            let code = code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
            format!(
                "{} ended with {code}{failed}: {said}",
                taken.client.as_str()
            )
        }
    }
}

fn word<'l>(line: &'l Map<String, Value>, name: &str) -> &'l str {
    line.get(name).and_then(Value::as_str).unwrap_or_default()
}
