//! Rules that ask for what nobody will see.

use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::name::Host;

use super::clause::{Clause, Ports};
use super::compile::{Findings, Policy};
use super::hosts::{HostMap, HostMapBuilder};
use super::pattern::HostPattern;
use super::source::{Placed, Rule};
use super::verdict::Verdict;

/// Where requests are seen.
pub(super) struct Seen<'p> {
    policy: &'p Policy,
    hosts: HostMap,
}

impl<'p> Seen<'p> {
    /// Of everything that a policy inspects for somebody.
    pub(super) fn new(policy: &'p Policy) -> Self {
        let all = || {
            policy
                .inspects
                .hosts
                .iter()
                .chain(&policy.passages.patterns)
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

    /// Finds conditions of one rule that tunnels keep from being seen.
    pub(super) fn look(&self, rule: &Placed<Rule>, clause: &Clause, findings: &mut Findings) {
        let Some((key, place, inside)) = first_condition(rule) else {
            return;
        };
        let tunnels = match &clause.ports {
            Ports::Listed(ports) => ports.contains(&443),
            Ports::Any | Ports::Default | Ports::Destination => true,
        };
        if !tunnels || self.inspects(rule, clause) {
            return;
        }
        let tiers = &self.policy.tiers;
        let mut reached = tiers.ids().filter(|tier| clause.tiers & tier.bit() != 0);
        let opaque = reached.any(|tier| tiers.tier(tier).opaque);
        let finding = match (clause.verdict, inside) {
            (Verdict::Allow, _) if opaque => Diagnostic::warning(
                "unseen",
                place,
                format!("`{key}` are not seen in a tunnel: a CONNECT passes whole"),
            )
            .label("holds for plain HTTP only")
            .help(if inside {
                "write `inspect = true`, or set `opaque = \"deny\"` in the tier"
            } else {
                "write `ports = [80]` where plain HTTP is meant, or set `opaque = \"deny\"` in the tier"
            }),
            (_, true) => Diagnostic::warning(
                "never-seen",
                place,
                "nothing is inspected here: this condition never holds for https",
            )
            .label(format!("`{key}` are not seen in a tunnel"))
            .help("write `inspect = true`"),
            (Verdict::Allow, false) => return,
            (Verdict::Ask | Verdict::Deny, false) => Diagnostic::warning(
                "unseen",
                place,
                format!("`{key}` are not seen in a tunnel: a CONNECT never matches this rule"),
            )
            .label("holds for plain HTTP only")
            .help("leave them out to cover tunnels, or write `ports = [80]` where plain HTTP is meant"),
        };
        findings.push(finding);
    }

    /// Whether requests are seen wherever the rule holds.
    fn inspects(&self, rule: &Placed<Rule>, clause: &Clause) -> bool {
        let categories = self.policy.inspects.categories;
        let of_category = clause.category.or(clause.assigns);
        if clause.inspect == Some(true) || of_category.is_some_and(|it| categories.contains(it)) {
            return true;
        }
        let mut hosts = rule.value.hosts.iter();
        !rule.value.hosts.is_empty() && hosts.all(|host| self.inspects_host(host.get_ref()))
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
        let entry = self.policy.catalogue.find(&name);
        let category = entry.map(|entry| entry.category);
        covered || category.is_some_and(|it| self.policy.inspects.categories.contains(it))
    }
}

/// The first key that asks for something of a request, and whether only inspection can tell.
fn first_condition(rule: &Placed<Rule>) -> Option<(&'static str, Place, bool)> {
    let rule_at = |list: &[Spanned<String>]| list.first().map(|first| rule.at(first));
    let written = &rule.value;
    let keys = [
        ("methods", &written.methods, false),
        ("paths", &written.paths, false),
        ("actions", &written.actions, true),
        ("operations", &written.operations, true),
        ("repositories", &written.repositories, true),
        ("packages", &written.packages, true),
        ("refs", &written.refs, true),
        ("credentials", &written.credentials, true),
    ];
    let mut found = keys
        .into_iter()
        .filter_map(|(key, list, inside)| Some((key, rule_at(list)?, inside)));
    found.next()
}
