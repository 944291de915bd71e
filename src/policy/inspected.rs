//! Which destinations a policy inspects, as far as that can be said without a flow.

use ipnet::IpNet;

use super::compile::Policy;
use super::pattern::HostPattern;
use super::{Catalogue, Category};

/// Everything that is inspected for somebody.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names {
    /// Names: exact, or `.suffix` for the names below it; sorted, each once.
    pub names: Vec<String>,
    /// Networks of address literals; sorted, each once.
    pub networks: Vec<IpNet>,
    /// Whether something inspects whatever is asked for, so that no list would be whole.
    pub everything: bool,
}

impl Policy {
    /// Everything that is inspected for somebody: what the local authority must be able to vouch
    /// for.
    pub fn inspected_names(&self) -> Names {
        let mut names = Names::default();
        let inspects = &self.inspects;
        for pattern in inspects.hosts.iter().chain(&self.passages.patterns) {
            names.add(pattern);
        }
        let inspected = |category: &Category| inspects.categories.contains(*category);
        for category in Category::ALL.into_iter().filter(inspected) {
            match category {
                Category::Unknown => names.everything = true,
                known => names.add_category(known, &self.catalogue),
            }
        }
        names.names.sort_unstable();
        names.names.dedup();
        names.networks.sort_unstable();
        names.networks.dedup();
        names
    }
}

impl Names {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.names.is_empty() && self.networks.is_empty()
    }

    /// Adds what a pattern matches.
    fn add(&mut self, pattern: &HostPattern) {
        match pattern {
            HostPattern::Below(name) => self.names.push(format!(".{name}")),
            HostPattern::Exact(name) => self.names.push(name.to_string()),
            HostPattern::Network(network) => self.networks.push(*network),
        }
    }

    /// Adds what the catalogue knows of a category.
    fn add_category(&mut self, category: Category, catalogue: &Catalogue) {
        for pattern in catalogue.hosts_of(category) {
            self.add(&pattern);
        }
    }
}
