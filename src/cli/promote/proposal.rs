//! Decides which needs become rules, and which ones a person has to examine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::config::Config;
use crate::name::{HostName, is_of_shared_domain, is_public_suffix, is_relay};
use crate::policy::source::Destination;
use crate::policy::{Catalogue, Policy};
use crate::replay::{Does, Need, Needs, Seen};

use super::super::edit;

/// Maximum number of repositories in a rule; with more, the rule names only the tier.
const MAX_REPOSITORIES: usize = 8;
/// Maximum number of examples of a rule.
const MAX_EXAMPLES: usize = 5;

/// The result for all needs.
#[derive(Debug, Default)]
pub(super) struct Proposal<'n> {
    /// The proposed rules.
    pub(super) rules: Vec<Proposed<'n>>,
    /// Needs that a rule of the policy refuses on purpose, and which.
    pub(super) left_denied: Vec<(&'n Need, &'n Seen)>,
    /// Needs that a person has to examine, with the reasons.
    pub(super) to_look_at: Vec<(&'n Need, &'n Seen, Vec<&'static str>)>,
}

/// A proposed rule.
#[derive(Debug)]
pub(super) struct Proposed<'n> {
    pub(super) id: String,
    key: Key,
    pub(super) needs: Vec<(&'n Need, &'n Seen)>,
    /// Unrecorded hosts that the catalogue groups with these hosts.
    pub(super) companions: Vec<String>,
}

/// The facts that the needs of one rule have in common.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Key {
    tier: String,
    repositories: Vec<String>,
    category: String,
    ecosystem: Option<String>,
    /// The host, unless the catalogue groups it with others.
    host: Option<String>,
    port: u16,
    /// The request facts, if the requests are seen.
    request: Option<Done>,
}

