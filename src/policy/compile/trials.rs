//! Reads the examples of rules and the trials.

use std::sync::Arc;

use toml::Spanned;

use crate::diag::{Diagnostic, Place, closest};
use crate::policy::caller::Facts;
use crate::policy::compiled::Policy;
use crate::policy::example::Example;
use crate::policy::findings::Findings;
use crate::policy::query::{TierId, Who};
use crate::policy::repository::canonical_repository;
use crate::policy::source::{self, Placed};
use crate::policy::trial::{Expected, Trial};
use crate::policy::verdict::Verdict;

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

/// Reads the examples of one rule, for each kind of caller of the rule.
fn examples(
    rule: &Placed<source::Rule>,
    policy: &Policy,
    findings: &mut Findings,
    trials: &mut Vec<Trial>,
) {
    let written = &rule.value;
    let kinds = [
        (&written.allows, Expected::Verdict(Verdict::Allow, None)),
        (&written.denies, Expected::NotAllowed),
    ];
    if kinds.iter().all(|(texts, _)| texts.is_empty()) {
        return;
    }
    // A pattern stands for one of the callers that it matches.
    let plain = |text: &Spanned<String>| text.get_ref().replace("**", "x").replace('*', "x");
    let mut tiers = written
        .from
        .tiers
        .iter()
        .filter_map(|name| policy.tier(name.get_ref()));
    let tiers: Vec<TierId> = match written.from.tiers.as_slice() {
        [] => policy.tiers.ids().collect(),
        _ => tiers.by_ref().collect(),
    };
    let callers = callers(
        &written.from,
        |facts| {
            tiers
                .iter()
                .map(|tier| policy.in_tier(facts, *tier))
                .collect()
        },
        plain,
    );
    let id: Arc<str> = written.id.get_ref().as_str().into();
    let name: Arc<str> = format!("rule {id}").into();
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

/// Returns every kind of caller of a `from`: each repository, as each user, in each group alone;
/// `who` returns the tiers.
fn callers(
    from: &source::From,
    who: impl Fn(&Facts<'_>) -> Vec<Who>,
    text: impl Fn(&Spanned<String>) -> String,
) -> Vec<Who> {
    let each = |written: &[Spanned<String>]| -> Vec<Option<Arc<str>>> {
        let named = written.iter().map(|it| Some(Arc::from(text(it))));
        if written.is_empty() {
            vec![None]
        } else {
            named.collect()
        }
    };
    let mut callers = Vec::new();
    for subject in each(&from.subjects) {
        for repository in each(&from.repositories) {
            for group in each(&from.groups) {
                let groups: Vec<Arc<str>> = group.into_iter().collect();
                callers.extend(who(&Facts {
                    subject: subject.as_deref().unwrap_or_default(),
                    groups: &groups,
                    repository: repository.as_ref(),
                    ..Facts::default()
                }));
            }
        }
    }
    callers
}

/// Reads the entries of one trial.
fn entries(
    trial: &Placed<source::Trial>,
    policy: &Policy,
    findings: &mut Findings,
    trials: &mut Vec<Trial>,
) {
    let written = &trial.value;
    let callers = trial_callers(trial, policy, findings);
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
                format!("trial `{}` has no flow", written.name.get_ref()),
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
                callers: callers.clone(),
                expected: Expected::Verdict(verdict, rule.clone()),
                rule: None,
            });
        }
    }
}

/// Returns the callers of a trial: the tier of each is the strictest of the named one, of that of
/// its repository and of the floor of its group. Empty (with findings) if a name is unknown.
fn trial_callers(
    trial: &Placed<source::Trial>,
    policy: &Policy,
    findings: &mut Findings,
) -> Vec<Who> {
    let from = &trial.value.from;
    let mut sound = true;
    for group in &from.groups {
        sound &= policy.callers.resolve(trial, group, findings).is_some();
    }
    let mut tiers = Vec::new();
    for name in &from.tiers {
        let tier = policy.tiers.resolve(trial, name, findings);
        sound &= tier.is_some();
        tiers.extend(tier);
    }
    for text in &from.repositories {
        if canonical_repository(text.get_ref()).is_none() || text.get_ref().contains('*') {
            sound = false;
            findings.push(
                Diagnostic::error("bad-repository", trial.at(text), "not a repository")
                    .label("a trial names one repository, with its host")
                    .help("write e.g. `github.com/acme/payments`"),
            );
        }
    }
    for text in from
        .subjects
        .iter()
        .filter(|text| text.get_ref().contains('*'))
    {
        sound = false;
        findings.push(
            Diagnostic::error("bad-subject", trial.at(text), "not a user")
                .label("a trial names one user")
                .help("write e.g. `ana@acme.example`"),
        );
    }
    if !sound {
        return Vec::new();
    }
    let who = |facts: &Facts<'_>| match tiers.as_slice() {
        [] => vec![policy.who(facts)],
        named => named
            .iter()
            .map(|tier| policy.who_in(facts, *tier))
            .collect(),
    };
    callers(from, who, |text| {
        canonical_repository(text.get_ref()).unwrap_or_else(|| text.get_ref().clone())
    })
}

/// Reports a trial that names an unknown rule: such a trial can never hold.
fn demand_rule(policy: &Policy, rule: &str, place: Place, findings: &mut Findings) {
    let rules = policy.rules.iter().map(|rule| &*rule.named.name);
    let tiers = policy
        .tiers
        .ids()
        .map(|tier| &*policy.tiers.tier(tier).named.name);
    let known: Vec<&str> = rules.chain(tiers).chain(["floor"]).collect();
    if known.contains(&rule) {
        return;
    }
    let help = match closest(rule, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "write the id of a rule, `tier.NAME.deny`, `tier.NAME.default` …".into(),
    };
    findings.push(
        Diagnostic::error("unknown-name", place, format!("unknown rule `{rule}`"))
            .label("no rule, list or default has that name")
            .help(help),
    );
}

/// Reads a flow; adds a finding if the text is not a flow.
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
