//! Tests that travel with the policy: the examples of rules, and trials.

use std::fmt;
use std::sync::Arc;

use toml::Spanned;

use crate::diag::{Diagnostic, Place, closest};

use super::Facts;
use super::compile::{Findings, Policy};
use super::decide::{GroupId, GroupSet, TierId, Who};
use super::example::Example;
use super::repository::canonical_repository;
use super::source::{self, Placed};
use super::verdict::{Decision, Named, Reason, TierBasis, Verdict};

/// How one example or one entry of a trial came out.
#[derive(Clone, Debug)]
pub struct TrialResult {
    /// `rule docs`, or the name of the trial.
    pub name: Arc<str>,
    /// The flow as written, e.g. `pastebin.com:443`.
    pub entry: Arc<str>,
    /// Where it is written.
    pub place: Place,
    /// Who asked, e.g. `tier restricted`.
    pub caller: Arc<str>,
    /// What was expected.
    pub expected: Expected,
    /// The verdict (what it would be in `enforce` mode).
    pub got: Verdict,
    /// Why.
    pub reason: Reason,
    /// What decided.
    pub rule: Arc<Named>,
    /// Whether it held.
    pub ok: bool,
}

/// What an example or a trial demands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Expected {
    /// Anything but allow; allow is good enough where it is the tier's default that allows.
    NotAllowed,
    /// That verdict, by that rule where one is named.
    Verdict(Verdict, Option<Arc<str>>),
}

/// One flow to judge for some callers.
#[derive(Debug)]
pub(super) struct Trial {
    name: Arc<str>,
    entry: Arc<str>,
    place: Place,
    flow: Example,
    callers: Vec<Who>,
    expected: Expected,
    /// The rule whose example it is.
    rule: Option<Arc<str>>,
}

/// Runs every trial and example, and says how each came out.
pub fn run_trials(policy: &Policy) -> Vec<TrialResult> {
    let run = |trial| Trial::run(trial, policy);
    policy.trials.iter().flat_map(run).collect()
}

/// The trials that do not hold, as findings.
pub(super) fn failures(policy: &Policy) -> Vec<Diagnostic> {
    let failed = run_trials(policy).into_iter().filter(|result| !result.ok);
    failed.map(|result| result.finding()).collect()
}

/// Reads all examples and trials.
pub(super) fn compile(
    source: &source::Policy,
    policy: &Policy,
    findings: &mut Findings,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for rule in &source.rules {
        examples(rule, policy, findings, &mut trials);
    }
    for trial in &source.trials {
        entries(trial, policy, findings, &mut trials);
    }
    trials
}

/// The examples of one rule: in each of its tiers, for each of its groups alone.
fn examples(
    rule: &Placed<source::Rule>,
    policy: &Policy,
    findings: &mut Findings,
    trials: &mut Vec<Trial>,
) {
    let written = &rule.value;
    let tiers: Vec<TierId> = match written.tiers.as_slice() {
        [] => policy.tiers.ids().collect(),
        named => named
            .iter()
            .filter_map(|name| policy.tier(name.get_ref()))
            .collect(),
    };
    let groups: Vec<Option<GroupId>> = match written.groups.as_slice() {
        [] => vec![None],
        named => named
            .iter()
            .map(|name| policy.group(name.get_ref()))
            .collect(),
    };
    let who = |tier: TierId, group: Option<GroupId>| {
        let mut groups = GroupSet::default();
        if let Some(group) = group {
            groups.insert(group);
        }
        Who {
            tier,
            tier_basis: TierBasis::Unattributed,
            groups,
            repository: None,
            enforced: false,
            within: None,
        }
    };
    let callers: Vec<Who> = tiers
        .iter()
        .flat_map(|tier| groups.iter().map(|group| who(*tier, *group)))
        .collect();
    let id: Arc<str> = written.id.get_ref().as_str().into();
    let name: Arc<str> = format!("rule {id}").into();
    let kinds = [
        (&written.allows, Expected::Verdict(Verdict::Allow, None)),
        (&written.denies, Expected::NotAllowed),
    ];
    for (texts, expected) in kinds {
        for text in texts {
            let Some(flow) = read(rule, text, findings) else {
                continue;
            };
            trials.push(Trial {
                name: name.clone(),
                entry: text.get_ref().as_str().into(),
                place: rule.at(text),
                flow,
                callers: callers.clone(),
                expected: expected.clone(),
                rule: Some(id.clone()),
            });
        }
    }
}

