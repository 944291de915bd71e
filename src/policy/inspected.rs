//! Which destinations a policy inspects, as far as that can be said without a flow.

use ipnet::IpNet;

use crate::diag::Diagnostic;

use super::compile::{Findings, Policy, unknown};
use super::pattern::HostPattern;
use super::source::{self, Placed};
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
        let mut names = self.inspected.clone();
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

/// What `[inspect]` itself names.
pub(super) fn compile(
    section: Option<&Placed<source::Inspect>>,
    catalogue: &Catalogue,
    findings: &mut Findings,
) -> Names {
    let mut names = Names::default();
    let Some(section) = section else { return names };
    for text in &section.value.hosts {
        match HostPattern::parse(text.get_ref()) {
            Ok(pattern) => names.add(&pattern),
            Err(bad) => {
                let message = format!("`{}` is not a host pattern", text.get_ref());
                let finding = Diagnostic::error("bad-host", section.at(text), message);
                findings.push(finding.label(bad.label).help(bad.help));
            }
        }
    }
    for word in &section.value.categories {
        match Category::from_word(word.get_ref()) {
            Some(Category::Unknown) => names.everything = true,
            Some(category) => names.add_category(category, catalogue),
            None => {
                let known = Category::ALL.iter().map(|category| category.as_str());
                findings.push(unknown("category", section.at(word), word.get_ref(), known));
            }
        }
    }
    names
}
