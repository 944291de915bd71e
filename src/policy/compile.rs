//! From what was written to one immutable policy; every finding a diagnostic, all at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place, Severity, Source, did_you_mean};

use super::caller::{self, Callers};
use super::catalogue::Catalogue;
use super::clause::Clause;
use super::decide::{GroupId, GroupSet, TierId};
use super::hosts::{ClauseId, HostMap};
use super::passage::{self, Passages};
use super::rules::{Inspects, Known};
use super::servers::{self, Servers};
use super::source::{self, Placed};
use super::tiers::{self, Tiers};
use super::trial::{self, Trial};
use super::verdict::Named;
use super::{Category, lint, rules};

/// One compiled, immutable set of rules.
#[derive(Debug)]
pub struct Policy {
    pub(super) tiers: Tiers,
    pub(super) callers: Callers,
    /// Rules in the order in which they were written, then the entries of the tiers' lists.
    pub(super) clauses: Vec<Clause>,
    pub(super) rules: usize,
    pub(super) hosts: HostMap,
    /// Clauses without hosts, by tier, then by category; rules before the tier's lists.
    pub(super) hostless: Vec<[Box<[ClauseId]>; Category::ALL.len()]>,
    pub(super) catalogue: Catalogue,
    pub(super) servers: Servers,
    pub(super) passages: Passages,
    pub(super) inspects: Inspects,
    /// Whether a rule without hosts says anything of inspection.
    pub(super) hostless_inspect: bool,
    /// What a record names when the floor decides.
    pub(super) floor: Arc<Named>,
    /// What a record names when a session's own narrowing decides.
    pub(super) narrowed: Arc<Named>,
    pub(super) no_addresses: Arc<[IpNet]>,
    pub(super) trials: Vec<Trial>,
}

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

/// What is said where nothing was written: `config/default.toml`.
pub fn default_source() -> source::Policy {
    let source = Arc::new(Source::new("built-in/default.toml", DEFAULT));
    parse(&source).unwrap_or_default()
}

const DEFAULT: &str = include_str!("../../config/default.toml");

impl Policy {
    /// Enforces nothing any more: every tier observes. The floor holds.
    pub fn observe(&mut self) {
        self.tiers.observe();
    }

    /// The names of the tiers, loosest first.
    pub fn tiers(&self) -> &[Arc<str>] {
        &self.tiers.names
    }

    /// The tier of that name.
    pub fn tier(&self, name: &str) -> Option<TierId> {
        self.tiers.find(name)
    }

    /// The name of a tier.
    pub fn tier_name(&self, tier: TierId) -> &Arc<str> {
        &self.tiers.tier(tier).name
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<GroupId> {
        self.callers.find(name)
    }

    /// The names of the groups in a set.
    pub fn group_names(&self, groups: GroupSet) -> impl Iterator<Item = &Arc<str>> {
        groups
            .ids()
            .filter_map(|id| Some(&self.callers.groups.get(usize::from(id.0))?.name))
    }

    /// How many rules were written.
    pub fn rule_count(&self) -> usize {
        self.rules
    }

    /// How many hosts and networks the rules name.
    pub fn host_count(&self) -> usize {
        self.clauses.iter().map(|clause| clause.hosts).sum()
    }

    /// Whether any rule names the credentials that may be used somewhere.
    pub fn asks_credentials(&self) -> bool {
        let mut clauses = self.clauses.iter();
        clauses.any(|clause| clause.request.names_credentials())
    }

    pub(super) fn clause(&self, id: ClauseId) -> Option<&Clause> {
        self.clauses.get(id as usize)
    }
}

/// What decides without standing in a file.
fn built_in(name: &str) -> Arc<Named> {
    Arc::new(Named {
        name: name.into(),
        location: "".into(),
    })
}

fn build(
    source: &source::Policy,
    catalogue: &Catalogue,
    findings: &mut Findings,
) -> Option<Policy> {
    let default = (source.tiers.is_none() && source.tier.is_empty()).then(default_source);
    let (tiers, lists) = tiers::compile(default.as_ref().unwrap_or(source), findings)?;
    let callers = caller::compile(source, &tiers, findings);
    let servers = servers::compile(source, findings);
    let passages = passage::compile(source, findings);
    let known = Known {
        tiers: &tiers,
        callers: &callers,
        servers: &servers,
        passages: &passages,
        services: &catalogue.services,
    };
    let compiled = rules::compile(source, &known, findings);
    let rules = compiled.clauses.len();
    let mut clauses = compiled.clauses;
    clauses.extend(lists);
    let says_inspect = |clause: &Clause| clause.hosts == 0 && clause.inspect.is_some();
    let mut policy = Policy {
        hostless: hostless(&tiers, &clauses),
        hostless_inspect: clauses.iter().any(says_inspect),
        tiers,
        callers,
        clauses,
        rules,
        hosts: compiled.hosts,
        inspects: compiled.inspects,
        catalogue: catalogue.clone(),
        servers,
        passages,
        floor: built_in("floor"),
        narrowed: built_in("session.narrow"),
        no_addresses: Arc::default(),
        trials: Vec::new(),
    };
    policy.trials = trial::compile(source, &policy, findings);
    lint::lint(source, &policy, findings);
    Some(policy)
}

/// How a record names what is written at a place.
pub(super) fn named(name: impl Into<Arc<str>>, place: &Place) -> Arc<Named> {
    Arc::new(Named {
        name: name.into(),
        location: place.to_string().into(),
    })
}

/// Sorts the clauses without hosts by what they can match.
fn hostless(tiers: &Tiers, clauses: &[Clause]) -> Vec<[Box<[ClauseId]>; Category::ALL.len()]> {
    let reaching = |tier: TierId, category: Category| -> Box<[ClauseId]> {
        let reaches = |clause: &Clause| {
            clause.hosts == 0
                && clause.tiers & tier.bit() != 0
                && clause.category.is_none_or(|selected| selected == category)
        };
        (0..)
            .zip(clauses)
            .filter(|(_, clause)| reaches(clause))
            .map(|(id, _)| id)
            .collect()
    };
    tiers
        .ids()
        .map(|tier| Category::ALL.map(|category| reaching(tier, category)))
        .collect()
}

/// Findings as they come up.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Diagnostic>);

impl Findings {
    pub(super) fn push(&mut self, finding: Diagnostic) {
        self.0.push(finding);
    }

    fn has_errors(&self) -> bool {
        self.0
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }
}

/// An error about a word that is not one of a known few, with the one that may be meant.
pub(super) fn unknown<'a>(
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
    rule: Vec<Spanned<source::Rule>>,
    trial: Vec<Spanned<source::Trial>>,
    mcp: BTreeMap<Spanned<String>, Spanned<source::Mcp>>,
}

/// Reads a policy from one text.
pub(super) fn parse(text: &Arc<Source>) -> Result<source::Policy, toml::de::Error> {
    let sections: Sections = toml::from_str(&text.text)?;
    Ok(source::Policy {
        tiers: sections.tiers.map(|tiers| place(text, tiers)),
        tier: by_name(text, sections.tier),
        repositories: all(text, sections.repository),
        groups: by_name(text, sections.group),
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