/// The entries of one trial.
fn entries(
    trial: &Placed<source::Trial>,
    policy: &Policy,
    findings: &mut Findings,
    trials: &mut Vec<Trial>,
) {
    let written = &trial.value;
    let caller = caller(trial, policy, findings);
    let rule: Option<Arc<str>> = written
        .rule
        .as_ref()
        .map(|rule| rule.get_ref().as_str().into());
    if let (Some(rule), Some(text)) = (&rule, &written.rule) {
        demand_rule(policy, rule, trial.at(text), findings);
    }
    let kinds = [
        (&written.allows, Verdict::Allow),
        (&written.asks, Verdict::Ask),
        (&written.denies, Verdict::Deny),
    ];
    if kinds.iter().all(|(texts, _)| texts.is_empty()) {
        findings.push(
            Diagnostic::warning(
                "empty-trial",
                trial.at(&written.name),
                format!("trial `{}` tries nothing", written.name.get_ref()),
            )
            .label("no `allows`, `asks` or `denies`")
            .help("write e.g. `denies = [\"pastebin.com:443\"]`"),
        );
    }
    for (texts, verdict) in kinds {
        for text in texts {
            let Some(flow) = read(trial, text, findings) else {
                continue;
            };
            trials.push(Trial {
                name: written.name.get_ref().as_str().into(),
                entry: text.get_ref().as_str().into(),
                place: trial.at(text),
                flow,
                callers: caller.iter().cloned().collect(),
                expected: Expected::Verdict(verdict, rule.clone()),
                rule: None,
            });
        }
    }
}

/// The caller of a trial; `None` (with findings) where its words mean nobody.
fn caller(trial: &Placed<source::Trial>, policy: &Policy, findings: &mut Findings) -> Option<Who> {
    let written = &trial.value;
    let mut sound = true;
    for group in &written.groups {
        sound &= policy.callers.resolve(trial, group, findings).is_some();
    }
    let groups: Vec<Arc<str>> = written
        .groups
        .iter()
        .map(|group| group.get_ref().as_str().into())
        .collect();
    let mut repository = None;
    if let Some(text) = &written.repository {
        let Some(canonical) = canonical_repository(text.get_ref()) else {
            findings.push(
                Diagnostic::error("bad-repository", trial.at(text), "not a repository")
                    .label("no host with a path")
                    .help("write e.g. `github.com/acme/payments`"),
            );
            return None;
        };
        repository = Some(Arc::<str>::from(canonical));
    }
    let facts = Facts {
        groups: &groups,
        repository: repository.as_ref(),
        ..Facts::default()
    };
    let mut who = policy.who(&facts);
    if let (Some(name), None) = (&written.tier, &repository) {
        let tier = policy.tiers.resolve(trial, name, findings)?;
        let floor = policy.callers.floor(who.groups);
        who.tier = floor.map_or(tier, |floor| floor.max(tier));
    }
    sound.then_some(who)
}

/// A trial that names a rule which does not exist can never hold: better said at the name.
fn demand_rule(policy: &Policy, rule: &str, place: Place, findings: &mut Findings) {
    let clauses = policy.clauses.iter().map(|clause| &*clause.named.name);
    let tiers = policy
        .tiers
        .ids()
        .map(|tier| &*policy.tiers.tier(tier).named.name);
    let known: Vec<&str> = clauses.chain(tiers).chain(["floor"]).collect();
    if known.contains(&rule) {
        return;
    }
    let help = match closest(rule, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "write the id of a rule, `tier.NAME.deny`, `tier.NAME.default` …".into(),
    };
    findings.push(
        Diagnostic::error("unknown-name", place, format!("unknown rule `{rule}`"))
            .label("nothing of that name decides")
            .help(help),
    );
}

/// Reads a flow; a finding where it is none.
fn read<T>(placed: &Placed<T>, text: &Spanned<String>, findings: &mut Findings) -> Option<Example> {
    match Example::parse(text.get_ref()) {
        Ok(example) => Some(example),
        Err(label) => {
            findings.push(
                Diagnostic::error(
                    "bad-example",
                    placed.at(text),
                    format!("`{}` is not a flow", text.get_ref()),
                )
                .label(label)
                .help("write `host:port`, `https://host/`, or `GET http://host/path`"),
            );
            None
        }
    }
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
    if let Some(repository) = &who.repository {
        text.push_str(", repository ");
        text.push_str(repository);
    }
    text.into()
}

impl TrialResult {
    /// The finding about one that did not hold.
    pub fn finding(&self) -> Diagnostic {
        let message = format!("{}: `{}` is not {}", self.name, self.entry, self.expected);
        let location = match &*self.rule.location {
            "" => String::new(),
            location => format!(" ({location})"),
        };
        let label = format!(
            "{} in {}: {} by {}{location}",
            self.got,
            self.caller,
            self.reason.code(),
            self.rule.name,
        );
        Diagnostic::error("trial-failed", self.place.clone(), message).label(label)
    }
}

/// `allowed`, `denied by docs`, `refused`.
impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed => f.write_str("refused"),
            Self::Verdict(verdict, rule) => {
                f.write_str(match verdict {
                    Verdict::Allow => "allowed",
                    Verdict::Ask => "to be asked for",
                    Verdict::Deny => "denied",
                })?;
                rule.as_ref().map_or(Ok(()), |rule| write!(f, " by {rule}"))
            }
        }
    }
}
