//! Proposed labels: a `[[destination]]` for hosts that neither the policy nor the catalogue names.
//!
//! The purpose of a host follows from the client program and from the tool that fetched from the host.
//! The caller chooses both, and a label can make other rules allow the host. So a label is proposed
//! only if the label allows no further flow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::policy::{Catalogue, Category, Facts, Policy, decide_written};
use crate::replay::{Need, Seen};

use super::super::edit;
use super::rule::Proposed;

/// The service of each client program, by the beginning of its `User-Agent`.
const CLIENTS: [(&str, &str); 12] = [
    ("git/", "git"),
    ("npm/", "npm"),
    ("pnpm/", "npm"),
    ("yarn/", "npm"),
    ("bun/", "npm"),
    ("pip/", "pypi"),
    ("uv/", "pypi"),
    ("poetry/", "pypi"),
    ("cargo ", "cargo"),
    ("docker/", "oci"),
    ("containerd/", "oci"),
    ("RubyGems/", "rubygems"),
];

/// A proposed `[[destination]]`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Label {
    pub(super) category: String,
    service: Option<String>,
    pub(super) hosts: BTreeSet<String>,
    port: u16,
}

/// The purpose of a host, from its flows: category and, if its clients are of one, service.
type Purpose = (String, Option<String>);

impl Label {
    /// Returns labels for the unlabelled hosts of the rules.
    pub(super) fn all(rules: &[Proposed<'_>], policy: &Policy, catalogue: &Catalogue) -> Vec<Self> {
        let mut found: BTreeMap<(Purpose, u16), BTreeSet<String>> = BTreeMap::new();
        for rule in rules {
            for (need, seen) in &rule.needs {
                if is_labelled(need, policy) {
                    continue;
                }
                if let Some(purpose) = purpose(seen, catalogue) {
                    let hosts = found.entry((purpose, need.port)).or_default();
                    hosts.insert(need.host.clone());
                }
            }
        }
        let label = |(((category, service), port), hosts)| Self {
            category,
            service,
            hosts,
            port,
        };
        found.into_iter().map(label).collect()
    }

    /// Returns the table.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "[[destination]]\ncategory = {}\nhosts = {}\n",
            edit::quoted(&self.category),
            edit::list(&self.hosts),
        );
        // `ports` opens a port for plain HTTP as well, so 443 is not written.
        if self.port != 443 {
            let _ = writeln!(text, "ports = [{}]", self.port);
        }
        let by = match &self.service {
            Some(service) => {
                let _ = writeln!(text, "service = {}", edit::quoted(service));
                format!("clients of {service} reached it, by their own names")
            }
            None => "the tool that fetches web pages reached it".to_owned(),
        };
        let _ = writeln!(text, "reason = {}", edit::quoted(&by));
        text
    }
}

/// Whether the policy or the catalogue names a host.
pub(super) fn is_labelled(need: &Need, policy: &Policy) -> bool {
    let flow = format!("{}:{}", need.host, need.port);
    let decision = decide_written(policy, &flow, &Facts::default(), &need.tier);
    decision.is_ok_and(|it| it.category != Category::Unknown)
}

fn purpose(seen: &Seen, catalogue: &Catalogue) -> Option<Purpose> {
    if seen.fetches * 2 > seen.flows {
        return Some((Category::Webfetch.as_str().to_owned(), None));
    }
    let client = seen.user_agent.as_deref()?;
    let known = CLIENTS.iter().find(|(front, _)| client.starts_with(front));
    let (_, service) = known?;
    let files = catalogue.files.iter();
    let mut entries = files.flat_map(|(_, file)| &file.destination);
    let of_service = entries.find(|it| {
        let service_of = it.service.as_ref().map(|it| it.get_ref().as_str());
        service_of == Some(*service)
    });
    let category = match (of_service, *service) {
        (Some(entry), _) => entry.category.get_ref().clone(),
        (None, "git") => Category::SourceControl.as_str().to_owned(),
        (None, _) => return None,
    };
    Some((category, Some((*service).to_owned())))
}
