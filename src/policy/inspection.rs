//! Whether TLS is intercepted, so that each request inside a tunnel is judged.

use ipnet::IpNet;

use super::category::Category;
use super::compiled::Policy;
use super::directory::Directory;
use super::flow::Flow;
use super::pattern::HostPattern;
use super::query::{Attempt, Query};
use super::rule::Rule;
use super::verdict::Named;

/// Whether TLS is intercepted, and which rule excludes it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inspection<'p> {
    No,
    /// This rule excludes a flow that would be inspected otherwise.
    Passed(&'p Named),
    Yes,
}

/// The destinations that the local certificate authority must be able to issue for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names {
    /// Names: exact, or `.suffix` for the names below it; sorted, each once.
    pub names: Vec<String>,
    /// Networks of address literals; sorted, each once.
    pub networks: Vec<IpNet>,
    /// Whether some rule inspects every destination, so that no list would be complete.
    pub everything: bool,
}

impl Policy {
    /// Returns the setting of the rule that applies to the flow, has the most specific host and
    /// sets `grant.inspect`; otherwise that of `[inspect]` and the tier.
    pub(super) fn inspection<'p>(&'p self, flow: &Flow<'_>, query: &Query<'_>) -> Inspection<'p> {
        if matches!(flow.attempt, Attempt::Request { tls: false, .. }) {
            return Inspection::No;
        }
        let (mut says, mut wanted) = (None, false);
        if self.some_rule_inspects {
            self.each_rule(&query.target.host, flow, |rule: &'p Rule| {
                if rule.grant.inspect.is_some() && rule.reaches(flow) && rule.to.ports.hold(flow) {
                    says = says.or(Some(rule));
                    wanted |= rule.grant.inspect == Some(true);
                }
            });
        }
        let tier = self.tiers.tier(flow.who.tier);
        let listed = || {
            tier.inspect.contains(flow.category)
                || self.routing.inspects(&query.target.host, flow.category)
        };
        match says {
            Some(rule) if rule.grant.inspect == Some(true) => Inspection::Yes,
            Some(rule) if wanted || listed() => Inspection::Passed(&rule.named),
            None if listed() => Inspection::Yes,
            Some(_) | None => Inspection::No,
        }
    }

    /// Returns everything that is inspected for some caller.
    pub fn inspected_names(&self) -> Names {
        let mut names = Names::default();
        let own = self.inspected.hosts.iter().chain(&self.routing.patterns);
        own.for_each(|pattern| names.add(pattern));
        for category in self.inspected.categories.iter() {
            names.everything |= category == Category::Unknown;
            names.add_category(category, &self.destinations);
            names.add_category(category, &self.catalogue.directory);
        }
        names.names.sort_unstable();
        names.names.dedup();
        names.networks.sort_unstable();
        names.networks.dedup();
        names
    }
}

impl Names {
    /// Whether nothing is inspected.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.names.is_empty() && self.networks.is_empty()
    }

    fn add(&mut self, pattern: &HostPattern) {
        match pattern {
            HostPattern::Below(name) => self.names.push(format!(".{name}")),
            HostPattern::Exact(name) => self.names.push(name.to_string()),
            HostPattern::Network(network) => self.networks.push(*network),
        }
    }

    fn add_category(&mut self, category: Category, directory: &Directory) {
        let patterns = directory.hosts_of(category);
        patterns.for_each(|pattern| self.add(&pattern));
    }
}
