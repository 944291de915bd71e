//! `tidegate promote`: proposes, from records, the smallest change after which an observing tier or
//! rule can be enforced.

mod label;
mod proposal;
mod readiness;
mod render;
mod rule;
mod trials;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::app::Loaded;
use crate::config::Config;
use crate::diag::{self, Diagnostic};
use crate::policy::{Change, Policy, difference};
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

/// Removes each label with which a flow passes that the proposed rules alone refuse: a label is made
/// from names that callers choose. The label of a host has no effect on other hosts, so each label is
/// compared alone.
fn drop_wide_labels(
    proposal: &mut Proposal<'_>,
    compile: &impl Fn(&str) -> Result<(Config, Policy), Vec<Diagnostic>>,
) {
    let rules = proposal.rules_text();
    let without = compile(&rules);
    proposal.labels.retain(|label| {
        let with = compile(&format!("{}\n{rules}", label.text()));
        let (Ok((_, without)), Ok((_, with))) = (&without, &with) else {
            return false;
        };
        let found = difference(without, with);
        let passes_more = |it: &Change| it.after.verdict < it.before.verdict;
        found.not_compared.is_empty() && !found.changes.iter().any(passes_more)
    });
}

/// Returns a host that the proposal allows without naming it.
fn allowed_besides(proposal: &Proposal<'_>, before: &Policy, after: &Policy) -> Option<String> {
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for rule in &proposal.rules {
        named.extend(rule.hosts());
    }
    let found = difference(before, after);
    let widens = found.changes.iter();
    let mut widens = widens.filter(|it| it.after.verdict < it.before.verdict);
    widens.find_map(|change| {
        let mut hosts = change.hosts.iter();
        let other = hosts.find(|host| !named.contains(host.as_str())).cloned();
        other.or_else(|| {
            change
                .other_hosts
                .then(|| "hosts that no rule names".to_owned())
        })
    })
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
        let compile = |tables: &str| edit::compile(&path, &with(tables));
        if compile(&proposal.text()).is_err() {
            proposal.retain(|tables| compile(tables).is_ok());
        }
        drop_wide_labels(&mut proposal, &compile);
        let after = with(&proposal.text());
        let (_, promoted) = compile(&proposal.text()).map_err(|findings| {
            print::err(&diag::render(&findings, print::colour()));
            let message = "the proposal does not hold as it is: nothing was written";
            (Answer::Failed, message.to_owned())
        })?;
        if let Some(host) = allowed_besides(&proposal, &policy, &promoted) {
            let message = format!("the proposal would also allow {host}: nothing was written");
            return Err((Answer::Failed, message));
        }
        if self.json {
            print::json(&render::as_json(&needs, &proposal, &config, &policy));
        } else {
            print::out(&render::text(
                &needs,
                &proposal,
                &config,
                &policy,
                [&before, &after],
            ));
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
