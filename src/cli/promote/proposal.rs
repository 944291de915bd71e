//! Decides which needs become rules, and which ones a person has to examine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::Config;
use crate::name::{HostName, is_of_shared_domain, is_public_suffix, is_relay};
use crate::policy::source::Destination;
use crate::policy::{Catalogue, Policy};
use crate::replay::{Does, Need, Needs, Seen};

use super::label::Label;
use super::rule::{Key, Proposed};
use super::trials::trials;

/// Maximum number of proposed rules. A person reads each of them.
const MAX_RULES: usize = 40;
/// The category that is left denied without a rule: agents work without it.
const TELEMETRY: &str = "telemetry";

/// A need with its flows.
pub(super) type Found<'n> = (&'n Need, &'n Seen);

/// The result for all needs.
#[derive(Debug, Default)]
pub(super) struct Proposal<'n> {
    /// The proposed rules, the rule with the largest number of sessions first.
    pub(super) rules: Vec<Proposed<'n>>,
    /// The proposed labels of hosts that the policy does not name.
    pub(super) labels: Vec<Label>,
    /// Tests of the flows, in TOML.
    pub(super) trials: Vec<String>,
    /// Needs that the policy refuses on purpose, or that agents do not need.
    pub(super) left_denied: Vec<Found<'n>>,
    /// Needs that a person has to examine, with the reasons.
    pub(super) to_look_at: Vec<(&'n Need, &'n Seen, Vec<&'static str>)>,
}

impl<'n> Proposal<'n> {
    /// Sorts the needs.
    pub(super) fn of(
        needs: &'n Needs,
        config: &Config,
        policy: &Policy,
        catalogue: &Catalogue,
    ) -> Self {
        let mut proposal = Self::default();
        let mut groups: BTreeMap<Key, Vec<Found<'n>>> = BTreeMap::new();
        for (need, seen) in needs.all() {
            if is_denied(need) || seen.category == TELEMETRY {
                proposal.left_denied.push((need, seen));
                continue;
            }
            let doubts = doubts(need, seen);
            if doubts.is_empty() {
                let key = Key::of(need, seen, catalogue);
                groups.entry(key).or_default().push((need, seen));
            } else {
                proposal.to_look_at.push((need, seen, doubts));
            }
        }
        let written = config.policy.rules.iter();
        let mut taken: BTreeSet<String> = written
            .map(|rule| rule.value.id.get_ref().clone())
            .collect();
        for (key, needs) in merged(groups) {
            let companions = companions(&key, &needs, policy, catalogue);
            let id = key.id(&needs, &mut taken);
            let rule = Proposed::new(id, key, needs, companions);
            if rule.has_many_names() {
                proposal.examine(
                    rule,
                    "many names of repositories, refs or packages: write a pattern",
                );
            } else {
                proposal.rules.push(rule);
            }
        }
        proposal.bound();
        proposal.labels = Label::all(&proposal.rules, policy, catalogue);
        proposal.trials = trials(&proposal);
        proposal
    }

    /// Keeps the [`MAX_RULES`] rules that the largest number of sessions need.
    fn bound(&mut self) {
        self.rules.sort_by_key(|rule| {
            let sessions = rule.needs.iter().map(|(_, seen)| seen.sessions());
            (std::cmp::Reverse(sessions.max()), rule.id.clone())
        });
        for rule in self.rules.split_off(self.rules.len().min(MAX_RULES)) {
            self.examine(
                rule,
                "a later run proposes it: this one has as many rules as one review takes",
            );
        }
    }

    /// Moves the needs of a rule to the list that a person has to examine.
    fn examine(&mut self, rule: Proposed<'n>, why: &'static str) {
        let needs = rule.needs.into_iter();
        let needs = needs.map(|(need, seen)| (need, seen, vec![why]));
        self.to_look_at.extend(needs);
    }

    /// Keeps the rules whose text fits the configuration, then the labels and tests that fit it with
    /// these rules. A person has to examine the needs of the other rules.
    pub(super) fn retain(&mut self, fits: impl Fn(&str) -> bool) {
        for rule in std::mem::take(&mut self.rules) {
            if fits(&rule.text()) {
                self.rules.push(rule);
                continue;
            }
            let why = "a rule for it does not load, or its example is decided otherwise";
            self.examine(rule, why);
        }
        let rules = self.rules_text();
        let fits = |table: &str| fits(&format!("{rules}\n{table}"));
        self.labels.retain(|label| fits(&label.text()));
        self.trials = trials(self);
        self.trials.retain(|trial| fits(trial));
    }

    /// Returns the tables of all rules.
    pub(super) fn rules_text(&self) -> String {
        let rules: Vec<String> = self.rules.iter().map(Proposed::text).collect();
        rules.join("\n")
    }

