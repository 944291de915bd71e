//! From what was written to one immutable policy; every finding a diagnostic, all at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place, Severity, Source, did_you_mean};

use super::super::catalogue::Catalogue;
use super::super::category::Category;
use super::super::compiled::Policy;
use super::super::directory::Directory;
use super::super::index::{HostMapBuilder, RuleId};
use super::super::inspection::Inspected;
use super::super::lint;
use super::super::pattern::HostPattern;
use super::super::rule::Rule;
use super::super::servers::Server;
use super::super::tiers::Tiers;
use super::super::verdict::{Named, Verdict};
use super::super::{source, trial};
use super::rules::{Known, Written};
use super::{Placed, callers, destinations, routing, rules, servers, tiers};

/// Compiles `source` over `catalogue`. Errors mean no policy; warnings come with one.
///
/// Runs the examples of every rule and every trial: a policy whose trials fail does not compile.
/// A source without any tier gets the tiers of [`default_source`].
pub fn compile(
    source: &source::Policy,
    catalogue: &Catalogue,
) -> (Option<Policy>, Vec<Diagnostic>) {
    let mut findings = Findings::default();
    let policy = build(source, catalogue, &mut findings);
    if let Some(policy) = &policy
        && !findings.has_errors()
    {
        findings.0.extend(trial::failures(policy));
    }
    let policy = policy.filter(|_| !findings.has_errors());
    (policy, findings.0)
}

/// The policy of a configuration that writes none: `config/default.toml`.
pub fn default_source() -> source::Policy {
    let source = Arc::new(Source::new("built-in/default.toml", DEFAULT));
    parse(&source).unwrap_or_default()
}

const DEFAULT: &str = include_str!("../../../config/default.toml");

fn build(
    source: &source::Policy,
    catalogue: &Catalogue,
    findings: &mut Findings,
) -> Option<Policy> {
    let built_in_tiers = default_source();
    let (tiers, lists) = tiers::compile(source, &built_in_tiers, findings)?;
    let callers = callers::compile(source, &tiers, findings);
    let servers = servers::compile(source, findings);
    let routing = routing::compile(source, findings);
    let destinations = destinations::compile(source, findings);
    let agents = destinations::agents(source, catalogue, findings);
    let known = Known {
        tiers: &tiers,
        callers: &callers,
        servers: &servers,
        routing: &routing,
    };
    let written = rules::compile(source, &known, findings);
    let inspected = inspected(&written, &lists, &known);
    let mut hosts = HostMapBuilder::with_capacity(written.iter().map(|it| it.hosts.len()).sum());
    for (at, written) in written.iter().enumerate().rev() {
        let Ok(id) = u32::try_from(at) else { continue };
        written
            .hosts
            .iter()
            .for_each(|pattern| hosts.add(pattern, id));
    }
    let count = written.len();
    let rules: Vec<Rule> = written.into_iter().map(|it| it.rule).chain(lists).collect();
    let mut policy = Policy {
        hostless: hostless(&tiers, &rules),
        network_denies: network_denies(&rules),
        some_rule_inspects: rules.iter().any(|rule| rule.grant.inspect.is_some()),
        tiers,
        callers,
        rules,
        written: count,
        hosts: hosts.build(),
        destinations: Directory::new(destinations),
        inspected,
        catalogue: catalogue.clone(),
        agents,
        servers,
        routing,
        floor: built_in("floor"),
        narrowed: built_in("session.narrow"),
        no_addresses: Arc::default(),
        trials: Vec::new(),
    };
    policy.trials = trial::compile(source, &policy, findings);
    lint::lint(source, &policy, findings);
    Some(policy)
}

/// What decides without standing in a file.
fn built_in(name: &str) -> Arc<Named> {
    Arc::new(Named {
        name: name.into(),
        location: "".into(),
    })
}

/// The name and place of a rule, for records.
pub(in crate::policy) fn named(name: impl Into<Arc<str>>, place: &Place) -> Arc<Named> {
    Arc::new(Named {
        name: name.into(),
        location: place.to_string().into(),
    })
}

/// Sorts the rules without hosts by what they can match.
fn hostless(tiers: &Tiers, rules: &[Rule]) -> Vec<[Box<[RuleId]>; Category::ALL.len()]> {
    let reaching = |bit: u16, category: Category| -> Box<[RuleId]> {
        let reaches = |rule: &Rule| {
            let categories = rule.to.categories;
            rule.to.hosts == 0
                && rule.from.tiers & bit != 0
                && (categories.is_empty() || categories.contains(category))
        };
        let rules = (0..).zip(rules);
        rules
            .filter(|(_, rule)| reaches(rule))
            .map(|(id, _)| id)
            .collect()
    };
    let bits = tiers.ids().map(super::super::query::TierId::bit);
    bits.map(|bit| Category::ALL.map(|category| reaching(bit, category)))
        .collect()
}

