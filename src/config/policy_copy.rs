//! The policy of a configuration as one text, which an auditor can read later.

use std::sync::Arc;

use toml::{Table, Value};

use crate::diag::Source;

/// The sections that belong to the policy as a whole.
const SECTIONS: [&str; 13] = [
    "always",
    "catalogue",
    "collector",
    "destination",
    "exception",
    "group",
    "mcp",
    "never",
    "repository",
    "rule",
    "tier",
    "tiers",
    "trial",
];

/// The sections with some keys that belong to the policy.
const PARTS: [&str; 2] = ["inspect", "upstream"];

/// Those keys.
const KEYS: [&str; 2] = ["categories", "hosts"];

/// Returns the policy of some files as one file without includes. Other sections are left out, and
/// with them every secret, certificate and path.
pub fn policy_copy(sources: &[Arc<Source>]) -> String {
    let mut whole = Table::new();
    for source in sources {
        let table: Table = toml::from_str(&source.text).unwrap_or_default();
        for (name, value) in table {
            if SECTIONS.contains(&name.as_str()) {
                add(&mut whole, name, value);
            } else if PARTS.contains(&name.as_str()) {
                add(&mut whole, name, parts(value));
            }
        }
    }
    toml::to_string_pretty(&whole).unwrap_or_default()
}

/// Adds a value; lists and tables of several files are merged.
fn add(whole: &mut Table, name: String, value: Value) {
    match (whole.get_mut(&name), value) {
        (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
        (Some(Value::Table(known)), Value::Table(more)) => known.extend(more),
        (_, value) => {
            whole.insert(name, value);
        }
    }
}

/// Returns the policy keys of a section, or of the tables in it.
fn parts(value: Value) -> Value {
    let Value::Table(table) = value else {
        return value;
    };
    let kept = table.into_iter().filter_map(|(name, value)| match value {
        Value::Table(_) => Some((name, parts(value))),
        value => KEYS.contains(&name.as_str()).then_some((name, value)),
    });
    Value::Table(kept.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_policy_of_every_file_and_nothing_else() {
        let source = |text: &str| Arc::new(Source::new("a.toml", text));
        let copy = policy_copy(&[
            source(
                "include = [\"b.toml\"]\n[[rule]]\nid = \"a\"\n[inspect]\nca-key = \"ca.key\"\n\
                 hosts = [\"a.example\"]\n[[identity.user]]\nname = \"x\"\nsecret = \"hunter2\"\n",
            ),
            source(
                "[[rule]]\nid = \"b\"\n[upstream.one]\nclient-key = \"x.key\"\nhosts = [\"c.example\"]\n\
                 [tier.open]\ndefault = \"allow\"\n",
            ),
        ]);
        for part in [
            "id = \"a\"",
            "id = \"b\"",
            "a.example",
            "c.example",
            "[tier.open]",
        ] {
            assert!(copy.contains(part), "{part}: {copy}");
        }
        for part in ["hunter2", "ca.key", "x.key", "include"] {
            assert!(!copy.contains(part), "{part}: {copy}");
        }
    }
}
