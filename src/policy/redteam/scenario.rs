//! The scenarios as they are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::policy::example::Example;
use crate::policy::repository::canonical_repository;

/// One attack, as a case that is kept.
#[derive(Debug)]
pub struct Scenario {
    /// A short name, unique among all scenarios.
    pub id: Arc<str>,
    /// What happens, in a sentence or two.
    pub story: Box<str>,
    /// What the built-in policy does about it.
    pub status: Status,
    /// The verified repository of the caller; `None`: not known.
    pub repository: Option<Arc<str>>,
    /// The flows, in order.
    pub steps: Vec<Step>,
    /// The step that must be stopped, by its place in `steps`.
    pub stop: usize,
    /// Fields that the record of the stopped step has to have.
    pub evidence: Vec<Box<str>>,
    /// The reason that the built-in policy gives for that step, by tier: a code of refusals, or
    /// `allowed`.
    pub expect: BTreeMap<Box<str>, Box<str>>,
}

/// One flow of an attack.
#[derive(Debug)]
pub struct Step {
    /// A short name, unique in its scenario.
    pub id: Box<str>,
    /// The flow in the words of `[[trial]]`.
    pub flow: Box<str>,
    /// What the attack does with it.
    pub does: Box<str>,
    pub(super) example: Example,
}

/// What is done about a scenario in the built-in policy (`standard` and stricter).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The host is allowed for work, and a tunnel hides what is done there: TLS has to be inspected.
    Inspect,
    /// It is refused.
    Stopped,
}

impl Status {
    /// The word in the files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Stopped => "stopped",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// When the cases were last looked at.
    #[serde(rename = "dated")]
    _dated: String,
    scenario: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: Arc<str>,
    story: Box<str>,
    status: Status,
    repository: Option<String>,
    steps: Vec<WrittenStep>,
    stop: String,
    evidence: Vec<Box<str>>,
    expect: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    id: Box<str>,
    flow: Box<str>,
    does: Box<str>,
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$((concat!($name, ".toml"), include_str!(concat!("../../../config/redteam/", $name, ".toml")))),+]
    };
}

const FILES: [(&str, &str); 6] =
    files!["secrets", "packages", "agents", "ci", "metadata", "chains",];

/// The scenarios that are compiled into the binary (`config/redteam/*.toml`).
///
/// # Errors
///
/// Returns the file and what is wrong with it. A test reads every file.
pub fn scenarios() -> Result<Vec<Scenario>, String> {
    let mut scenarios = Vec::new();
    for (name, text) in FILES {
        scenarios.extend(parse(text).map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(scenarios)
}

/// Reads one file.
pub(super) fn parse(text: &str) -> Result<Vec<Scenario>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    file.scenario.into_iter().map(Scenario::read).collect()
}

impl Scenario {
    fn read(written: Written) -> Result<Self, String> {
        let id = written.id;
        let wrong = |error: String| format!("{id}: {error}");
        let stop = &written.stop;
        let at = written.steps.iter().position(|step| *step.id == **stop);
        let stop = at.ok_or_else(|| wrong(format!("`stop` names no step: {stop}")))?;
        let steps: Result<_, _> = written.steps.into_iter().map(Step::read).collect();
        let repository = written.repository.map(|text| {
            let canonical = canonical_repository(&text);
            canonical.ok_or_else(|| wrong(format!("not a repository: {text}")))
        });
        Ok(Self {
            steps: steps.map_err(wrong)?,
            repository: repository.transpose()?.map(Into::into),
            story: written.story,
            status: written.status,
            stop,
            evidence: written.evidence,
            expect: written.expect,
            id,
        })
    }
}

impl Step {
    fn read(written: WrittenStep) -> Result<Self, String> {
        let example = Example::parse(&written.flow);
        Ok(Self {
            example: example.map_err(|error| format!("`{}`: {error}", written.flow))?,
            id: written.id,
            flow: written.flow,
            does: written.does,
        })
    }
}