fn network_denies(rules: &[Rule]) -> Box<[RuleId]> {
    let denies = |rule: &Rule| rule.verdict == Verdict::Deny && !rule.to.networks.is_empty();
    let rules = (0..).zip(rules);
    rules
        .filter(|(_, rule)| denies(rule))
        .map(|(id, _)| id)
        .collect()
}

/// Gathers what rules, tiers, `[inspect]` and `[mcp.NAME]` inspect.
fn inspected(written: &[Written], lists: &[Rule], known: &Known<'_>) -> Inspected {
    let tiers = known.tiers.ids().map(|id| known.tiers.tier(id).inspect);
    let mut inspected = Inspected {
        hosts: Vec::new(),
        categories: tiers.fold(
            known.routing.categories,
            super::super::category::Categories::union,
        ),
    };
    let rules = written.iter().map(|it| (&it.rule, it.hosts.as_slice()));
    let all = rules.chain(lists.iter().map(|rule| (rule, &[][..])));
    for (rule, hosts) in all.filter(|(rule, _)| rule.grant.inspect == Some(true)) {
        inspected.hosts.extend(hosts.iter().map(HostPattern::clone));
        if rule.to.hosts == 0 {
            let all = super::super::category::Categories::ALL;
            let some = rule.to.categories;
            let categories = if some.is_empty() { all } else { some };
            inspected.categories = inspected.categories.union(categories);
        }
    }
    if inspected.categories.contains(Category::Mcp) {
        inspected
            .hosts
            .extend(known.servers.all().map(Server::pattern));
    }
    inspected
}

/// Findings as they come up.
#[derive(Debug, Default)]
pub(in crate::policy) struct Findings(Vec<Diagnostic>);

impl Findings {
    pub(in crate::policy) fn push(&mut self, finding: Diagnostic) {
        self.0.push(finding);
    }

    pub(in crate::policy) fn into_inner(self) -> Vec<Diagnostic> {
        self.0
    }

    fn has_errors(&self) -> bool {
        self.0
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }
}

/// An error about a word that is not one of a known few, with the one that may be meant.
pub(in crate::policy) fn unknown<'a>(
    kind: &'static str,
    place: Place,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Diagnostic {
    let known: Vec<&str> = known.into_iter().collect();
    let help = match known.as_slice() {
        [] => format!("no {kind} is written"),
        known => did_you_mean(word, known),
    };
    Diagnostic::error("unknown-name", place, format!("unknown {kind} `{word}`"))
        .label(format!("no {kind} of that name"))
        .help(help)
}

/// The sections of a policy in one text, as the embedded default and tests write them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sections {
    tiers: Option<Spanned<source::Tiers>>,
    tier: BTreeMap<Spanned<String>, Spanned<source::Tier>>,
    repository: Vec<Spanned<source::Repository>>,
    group: BTreeMap<Spanned<String>, Spanned<source::Group>>,
    destination: Vec<Spanned<source::Destination>>,
    rule: Vec<Spanned<source::Rule>>,
    trial: Vec<Spanned<source::Trial>>,
    mcp: BTreeMap<Spanned<String>, Spanned<source::Mcp>>,
}

/// Reads a policy from one text.
pub(in crate::policy) fn parse(text: &Arc<Source>) -> Result<source::Policy, toml::de::Error> {
    let sections: Sections = toml::from_str(&text.text)?;
    Ok(source::Policy {
        tiers: sections.tiers.map(|tiers| place(text, tiers)),
        tier: by_name(text, sections.tier),
        repositories: all(text, sections.repository),
        groups: by_name(text, sections.group),
        destinations: all(text, sections.destination),
        rules: all(text, sections.rule),
        trials: all(text, sections.trial),
        mcp: by_name(text, sections.mcp),
        ..source::Policy::default()
    })
}

fn place<T>(text: &Arc<Source>, value: Spanned<T>) -> Placed<T> {
    Placed {
        source: text.clone(),
        span: value.span(),
        value: value.into_inner(),
    }
}

fn all<T>(text: &Arc<Source>, values: Vec<Spanned<T>>) -> Vec<Placed<T>> {
    values.into_iter().map(|value| place(text, value)).collect()
}

fn by_name<T>(
    text: &Arc<Source>,
    tables: BTreeMap<Spanned<String>, Spanned<T>>,
) -> Vec<(Spanned<String>, Placed<T>)> {
    tables
        .into_iter()
        .map(|(name, table)| (name, place(text, table)))
        .collect()
}
