//! Compares the sections of two policies besides rules and tiers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::side::Side;

/// The sections that the comparison of policies covers, and those that change no flow.
const COVERED: [&str; 11] = [
    "catalogue",
    "destination",
    "group",
    "include",
    "mcp",
    "refusal",
    "repository",
    "rule",
    "tier",
    "tiers",
    "trial",
];

/// The words in an exception that refer to other sections, and the sections that define them. An
/// empty key: any key of the table.
const WORDS: [(&str, &str, &[&str]); 4] = [
    ("from", "groups", &["group"]),
    ("from", "tiers", &["group", "repository", "tier", "tiers"]),
    ("to", "categories", &["catalogue", "destination"]),
    // The gate sees the requests to a destination only where TLS is inspected.
    (
        "does",
        "",
        &["catalogue", "destination", "inspect", "mcp", "tier"],
    ),
];

/// The parts of a rule that decide flows.
const DECIDING: [&str; 6] = ["verdict", "from", "to", "does", "unless", "grant"];

/// Returns the names of the sections that differ and are not compared.
pub(super) fn not_compared(before: &Side, after: &Side) -> Vec<String> {
    let mut names = changed(before, after);
    names.retain(|name| !COVERED.contains(name));
    names.into_iter().map(str::to_owned).collect()
}

/// Returns the exceptions that may allow more flows under the second policy: new ones, changed
/// ones, and those with a word whose section has changed. A removed exception allows no flow.
pub(super) fn widened_exceptions(before: &Side, after: &Side) -> Vec<String> {
    let changed = changed(before, after);
    let of_rules = changed_bounds(before, after, &changed);
    let mut found = Vec::new();
    for exception in &after.exceptions {
        let mut sections = changed.iter().copied();
        let section = sections.find(|name| depends_on(exception, name));
        let why = if !before.exceptions.contains(exception) {
            "is new or changed".to_owned()
        } else if let Some(section) = section.or(of_rules) {
            format!("depends on [{section}], which is changed")
        } else {
            continue;
        };
        let id = exception.get("id").and_then(toml::Value::as_str);
        found.push(format!("exception {}, which {why}", id.unwrap_or_default()));
    }
    found
}

/// Returns a changed section that may change the bounds of every exception: the rules that grant
/// something or deny networks, the loopback services, or a section that defines a name in such a rule.
fn changed_bounds<'s>(before: &Side, after: &Side, changed: &BTreeSet<&'s str>) -> Option<&'s str> {
    let [were, are] = [before, after].map(bounds);
    let defines = |name: &&str| {
        let is_changed = match *name {
            "rule" => were != are,
            "collector" | "mcp" => true,
            _ => false,
        };
        let mut all = were.iter().chain(&are);
        is_changed || all.any(|(_, rule)| depends_on(rule, name))
    };
    changed.iter().copied().find(defines)
}

/// Returns the rules that bound an exception: rules with `grant`, and denies of networks, which hold
/// for the addresses of the names in the exception.
fn bounds(side: &Side) -> Vec<(String, toml::Value)> {
    let bounds = side.rules.iter().filter(|rule| {
        let is_deny = rule.get("verdict").and_then(toml::Value::as_str) == Some("deny");
        rule.get("grant").is_some() || is_deny && names_a_network(rule)
    });
    let deciding = |rule: &toml::Value| {
        let parts = DECIDING.iter();
        let parts = parts.filter_map(|key| Some(((*key).to_owned(), rule.get(*key)?.clone())));
        toml::Value::Table(parts.collect())
    };
    let mut bounds: Vec<_> = bounds
        .map(deciding)
        .map(|rule| (rule.to_string(), rule))
        .collect();
    bounds.sort_by(|(one, _), (other, _)| one.cmp(other));
    bounds
}

fn names_a_network(rule: &toml::Value) -> bool {
    let hosts = rule.get("to").and_then(|to| to.get("hosts"));
    let mut hosts = hosts.and_then(toml::Value::as_array).into_iter().flatten();
    hosts.any(|host| {
        let host = host.as_str().unwrap_or_default();
        host.parse::<IpNet>().is_ok() || host.parse::<IpAddr>().is_ok()
    })
}

fn depends_on(exception: &toml::Value, section: &str) -> bool {
    WORDS.iter().any(|(table, key, sections)| {
        let named = exception.get(table).is_some_and(|table| match *key {
            "" => true,
            key => table.get(key).is_some(),
        });
        named && sections.contains(&section)
    })
}

/// Returns the names of all sections with different text.
fn changed<'s>(before: &'s Side, after: &'s Side) -> BTreeSet<&'s str> {
    let texts = |side: &'s Side, name: &str| -> Vec<&'s str> {
        let all = side.sections.iter().filter(|(known, _)| known == name);
        let mut texts: Vec<&str> = all.map(|(_, text)| text.as_str()).collect();
        texts.sort_unstable();
        texts
    };
    let names = before.sections.iter().chain(&after.sections);
    let names = names.map(|(name, _)| name.as_str());
    names
        .filter(|name| texts(before, name) != texts(after, name))
        .collect()
}
