//! Adds tables to a configuration file: as text, so that every comment stays, and only if the
//! parsed result is the intended one.

use std::path::Path;

use crate::config::{self, Config};
use crate::diag::{Diagnostic, Severity};
use crate::policy::{self, Policy};

use super::init::files;

/// Adds a table after the table that contains a line (from 1); at the end of the text if there is
/// no such line, or if the result would be wrong.
pub(super) fn add_behind(text: &str, line: Option<usize>, table: &str) -> String {
    let near = line.map(|line| insert(text, line, table));
    near.filter(|new| is_old_and(new, text, table))
        .unwrap_or_else(|| at_end(text, table))
}

/// Adds tables at the end of a text.
pub(super) fn at_end(text: &str, tables: &str) -> String {
    let gap = match text {
        "" => "",
        text if text.ends_with("\n\n") => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    format!("{text}{gap}{}\n", tables.trim_matches('\n'))
}

/// Adds a table before the next header, and before the comments above that header.
fn insert(text: &str, line: usize, table: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let behind = line.min(lines.len());
    let rest = lines.get(behind..).unwrap_or_default();
    let to_header = rest.iter().position(|it| it.trim_start().starts_with('['));
    let mut at = behind + to_header.unwrap_or(rest.len());
    let is_apart = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    while at > behind && lines.get(at - 1).is_some_and(|it| is_apart(it)) {
        at -= 1;
    }
    let (before, after) = lines.split_at(at.min(lines.len()));
    let (before, after) = (before.concat(), after.concat());
    let before = before.trim_end_matches('\n');
    let after = after.trim_start_matches('\n');
    let first = if before.is_empty() { "" } else { "\n\n" };
    let last = if after.is_empty() { "" } else { "\n" };
    format!("{before}{first}{}\n{last}{after}", table.trim_matches('\n'))
}

/// Whether a text has the content of `old`, and one further table in a list, at any position.
fn is_old_and(new: &str, old: &str, table: &str) -> bool {
    let parse = |text: &str| text.parse::<toml::Table>().ok();
    let (Some(mut new), Some(mut old), Some(added)) = (parse(new), parse(old), parse(table)) else {
        return false;
    };
    for (name, tables) in added {
        let toml::Value::Array(tables) = tables else {
            return false;
        };
        let mut all = match old.remove(&name) {
            Some(toml::Value::Array(all)) => all,
            None => Vec::new(),
            Some(_) => return false,
        };
        all.extend(tables);
        let Some(toml::Value::Array(mut now)) = new.remove(&name) else {
            return false;
        };
        for table in all {
            match now.iter().position(|it| *it == table) {
                Some(at) => now.remove(at),
                None => return false,
            };
        }
        if !now.is_empty() {
            return false;
        }
    }
    new == old
}

/// Compiles a text as the configuration at a path.
///
/// # Errors
///
/// Returns the findings that prevent loading.
pub(super) fn compile(path: &Path, text: &str) -> Result<(Config, Policy), Vec<Diagnostic>> {
    let (config, mut findings) = config::load_text(path, text);
    let Some(config) = config else {
        return Err(findings);
    };
    let (policy, more) = policy::compile(&config.policy, &policy::built_in());
    findings.extend(more);
    if let Some(policy) = &policy {
        findings.extend(policy::invariant_findings(&config.policy, policy));
    }
    findings.retain(|finding| finding.severity == Severity::Error);
    match policy {
        Some(policy) if findings.is_empty() => Ok((config, policy)),
        _ => Err(findings),
    }
}

/// Replaces a configuration file in one step.
///
/// # Errors
///
/// If the file has changed since `before` was read, or cannot be written.
pub(super) fn replace(path: &Path, before: &str, after: &str) -> Result<(), String> {
    let now = config::read(path).map_err(|error| error.to_string())?;
    if now != before {
        return Err(format!("{}: changed meanwhile; try again", path.display()));
    }
    let written = files::write(path, None, after);
    written
        .map(drop)
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Quotes a text for TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Formats a list of texts for TOML, on one line.
pub(super) fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts = texts.into_iter().map(|it| quoted(it.as_ref()));
    format!("[{}]", texts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: &str = "[[trial]]\nname = \"x\"\ndenies = [\"a.example:443\"]\n";

    #[test]
    fn a_table_goes_behind_the_one_that_is_named_and_before_the_comments_of_the_next() {
        let text = "# top\n[[rule]]\nid = \"a\" # why\n\n# about b\n[[rule]]\nid = \"b\"\n";
        let new = add_behind(text, Some(2), TRIAL);
        let shown = "# top\n[[rule]]\nid = \"a\" # why\n\n[[trial]]\nname = \"x\"\n\
                     denies = [\"a.example:443\"]\n\n# about b\n[[rule]]\nid = \"b\"\n";
        assert_eq!(new, shown);
        assert_eq!(add_behind(text, Some(6), TRIAL), format!("{text}\n{TRIAL}"));
        assert_eq!(add_behind(text, None, TRIAL), format!("{text}\n{TRIAL}"));
        assert_eq!(add_behind("", Some(9), TRIAL), TRIAL);
    }

    #[test]
    fn a_line_within_a_list_of_lists_or_a_text_is_no_header() {
        for rest in ["a = [\n[1],\n[2]]\n", "a = \"\"\"\n[x]\n[y]\n\"\"\"\n"] {
            let text = format!("[one]\n{rest}");
            let new = add_behind(&text, Some(1), TRIAL);
            assert_eq!(new, format!("{text}\n{TRIAL}"));
        }
    }

    #[test]
    fn texts_of_others_are_quoted() {
        let text = "a\"\n[[rule]]\u{1b}";
        let table: toml::Table = format!("a = {}", quoted(text)).parse().expect("TOML");
        assert_eq!(table["a"].as_str(), Some(text));
    }
}
