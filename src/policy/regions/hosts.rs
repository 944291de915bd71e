//! Hosts that the policy treats in the same way, in groups.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;

use crate::name::{Host, HostName, Target, special_networks, special_suffixes};
use crate::policy::category::{Categories, Category};
use crate::policy::compiled::Policy;
use crate::policy::floor::AddressFloor;
use crate::policy::index::RuleId;
use crate::policy::pattern::HostPattern;

/// Hosts that the policy treats in the same way.
#[derive(Debug)]
pub(in crate::policy) struct HostGroup {
    key: Key,
    /// One of the hosts.
    pub(super) witness: Host,
    /// The rules that name the hosts, most specific host first.
    pub(super) rules: Vec<RuleId>,
    /// The categories that a flow to these hosts may have.
    pub(super) categories: Categories,
}

/// All groups of a policy.
#[derive(Debug, Default)]
pub(in crate::policy) struct HostGroups {
    groups: Vec<Arc<HostGroup>>,
    of_rules: HashMap<RuleId, Vec<usize>, FixedState>,
    /// The categories that each rule without hosts selects.
    selecting: HashMap<RuleId, Categories, FixedState>,
    /// The rules without hosts, in the order of comparison.
    pub(super) hostless: Vec<RuleId>,
}

/// The facts of the policy about a host.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    rules: Vec<RuleId>,
    category: Category,
    ports: Box<[u16]>,
    service: Option<Arc<str>>,
    /// The location of the entry, if it splits its hosts by path.
    splits: Option<Box<str>>,
    inspected: bool,
    upstream: Option<Arc<str>>,
    /// The listed MCP servers at the host.
    servers: Vec<Arc<str>>,
    floor: Floor,
    /// The rules whose grants satisfy the floor.
    lifted_by: Vec<RuleId>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Floor {
    Open,
    Never,
    Address,
    Addresses,
}

/// Names that represent all names outside the policy.
const OTHER_NAMES: [&str; 6] = [
    "x.example",
    "x.example.net",
    "x.example.org",
    "x.example.dev",
    "x",
    "instance-data.x.internal",
];

impl HostGroups {
    pub(super) fn new(policy: &Policy) -> Self {
        let patterns = patterns(policy);
        let exact: HashSet<&HostName> = patterns
            .iter()
            .filter_map(|pattern| match pattern {
                HostPattern::Exact(name) => Some(name),
                HostPattern::Below(_) | HostPattern::Network(_) => None,
            })
            .collect();
        let networks = Networks::new(&patterns);
        let mut groups = Self {
            hostless: hostless(policy),
            ..Self::default()
        };
        for id in &groups.hostless {
            let selected = policy.rule(*id).map(|rule| rule.to.categories);
            groups.selecting.extend(selected.map(|it| (*id, it)));
        }
        let mut seen: HashSet<Key> = HashSet::new();
        let mut found: Vec<(Key, Host)> = Vec::new();
        let mut add = |host: Host| {
            let key = Key::of(policy, &groups.hostless, &host);
            if seen.insert(key.clone()) {
                found.push((key, host));
            }
        };
        for pattern in &patterns {
            let host = match pattern {
                HostPattern::Exact(name) => Some(Host::Name(name.clone())),
                HostPattern::Below(name) => fresh_below(name, &exact),
                HostPattern::Network(network) => {
                    pattern.witness_outside(&networks.inside(*network).collect::<Vec<_>>())
                }
            };
            if let Some(host) = host {
                add(host);
            }
        }
        let others = OTHER_NAMES
            .iter()
            .filter_map(|name| HostName::parse(name.as_bytes()).ok());
        for name in others {
            add(Host::Name(name));
        }
        for (key, witness) in found {
            groups.push(policy, key, witness);
        }
        groups
    }

    fn push(&mut self, policy: &Policy, key: Key, witness: Host) {
        for rule in &key.rules {
            let of_rule = self.of_rules.entry(*rule).or_default();
            if of_rule.last() != Some(&self.groups.len()) {
                of_rule.push(self.groups.len());
            }
        }
        let target = Target {
            host: witness.clone(),
            port: 443,
        };
        let mut rules = key.rules.clone();
        let mut kept = HashSet::new();
        rules.retain(|rule| kept.insert(*rule));
        self.groups.push(Arc::new(HostGroup {
            rules,
            categories: policy.possible_categories(&target),
            key,
            witness,
        }));
    }

    /// Returns the groups that a rule names or selects; without a rule, all groups.
    pub(super) fn within(&self, rule: Option<RuleId>) -> Vec<&Arc<HostGroup>> {
        let Some(rule) = rule else {
            return self.groups.iter().collect();
        };
        if let Some(places) = self.of_rules.get(&rule) {
            return places
                .iter()
                .filter_map(|at| self.groups.get(*at))
                .collect();
        }
        let Some(selected) = self.selecting.get(&rule) else {
            return Vec::new();
        };
        let wanted =
            |group: &&Arc<HostGroup>| selected.is_empty() || selected.intersects(group.categories);
        self.groups.iter().filter(wanted).collect()
    }

