//! `tidegate test`: runs the examples of the rules and the trials, one line for each.

pub(super) mod add;
pub(super) mod redteam;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::Loaded;
use crate::diag::Diagnostic;
use crate::policy::{Expected, TrialResult, run_trials};

use super::{Answer, check, load, print};

/// The indentation of a second line.
const INDENT: &str = "      ";
/// The code of findings for failed trials.
const FAILED: &str = "trial-failed";

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Test {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The configuration [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml, the built-in policy].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration, as for other commands.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Play the red team: known attacks on coding agents, in every tier.
    #[arg(long)]
    redteam: bool,
    /// Play the red team as a member of this group; may be repeated.
    #[arg(long, requires = "redteam")]
    group: Vec<Arc<str>>,
    /// Play the red team as a caller with this repository (its clone URL) [default: that of each
    /// scenario].
    #[arg(long, requires = "redteam")]
    repo: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a trial from a recorded flow, run it, and write it.
    Add(Box<add::Add>),
}

impl Test {
    /// A policy with failed trials does not compile, so the failures are known only from its
    /// findings.
    pub(super) fn perform(mut self) -> Answer {
        if let Some(Verb::Add(add)) = self.verb.take() {
            return add.perform();
        }
        let named = self.config.as_deref().or(self.file.as_deref());
        let loaded = Loaded::discovered(&load::find(named, self.json));
        if self.redteam {
            return redteam::perform(&self, &loaded);
        }
        let results = loaded.policy.as_ref().map(run_trials).unwrap_or_default();
        let failed: Vec<&Diagnostic> = loaded
            .errors()
            .filter(|finding| finding.code == FAILED)
            .collect();
        let answer = match loaded.errors().count() {
            0 => Answer::whether(results.iter().all(|result| result.ok)),
            errors if errors == failed.len() => Answer::No,
            _ => Answer::Wrong,
        };
        if self.json {
            print::json(&as_json(&results, &loaded));
        } else {
            loaded.show();
            print::out(&lines(&results, failed.len(), answer));
        }
        answer
    }
}

fn lines(results: &[TrialResult], failed: usize, answer: Answer) -> String {
    let mut text: String = results.iter().map(line).collect();
    let passed = results.iter().filter(|result| result.ok).count();
    let failed = results.len() - passed + failed;
    let end = match answer {
        Answer::Wrong => "not run: the configuration is wrong\n".to_owned(),
        _ if results.is_empty() && failed > 0 => format!("{failed} failed\n"),
        _ => format!("{passed} passed, {failed} failed\n"),
    };
    text.push_str(&end);
    text
}

fn line(result: &TrialResult) -> String {
    let word = if result.ok { "ok  " } else { "FAIL" };
    let what = format!(
        "{word}  {}: {} {}",
        result.name,
        result.entry,
        expected(&result.expected)
    );
    let why = format!(
        "({}: {} by {})",
        result.caller, result.got, result.rule.name
    );
    if what.chars().count() + 2 + why.chars().count() <= print::WIDTH {
        return format!(
            "{}  {}\n",
            print::clean(&what, print::WIDTH),
            print::clean(&why, print::WIDTH)
        );
    }
    let room = print::WIDTH - INDENT.len();
    format!(
        "{}\n{INDENT}{}\n",
        print::clean(&what, print::WIDTH),
        print::clean(&why, room)
    )
}

/// Formats the expectation, as the rest of a sentence that begins with the flow.
fn expected(expected: &Expected) -> String {
    match expected {
        Expected::NotAllowed => "is not allowed by it".to_owned(),
        verdict @ Expected::Verdict(..) => format!("is {verdict}"),
    }
}

fn as_json(results: &[TrialResult], loaded: &Loaded) -> Value {
    let result = |result: &TrialResult| {
        json!({
            "name": result.name,
            "flow": result.entry,
            "place": result.place.to_string(),
            "caller": result.caller,
            "expected": result.expected.to_string(),
            "got": result.got,
            "reason": result.reason,
            "rule": result.rule.name,
            "location": result.rule.location,
            "ok": result.ok,
        })
    };
    json!({
        "ok": loaded.policy.is_some() && results.iter().all(|result| result.ok),
        "results": results.iter().map(result).collect::<Vec<_>>(),
        "findings": loaded.findings.iter().map(check::finding).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIERS: &str = "[tiers]\norder = [\"only\"]\n[tier.only]\ndefault = \"deny\"\n";

    fn perform(rest: &str) -> Answer {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidegate.toml");
        std::fs::write(&file, format!("{TIERS}{rest}")).unwrap();
        Test {
            verb: None,
            file: Some(file),
            config: None,
            redteam: false,
            group: Vec::new(),
            repo: None,
            json: false,
        }
        .perform()
    }

    #[test]
    fn trials_that_hold_trials_that_fail_and_files_that_are_wrong_differ() {
        let trial = "[[trial]]\nname = \"paste\"\nfrom.tiers = [\"only\"]\n";
        assert_eq!(
            perform(&format!("{trial}denies = [\"pastebin.com:443\"]\n")),
            Answer::Yes
        );
        assert_eq!(
            perform(&format!("{trial}allows = [\"pastebin.com:443\"]\n")),
            Answer::No
        );
        assert_eq!(perform(&format!("{trial}nonsense = 1\n")), Answer::Wrong);
    }

    #[test]
    fn every_trial_says_what_was_expected_and_what_decided_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidegate.toml");
        let long = "l".repeat(30);
        let rule = format!(
            "[[rule]]\nid = \"{long}\"\nverdict = \"allow\"\nto.hosts = [\"docs.example\"]\n\
             allows = [\"docs.example:443\"]\ndenies = [\"https://docs.example.other.example/\"]\n"
        );
        std::fs::write(&file, format!("{TIERS}{rule}")).unwrap();
        let results = run_trials(
            &Loaded::new(Some(&file), &crate::policy::built_in())
                .policy
                .unwrap(),
        );
        let text = lines(&results, 0, Answer::Yes);
        for part in [
            "docs.example:443 is allowed\n      (tier only: allow by l",
            "is not allowed by it\n      (tier only: deny by tier.only.default)\n",
            "2 passed, 0 failed\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= print::WIDTH),
            "{text}"
        );
    }
}
