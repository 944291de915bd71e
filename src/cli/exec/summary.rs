//! The summary at the end: allowed, approval-required and refused flows, and the next commands.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::diag::shell_word;
use crate::gate::Started;
use crate::record::{Counted, Counts, Kind, Outcome};

use super::super::print;

/// Maximum length of the line with repository, tier and session, in characters.
const MAX_WHO: usize = 400;
/// Maximum number of lines of one group.
const LINES: usize = 20;

/// The facts at the end of a command.
pub(super) struct End<'a> {
    pub(super) counts: Counts,
    pub(super) session: &'a Started,
    pub(super) record: Option<PathBuf>,
    pub(super) config: Option<&'a Path>,
    /// Whether the rules refused nothing (`--observe`).
    pub(super) observed: bool,
}

/// The outcomes of flows, in the order of the summary.
const GROUPS: [&str; 5] = ["allowed", "observed", "asked", "refused", "failed"];

fn group(kind: &Kind) -> &'static str {
    match (kind.outcome, kind.would) {
        (Outcome::Allow, None) => "allowed",
        (Outcome::Allow, Some(_)) => "observed",
        (Outcome::Ask, _) => "asked",
        (Outcome::Deny, _) => "refused",
        (Outcome::Error, _) => "failed",
    }
}

impl End<'_> {
    /// Formats the summary as text. Paths and commands are not truncated, so that they can be
    /// copied.
    pub(super) fn text(&self) -> String {
        let mut text = if self.counts.kinds.is_empty() {
            self.quiet()
        } else {
            self.flows()
        };
        if self.observed {
            text.push_str("tidegate: OBSERVED: the rules refused nothing\n");
        }
        text
    }

    /// Formats one line, if there were no flows.
    fn quiet(&self) -> String {
        let policy = match self.config {
            Some(path) => format!("policy {}", path.display()),
            None => "built-in policy".to_owned(),
        };
        let tier = &self.session.tier;
        format!(
            "tidegate: no flows; {policy}, tier {tier}; {}\n",
            self.records()
        )
    }

    fn records(&self) -> String {
        match &self.record {
            Some(record) => format!("records in {}", record.display()),
            None => "records on standard output".to_owned(),
        }
    }

    fn flows(&self) -> String {
        let mut text = String::new();
        let repository = self.session.repository.as_deref();
        let who = format!(
            "tidegate: {}{}, tier {}, session {}",
            repository.unwrap_or("no repository"),
            if self.is_asserted() {
                " (asserted)"
            } else {
                ""
            },
            self.session.tier,
            self.session.session
        );
        // Not truncated, so that the session can be copied.
        let _ = writeln!(text, "{}", print::clean(&who, MAX_WHO));
        for name in GROUPS {
            let of = self.of(name);
            for (kind, counted) in of.iter().take(LINES) {
                line(&mut text, &row(name, kind, counted.count));
            }
            if of.len() > LINES {
                line(&mut text, &format!("  {name:9}  {} more", of.len() - LINES));
            }
        }
        if self.counts.others > 0 {
            let others = self.counts.others;
            line(
                &mut text,
                &format!("  {others} more that are only on record"),
            );
        }
        let _ = writeln!(text, "tidegate: {}", self.records());
        if self.is_asserted() && !self.of("refused").is_empty() {
            line(
                &mut text,
                "tidegate: only .git names the repository, so it gives no looser tier; \
                 a [[workspace]] is evidence",
            );
        }
        if let Some(next) = self.next() {
            let _ = writeln!(text, "tidegate: next: {next}");
        }
        text
    }

    /// Formats the summary as JSON, in one line.
    pub(super) fn json(&self) -> String {
        let flows: Vec<Value> = GROUPS
            .into_iter()
            .flat_map(|name| self.of(name).into_iter().map(move |it| (name, it)))
            .map(|(name, (kind, counted))| {
                json!({
                    "outcome": name,
                    "count": counted.count,
                    "host": kind.host,
                    "port": kind.port,
                    "inside": kind.inside,
                    "category": kind.category,
                    "reason": kind.reason,
                })
            })
            .collect();
        let summary = json!({
            "session": self.session.session,
            "repository": self.session.repository,
            "repository_trust": self.session.repository_trust,
            "tier": self.session.tier,
            "policy": self.config,
            "observed": self.observed,
            "record": self.record,
            "flows": flows,
            "others": self.counts.others,
            "next": self.next(),
        });
        format!("{summary}\n")
    }

    /// Whether only the working copy names the repository.
    fn is_asserted(&self) -> bool {
        self.session.repository_trust == "asserted"
    }

    /// Returns the kinds of a group, the most frequent first.
    fn of(&self, name: &str) -> Vec<(&Kind, Counted)> {
        let kinds = self.counts.kinds.iter();
        let mut of: Vec<_> = kinds
            .filter(|(kind, _)| group(kind) == name)
            .map(|(kind, counted)| (kind, *counted))
            .collect();
        of.sort_by(|(one, more), (other, less)| {
            less.count.cmp(&more.count).then_with(|| one.cmp(other))
        });
        of
    }

    /// Returns the next command for the first flow that did not pass, or would not. For a CONNECT,
    /// host and port are enough; other flows are explained from the record.
    fn next(&self) -> Option<String> {
        let mut groups = ["refused", "asked", "observed"].into_iter();
        let (kind, counted) = groups.find_map(|name| {
            let mut of = self.of(name).into_iter();
            of.find(|(kind, _)| !kind.host.is_empty())
        })?;
        if !counted.is_connect && self.record.is_some() {
            let mut next = format!("tidegate explain {}", counted.first);
            self.add_config(&mut next);
            return Some(next);
        }
        let (scheme, usual) = if kind.plain {
            ("http", 80)
        } else {
            ("https", 443)
        };
        let port = match kind.port {
            port if port == usual => String::new(),
            port => format!(":{port}"),
        };
        let mut next = format!("tidegate explain {scheme}://{}{port}/", kind.host);
        self.add_config(&mut next);
        if self.is_asserted() {
            // If the repository were supposed as a caller's, it would determine the tier.
            let _ = write!(next, " --tier {}", shell_word(&self.session.tier));
        } else if let Some(repository) = &self.session.repository {
            let _ = write!(next, " --repo {}", shell_word(repository));
        }
        Some(next)
    }

    fn add_config(&self, command: &mut String) {
        if let Some(config) = self.config {
            let _ = write!(
                command,
                " --config {}",
                shell_word(&config.display().to_string())
            );
        }
    }
}

