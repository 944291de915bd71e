//! What the records do not cover, and which share of the recorded flows the proposal allows.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::civil::Date;

use crate::config::Config;
use crate::replay::{Names, Needs};

use super::proposal::Proposal;

/// Number of days for the share of covered flows.
const WEEK: i64 = 7;
/// Number of days that are checked for gaps.
const SPAN: i64 = 14;

/// The readiness of a tier for enforcement, as far as the records show it.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// Flows of the last seven days, and how many of them pass with the proposal.
    pub(super) week: (u64, u64),
    /// Sessions with flows in the last seven days, and how many of them need no further rule: each of
    /// their flows passes, or is left denied. One session with many flows counts once.
    pub(super) sessions: (usize, usize),
    /// The repositories in the policy without a flow.
    pub(super) repositories: Vec<String>,
    /// The days without a flow among the last fourteen, counted from the last flow.
    pub(super) days: Vec<String>,
    /// Branches with flows on only one day.
    pub(super) branches: Vec<String>,
    /// Jobs with flows on only one day.
    pub(super) jobs: Vec<String>,
}

impl Readiness {
    pub(super) fn of(needs: &Needs, proposal: &Proposal<'_>, config: &Config) -> Self {
        let last = needs
            .days
            .keys()
            .next_back()
            .and_then(|day| day.parse::<Date>().ok());
        let back = |days: i64| {
            let day = last?.checked_sub(days.days()).ok()?;
            Some(day.to_string())
        };
        let from = back(WEEK - 1).unwrap_or_default();
        let days = needs.days.iter().filter(|(day, _)| **day >= from);
        let (all, pass) = days.fold((0, 0), |(all, pass), (_, (flows, passing))| {
            (all + flows, pass + passing)
        });
        let proposed = proposal.flows_on(|day| day >= &*from);
        let named = config.policy.repositories.iter();
        let named = named
            .flat_map(|it| &it.value.r#match.0)
            .map(|it| it.get_ref().clone());
        let exact: BTreeSet<String> = named.filter(|name| !name.contains('*')).collect();
        let mut gaps: Vec<String> = (0..SPAN).filter_map(back).collect();
        gaps.retain(|day| !needs.days.contains_key(day));
        gaps.reverse();
        Self {
            week: (all, pass + proposed),
            sessions: needs.sessions_since(&from, |need| proposal.settles(need)),
            repositories: exact
                .into_iter()
                .filter(|name| !needs.repositories.contains_key(name))
                .collect(),
            days: gaps,
            branches: once(&needs.branches),
            jobs: once(&needs.jobs),
        }
    }

    /// Returns the share of flows of the last seven days that pass with the proposal, in percent.
    pub(super) fn percent(&self) -> String {
        let (all, pass) = self.week;
        let permille = (pass.min(all) * 1000).checked_div(all).unwrap_or(1000);
        format!("{}.{} %", permille / 10, permille % 10)
    }
}

fn once(names: &Names) -> Vec<String> {
    let once = names.iter().filter(|(_, (days, _))| days.len() == 1);
    once.map(|(name, _)| name.clone()).collect()
}
