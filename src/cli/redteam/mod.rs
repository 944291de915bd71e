//! `tidegate redteam run`: plays the red team with real clients through a gate of its own.
//!
//! The gate runs in this process with the given policy, on a free port of loopback. Each scenario
//! is played in each tier; the records and the requests that reached the origin give its result.
//! Every destination is one origin on loopback: the gate of this command cannot dial another address.

mod clients;
mod origin;
mod outcome;
mod package;
mod report;
mod repositories;
mod stage;

use std::path::PathBuf;
use std::sync::Arc;

use crate::app::Loaded;
use crate::policy::redteam::{self, Played, Player, Scenario};

use super::test::redteam::{player, scenarios};
use super::{Answer, load, print};

use outcome::Live;
use stage::Stage;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Redteam {
    /// Play known attacks with curl, git and npm through a gate with the policy, on loopback.
    Run(Run),
}

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The configuration [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml, the built-in policy].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration, as for other commands.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Play only in this tier; may be repeated.
    #[arg(long, value_name = "NAME")]
    tier: Vec<Arc<str>>,
    /// Play only this scenario; may be repeated.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<Arc<str>>,
    /// Play as a member of this group; may be repeated.
    #[arg(long)]
    group: Vec<Arc<str>>,
    /// Play as a caller with this repository (its clone URL) [default: that of each scenario].
    #[arg(long)]
    repo: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Redteam {
    pub(super) fn perform(&self) -> Answer {
        let Self::Run(run) = self;
        run.perform()
    }
}

impl Run {
    fn perform(&self) -> Answer {
        let named = self.config.as_deref().or(self.file.as_deref());
        let loaded = Loaded::discovered(&load::find(named, self.json));
        if !self.json {
            loaded.show();
        }
        let played = self.play(loaded);
        played.unwrap_or_else(|(answer, message)| {
            print::err(&format!("tidegate: {message}\n"));
            answer
        })
    }

    fn play(&self, loaded: Loaded) -> Result<Answer, (Answer, String)> {
        let wrong = |message: String| (Answer::Wrong, message);
        let Some(policy) = &loaded.policy else {
            return Err(wrong("not run: the configuration is wrong".to_owned()));
        };
        let caller = player(&self.group, self.repo.as_deref(), policy).map_err(wrong)?;
        if let Some(name) = self.tier.iter().find(|name| policy.tier(name).is_none()) {
            return Err(wrong(format!("--tier {name}: no such tier")));
        }
        let mut scenarios = scenarios()?;
        self.choose(&mut scenarios).map_err(wrong)?;
        let mut played = redteam::play(policy, &scenarios, &caller);
        played.retain(|one| self.tier.is_empty() || self.tier.contains(&one.tier));
        let live = live(loaded, &played, &caller);
        let live = live.map_err(|error| (Answer::Failed, format!("{error:#}")))?;
        if self.json {
            print::json(&report::as_json(&live));
        } else {
            print::out(&report::table(&live));
        }
        Ok(report::answer(&live))
    }

    /// Keeps the scenarios that `--scenario` names; without the option, all.
    fn choose(&self, scenarios: &mut Vec<Scenario>) -> Result<(), String> {
        let known = |name: &&Arc<str>| scenarios.iter().any(|it| it.id == **name);
        if let Some(name) = self.scenario.iter().find(|name| !known(name)) {
            return Err(format!(
                "--scenario {name}: no such scenario; `tidegate test --redteam` lists them"
            ));
        }
        scenarios.retain(|it| self.scenario.is_empty() || self.scenario.contains(&it.id));
        Ok(())
    }
}

/// Plays the scenarios that the policy has judged.
fn live<'p>(
    loaded: Loaded,
    played: &'p [Played<'p>],
    caller: &Player,
) -> anyhow::Result<Vec<Live<'p>>> {
    let plan = loaded.plan();
    let plan = plan.map_err(|_| anyhow::anyhow!("the policy does not load"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stage = Stage::start(plan, played).await?;
        stage.play(played, caller).await
    })
}
