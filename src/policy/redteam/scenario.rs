//! The scenarios in their text form.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::Target;
use crate::policy::example::Example;
use crate::policy::repository::canonical_repository;

/// One attack as a test case.
#[derive(Debug)]
pub struct Scenario {
    /// A short name, unique among all scenarios.
    pub id: Arc<str>,
    /// The attack in a sentence or two.
    pub story: Box<str>,
    /// The reaction of the built-in policy.
    pub status: Status,
    /// The verified repository of the caller; `None`: unknown.
    pub repository: Option<Arc<str>>,
    /// The flows, in order.
    pub steps: Vec<Step>,
    /// The index in `steps` of the step that must be stopped.
    pub stop: usize,
    /// Fields that the record of the stopped step must have.
    pub evidence: Vec<Box<str>>,
    /// The expected reason of the built-in policy for that step, by tier: a code of refusals, or
    /// `allowed`.
    pub expect: BTreeMap<Box<str>, Box<str>>,
}

/// One flow of an attack.
#[derive(Clone, Debug)]
pub struct Step {
    /// A short name, unique in its scenario.
    pub id: Box<str>,
    /// The flow in the notation of `[[trial]]`.
    pub flow: Box<str>,
    /// The purpose of the flow in the attack.
    pub does: Box<str>,
    /// The index in the steps of the scenario of the step that causes this one: its client makes
    /// both flows (a redirect that it follows, a script that it runs).
    pub cause: Option<usize>,
    /// The program that makes the flow when the scenario is played live.
    pub client: Client,
    pub(super) example: Example,
}

/// A program that makes flows.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// curl: requests, and tunnels with TLS inside.
    Curl,
    /// git: `CLONE` and `PUSH`.
    Git,
    /// npm: the installation of the package that the URL names.
    Npm,
}

impl Client {
    /// Returns the name of the program.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Git => "git",
            Self::Npm => "npm",
        }
    }

    fn of(flow: &str) -> Self {
        let is_git = flow.starts_with("CLONE ") || flow.starts_with("PUSH ");
        if is_git { Self::Git } else { Self::Curl }
    }
}

/// The reaction of the built-in policy to a scenario (`standard` and stricter).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The host is allowed for work, and a tunnel hides the attack: only inspection can stop it.
    Inspect,
    /// The built-in policy refuses it.
    Stopped,
}

impl Status {
    /// Returns the word in the files.
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
    /// The date of the last review of the cases.
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
    by: Option<Box<str>>,
    client: Option<Client>,
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$((concat!($name, ".toml"), include_str!(concat!("../../../config/redteam/", $name, ".toml")))),+]
    };
}

const FILES: [(&str, &str); 6] =
    files!["secrets", "packages", "agents", "ci", "metadata", "chains",];

/// Returns the scenarios that are compiled into the binary (`config/redteam/*.toml`).
///
/// # Errors
///
/// Returns the file and its fault. A test reads every file.
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
        let mut steps: Vec<Step> = Vec::new();
        for one in written.steps {
            let read = Step::read(one, &steps).map_err(&wrong)?;
            steps.push(read);
        }
        let repository = written.repository.map(|text| {
            let canonical = canonical_repository(&text);
            canonical.ok_or_else(|| wrong(format!("not a repository: {text}")))
        });
        Ok(Self {
            steps,
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
    /// Reads a step that follows others.
    fn read(written: WrittenStep, before: &[Self]) -> Result<Self, String> {
        let example = Example::parse(&written.flow);
        let cause = written.by.as_ref().map(|by| {
            let at = before.iter().position(|step| step.id == *by);
            at.ok_or_else(|| format!("`by` names no earlier step: {by}"))
        });
        Ok(Self {
            example: example.map_err(|error| format!("`{}`: {error}", written.flow))?,
            cause: cause.transpose()?,
            client: written.client.unwrap_or_else(|| Client::of(&written.flow)),
            id: written.id,
            flow: written.flow,
            does: written.does,
        })
    }

    /// Returns the destination.
    pub fn target(&self) -> &Target {
        &self.example.target
    }

    /// Returns the method and the path (without a query) of the request that reaches the
    /// destination; `None` for a CONNECT alone.
    pub fn request(&self) -> Option<(&str, &str)> {
        let request = self.example.request.as_ref()?;
        Some((&request.method, request.path.path()))
    }

    /// Whether the flow is a tunnel: a CONNECT alone, or a request of https.
    pub fn is_tunnel(&self) -> bool {
        let request = self.example.request.as_ref();
        request.is_none_or(|request| request.tls)
    }
}