    /// Whether a host is in a group.
    pub(super) fn holds(&self, policy: &Policy, group: &HostGroup, host: &Host) -> bool {
        Key::of(policy, &self.hostless, host) == group.key
    }
}

impl Key {
    fn of(policy: &Policy, hostless: &[RuleId], host: &Host) -> Self {
        let mut rules = Vec::new();
        policy.hosts.each(host, |id| rules.push(id));
        let target = Target {
            host: host.clone(),
            port: 443,
        };
        let label = policy.label(&target);
        let floor = AddressFloor::of(host);
        let named = match floor {
            AddressFloor::Open | AddressFloor::Never => &[][..],
            AddressFloor::NeedsAddress(_) | AddressFloor::NeedsAddresses => &rules,
        };
        let lifts = |id: &&RuleId| {
            let rule = policy.rule(**id);
            rule.is_some_and(|rule| floor.is_lifted_by(&rule.grant.addresses))
        };
        let hostless = hostless
            .iter()
            .filter(|_| !named.is_empty() || !is_open(floor));
        let lifted_by = named
            .iter()
            .chain(hostless)
            .filter(lifts)
            .copied()
            .collect();
        let entry = label.entry;
        let servers = policy
            .servers
            .all()
            .filter(|server| server.target.host == *host);
        Self {
            category: label.category,
            ports: label.ports.into(),
            service: entry.and_then(|entry| entry.service.clone()),
            splits: entry
                .filter(|entry| !entry.splits.is_empty())
                .map(|entry| entry.location.clone()),
            inspected: policy.routing.inspects_host(host),
            upstream: policy.routing.upstream(host, label.category).cloned(),
            servers: servers.map(|server| server.name.clone()).collect(),
            floor: match floor {
                AddressFloor::Open => Floor::Open,
                AddressFloor::Never => Floor::Never,
                AddressFloor::NeedsAddress(_) => Floor::Address,
                AddressFloor::NeedsAddresses => Floor::Addresses,
            },
            lifted_by,
            rules,
        }
    }
}

/// The networks of patterns, in order.
struct Networks<'p>(Vec<(IpNet, &'p HostPattern)>);

impl<'p> Networks<'p> {
    fn new(patterns: &'p [HostPattern]) -> Self {
        let network = |pattern: &'p HostPattern| match pattern {
            HostPattern::Network(network) => Some((*network, pattern)),
            HostPattern::Exact(_) | HostPattern::Below(_) => None,
        };
        let mut networks: Vec<_> = patterns.iter().filter_map(network).collect();
        networks.sort_unstable_by_key(|(network, _)| *network);
        Self(networks)
    }

    /// Returns the networks within a network, without itself: they follow it directly.
    fn inside(&self, around: IpNet) -> impl Iterator<Item = &'p HostPattern> {
        let from = self.0.partition_point(|(network, _)| *network <= around);
        let behind = self.0.get(from..).unwrap_or_default();
        let inside = behind
            .iter()
            .take_while(move |(network, _)| around.contains(network));
        inside.map(|(_, pattern)| *pattern)
    }
}

fn is_open(floor: AddressFloor) -> bool {
    matches!(floor, AddressFloor::Open)
}

fn hostless(policy: &Policy) -> Vec<RuleId> {
    let rules = (0..).zip(&policy.rules);
    rules
        .filter(|(_, rule)| rule.to.hosts == 0)
        .map(|(id, _)| id)
        .collect()
}

/// Returns every pattern that the policy, its catalogue or the floor distinguishes.
fn patterns(policy: &Policy) -> Vec<HostPattern> {
    let mut patterns: Vec<HostPattern> = policy.hosts.patterns(|_| true).collect();
    patterns.extend(policy.destinations.patterns());
    patterns.extend(policy.catalogue.directory.patterns());
    patterns.extend(
        policy
            .servers
            .all()
            .map(super::super::servers::Server::pattern),
    );
    patterns.extend(policy.routing.patterns.iter().cloned());
    let granted = policy
        .rules
        .iter()
        .flat_map(|rule| rule.grant.addresses.iter().copied());
    patterns.extend(granted.chain(special_networks()).map(HostPattern::Network));
    let suffixes = special_suffixes().filter_map(|name| HostName::parse(name.as_bytes()).ok());
    patterns.extend(
        suffixes.flat_map(|name| [HostPattern::Exact(name.clone()), HostPattern::Below(name)]),
    );
    let mut seen = HashSet::new();
    patterns.retain(|pattern| seen.insert(pattern.clone()));
    patterns
}

/// Returns a name directly below `above` that is not named itself.
fn fresh_below(above: &HostName, exact: &HashSet<&HostName>) -> Option<Host> {
    let labels = std::iter::once("x".to_owned()).chain((1..).map(|number| format!("x{number}")));
    let mut names = labels
        .take(exact.len() + 1)
        .map_while(|label| HostName::parse(format!("{label}.{above}").as_bytes()).ok());
    names.find(|name| !exact.contains(name)).map(Host::Name)
}
