//! `tidegate replay`: judges recorded flows again under a policy.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::app::Loaded;
use crate::config::Config;
use crate::diag;
use crate::policy::Policy;
use crate::replay::{Change, Group, Judge, Judging, Report};

use super::{Answer, load, print, records};

/// Maximum number of printed groups of changes; the JSON has all.
const MAX_GROUPS: usize = 50;

#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    /// Files of records, in any order, compressed with gzip or not; `-` is standard input [default:
    /// the log of the configuration, and its rotated files].
    #[arg(value_name = "RECORDS")]
    files: Vec<PathBuf>,
    /// The configuration file whose policy decides [default: that of --config].
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The configuration [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml, the built-in policy].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// Success, if no verdict changes.
    pub(super) fn perform(self) -> Answer {
        match self.replay() {
            Ok(answer) => answer,
            Err((answer, message)) => {
                print::err(&format!("tidegate: {message}\n"));
                answer
            }
        }
    }

    fn replay(&self) -> Result<Answer, (Answer, String)> {
        let files = match self.files.as_slice() {
            [] => {
                let (config, _) = self.load(self.config.as_deref())?;
                records::log_files(&config.record)?
            }
            files => files.to_vec(),
        };
        let (config, policy) = self.load(self.policy.as_deref().or(self.config.as_deref()))?;
        let judge = Judge::new(&policy, &config.digest);
        let mut report = Report::default();
        add_files(&mut report, &judge, &files)?;
        if self.json {
            let mut value = report.as_json();
            if let Some(object) = value.as_object_mut() {
                object.insert("files".to_owned(), json!(files.len()));
                object.insert("policy".to_owned(), json!(config.digest));
            }
            print::json(&value);
        } else {
            print::out(&text(&report, files.len(), &config.digest));
        }
        Ok(Answer::whether(report.changed == 0))
    }

    fn load(&self, named: Option<&Path>) -> Result<(Config, Policy), (Answer, String)> {
        let found = load::find(named, self.json);
        let unloaded = || (Answer::Wrong, "the configuration does not load".to_owned());
        Loaded::whole(&found).ok_or_else(unloaded)
    }
}

/// Judges the flows of some files. Fails if one cannot be read, or if none has records.
pub(super) fn add_files(
    report: &mut Report,
    judge: &impl Judging,
    files: &[PathBuf],
) -> Result<(), (Answer, String)> {
    for file in files {
        let read = report.add_file(judge, file);
        read.map_err(|error| (Answer::Failed, format!("{}: {error}", file.display())))?;
    }
    if report.flows == 0 && report.others == 0 && report.earlier == 0 {
        let what = "these files hold no line of a decision log";
        return Err((Answer::Wrong, what.to_owned()));
    }
    Ok(())
}

/// Formats the report for people.
fn text(report: &Report, files: usize, digest: &str) -> String {
    let mut rows = summary(report, files);
    let policy = digest.chars().take(12).collect();
    rows.insert(1, ("policy", policy));
    format!("{}{}", rows_text(&rows), groups_text(report, MAX_GROUPS))
}

/// Writes a line for each row.
pub(super) fn rows_text(rows: &[(&'static str, String)]) -> String {
    let line = |(label, rest): &(&str, String)| {
        format!("{label:13}{}\n", print::clean(rest, print::WIDTH - 13))
    };
    rows.iter().map(line).collect()
}

/// Returns the results of all flows, in numbers.
pub(super) fn summary(report: &Report, files: usize) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let mut row = |label, rest: String| rows.push((label, rest));
    let span = report.times.as_ref();
    let span = span.map(|(first, last)| format!(", {first} to {last}"));
    let files = counted(files, "file", "files");
    let span = span.unwrap_or_default();
    row(
        "replay",
        format!("{} of {files}{span}", flows(report.flows)),
    );
    if report.earlier > 0 {
        row(
            "earlier",
            format!("{} lines before {}", report.earlier, report.since),
        );
    }
    let other = match report.by_other_rule {
        0 => String::new(),
        count => format!("   {count} by another rule or for another reason"),
    };
    row("same", format!("{}{other}", report.same));
    row("changed", report.changed.to_string());
    for (why, count) in &report.undetermined {
        row("undetermined", format!("{count}   {}", why.sentence()));
    }
    for (why, count) in &report.not_judged {
        row("not judged", format!("{count}   {}", why.sentence()));
    }
    if report.unreadable > 0 {
        let lines = format!("{} lines that are no records", report.unreadable);
        row("passed over", lines);
    }
    if report.own.changed > 0 {
        let why = "of these name this very policy: their lines are not as the gate wrote them \
                   (tidegate log verify)";
        row("altered", format!("{} {why}", report.own.changed));
    }
    rows
}

/// Returns the groups of changed flows, up to a maximum.
pub(super) fn groups_text(report: &Report, most: usize) -> String {
    let mut text = String::new();
    let groups = report.groups();
    for (change, group) in groups.iter().take(most) {
        text.push('\n');
        text.push_str(&group_text(change, group));
    }
    let rest = groups.len().saturating_sub(most);
    if rest > 0 || report.more > 0 {
        let more = format!(
            "\nand {rest} more groups (--json has them), {} besides\n",
            flows(report.more)
        );
        text.push_str(&more);
    }
    text
}

/// Formats `allow → deny`, and whether TLS is terminated.
pub(super) fn effects(change: &Change) -> String {
    let inspected = match (change.was.inspected, change.now.inspected) {
        (Some(false), Some(true)) => ", TLS is ended now",
        (Some(true), Some(false)) => ", TLS is not ended any more",
        _ => "",
    };
    format!("{} → {}{inspected}", change.was.text(), change.now.text())
}

/// Formats the rule, its location and the reason.
pub(super) fn by([rule, location, reason]: &[String; 3]) -> String {
    format!("{rule}  {location}  ({reason})")
}

/// Formats the number of sessions and the repositories.
pub(super) fn whose(group: &Group) -> String {
    let sessions = match (group.sessions(), group.has_more_sessions()) {
        (0, _) => "no session".to_owned(),
        (count, true) => format!("{count} sessions and more"),
        (count, false) => counted(count, "session", "sessions"),
    };
    let named = group.repositories.iter();
    let mut repositories: Vec<String> = named
        .map(|(name, count)| format!("{name} ({count})"))
        .collect();
    if group.elsewhere > 0 {
        repositories.push(format!("elsewhere ({})", group.elsewhere));
    }
    format!("{sessions} · {}", repositories.join(", "))
}

/// Returns the command that explains the first flow of a group.
pub(super) fn explains(group: &Group) -> String {
    format!("tidegate explain {}", diag::shell_word(&group.first))
}

fn group_text(change: &Change, group: &Group) -> String {
    let head = format!(
        "{}   {}   {}",
        effects(change),
        flows(group.flows),
        change.target
    );
    let lines = [
        format!("now by  {}", by(&change.now_by)),
        format!("was by  {}", by(&change.was_by)),
        format!("of      {}", whose(group)),
        format!("first   {}  {}", group.times.0, explains(group)),
    ];
    let mut text = format!("{}\n", print::clean(&head, print::WIDTH));
    for line in lines {
        let _ = writeln!(text, "   {}", print::clean(&line, print::WIDTH - 3));
    }
    text
}

pub(super) fn flows(count: u64) -> String {
    if count == 1 {
        "1 flow".to_owned()
    } else {
        format!("{count} flows")
    }
}

fn counted(count: usize, one: &str, several: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {several}")
    }
}
