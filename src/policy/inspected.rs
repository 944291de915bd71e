//! Which destinations a policy inspects, as far as that can be said without a flow.

use ipnet::IpNet;

use super::compile::Policy;
use super::passage::Categories;
use super::pattern::HostPattern;
use super::{Catalogue, Category, source};

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
        for pattern in self.inspects().chain(&self.assigned) {
            names.add(pattern);
        }
        let categories = self.inspects_categories();
        names.everything = categories.contains(Category::Unknown);
        for category in Category::ALL {
            if categories.contains(category) && !names.everything {
                names.add_category(category, &self.catalogue);
            }
        }
        names.names.sort_unstable();
        names.names.dedup();
        names.networks.sort_unstable();
        names.networks.dedup();
        names
    }
}

/// The hosts to which rules give a category that is inspected.
pub(super) fn assigned(source: &source::Policy, categories: Categories) -> Vec<HostPattern> {
    let given = |rule: &source::Rule| {
        let word = rule.category.as_ref()?;
        Category::from_word(word.get_ref()).filter(|category| categories.contains(*category))
    };
    let rules = source.rules.iter().map(|rule| &rule.value);
    rules
        .filter(|rule| given(rule).is_some())
        .flat_map(|rule| &rule.hosts)
        .filter_map(|text| HostPattern::parse(text.get_ref()).ok())
        .collect()
}

impl Names {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.names.is_empty() && self.networks.is_empty()
    }

    /// Adds what a pattern matches.
    pub(super) fn add(&mut self, pattern: &HostPattern) {
        match pattern {
            HostPattern::Below(name) => self.names.push(format!(".{name}")),
            HostPattern::Exact(name) => self.names.push(name.to_string()),
            HostPattern::Network(network) => self.networks.push(*network),
        }
    }

    /// Adds what the catalogue knows of a category.
    pub(super) fn add_category(&mut self, category: Category, catalogue: &Catalogue) {
        for pattern in catalogue.hosts_of(category) {
            self.add(&pattern);
        }
    }
}
