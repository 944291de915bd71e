//! `[[repository-policy]]`: policies that repositories write for themselves, and that only narrow.
//!
//! The file of a repository has a `tier` and rules that deny; it is read from a commit of the
//! operator's clone. Whether it narrows is proved where the policy is compiled.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diag::{Diagnostic, Place, Source};
use crate::policy::source::{self, Placed};

use super::names::Names;
use super::section::{Value, unknown_key};
use super::value::shortened;

/// The name of the file, at the top of the repository.
pub const REPOSITORY_FILE: &str = ".tidegate.toml";
/// Bytes of such a file, at most.
pub const MAX_REPOSITORY_FILE: usize = 64 << 10;
/// Repositories with such a file, at most.
const MAX_REPOSITORIES: usize = 64;
/// Rules of such a file, at most.
const MAX_RULES: usize = 100;

/// One repository whose own policy is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RepositoryPolicy {
    /// The repository whose callers the file narrows.
    pub repository: Arc<str>,
    /// The operator's clone, bare or not; only its objects and references are read.
    pub clone: PathBuf,
    /// The branch whose commit has the file.
    pub branch: String,
}

/// The text of `[[repository-policy]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    repository: Spanned<String>,
    clone: Spanned<String>,
    branch: Spanned<String>,
}

/// The contents of a repository's file, for the policy of the operator.
#[derive(Clone, Debug, Default)]
pub struct Narrowing {
    /// The `tier`, as a `[[repository]]` of that repository.
    pub tier: Option<Placed<source::Repository>>,
    /// The rules, for callers of that repository.
    pub rules: Vec<Placed<source::Rule>>,
}

/// Reads the sections.
pub(super) fn repository_policies(
    sections: &[Placed<Section>],
    names: &Names<'_>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<RepositoryPolicy> {
    let mut all: Vec<RepositoryPolicy> = Vec::new();
    for section in sections {
        let written = &section.value;
        let repository = names.repository(section, &written.repository, findings);
        let branch = written.branch.get_ref();
        if branch.is_empty() || branch.starts_with('-') || branch.contains(char::is_control) {
            let place = section.at(&written.branch);
            let message = format!("`{}` is no name of a branch", shortened(branch));
            let finding = Diagnostic::error("bad-branch", place, message);
            findings.push(finding.help("write the default branch, e.g. `branch = \"main\"`"));
        }
        if written.clone.get_ref().is_empty() {
            let place = section.at(&written.clone);
            let finding = Diagnostic::error("empty", place, "`clone` names no folder");
            findings.push(finding.help("write the folder of a clone that agents cannot write"));
        }
        let Some(repository) = repository else {
            continue;
        };
        let prefix = rule_prefix(&repository);
        let is_twice = all.iter().any(|it| rule_prefix(&it.repository) == prefix);
        if is_twice || all.len() == MAX_REPOSITORIES {
            let message = format!(
                "`{repository}` or a name that is `{prefix}` in records is written twice, or there are \
                 more than {MAX_REPOSITORIES}"
            );
            let place = section.at(&written.repository);
            findings.push(Diagnostic::error("repository-policy-twice", place, message));
            continue;
        }
        all.push(RepositoryPolicy {
            repository,
            clone: super::folder_of(&section.source.path).join(written.clone.get_ref()),
            branch: branch.clone(),
        });
    }
    all
}