    /// Returns all tables: labels, rules, trials.
    pub(super) fn text(&self) -> String {
        let labels = self.labels.iter().map(Label::text);
        let rules = self.rules.iter().map(Proposed::text);
        let tables: Vec<String> = labels.chain(rules).chain(self.trials.clone()).collect();
        tables.join("\n")
    }

    /// Returns the number of flows that the rules allow, on some days.
    pub(super) fn flows_on(&self, is_counted: impl Fn(&str) -> bool) -> u64 {
        let needs = self.rules.iter().flat_map(|rule| &rule.needs);
        let days = needs.flat_map(|(_, seen)| &seen.days);
        days.filter(|(day, _)| is_counted(day))
            .map(|(_, flows)| flows)
            .sum()
    }

    /// Whether a need has a rule, or is left denied.
    pub(super) fn settles(&self, need: &Need) -> bool {
        let needs = self.rules.iter().flat_map(|rule| &rule.needs);
        let mut settled = needs.chain(&self.left_denied);
        settled.any(|(it, _)| *it == need)
    }
}

/// Merges needs that differ in one name alone: a rule with several names in two conditions would
/// allow pairs of names that were not seen.
fn merged<'n>(groups: BTreeMap<Key, Vec<Found<'n>>>) -> BTreeMap<Key, Vec<Found<'n>>> {
    let mut merged: BTreeMap<Key, Vec<Found<'n>>> = BTreeMap::new();
    for (key, needs) in groups {
        merged
            .entry(key.without_one_name(&needs))
            .or_default()
            .extend(needs);
    }
    merged
}

/// Whether a rule, a list or the floor refuses the need on purpose: a proposal does not undo
/// decisions of people.
fn is_denied(need: &Need) -> bool {
    match &*need.now.reason {
        "not_allowed" | "port_denied" | "action_denied" => false,
        "needs_approval" => !need.now.rule.ends_with(".default"),
        _ => true,
    }
}

/// Returns the reasons against proposing a need.
fn doubts(need: &Need, seen: &Seen) -> Vec<&'static str> {
    let mut doubts = Vec::new();
    if need.host.parse::<IpAddr>().is_ok() {
        doubts.push("an address, not a name");
    } else if let Ok(name) = HostName::from_unicode(&need.host) {
        if is_relay(&name) {
            doubts.push("a relay: it fetches, forwards or stores for anyone");
        }
        if is_public_suffix(&name) || is_of_shared_domain(&name) {
            doubts.push("names there belong to unrelated customers");
        }
    }
    if seen.sessions() <= 1 {
        doubts.push("seen in one session only");
    }
    if seen.after_fetch * 2 >= seen.flows {
        doubts.push("came right after a web page was fetched");
    }
    match &*need.now.reason {
        "port_denied" => doubts.push("the policy allows the host, at another port"),
        "action_denied" => doubts.push("the policy allows the host, but not this action"),
        _ => {}
    }
    let is_known = |it: &Does| {
        [&it.action, &it.operation, &it.tool]
            .iter()
            .any(|it| it.is_some())
    };
    if need.request.as_ref().is_some_and(|it| !is_known(it)) {
        doubts.push("what the request does is not on record");
    }
    if names(need, seen).any(|name| name.contains('*')) {
        doubts.push("a name with `*`, which a rule would take for any name");
    }
    doubts
}

/// Returns the names that callers choose, and that a rule would read as patterns.
fn names<'n>(need: &'n Need, seen: &'n Seen) -> impl Iterator<Item = &'n String> {
    let request = need.request.iter();
    let named = request.flat_map(|it| {
        [
            &it.operation,
            &it.repository,
            &it.tool,
            &it.reference,
            &it.package,
        ]
    });
    named.flatten().chain(&seen.repositories)
}

/// Returns hosts that the catalogue groups with some hosts, and that the policy does not allow yet:
/// second hops, which a cache may have hidden.
fn companions(
    key: &Key,
    needs: &[Found<'_>],
    policy: &Policy,
    catalogue: &Catalogue,
) -> Vec<String> {
    let Some(ecosystem) = &key.ecosystem else {
        return Vec::new();
    };
    let files = catalogue
        .files
        .iter()
        .flat_map(|(_, file)| &file.destination);
    let beside = files.filter(|it| {
        it.ecosystem.as_ref() == Some(ecosystem) && *it.category.get_ref() == key.category
    });
    let names: BTreeSet<String> = beside.flat_map(Destination::names).collect();
    let is_seen = |name: &String| needs.iter().any(|(need, _)| need.host == *name);
    let passes = |name: &String| {
        let facts = crate::policy::Facts::default();
        let flow = format!("{name}:{}", key.port);
        let decided = crate::policy::decide_written(policy, &flow, &facts, &key.tier);
        decided.is_ok_and(|it| it.would.unwrap_or(it.verdict) == crate::policy::Verdict::Allow)
    };
    let mut missing: Vec<String> = names.into_iter().collect();
    missing.retain(|name| !name.starts_with('*') && !is_seen(name) && !passes(name));
    missing
}
