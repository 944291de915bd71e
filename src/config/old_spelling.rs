//! Rules in the spelling of earlier versions: refused, with the same rule in the new spelling.

use std::fmt::Write as _;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diag::{Diagnostic, Place, Source};

/// The keys of earlier versions at the top of a `[[rule]]`, and their replacements. A key without a
/// replacement needs a separate table or rule.
const RULE: [(&str, &str); 23] = [
    ("tiers", "from.tiers"),
    ("groups", "from.groups"),
    ("hosts", "to.hosts"),
    ("category", ""),
    ("ports", "to.ports"),
    ("actions", "does.actions"),
    ("operations", "does.operations"),
    ("repositories", "does.repositories"),
    ("refs", "does.refs"),
    ("methods", "does.methods"),
    ("paths", "does.paths"),
    ("servers", "does.servers"),
    ("tools", ""),
    ("mcp-methods", "does.mcp-methods"),
    ("packages", "does.packages"),
    ("credentials", ""),
    ("min-age", ""),
    ("addresses", "grant.addresses"),
    ("raw", "grant.raw"),
    ("upgrade", "grant.upgrade"),
    ("inspect", "grant.inspect"),
    ("upstream", "grant.upstream"),
    ("service", ""),
];

/// The same keys for a `[[trial]]`.
const TRIAL: [(&str, &str); 3] = [
    ("repository", "from.repositories"),
    ("tier", "from.tiers"),
    ("groups", "from.groups"),
];

/// The keys that a second rule shares with the first one, whose barred requests it covers.
const SHARED: [&str; 8] = [
    "tiers",
    "groups",
    "hosts",
    "ports",
    "packages",
    "repositories",
    "servers",
    "inspect",
];

/// One table of a file, with its text.
struct Table<'a> {
    source: &'a Arc<Source>,
    table: &'a DeTable<'a>,
}

/// Returns the finding about a rule or a trial in an old spelling; `None` if it has no old key.
pub(super) fn finding(source: &Arc<Source>, what: &str, table: &DeTable<'_>) -> Option<Diagnostic> {
    let (keys, rewritten): (&[_], fn(&Table<'_>) -> String) = match what {
        "[[rule]]" => (&RULE, rule),
        "[[trial]]" => (&TRIAL, trial),
        _ => return None,
    };
    let is_old = |key: &&Spanned<toml::de::DeString<'_>>| {
        keys.iter().any(|(old, _)| *old == key.get_ref().as_ref())
    };
    let old = table
        .keys()
        .filter(is_old)
        .min_by_key(|key| key.span().start)?;
    let message = format!(
        "`{}` is a key of earlier versions of `{what}`",
        old.get_ref()
    );
    let place = Place::new(source, old.span());
    Some(
        Diagnostic::error("old-spelling", place, message)
            .label("written otherwise now")
            .help(format!(
                "write\n{}",
                rewritten(&Table { source, table }).trim_end()
            )),
    )
}

fn rule(rule: &Table<'_>) -> String {
    let mut text = rule.destination();
    text.push_str("[[rule]]\n");
    rule.copy(&mut text, &["id", "verdict"]);
    let plain = |key: &&(&str, &str)| !key.1.is_empty() && rule.has(key.0);
    for (old, new) in RULE.iter().filter(plain) {
        rule.line(&mut text, old, new);
    }
    if let Some(category) = rule.value("category").filter(|_| !rule.has("hosts")) {
        let _ = writeln!(text, "to.categories = [{category}]");
    }
    if let Some(tools) = rule.part("tools", "allow") {
        let _ = writeln!(text, "does.tools = {tools}");
    }
    rule.copy(&mut text, &["reason", "allows", "denies"]);
    let denies = [
        ("tools", rule.part("tools", "deny"), "does.tools"),
        (
            "credentials",
            rule.value("credentials"),
            "unless.credentials",
        ),
        ("age", rule.value("min-age"), "unless.min-age"),
    ];
    for (suffix, value, key) in denies {
        let Some(value) = value else { continue };
        let id = rule.value("id").unwrap_or("\"\"").trim_matches(['"', '\'']);
        let _ = writeln!(
            text,
            "\n[[rule]]\nid = \"{id}-{suffix}\"\nverdict = \"deny\""
        );
        let shared = RULE
            .iter()
            .filter(plain)
            .filter(|(old, _)| SHARED.contains(old));
        for (old, new) in shared {
            rule.line(&mut text, old, new);
        }
        let _ = writeln!(text, "{key} = {value}");
    }
    text
}

fn trial(trial: &Table<'_>) -> String {
    let mut text = String::from("[[trial]]\n");
    trial.copy(&mut text, &["name"]);
    for (old, new) in TRIAL {
        let Some(value) = trial.value(old) else {
            continue;
        };
        let list = if value.starts_with('[') {
            value.into()
        } else {
            format!("[{value}]")
        };
        let _ = writeln!(text, "{new} = {list}");
    }
    trial.copy(&mut text, &["allows", "asks", "denies", "rule"]);
    text
}

impl Table<'_> {
    fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Returns the text of a value.
    fn value(&self, key: &str) -> Option<&str> {
        self.source.text.get(self.table.get(key)?.span())
    }

    /// Returns the text of a value within the table of another key.
    fn part(&self, key: &str, inner: &str) -> Option<&str> {
        let DeValue::Table(table) = self.table.get(key)?.get_ref() else {
            return None;
        };
        self.source.text.get(table.get(inner)?.span())
    }

    fn line(&self, text: &mut String, old: &str, new: &str) {
        if let Some(value) = self.value(old) {
            let _ = writeln!(text, "{new} = {value}");
        }
    }

    fn copy(&self, text: &mut String, keys: &[&str]) {
        for key in keys {
            self.line(text, key, key);
        }
    }

    /// Returns the `[[destination]]` for the host facts of a rule.
    fn destination(&self) -> String {
        let labels = self.has("category") || self.has("service");
        if !labels || !self.has("hosts") {
            return String::new();
        }
        let mut text = String::from("[[destination]]\n");
        if !self.has("category") {
            text.push_str("category = \"…\"\n");
        }
        self.copy(&mut text, &["category", "hosts", "ports", "service"]);
        text.push('\n');
        text
    }
}
