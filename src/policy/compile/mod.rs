//! Compiles written policy to one immutable policy, and reports all findings at once.

mod asking;
mod callers;
mod catalogue;
pub(super) mod choices;
mod conditions;
pub(super) mod default_policy;
pub(super) mod destinations;
mod exceptions;
pub(super) mod invariants;
mod routing;
mod rules;
mod servers;
mod tiers;
mod trials;

use std::sync::Arc;

use crate::diag::Diagnostic;

use super::catalogue::Catalogue;
use super::category::{Categories, Category};
use super::compiled::Policy;
use super::directory::Directory;
use super::findings::Findings;
use super::index::{HostMapBuilder, RuleId};
use super::lint;
use super::pattern::HostPattern;
use super::query::TierId;
use super::routing::Inspected;
use super::rule::Rule;
use super::servers::Server;
use super::source;
use super::tiers::Tiers;
use super::trial_runner;
use super::verdict::{Named, Verdict};

pub use catalogue::built_in;
pub use default_policy::default_source;
use rules::{Known, Written};

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
        for failure in trial_runner::failures(policy) {
            findings.push(failure);
        }
    }
    let policy = policy.filter(|_| !findings.has_errors());
    (policy, findings.into_inner())
}

fn build(
    source: &source::Policy,
    catalogue: &Catalogue,
    findings: &mut Findings,
) -> Option<Policy> {
    let built_in_tiers = default_source();
    let (tiers, lists) = tiers::compile(source, &built_in_tiers, findings)?;
    let callers = callers::compile(source, &tiers, findings);
    asking::findings(source, &callers, findings);
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
    let exceptions = exceptions::compile(source, &known, findings);
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
        floor: without_place("floor"),
        narrowed: without_place("session.narrow"),
        no_addresses: Arc::default(),
        exceptions,
        trials: Vec::new(),
        invariants: Vec::new(),
    };
    policy.trials = trials::compile(source, &policy, findings);
    policy.invariants = invariants::compile(source, &policy, findings);
    lint::lint(source, &policy, findings);
    Some(policy)
}

/// The names in records for decisions without a rule of a file.
fn without_place(name: &str) -> Arc<Named> {
    Arc::new(Named {
        name: name.into(),
        location: "".into(),
    })
}

/// Sorts the rules without hosts by tier and category.
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
    let bits = tiers.ids().map(TierId::bit);
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

/// Collects what rules, tiers, `[inspect]` and `[mcp.NAME]` inspect.
fn inspected(written: &[Written], lists: &[Rule], known: &Known<'_>) -> Inspected {
    let tiers = known.tiers.ids().map(|id| known.tiers.tier(id).inspect);
    let mut inspected = Inspected {
        hosts: Vec::new(),
        categories: tiers.fold(known.routing.categories, Categories::union),
    };
    let rules = written.iter().map(|it| (&it.rule, it.hosts.as_slice()));
    let all = rules.chain(lists.iter().map(|rule| (rule, &[][..])));
    for (rule, hosts) in all.filter(|(rule, _)| rule.grant.inspect == Some(true)) {
        inspected.hosts.extend(hosts.iter().map(HostPattern::clone));
        if rule.to.hosts == 0 {
            let all = Categories::ALL;
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
