//! Compares the sections of two policies besides rules and tiers.

use std::collections::BTreeSet;

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
    ("does", "", &["catalogue", "destination", "mcp"]),
];

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
    let mut found = Vec::new();
    for exception in &after.exceptions {
        let why = if !before.exceptions.contains(exception) {
            "is new or changed".to_owned()
        } else if let Some(section) = changed.iter().find(|name| depends_on(exception, name)) {
            format!("depends on [{section}], which is changed")
        } else {
            continue;
        };
        let id = exception.get("id").and_then(toml::Value::as_str);
        found.push(format!("exception {}, which {why}", id.unwrap_or_default()));
    }
    found
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
