//! `tidegate test add`: makes a trial of the policy from a recorded flow.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::app::Loaded;
use crate::config::Config;
use crate::diag;
use crate::policy::{Facts, Policy, Verdict, decide_written, run_trials};
use crate::replay::{Flow, Judge, Judged, Outcome, Recorded, Undetermined};

use super::super::{Answer, edit, load, print, records};

const NO_PATH: &str = "the record does not say which path, and a trial of this request needs one: \
    `[record] paths = true` writes it";

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The flow: its id, or the beginning or end of its id, as in refusals and records.
    #[arg(long, value_name = "FLOW")]
    from: String,
    /// The verdict that the policy has to reach.
    #[arg(long)]
    expect: Expect,
    /// The name of the trial [default: derived from the flow].
    #[arg(long)]
    name: Option<String>,
    /// Search for the flow in this file of records, and in its rotated files [default: the log of
    /// the configuration].
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// The configuration, which gets the trial [default: `$TIDEGATE_CONFIG`,
    /// /etc/tidegate/tidegate.toml, ~/.config/tidegate/tidegate.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only print the trial.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Expect {
    Allow,
    Ask,
    Deny,
}

/// A trial made from a recorded flow.
struct Made {
    /// The name of the trial.
    name: String,
    /// The flow in the notation of trials.
    entry: String,
    /// The table in TOML.
    text: String,
    /// The policy's verdict now.
    now: Verdict,
    /// The rule that decides.
    rule: Arc<str>,
    /// The location of that rule.
    location: Arc<str>,
}

impl Expect {
    fn verdict(self) -> Verdict {
        match self {
            Self::Allow => Verdict::Allow,
            Self::Ask => Verdict::Ask,
            Self::Deny => Verdict::Deny,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Allow => "allows",
            Self::Ask => "asks",
            Self::Deny => "denies",
        }
    }
}

impl Add {
    pub(super) fn perform(self) -> Answer {
        match self.add() {
            Ok(answer) => answer,
            Err((answer, message)) => {
                print::err(&format!("tidegate: {message}\n"));
                answer
            }
        }
    }

    fn add(&self) -> Result<Answer, (Answer, String)> {
        let wrong = |message: String| (Answer::Wrong, message);
        let found = load::find(self.config.as_deref(), self.json);
        let (config, policy) = Loaded::whole(&found)
            .ok_or_else(|| wrong("the configuration does not load".to_owned()))?;
        let Some(path) = &config.path else {
            let message = "there is no configuration file to write to: name one with --config";
            return Err(wrong(message.to_owned()));
        };
        let line = self.line(&config)?;
        let line = Recorded::of(&line)
            .map_err(|error| wrong(format!("the flow's line is no record: {error}")))?;
        let made = self.make(&line, &policy).map_err(wrong)?;
        if made.now != self.expect.verdict() {
            print::out(&made.text);
            let message = format!(
                "not written: the policy does not hold to it yet: {} by {} {}; a policy whose \
                 trials fail does not load, so change the rule first, and add the trial with it",
                made.now, made.rule, made.location
            );
            return Err((Answer::No, message));
        }
        let place = place(&config, &made.location);
        let (file, line) = place.unwrap_or_else(|| (path.clone(), None));
        let source = config.sources.iter().find(|source| source.path == file);
        let Some(before) = source.map(|source| &*source.text) else {
            return Err(wrong(format!("{}: not read", file.display())));
        };
        let after = edit::add_behind(before, line, &made.text);
        try_out(&config, &made)?;
        if !self.dry_run {
            edit::replace(&file, before, &after).map_err(|error| (Answer::Failed, error))?;
            let reload = Loaded::new(Some(path), &crate::policy::built_in());
            if reload.policy.is_none() {
                reload.show();
                let restored = edit::replace(&file, &after, before);
                restored.map_err(|error| (Answer::Failed, error))?;
                return Err((Answer::Failed, "not written: it does not load".to_owned()));
            }
        }
        if self.json {
            print::json(&as_json(&made, &file, self.dry_run));
        } else {
            let done = if self.dry_run {
                "would go to"
            } else {
                "written to"
            };
            print::out(&made.text);
            print::err(&format!("tidegate: {done} {}\n", file.display()));
        }
        Ok(Answer::Yes)
    }

    /// Returns the line with the facts of the flow.
    fn line(&self, config: &Config) -> Result<Value, (Answer, String)> {
        let mut record = config.record.clone();
        if let Some(file) = &self.records {
            record.file = Some(file.clone());
        }
        let flow = self.from.to_ascii_lowercase();
        let lines = records::find(&record, &flow).map_err(|missing| {
            (
                Answer::Wrong,
                format!("{}: {missing}", print::clean(&flow, 40)),
            )
        })?;
        let line = lines.decision.ok_or_else(|| {
            let message = "the records have no `decision` line of it".to_owned();
            (Answer::Wrong, message)
        })?;
        Ok(Value::Object(line))
    }

