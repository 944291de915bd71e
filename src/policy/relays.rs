//! Findings about allows that reach relays: hosts that fetch, forward or store for any client.

use toml::Spanned;

use crate::diag::Diagnostic;
use crate::name::relay_within;

use super::Category;
use super::compiled::Policy;
use super::rule::Rule;
use super::source::{self, Placed};

/// Returns a finding for each host that is a relay (`config/relays.txt`): of an allow that names it, and
/// of a `[[destination]]` whose category an allow selects. An allow with `does.paths` is left out: it
/// opens only the listed paths.
pub fn relay_findings(source: &source::Policy, policy: &Policy) -> Vec<Diagnostic> {
    let written = source.rules.iter().zip(&policy.rules);
    let open = written.filter(|(_, rule)| is_open(rule));
    let named = open.flat_map(|(written, _)| named(written));
    let labels = source.destinations.iter();
    named
        .chain(labels.flat_map(|label| labelled(label, policy)))
        .collect()
}

/// Whether a rule allows every path of its hosts.
fn is_open(rule: &Rule) -> bool {
    rule.is_allow() && rule.does.paths.is_empty()
}

/// Returns the findings for the hosts of a rule.
fn named(rule: &Placed<source::Rule>) -> impl Iterator<Item = Diagnostic> {
    let hosts = rule.value.to.hosts.iter();
    hosts.filter_map(|host| {
        let relay = relay_within(host.get_ref())?;
        let message = format!("rule `{}` allows `{relay}`", rule.value.id.get_ref());
        Some(finding(rule, host, message))
    })
}

/// Returns the findings for the hosts that a label gives to the allows of a category.
fn labelled(
    label: &Placed<source::Destination>,
    policy: &Policy,
) -> impl Iterator<Item = Diagnostic> {
    let word = label.value.category.get_ref();
    let category = Category::from_word(word);
    let selects = |rule: &&Rule| {
        let selected = rule.to.categories;
        is_open(rule) && rule.to.hosts == 0 && category.is_some_and(|it| selected.contains(it))
    };
    let rule = policy.rules.iter().find(selects);
    let hosts = label.value.hosts.iter().zip(label.value.names());
    hosts.filter_map(move |(host, name)| {
        let (relay, rule) = (relay_within(&name)?, rule?);
        let by = &rule.named.name;
        let message = format!("`{relay}` is labelled {word}, which {by} allows");
        Some(finding(label, host, message))
    })
}

fn finding<T>(table: &Placed<T>, host: &Spanned<String>, message: String) -> Diagnostic {
    Diagnostic::warning("relay", table.at(host), message)
        .label("any client can fetch, forward, store or resolve by this host")
        .help("name the paths that are needed (`does.paths`, inspected), or another host")
}
