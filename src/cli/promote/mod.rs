//! `tidegate promote`: proposes, from records, the smallest change after which an observing tier or
//! rule can be enforced.

mod proposal;
mod readiness;
mod render;

use std::path::PathBuf;

use crate::app::Loaded;
use crate::config::Config;
use crate::diag;
use crate::policy::Policy;
use crate::replay::{Line, Needs, Scope, each_line};

use super::{Answer, edit, load, print, records};

use proposal::Proposal;

#[derive(Debug, clap::Args)]
pub(super) struct Promote {
    /// Files of records, in any order, compressed with gzip or not; `-` is standard input [default:
    /// the log of the configuration, and its rotated files].
    #[arg(value_name = "RECORDS")]
    files: Vec<PathBuf>,
    /// Only flows of callers in this tier.
    #[arg(long)]
    tier: Option<String>,
    /// Only flows that this rule, list or default decided.
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// Include refused flows, besides observed ones.
    #[arg(long)]
    refused: bool,
    /// Add the rules to the configuration file.
    #[arg(long)]
    write: bool,
    /// The configuration [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Promote {
    pub(super) fn perform(self) -> Answer {
        match self.promote() {
            Ok(answer) => answer,
            Err((answer, message)) => {
                print::err(&format!("tidegate: {message}\n"));
                answer
            }
        }
    }

    fn promote(&self) -> Result<Answer, (Answer, String)> {
        let wrong = |message: &str| (Answer::Wrong, message.to_owned());
        let found = load::find(self.config.as_deref(), self.json);
        let (config, policy) =
            Loaded::whole(&found).ok_or_else(|| wrong("the configuration does not load"))?;
        let files = match self.files.as_slice() {
            [] => records::log_files(&config.record)?,
            files => files.to_vec(),
        };
        let needs = self.read(&files, &policy)?;
        if needs.flows == 0 {
            return Err(wrong("these files hold no decision on a flow in scope"));
        }
        let catalogue = crate::policy::built_in();
        let mut proposal = Proposal::of(&needs, &config, &policy, &catalogue);
        let first = config.sources.first();
        let before = first.map(|source| source.text.clone()).unwrap_or_default();
        let path = config
            .path
            .clone()
            .unwrap_or_else(|| "tidegate.toml".into());
        let with = |rules: &str| match rules {
            "" => before.clone(),
            rules => edit::at_end(&before, rules),
        };
        let compile = |rules: &str| edit::compile(&path, &with(rules));
        if compile(&proposal.text()).is_err() {
            proposal.retain(|rule| compile(rule).is_ok());
        }
        let after = with(&proposal.text());
        edit::compile(&path, &after).map_err(|findings| {
            print::err(&diag::render(&findings, print::colour()));
            let message = "the proposal does not hold as it is: nothing was written";
            (Answer::Failed, message.to_owned())
        })?;
        if self.json {
            print::json(&render::as_json(&needs, &proposal, &config));
        } else {
            print::out(&render::text(&needs, &proposal, &config, &before, &after));
        }
        self.write(&config, &before, &after)
    }

    fn read(&self, files: &[PathBuf], policy: &Policy) -> Result<Needs, (Answer, String)> {
        let scope = Scope {
            tier: self.tier.clone(),
            rule: self.rule.clone(),
            refused: self.refused,
        };
        let mut needs = Needs::default();
        for file in files {
            let read = each_line(file, |line| match line {
                Line::Whole(line) => needs.add_line(policy, &scope, line),
                Line::TooLong => needs.unreadable += 1,
            });
            read.map_err(|error| (Answer::Failed, format!("{}: {error}", file.display())))?;
        }
        Ok(needs)
    }

    fn write(
        &self,
        config: &Config,
        before: &str,
        after: &str,
    ) -> Result<Answer, (Answer, String)> {
        if !self.write || before == after {
            return Ok(Answer::Yes);
        }
        let Some(path) = &config.path else {
            let message = "there is no configuration file to write to: name one with --config";
            return Err((Answer::Wrong, message.to_owned()));
        };
        edit::replace(path, before, after).map_err(|error| (Answer::Failed, error))?;
        if !self.json {
            let done = format!(
                "tidegate: written to {}; read it before you load it\n",
                path.display()
            );
            print::err(&done);
        }
        Ok(Answer::Yes)
    }
}
