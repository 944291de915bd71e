//! Conditions that an opaque tunnel hides.

use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::name::Host;

use super::category::Category;
use super::compiled::Policy;
use super::findings::Findings;
use super::index::{HostMap, HostMapBuilder};
use super::pattern::HostPattern;
use super::rule::{self, Ports};
use super::source::{Placed, Rule};
use super::verdict::Verdict;

/// The requests that the gate sees.
pub(super) struct Seen<'p> {
    policy: &'p Policy,
    hosts: HostMap,
}

impl<'p> Seen<'p> {
    /// Collects everything that a policy inspects for some caller.
    pub(super) fn new(policy: &'p Policy) -> Self {
        let all = || {
            policy
                .inspected
                .hosts
                .iter()
                .chain(&policy.routing.patterns)
        };
        let mut hosts = HostMapBuilder::with_capacity(all().count());
        for pattern in all() {
            hosts.add(pattern, 0);
        }
        Self {
            policy,
            hosts: hosts.build(),
        }
    }

    /// Reports conditions of one rule that tunnels hide.
    pub(super) fn look(&self, rule: &Placed<Rule>, compiled: &rule::Rule, findings: &mut Findings) {
        let Some((key, place, inside)) = first_condition(rule) else {
            return;
        };
        let tunnels = match &compiled.to.ports {
            Ports::Listed(ports) => ports.contains(&443),
            Ports::Any | Ports::Default | Ports::Destination => true,
        };
        if !tunnels || self.inspects(rule, compiled) {
            return;
        }
        let tiers = &self.policy.tiers;
        let mut reached = tiers
            .ids()
            .filter(|tier| compiled.from.tiers & tier.bit() != 0);
        let opaque = reached.any(|tier| tiers.tier(tier).opaque);
        let finding = match (compiled.verdict, inside) {
            (Verdict::Allow, _) if opaque => Diagnostic::warning(
                "unseen",
                place,
                format!("`does.{key}` are not seen in a tunnel: a CONNECT passes whole"),
            )
            .label("holds for plain HTTP only")
            .help(if inside {
                "write `grant.inspect = true`, or set `opaque = \"deny\"` in the tier"
            } else {
                "write `grant.inspect = true`, or `to.ports = [80]` where plain HTTP is meant"
            }),
            (Verdict::Allow, true) => Diagnostic::warning(
                "never-seen",
                place,
                "this host is not inspected: this condition never holds for https",
            )
            .label(format!("`does.{key}` are not seen in a tunnel"))
            .help("write `grant.inspect = true`"),
            // `not-enforced` reports denies and asks.
            (Verdict::Allow, false) | (Verdict::Ask | Verdict::Deny, _) => return,
        };
        findings.push(finding);
    }

    /// Whether requests are seen wherever the rule applies.
    fn inspects(&self, rule: &Placed<Rule>, compiled: &rule::Rule) -> bool {
        let inspected = self.policy.inspected.categories;
        let of_rule = compiled.to.categories;
        let all = !of_rule.is_empty() && of_rule.iter().all(|it| inspected.contains(it));
        if compiled.grant.inspect == Some(true) || all {
            return true;
        }
        let mut hosts = rule.value.to.hosts.iter();
        !rule.value.to.hosts.is_empty() && hosts.all(|host| self.inspects_host(host.get_ref()))
    }

    fn inspects_host(&self, text: &str) -> bool {
        let Ok(pattern) = HostPattern::parse(text) else {
            return true;
        };
        let mut covered = false;
        self.hosts.covering(&pattern, |_| covered = true);
        let name = match pattern {
            HostPattern::Exact(name) | HostPattern::Below(name) => Host::Name(name),
            HostPattern::Network(_) => return covered,
        };
        let own = self.policy.destinations.find(&name);
        let entry = own.or_else(|| self.policy.catalogue.directory.find(&name));
        let category = entry.map(|entry| entry.category);
        let category = category.unwrap_or(Category::Unknown);
        covered || self.policy.inspected.categories.contains(category)
    }
}

/// Returns the first key with a condition on a request, and whether only inspection shows the fact.
fn first_condition(rule: &Placed<Rule>) -> Option<(&'static str, Place, bool)> {
    let rule_at = |list: &[Spanned<String>]| list.first().map(|first| rule.at(first));
    let does = &rule.value.does;
    let keys = [
        ("methods", &does.methods, false),
        ("paths", &does.paths, false),
        ("actions", &does.actions, true),
        ("operations", &does.operations, true),
        ("repositories", &does.repositories, true),
        ("packages", &does.packages, true),
        ("refs", &does.refs, true),
    ];
    let mut found = keys
        .into_iter()
        .filter_map(|(key, list, inside)| Some((key, rule_at(list)?, inside)));
    found.next()
}