    fn make(&self, line: &Recorded<'_>, policy: &Policy) -> Result<Made, String> {
        let now = decided(line, policy)?;
        let flow = Flow::of(line, policy).ok_or("the record names no destination")?;
        let entry = flow.written(line, policy).ok_or(NO_PATH)?;
        let tier = policy
            .tier_name(crate::replay::who(line, policy).tier)
            .clone();
        let caller = Caller::of(line, policy, &entry, &tier, &now)?;
        let name = self.name.clone().unwrap_or_else(|| {
            let expect = self.expect.verdict();
            format!("{expect} {entry}, as in flow {}", &*line.flow)
        });
        let mut text = format!(
            "[[trial]]\nname = {}\n",
            edit::quoted(&print::clean(&name, 200))
        );
        let _ = writeln!(text, "from.tiers = {}", edit::list([&*tier]));
        for (key, value) in [
            ("repositories", &caller.repository),
            ("groups", &caller.group),
            ("subjects", &caller.subject),
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "from.{key} = {}", edit::list([&**value]));
            }
        }
        let _ = writeln!(text, "{} = {}", self.expect.key(), edit::list([&entry]));
        Ok(Made {
            name: print::clean(&name, 200),
            entry,
            text,
            now: now.effect.enforced(),
            rule: now.rule,
            location: now.location,
        })
    }
}

/// Runs the trial before anything is written.
fn try_out(config: &Config, made: &Made) -> Result<(), (Answer, String)> {
    let path = config.path.clone().unwrap_or_default();
    let first = config.sources.first().map(|source| &*source.text);
    let text = edit::at_end(first.unwrap_or_default(), &made.text);
    let (_, policy) = edit::compile(&path, &text).map_err(|findings| {
        print::err(&diag::render(&findings, print::colour()));
        (
            Answer::No,
            "not written: the trial does not hold".to_owned(),
        )
    })?;
    let results = run_trials(&policy);
    let mut own = results.iter().filter(|result| *result.name == *made.name);
    if own.any(|result| *result.entry == *made.entry && result.ok) {
        return Ok(());
    }
    let message = "not written: the trial was not run".to_owned();
    Err((Answer::Failed, message))
}

/// The caller facts of a trial: the fewest that lead to the same decision.
#[derive(Default)]
struct Caller {
    repository: Option<Arc<str>>,
    group: Option<Arc<str>>,
    subject: Option<Arc<str>>,
}

impl Caller {
    /// Returns the repository if evidence shows it; a group and a user only if the decision depends
    /// on them.
    fn of(
        line: &Recorded<'_>,
        policy: &Policy,
        entry: &str,
        tier: &str,
        now: &Outcome,
    ) -> Result<Self, String> {
        let verified = if line.is_repository_verified() {
            line.repository.as_deref()
        } else {
            line.repository_verified.as_deref()
        };
        let repository: Option<Arc<str>> = verified.map(Arc::from);
        let user: Option<Arc<str>> = line.user.as_deref().map(Arc::from);
        let named = line.groups.iter().map(|group| Some(Arc::from(&**group)));
        let groups: Vec<Option<Arc<str>>> = std::iter::once(None).chain(named).collect();
        let mut last = String::new();
        for subject in [None, user] {
            for group in &groups {
                let own: Vec<Arc<str>> = group.iter().cloned().collect();
                let facts = Facts {
                    subject: subject.as_deref().unwrap_or_default(),
                    groups: &own,
                    repository: repository.as_ref(),
                    ..Facts::default()
                };
                let decision = decide_written(policy, entry, &facts, tier)?;
                let verdict = decision.would.unwrap_or(decision.verdict);
                if verdict == now.effect.enforced() && decision.rule.name == now.rule {
                    return Ok(Self {
                        repository,
                        group: group.clone(),
                        subject,
                    });
                }
                last = format!("{verdict} by {}", decision.rule.name);
            }
        }
        Err(format!(
            "a trial cannot describe this flow: as `{entry}` it is {last}, as recorded {} by {}",
            now.effect.enforced(),
            now.rule
        ))
    }
}

/// Returns the policy's decision about a recorded flow.
fn decided(line: &Recorded<'_>, policy: &Policy) -> Result<Outcome, String> {
    match Judge::new(policy, "").weigh(line) {
        Ok((_, [now, _])) => Ok(now),
        Err(Judged::Undetermined(Undetermined::Path)) => Err(NO_PATH.to_owned()),
        Err(Judged::Undetermined(why)) => Err(why.sentence().to_owned()),
        Err(Judged::NotJudged(why)) => Err(why.sentence().to_owned()),
        Err(Judged::Same { .. } | Judged::Changed { .. }) => Err("not judged".to_owned()),
    }
}

/// Returns the file and line of a rule, if it is in one of the files.
fn place(config: &Config, location: &str) -> Option<(PathBuf, Option<usize>)> {
    let (file, line) = location.rsplit_once(':')?;
    let source = config
        .sources
        .iter()
        .find(|it| it.path.display().to_string() == file)?;
    Some((source.path.clone(), line.parse().ok()))
}

fn as_json(made: &Made, file: &std::path::Path, dry_run: bool) -> Value {
    json!({
        "name": made.name,
        "flow": made.entry,
        "verdict": made.now,
        "rule": made.rule,
        "location": made.location,
        "file": file,
        "written": !dry_run,
        "trial": made.text,
    })
}