#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Done {
    service: Option<String>,
    action: Option<String>,
    server: Option<String>,
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
        let mut groups: BTreeMap<Key, Vec<(&Need, &Seen)>> = BTreeMap::new();
        for (need, seen) in needs.all() {
            if is_denied(need) {
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
        let mut taken: BTreeSet<String> = config
            .policy
            .rules
            .iter()
            .map(|rule| rule.value.id.get_ref().clone())
            .collect();
        for (key, needs) in groups {
            let companions = companions(&key, &needs, policy, catalogue);
            let id = id_of(&key, &needs, &mut taken);
            proposal.rules.push(Proposed {
                id,
                key,
                needs,
                companions,
            });
        }
        proposal
    }

    /// Keeps the rules whose text fits the configuration; the needs of the others are for a person.
    pub(super) fn retain(&mut self, fits: impl Fn(&str) -> bool) {
        let rules = std::mem::take(&mut self.rules);
        for rule in rules {
            if fits(&rule.text()) {
                self.rules.push(rule);
                continue;
            }
            let why = "a rule for it does not load, or its example is decided otherwise";
            let needs = rule.needs.into_iter();
            self.to_look_at
                .extend(needs.map(|(need, seen)| (need, seen, vec![why])));
        }
    }

    /// Returns the tables of all rules.
    pub(super) fn text(&self) -> String {
        let rules: Vec<String> = self.rules.iter().map(Proposed::text).collect();
        rules.join("\n")
    }

    /// Returns the number of flows that the rules allow, on some days.
    pub(super) fn flows_on(&self, is_counted: impl Fn(&str) -> bool) -> u64 {
        let needs = self.rules.iter().flat_map(|rule| &rule.needs);
        let days = needs.flat_map(|(_, seen)| &seen.days);
        days.filter(|(day, _)| is_counted(day))
            .map(|(_, flows)| flows)
            .sum()
    }
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
    if seen.flows == 1 || (seen.sessions() <= 1 && seen.days.len() <= 1) {
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
    let named = request.flat_map(|it| [&it.operation, &it.repository, &it.tool]);
    named.flatten().chain(&seen.repositories)
}

impl Key {
    fn of(need: &Need, seen: &Seen, catalogue: &Catalogue) -> Self {
        let ecosystem = ecosystem(&need.host, catalogue);
        let few = seen.unverified == 0 && seen.repositories.len() <= MAX_REPOSITORIES;
        let repositories = seen.repositories.iter().filter(|_| few).cloned();
        Self {
            tier: need.tier.clone(),
            repositories: repositories.collect(),
            category: seen.category.clone(),
            host: ecosystem.is_none().then(|| need.host.clone()),
            ecosystem,
            port: need.port,
            request: need.request.as_ref().map(|done| Done {
                service: done.service.clone(),
                action: done.action.clone(),
                server: done.server.clone(),
            }),
        }
    }
}

/// Returns the package ecosystem of a host, from the catalogue.
fn ecosystem(host: &str, catalogue: &Catalogue) -> Option<String> {
    let files = catalogue.files.iter();
    let mut all = files.flat_map(|(_, file)| &file.destination);
    let found = all.find(|it| it.names().any(|name| name == host));
    found?.ecosystem.clone()
}

/// Returns hosts that the catalogue groups with some hosts, and that the policy does not allow yet:
/// second hops, which a cache may have hidden.
fn companions(
    key: &Key,
    needs: &[(&Need, &Seen)],
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

/// Returns an unused id: of the host, or of the ecosystem.
fn id_of(key: &Key, needs: &[(&Need, &Seen)], taken: &mut BTreeSet<String>) -> String {
    let first = needs.first().map_or("", |(need, _)| &need.host);
    let of = key.ecosystem.as_deref().unwrap_or(first);
    let plain = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_lowercase(),
        _ => '-',
    };
    let action = key.request.as_ref().and_then(|it| it.action.as_deref());
    let action = action
        .map(|action| format!("-{action}"))
        .unwrap_or_default();
    let base: String = of.chars().map(plain).take(50).collect();
    let base = format!("seen-{base}{action}-{}", key.tier);
    let mut id = base.clone();
    for number in 2.. {
        if taken.insert(id.clone()) {
            break;
        }
        id = format!("{base}-{number}");
    }
    id
}

impl Proposed<'_> {
    /// Returns the hosts that the rule allows.
    pub(super) fn hosts(&self) -> BTreeSet<&str> {
        self.needs.iter().map(|(need, _)| &*need.host).collect()
    }

    /// Returns the number of flows that the rule allows.
    pub(super) fn flows(&self) -> u64 {
        self.needs.iter().map(|(_, seen)| seen.flows).sum()
    }

    /// Returns the tier of the rule.
    pub(super) fn tier(&self) -> &str {
        &self.key.tier
    }

    /// Returns the table.
    pub(super) fn text(&self) -> String {
        let key = &self.key;
        let mut text = String::from("[[rule]]\n");
        let mut line = |rest: String| {
            let _ = writeln!(text, "{rest}");
        };
        line(format!("id = {}", edit::quoted(&self.id)));
        line("verdict = \"allow\"".to_owned());
        line(format!("from.tiers = {}", edit::list([&key.tier])));
        if !key.repositories.is_empty() {
            line(format!(
                "from.repositories = {}",
                edit::list(&key.repositories)
            ));
        }
        let server = key.request.as_ref().and_then(|it| it.server.as_ref());
        // A listed MCP server determines its host and port.
        if server.is_none() {
            line(format!("to.hosts = {}", edit::list(self.hosts())));
            if key.port != 443 || key.request.is_some() {
                line(format!("to.ports = [{}]", key.port));
            }
        }
        if let Some(done) = &key.request {
            self.conditions(done, &mut line);
        }
        line(format!("reason = {}", edit::quoted(&self.reason())));
        let examples: BTreeSet<&str> = self
            .needs
            .iter()
            .filter_map(|(_, seen)| seen.entry.as_deref())
            .take(MAX_EXAMPLES)
            .collect();
        if !examples.is_empty() {
            line(format!("allows = {}", edit::list(examples)));
        }
        for host in &self.companions {
            line(format!(
                "# not seen: {host}. A cache may have hidden it; add it if an empty cache needs it."
            ));
        }
        text
    }

    fn conditions(&self, done: &Done, line: &mut impl FnMut(String)) {
        let of = |field: fn(&Does) -> &Option<String>| -> BTreeSet<&str> {
            let requests = self
                .needs
                .iter()
                .filter_map(|(need, _)| need.request.as_ref());
            requests.filter_map(|it| field(it).as_deref()).collect()
        };
        let every = |names: &BTreeSet<&str>, field: fn(&Does) -> &Option<String>| {
            let mut requests = self
                .needs
                .iter()
                .filter_map(|(need, _)| need.request.as_ref());
            !names.is_empty() && requests.all(|it| field(it).is_some())
        };
        if let Some(server) = &done.server {
            line(format!("does.servers = {}", edit::list([server])));
        }
        let tools = of(|it| &it.tool);
        if every(&tools, |it| &it.tool) {
            line(format!("does.tools = {}", edit::list(&tools)));
            return;
        }
        let operations = of(|it| &it.operation);
        match &done.action {
            _ if every(&operations, |it| &it.operation) && !operations.contains("other") => {
                line(format!("does.operations = {}", edit::list(&operations)));
            }
            Some(action) => line(format!("does.actions = {}", edit::list([action]))),
            None => {}
        }
        let repositories = of(|it| &it.repository);
        if every(&repositories, |it| &it.repository) && repositories.len() <= MAX_REPOSITORIES {
            line(format!("does.repositories = {}", edit::list(&repositories)));
        }
    }

    /// Describes how often and when the need was recorded.
    fn reason(&self) -> String {
        let days = self.needs.iter().flat_map(|(_, seen)| seen.days.keys());
        let days: BTreeSet<&String> = days.collect();
        let sessions = self.needs.iter().map(|(_, seen)| seen.sessions()).max();
        let (first, last) = (days.first(), days.last());
        let span = match first.zip(last) {
            Some((first, last)) if first == last => (*first).clone(),
            Some((first, last)) => format!("{first} to {last}"),
            None => String::new(),
        };
        let flow = self.needs.first().map_or("", |(_, seen)| &seen.flow);
        format!(
            "seen in {} flows, of up to {} sessions each, {span}; e.g. flow {flow}",
            self.flows(),
            sessions.unwrap_or_default(),
        )
    }
}