/// Reads the file of a repository. The error has every finding.
pub fn read_narrowing(
    repository: &str,
    source: &Arc<Source>,
) -> Result<Narrowing, Vec<Diagnostic>> {
    let table = match DeTable::parse(&source.text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let place = Place::new(source, error.span().unwrap_or(0..0));
            return Err(vec![Diagnostic::error("syntax", place, error.message())]);
        }
    };
    let mut findings = Vec::new();
    let mut narrowing = Narrowing::default();
    for (key, content) in table {
        let span = content.span();
        match (key.get_ref().as_ref(), content.into_inner()) {
            ("tier", DeValue::String(tier)) => {
                let at = |text: &str| Spanned::new(span.clone(), text.to_owned());
                narrowing.tier = Some(Placed {
                    source: source.clone(),
                    span: span.clone(),
                    value: source::Repository {
                        r#match: source::Words(vec![at(repository)]),
                        tier: at(&tier),
                    },
                });
            }
            ("rule", DeValue::Array(rules)) => {
                for content in rules {
                    let value = Value {
                        source,
                        what: "[[rule]]",
                        content,
                    };
                    let read = value.read::<source::Rule>(&mut findings);
                    narrowing.rules.extend(read);
                }
            }
            (name, _) => {
                let place = Place::new(source, key.span());
                findings.push(unknown_key(place, name, REPOSITORY_FILE, &["tier", "rule"]));
            }
        }
    }
    if let Some(rule) = narrowing.rules.get(MAX_RULES) {
        let message = format!("{REPOSITORY_FILE} has more than {MAX_RULES} rules");
        findings.push(Diagnostic::error("too-many", rule.place(), message));
    }
    for rule in &mut narrowing.rules {
        findings.extend(only_denies(rule));
        findings.extend(bad_id(rule));
        let id = &mut rule.value.id;
        let named = format!("{}.{}", rule_prefix(repository), id.get_ref());
        let span = id.span();
        *id = Spanned::new(span.clone(), named);
        rule.value.from.repositories = vec![Spanned::new(span, repository.to_owned())];
    }
    if findings.is_empty() {
        Ok(narrowing)
    } else {
        Err(findings)
    }
}

/// Returns a finding for an id with a dot: with the name of another repository in front, the id could be
/// that of a rule of this one, and the second file that has an id is refused.
fn bad_id(rule: &Placed<source::Rule>) -> Option<Diagnostic> {
    let id = &rule.value.id;
    id.get_ref().contains('.').then(|| {
        let message = format!(
            "the id `{}` of a rule of {REPOSITORY_FILE} has a dot",
            id.get_ref()
        );
        let finding = Diagnostic::error("bad-id", rule.at(id), message);
        finding.help("write letters, digits, `-` and `_`")
    })
}

/// Returns the name of a repository as ids of its rules begin in records. Ids have no dot, so no rule of
/// another repository has the same id.
fn rule_prefix(repository: &str) -> String {
    let part = |letter: char| {
        let is_part = letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
        if is_part { letter } else { '.' }
    };
    repository.chars().map(part).collect()
}

/// Returns the finding for a rule that is not a plain deny for the callers of the repository. An ask
/// could widen: it comes before a default that denies.
fn only_denies(rule: &Placed<source::Rule>) -> Option<Diagnostic> {
    let value = &rule.value;
    if value.verdict.get_ref() != "deny" {
        let place = rule.at(&value.verdict);
        let message = format!("a rule of {REPOSITORY_FILE} can only deny");
        let finding = Diagnostic::error("repository-widens", place, message);
        return Some(finding.help("write `verdict = \"deny\"`; only the operator's policy allows"));
    }
    let others = [
        ("from", value.from != source::From::default()),
        ("grant", value.grant != source::Grant::default()),
        ("allows", !value.allows.is_empty()),
    ];
    let (key, _) = others.into_iter().find(|(_, is_written)| *is_written)?;
    let message = format!("a rule of {REPOSITORY_FILE} has no `{key}`");
    let finding = Diagnostic::error("repository-widens", rule.place(), message);
    Some(finding.help("leave it out: the rule is for the callers of this repository, and denies"))
}