fn row(name: &str, kind: &Kind, count: u64) -> String {
    let target = match &*kind.host {
        "" => "(not understood)".to_owned(),
        host if kind.inside => format!("https://{host}:{}", kind.port),
        host => format!("{host}:{}", kind.port),
    };
    let category = kind.category.map_or("", |category| category.as_str());
    let reason = if name == "allowed" { "" } else { kind.reason };
    format!("  {name:9} {count:>5}  {target:44}  {category:17} {reason}")
}

fn line(text: &mut String, what: &str) {
    text.push_str(print::clean(what.trim_end(), print::WIDTH).trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {

    use crate::policy::{Category, Verdict};

    use super::*;

    fn kind(outcome: Outcome, would: Option<Verdict>, host: &str, reason: &'static str) -> Kind {
        Kind {
            outcome,
            would,
            host: host.into(),
            port: 443,
            plain: false,
            inside: false,
            category: Some(Category::PackageRegistry),
            reason,
        }
    }

    fn said(kinds: &[(Kind, u64)], config: Option<&Path>) -> String {
        said_of(kinds, config, "verified")
    }

    fn said_of(kinds: &[(Kind, u64)], config: Option<&Path>, trust: &'static str) -> String {
        let session = Started {
            session: "0195f3c2-7e1a-7bbb-8ccc-0123456789ab".into(),
            token: String::new(),
            expires: jiff::Timestamp::UNIX_EPOCH,
            tier: "standard".into(),
            repository: Some("github.com/acme/web".into()),
            trust: "verified",
            repository_trust: trust,
            repository_basis: Some("workspace"),
        };
        let counted = |(kind, count): &(Kind, u64)| {
            let counted = Counted {
                count: *count,
                first: uuid::Uuid::nil(),
                is_connect: !kind.inside,
            };
            (kind.clone(), counted)
        };
        let end = End {
            counts: Counts {
                kinds: kinds.iter().map(counted).collect(),
                others: 0,
            },
            session: &session,
            record: Some("/records.jsonl".into()),
            config,
            observed: false,
        };
        end.text()
    }

    #[test]
    fn what_only_the_working_copy_says_is_told_as_that() {
        let kinds = [(kind(Outcome::Deny, None, "b.example", "not_allowed"), 2)];
        let text = said_of(&kinds, None, "asserted");
        for part in [
            "github.com/acme/web (asserted), tier standard",
            "a [[workspace]] is evidence",
            "tidegate explain https://b.example/ --tier standard",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("--repo"), "{text}");
    }

    #[test]
    fn the_end_names_what_passed_and_what_to_type_next() {
        let kinds = [
            (kind(Outcome::Allow, None, "a.example", "allowed"), 12),
            (kind(Outcome::Deny, None, "b.example", "not_allowed"), 2),
        ];
        let text = said(&kinds, Some(Path::new("/my policy.toml")));
        let expected = "\
tidegate: github.com/acme/web, tier standard, session 0195f3c2-7e1a-7bbb-8ccc-0123456789ab
  allowed      12  a.example:443                                 package-registry
  refused       2  b.example:443                                 package-registry  not_allowed
tidegate: records in /records.jsonl
tidegate: next: tidegate explain https://b.example/ --config '/my policy.toml' \
--repo github.com/acme/web
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_request_inside_tls_is_told_from_its_tunnel() {
        let mut inside = kind(Outcome::Deny, None, "a.example", "action_denied");
        inside.inside = true;
        let tunnel = kind(Outcome::Allow, None, "a.example", "allowed");
        let text = said(&[(tunnel, 1), (inside, 1)], None);
        for part in [
            "allowed       1  a.example:443  ",
            "refused       1  https://a.example:443  ",
            "next: tidegate explain 00000000-0000-0000-0000-000000000000\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn a_command_that_asks_nothing_is_one_line_and_lines_stay_narrow() {
        assert_eq!(
            said(&[], None),
            "tidegate: no flows; built-in policy, tier standard; records in /records.jsonl\n"
        );
        let host = format!("{}.example", "x".repeat(200));
        let would = Some(Verdict::Deny);
        let text = said(
            &[(kind(Outcome::Allow, would, &host, "not_allowed"), 1)],
            None,
        );
        let wide = text.lines().filter(|line| line.chars().count() > 100);
        assert!(
            wide.into_iter().all(|line| line.contains("next: ")),
            "{text}"
        );
    }
}
