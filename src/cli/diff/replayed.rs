//! `--replay`: the changes for recorded flows.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config;
use crate::replay::{Judge, Pair, Report};

use super::super::{Answer, records, replay};
use super::render::{code, data};
use super::side::Side;

/// Maximum number of groups of flows in text; JSON has all.
const MAX_GROUPS: usize = 12;

/// The arguments of `--replay`.
#[derive(Debug, Default)]
struct Sources {
    /// The length of the period, until now.
    period: Option<SignedDuration>,
    files: Vec<PathBuf>,
}

/// The changes for recorded flows.
#[derive(Debug)]
pub(super) struct Replayed {
    report: Report,
    files: usize,
}

impl Sources {
    fn of(words: &[String]) -> Result<Self, String> {
        let mut sources = Self::default();
        for word in words {
            match config::parse_duration(word).filter(SignedDuration::is_positive) {
                Some(_) if sources.period.is_some() => {
                    return Err(format!("--replay {word}: there is a period already"));
                }
                Some(period) => sources.period = Some(period),
                None => sources.files.push(PathBuf::from(word)),
            }
        }
        Ok(sources)
    }

    /// Returns the beginning of the period.
    fn begin(&self) -> Option<Timestamp> {
        Clock::system().now().checked_sub(self.period?).ok()
    }

    /// Returns the named files, or the log of a policy with its rotated files.
    fn files(&self, log: Option<&Path>) -> Result<Vec<PathBuf>, (Answer, String)> {
        if !self.files.is_empty() {
            return Ok(self.files.clone());
        }
        let files = records::log_files_of(log)?;
        if files.is_empty() {
            let message = format!(
                "there is no log at {}, where the first policy writes records: name the files, \
                 with `--replay FILE`",
                log.unwrap_or(Path::new("")).display()
            );
            return Err((Answer::Wrong, message));
        }
        Ok(files)
    }
}

impl Replayed {
    /// Judges recorded flows under both policies. Without a named file, the flows are in the log of
    /// the first policy: the second policy is under review.
    pub(super) fn read(
        words: &[String],
        before: &Side,
        after: &Side,
    ) -> Result<Self, (Answer, String)> {
        let sources = Sources::of(words).map_err(|text| (Answer::Wrong, text))?;
        let files = sources.files(before.log.as_deref())?;
        let pair = Pair {
            before: Judge::new(&before.policy, &before.digest),
            after: Judge::new(&after.policy, &after.digest),
        };
        let mut report = sources.begin().map(Report::since).unwrap_or_default();
        replay::add_files(&mut report, &pair, &files)?;
        report.rename_places([&|place| before.rename(place), &|place| after.rename(place)]);
        Ok(Self {
            report,
            files: files.len(),
        })
    }

    pub(super) fn text(&self) -> String {
        let rows = replay::summary(&self.report, self.files);
        let groups = replay::groups_text(&self.report, MAX_GROUPS);
        format!("{}{groups}", replay::rows_text(&rows))
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = String::from("#### Flows on record\n\n");
        for (label, rest) in replay::summary(&self.report, self.files) {
            let _ = writeln!(text, "- {label} {}", code(&rest));
        }
        let groups = self.report.groups();
        if !groups.is_empty() {
            text.push_str(
                "\n| Change | Flows | To | Of | Was by | Now by | First |\n\
                 |---|---|---|---|---|---|---|\n",
            );
        }
        for (change, group) in groups.iter().take(MAX_GROUPS) {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                replay::effects(change),
                group.flows,
                code(&change.target),
                code(&replay::whose(group)),
                code(&replay::by(&change.was_by)),
                code(&replay::by(&change.now_by)),
                code(&replay::explains(group)),
            );
        }
        let hidden = groups.len().saturating_sub(MAX_GROUPS);
        if hidden > 0 || self.report.more > 0 {
            let _ = writeln!(
                text,
                "\n{hidden} more groups: `tidegate diff --json` shows them; {} besides.",
                replay::flows(self.report.more)
            );
        }
        text.push('\n');
        text
    }

    /// Writes commands of GitHub Actions: one for all flows, and one for each changed group.
    pub(super) fn github(&self) -> String {
        let summary = replay::summary(&self.report, self.files);
        let summary: Vec<String> = summary
            .iter()
            .map(|(label, rest)| format!("{label} {rest}"))
            .collect();
        let mut text = format!(
            "::notice title=tidegate replay::{}\n",
            data(&summary.join("; "))
        );
        for (change, group) in self.report.groups().iter().take(MAX_GROUPS) {
            let passes_more = change.now.verdict < change.was.verdict;
            let level = if passes_more { "warning" } else { "notice" };
            let message = format!(
                "{}  {}  {}; of {}; now by {}; {}",
                replay::effects(change),
                replay::flows(group.flows),
                change.target,
                replay::whose(group),
                replay::by(&change.now_by),
                replay::explains(group),
            );
            let _ = writeln!(text, "::{level} title=tidegate replay::{}", data(&message));
        }
        text
    }

    pub(super) fn as_json(&self) -> Value {
        let mut value = self.report.as_json();
        if let Some(object) = value.as_object_mut() {
            object.insert("files".to_owned(), json!(self.files));
            let since = Some(&self.report.since).filter(|since| !since.is_empty());
            object.insert("since".to_owned(), json!(since));
        }
        value
    }
}
