//! `tidegate replay`: recorded flows, judged again under a policy.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::app::Loaded;
use crate::config::Config;
use crate::policy::Policy;
use crate::replay::{Change, Group, Judge, Report};

use super::{Answer, load, print, records};

/// Groups of changes that are printed; all are in the JSON.
const MAX_GROUPS: usize = 50;

#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    /// Files of records, in any order, packed with gzip or not; `-` is standard input [default: the
    /// log of the configuration, and what it was rotated to].
    #[arg(value_name = "RECORDS")]
    files: Vec<PathBuf>,
    /// The policy that judges: a configuration file [default: the configuration].
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
    /// Yes where no verdict changes.
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
        for file in &files {
            let read = report.add_file(&judge, file);
            read.map_err(|error| (Answer::Failed, format!("{}: {error}", file.display())))?;
        }
        if report.flows == 0 && report.others == 0 {
            let what = "these files hold no line of a decision log";
            return Err((Answer::Wrong, what.to_owned()));
        }
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

/// The report for people.
pub(super) fn text(report: &Report, files: usize, digest: &str) -> String {
    let mut text = String::new();
    let mut line = |label: &str, rest: &str| {
        let _ = writeln!(text, "{label:13}{}", print::clean(rest, print::WIDTH - 13));
    };
    let span = report.times.as_ref();
    let span = span.map(|(first, last)| format!(", {first} to {last}"));
    let files = counted(files, "file", "files");
    let span = span.unwrap_or_default();
    line(
        "replay",
        &format!("{} of {files}{span}", flows(report.flows)),
    );
    line("policy", &digest.chars().take(12).collect::<String>());
    let other = match report.by_other_rule {
        0 => String::new(),
        count => format!("   {count} by another rule or for another reason"),
    };
    line("same", &format!("{}{other}", report.same));
    line("changed", &report.changed.to_string());
    for (why, count) in &report.undetermined {
        line("undetermined", &format!("{count}   {}", why.sentence()));
    }
    for (why, count) in &report.not_judged {
        line("not judged", &format!("{count}   {}", why.sentence()));
    }
    if report.unreadable > 0 {
        let lines = format!("{} lines that are no records", report.unreadable);
        line("passed over", &lines);
    }
    if report.own.changed > 0 {
        let why = "of these name this very policy: their lines are not as the gate wrote them \
                   (tidegate log verify)";
        line("altered", &format!("{} {why}", report.own.changed));
    }
    let groups = report.groups();
    for (change, group) in groups.iter().take(MAX_GROUPS) {
        text.push('\n');
        text.push_str(&group_text(change, group));
    }
    let rest = groups.len().saturating_sub(MAX_GROUPS);
    if rest > 0 || report.more > 0 {
        let more = format!(
            "\nand {rest} more groups (--json has them), {} besides\n",
            flows(report.more)
        );
        text.push_str(&more);
    }
    text
}

fn group_text(change: &Change, group: &Group) -> String {
    let inspected = match (change.was.inspected, change.now.inspected) {
        (Some(false), Some(true)) => ", TLS is ended now",
        (Some(true), Some(false)) => ", TLS is not ended any more",
        _ => "",
    };
    let head = format!(
        "{} → {}{inspected}   {}   {}",
        change.was.text(),
        change.now.text(),
        flows(group.flows),
        change.target
    );
    let by = |[rule, location, reason]: &[String; 3]| format!("{rule}  {location}  ({reason})");
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
    let lines = [
        format!("now by  {}", by(&change.now_by)),
        format!("was by  {}", by(&change.was_by)),
        format!("of      {sessions} · {}", repositories.join(", ")),
        format!(
            "first   {}  tidegate explain {}",
            group.times.0, group.first
        ),
    ];
    let mut text = format!("{}\n", print::clean(&head, print::WIDTH));
    for line in lines {
        let _ = writeln!(text, "   {}", print::clean(&line, print::WIDTH - 3));
    }
    text
}

fn flows(count: u64) -> String {
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