/// Returns the file as a part of the operator's policy, in TOML, for the copy that an auditor reads.
pub fn narrowing_as_policy(repository: &str, text: &str) -> String {
    use toml::Value as Toml;
    let file: toml::Table = toml::from_str(text).unwrap_or_default();
    let mut whole = toml::Table::new();
    let named = || Toml::Array(vec![Toml::String(repository.to_owned())]);
    if let Some(tier) = file.get("tier") {
        let entry = [
            ("match".to_owned(), named()),
            ("tier".to_owned(), tier.clone()),
        ];
        let entry = Toml::Table(entry.into_iter().collect());
        whole.insert("repository".to_owned(), Toml::Array(vec![entry]));
    }
    let rules = file.get("rule").and_then(Toml::as_array).cloned();
    let rules = rules.into_iter().flatten().map(|mut rule| {
        if let Some(table) = rule.as_table_mut() {
            let id = table.get("id").and_then(Toml::as_str).unwrap_or_default();
            let id = format!("{}.{}", rule_prefix(repository), id);
            table.insert("id".to_owned(), Toml::String(id));
            let from = [("repositories".to_owned(), named())];
            table.insert("from".to_owned(), Toml::Table(from.into_iter().collect()));
        }
        rule
    });
    let rules: Vec<Toml> = rules.collect();
    if !rules.is_empty() {
        whole.insert("rule".to_owned(), Toml::Array(rules));
    }
    toml::to_string_pretty(&whole).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Narrowing, Vec<&'static str>> {
        let source = Arc::new(Source::new("x", text));
        let read = read_narrowing("github.com/acme/web", &source);
        read.map_err(|found| found.iter().map(|it| it.code).collect())
    }

    #[test]
    fn a_file_has_a_tier_and_denies_for_its_own_callers() {
        let text = "tier = \"restricted\"\n[[rule]]\nid = \"a\"\nverdict = \"deny\"\n\
                    to.hosts = [\"x.example\"]\n";
        let read = read(text).unwrap();
        let rule = &read.rules[0].value;
        assert_eq!(rule.id.get_ref(), "github.com.acme.web.a");
        assert_eq!(rule.from.repositories[0].get_ref(), "github.com/acme/web");
        assert_eq!(read.rules[0].at(&rule.id).line_column().0, 3);
        assert_eq!(read.tier.unwrap().value.tier.get_ref(), "restricted");
        let copy = narrowing_as_policy("github.com/acme/web", text);
        for part in [
            "id = \"github.com.acme.web.a\"",
            "[[repository]]",
            "repositories = [",
        ] {
            assert!(copy.contains(part), "{part}: {copy}");
        }
    }

    #[test]
    fn whatever_else_a_file_says_is_refused() {
        let rule = "[[rule]]\nid = \"a\"\n";
        for (text, code) in [
            (format!("{rule}verdict = \"allow\"\n"), "repository-widens"),
            (format!("{rule}verdict = \"ask\"\n"), "repository-widens"),
            (
                format!("{rule}verdict = \"deny\"\nfrom.repositories = [\"**\"]\n"),
                "repository-widens",
            ),
            (
                format!("{rule}verdict = \"deny\"\ngrant.raw = true\n"),
                "repository-widens",
            ),
            (
                format!("{rule}verdict = \"deny\"\nallows = [\"a.example:443\"]\n"),
                "repository-widens",
            ),
            (
                "[[rule]]\nid = \"a.b\"\nverdict = \"deny\"\n".to_owned(),
                "bad-id",
            ),
            ("include = [\"/etc/passwd\"]\n".to_owned(), "unknown-key"),
            ("shadow = \"x\"\n".to_owned(), "unknown-key"),
            (
                "[tier.standard]\nextend = \"open\"\n".to_owned(),
                "unknown-key",
            ),
            ("[upstream.x]\n".to_owned(), "unknown-key"),
            ("[group.x]\n".to_owned(), "unknown-key"),
            ("[[exception]]\n".to_owned(), "unknown-key"),
            ("tier = [\"open\"]\n".to_owned(), "unknown-key"),
            ("tier = \n".to_owned(), "syntax"),
            (
                format!("{rule}verdict = \"deny\"\n").repeat(101),
                "too-many",
            ),
        ] {
            assert_eq!(read(&text).unwrap_err(), [code], "{text}");
        }
    }
}
