//! Findings about rules that decided no flow on record.

use std::collections::HashSet;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use crate::cli::Answer;
use crate::config::Config;
use crate::diag::Diagnostic;
use crate::replay::{Line, Recorded, each_line};

/// The age of a record that is read, at most.
const PERIOD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The flows on record in the period.
struct Seen<'c> {
    /// The rules that decided no flow so far.
    idle: HashSet<&'c str>,
    flows: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

/// Returns a finding for each allow and ask that decided no flow of these records. A deny without
/// flows may be intended.
///
/// # Errors
///
/// Returns `Err` if a file cannot be read, or if the files have no decision of the period.
pub(super) fn findings(
    files: &[PathBuf],
    config: &Config,
    now: Timestamp,
) -> Result<Vec<Diagnostic>, (Answer, String)> {
    let rules = &config.policy.rules;
    let ids = rules.iter().map(|rule| rule.value.id.get_ref().as_str());
    let mut seen = Seen {
        idle: ids.collect(),
        flows: 0,
        first: None,
        last: None,
    };
    let from = now - PERIOD;
    for file in files {
        let read = each_line(file, |line| {
            if let Line::Whole(line) = line {
                seen.add(line, from);
            }
        });
        read.map_err(|error| (Answer::Failed, format!("{}: {error}", file.display())))?;
    }
    let (Some(first), Some(last)) = (seen.first, seen.last) else {
        let message = "these files hold no decision of the last 30 days";
        return Err((Answer::Wrong, message.to_owned()));
    };
    let [first, last] = [first, last].map(|it| it.strftime("%Y-%m-%d"));
    let idle = rules.iter().filter(|rule| {
        let rule = &rule.value;
        rule.verdict.get_ref() != "deny" && seen.idle.contains(rule.id.get_ref().as_str())
    });
    let found = idle.map(|rule| {
        let id = &rule.value.id;
        let message = format!(
            "rule `{}` decided none of {} flows on record from {first} to {last}",
            id.get_ref(),
            seen.flows
        );
        Diagnostic::warning("unused-on-record", rule.at(id), message)
            .label("no flow needed it")
            .help("take it out, or say in its `reason` what will need it")
    });
    Ok(found.collect())
}

impl Seen<'_> {
    /// Adds a line, if the line decides a flow and is not older than `from`.
    fn add(&mut self, line: &[u8], from: Timestamp) {
        let Ok(line) = Recorded::read(line) else {
            return;
        };
        let ended = line.repeat_state.as_deref() == Some("ended");
        let flows = match (&*line.event, ended) {
            ("decision", _) => 1,
            ("refusals_repeated", true) => line.repeat_count,
            _ => return,
        };
        let Ok(at) = line.timestamp.parse::<Timestamp>() else {
            return;
        };
        if at < from {
            return;
        }
        self.flows = self.flows.saturating_add(flows);
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
        if let Some(rule) = &line.rule {
            self.idle.remove(&**rule);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const RULES: &str = "[[rule]]\nid = \"used\"\nverdict = \"allow\"\nto.hosts = [\"a.example.net\"]\n\
        [[rule]]\nid = \"idle\"\nverdict = \"allow\"\nto.hosts = [\"b.example.net\"]\n\
        [[rule]]\nid = \"guard\"\nverdict = \"deny\"\nto.hosts = [\"c.example.net\"]\n";

    fn line(rule: &str, day: &str) -> String {
        format!(
            "{{\"timestamp\":\"{day}T00:00:00.000000Z\",\"event.name\":\"decision\",\
             \"tidegate.flow.id\":\"1\",\"tidegate.verdict\":\"allow\",\
             \"security_rule.name\":\"{rule}\"}}\n"
        )
    }

    fn found(records: &str) -> Result<Vec<String>, (Answer, String)> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.jsonl");
        std::fs::write(&file, records).unwrap();
        let config = crate::config::load_text(Path::new("a.toml"), RULES)
            .0
            .unwrap();
        let now = "2026-11-30T00:00:00Z".parse().unwrap();
        let found = findings(&[file], &config, now)?;
        Ok(found.into_iter().map(|it| it.message).collect())
    }

    #[test]
    fn an_allow_that_decided_no_flow_of_the_period_is_found_and_a_deny_is_not() {
        let used = [line("used", "2026-11-20"), line("used", "2026-11-28")].concat();
        let old = line("idle", "2026-10-01");
        let message = "rule `idle` decided none of 2 flows on record from 2026-11-20 to 2026-11-28";
        assert_eq!(found(&format!("{old}{used}")).unwrap(), [message]);
        let recent = line("idle", "2026-11-02");
        assert_eq!(found(&format!("{recent}{used}")).unwrap(), [""; 0]);
        let (_, error) = found(&old).unwrap_err();
        assert!(error.contains("no decision of the last 30 days"), "{error}");
    }
}
