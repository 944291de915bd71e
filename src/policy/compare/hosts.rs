//! Groups hosts by the rules of several policies.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use ipnet::{IpNet, Ipv6Net};

use crate::name::{Host, HostName, Target, special_networks, special_suffixes};
use crate::policy::category::Categories;
use crate::policy::compiled::Policy;
use crate::policy::directory::Destination;
use crate::policy::floor::AddressFloor;
use crate::policy::index::{HostMap, RuleId};
use crate::policy::pattern::HostPattern;
use crate::policy::servers::Server;

use super::selectors::Selectors;

/// Names that represent all names that no policy contains.
const OTHER_NAMES: [&str; 6] = [
    "x.example",
    "x.example.net",
    "x.example.org",
    "x.example.dev",
    "x",
    "instance-data.x.internal",
];

/// Marks "none", and separates the numbers of two policies.
const NONE: u32 = u32::MAX;

type Set<T> = HashSet<T, FixedState>;

/// A set of hosts that each policy treats alike.
#[derive(Debug)]
pub(in crate::policy) struct HostSet {
    /// One of the hosts.
    pub(in crate::policy) witness: Host,
    /// The patterns that match the hosts, as indexes of [`HostSets::patterns`]; none: no pattern
    /// matches the hosts.
    patterns: Vec<u32>,
    /// Whether the set has hosts that no pattern matches.
    others: bool,
    /// For each policy, the rules that may decide, in the order of evaluation.
    pub(super) rules: Vec<Vec<RuleId>>,
    /// The selectors that match the hosts.
    pub(super) selectors: Vec<u32>,
    /// Whether only rules split requests to these hosts, see [`HostSet::is_plain`].
    plain: OnceCell<bool>,
}

/// All hosts.
#[derive(Debug)]
pub(in crate::policy) struct HostSets {
    pub(in crate::policy) sets: Vec<HostSet>,
    patterns: Vec<HostPattern>,
}

/// The key of a host set: numbers that are equal for all hosts of one set.
struct Signature<'p> {
    policies: &'p [&'p Policy],
    selectors: &'p HostMap,
    hostless: Vec<Vec<RuleId>>,
    numbers: Vec<u32>,
}

impl HostSets {
    /// Groups the hosts. `selectors` has the rules that are distinguished besides those of the
    /// policies.
    pub(super) fn new(policies: &[&Policy], selectors: &Selectors<'_>) -> Self {
        let within = selectors.within();
        let selectors = &selectors.hosts;
        let mut patterns = patterns(policies, selectors);
        // A name pattern wider than the scope represents the hosts outside of the scope.
        patterns.retain(|pattern| match (within, pattern) {
            (None, _) | (_, HostPattern::Network(_)) => true,
            (Some(within), _) => within.covers(pattern),
        });
        let networks = nested_networks(&patterns);
        let known: Set<HostPattern> = patterns.iter().cloned().collect();
        let mut signature = Signature {
            policies,
            selectors,
            hostless: policies.iter().map(|policy| hostless(policy)).collect(),
            numbers: Vec::new(),
        };
        let mut places: HashMap<Box<[u32]>, usize, FixedState> = HashMap::default();
        let mut sets: Vec<HostSet> = Vec::new();
        let mut add = |host: Host, pattern: Option<u32>| {
            signature.read(&host);
            let place = places.get(&*signature.numbers).copied();
            let place = place.unwrap_or_else(|| {
                places.insert(signature.numbers.as_slice().into(), sets.len());
                sets.push(signature.set(host));
                sets.len() - 1
            });
            if let Some(set) = sets.get_mut(place) {
                set.patterns.extend(pattern);
                set.others |= pattern.is_none();
            }
            place
        };
        let isatap = isatap_networks(policies, selectors);
        let mut wrapped: Vec<IpAddr> = Vec::new();
        let mut seen: HashSet<usize, FixedState> = HashSet::default();
        for (at, pattern) in (0..).zip(&patterns) {
            let host = match pattern {
                HostPattern::Exact(name) => Some(Host::Name(name.clone())),
                HostPattern::Below(name) => fresh_below(name, &known),
                HostPattern::Network(network) => {
                    let inner = networks.get(network).map_or(&[][..], |inner| inner);
                    pattern.witness_outside(&inner.iter().collect::<Vec<_>>())
                }
            };
            let Some(host) = host else { continue };
            let four = match &host {
                Host::Address(IpAddr::V4(address)) => Some(*address),
                Host::Address(IpAddr::V6(_)) | Host::Name(_) => None,
            };
            let place = add(host, Some(at));
            let Some(four) = four else { continue };
            wrapped.extend(wrappings(four));
            // One IPv4 address of each set is enough for the ISATAP addresses with each prefix.
            if seen.insert(place) {
                wrapped.extend(isatap.iter().flat_map(|net| isatap_in(*net, four)));
            }
        }
        let others = if within.is_none() {
            &OTHER_NAMES[..]
        } else {
            &[]
        };
        for name in others {
            if let Ok(name) = HostName::parse(name.as_bytes())
                && !known.contains(&HostPattern::Exact(name.clone()))
            {
                add(Host::Name(name), None);
            }
        }
        for address in wrapped {
            add(Host::Address(address), u32::try_from(patterns.len()).ok());
            patterns.push(HostPattern::Network(address.into()));
        }
        Self { sets, patterns }
    }

    /// Returns the number of patterns of a set, the first few by text, and whether the set has
    /// hosts that no pattern matches.
    pub(in crate::policy) fn named(&self, at: usize, most: usize) -> (usize, Vec<String>, bool) {
        let Some(set) = self.sets.get(at) else {
            return (0, Vec::new(), false);
        };
        let patterns = set.patterns.iter();
        let patterns = patterns.filter_map(|at| self.patterns.get(*at as usize));
        let mut texts: Vec<String> = Vec::with_capacity(most + 1);
        for pattern in patterns {
            let text = pattern.to_string();
            let at = texts.partition_point(|known| *known < text);
            if at < most {
                texts.insert(at, text);
                texts.truncate(most);
            }
        }
        (set.patterns.len(), texts, set.others)
    }
}

impl HostSet {
    /// Whether only rules split requests to these hosts: no policy has paths or ports of a
    /// destination there, nor a listed MCP server, nor a service that reads the requests. Then
    /// requests to all such hosts are split alike.
    pub(super) fn is_plain(&self, policies: &[&Policy]) -> bool {
        let target = || Target {
            host: self.witness.clone(),
            port: 443,
        };
        let is_plain = |policy: &&Policy| {
            let target = target();
            let label = policy.label(&target);
            let service = |entry: &Destination| {
                let services = &policy.catalogue.services;
                services
                    .reader(entry.service.as_deref(), entry.category)
                    .is_some()
            };
            let is_special = |entry: &Destination| {
                service(entry) || !entry.splits.is_empty() || !entry.ports.is_empty()
            };
            let is_place = policy.servers.all().any(|it| it.target.host == target.host);
            !label.entry.is_some_and(is_special) && !is_place
        };
        *self.plain.get_or_init(|| policies.iter().all(is_plain))
    }
}

impl Signature<'_> {
    fn read(&mut self, host: &Host) {
        let numbers = &mut self.numbers;
        numbers.clear();
        let floor = AddressFloor::of(host);
        numbers.push(match floor {
            AddressFloor::Open => 0,
            AddressFloor::Never => 1,
            AddressFloor::NeedsAddress(_) => 2,
            AddressFloor::NeedsAddresses => 3,
        });
        for (policy, hostless) in self.policies.iter().zip(&self.hostless) {
            numbers.extend(policy.hosts.heads(host));
            numbers.push(NONE);
            numbers.push(policy.destinations.place(host).unwrap_or(NONE));
            numbers.push(policy.catalogue.directory.place(host).unwrap_or(NONE));
            numbers.push(policy.routing.upstream_place(host).unwrap_or(NONE));
            numbers.push(policy.routing.inspects_host(host).into());
            let servers = (0..).zip(policy.servers.all());
            let here = servers.filter(|(_, server)| server.target.host == *host);
            numbers.extend(here.map(|(at, _)| at));
            numbers.push(NONE);
            if let AddressFloor::NeedsAddress(_) = floor {
                let mut named = Vec::new();
                policy.hosts.each(host, |id| named.push(id));
                let lifts = named.iter().chain(hostless).filter(|id| {
                    let rule = policy.rule(**id);
                    rule.is_some_and(|rule| floor.is_lifted_by(&rule.grant.addresses))
                });
                numbers.extend(lifts);
                numbers.push(NONE);
            }
        }
        numbers.extend(self.selectors.heads(host));
    }

    /// Returns the set of one host.
    fn set(&self, host: Host) -> HostSet {
        let target = Target {
            host: host.clone(),
            port: 443,
        };
        let mut selectors = Vec::new();
        self.selectors.each(&host, |id| selectors.push(id));
        selectors.sort_unstable();
        selectors.dedup();
        let categories: Vec<Categories> = self
            .policies
            .iter()
            .map(|policy| policy.possible_categories(&target))
            .collect();
        let policies = self.policies.iter().zip(&self.hostless).zip(&categories);
        let rules = policies.map(|((policy, hostless), categories)| {
            let mut rules: Vec<RuleId> = Vec::new();
            let mut seen: Set<RuleId> = Set::default();
            policy.hosts.each(&host, |id| {
                if seen.insert(id) {
                    rules.push(id);
                }
            });
            let selects = |id: &&RuleId| {
                let rule = policy.rule(**id).map(|rule| rule.to.categories);
                rule.is_some_and(|wanted| wanted.is_empty() || wanted.intersects(*categories))
            };
            rules.extend(hostless.iter().filter(selects));
            rules
        });
        HostSet {
            rules: rules.collect(),
            witness: host,
            patterns: Vec::new(),
            others: false,
            selectors,
            plain: OnceCell::new(),
        }
    }
}

/// Returns the rules without hosts.
fn hostless(policy: &Policy) -> Vec<RuleId> {
    let rules = (0..).zip(&policy.rules);
    let hostless = rules.filter(|(_, rule)| rule.to.hosts == 0);
    hostless.map(|(id, _)| id).collect()
}

/// Returns each pattern that a policy, its catalogue, a selector or the floor distinguishes, once.
fn patterns(policies: &[&Policy], selectors: &HostMap) -> Vec<HostPattern> {
    let mut patterns: Vec<HostPattern> = Vec::new();
    let mut seen: Set<HostPattern> = Set::default();
    let mut add = |pattern: HostPattern| {
        if seen.insert(pattern.clone()) {
            patterns.push(pattern);
        }
    };
    selectors.patterns(|_| true).for_each(&mut add);
    for policy in policies {
        policy.hosts.patterns(|_| true).for_each(&mut add);
        policy.destinations.patterns().for_each(&mut add);
        policy.catalogue.directory.patterns().for_each(&mut add);
        policy.servers.all().map(Server::pattern).for_each(&mut add);
        policy.routing.patterns.iter().cloned().for_each(&mut add);
        policy.routing.upstream_patterns().for_each(&mut add);
        let rules = policy.rules.iter();
        let granted = rules.flat_map(|rule| rule.grant.addresses.iter().copied());
        granted.map(HostPattern::Network).for_each(&mut add);
    }
    special_networks()
        .map(HostPattern::Network)
        .for_each(&mut add);
    for suffix in special_suffixes() {
        if let Ok(name) = HostName::parse(suffix.as_bytes()) {
            add(HostPattern::Exact(name.clone()));
            add(HostPattern::Below(name));
        }
    }
    patterns
}

/// Returns for each network the networks directly inside of it.
fn nested_networks(patterns: &[HostPattern]) -> HashMap<IpNet, Vec<HostPattern>, FixedState> {
    let networks = patterns.iter().filter_map(|pattern| match pattern {
        HostPattern::Network(network) => Some(*network),
        HostPattern::Below(_) | HostPattern::Exact(_) => None,
    });
    let mut networks: Vec<IpNet> = networks.collect();
    networks.sort_unstable_by_key(|network| (network.network(), network.prefix_len()));
    let mut nested: HashMap<IpNet, Vec<HostPattern>, FixedState> = HashMap::default();
    let mut around: Vec<IpNet> = Vec::new();
    for network in networks {
        while around.last().is_some_and(|outer| !outer.contains(&network)) {
            around.pop();
        }
        if let Some(outer) = around.last() {
            let inner = nested.entry(*outer).or_default();
            inner.push(HostPattern::Network(network));
        }
        around.push(network);
    }
    nested
}

/// Returns a name directly below `above` that no pattern names.
fn fresh_below(above: &HostName, known: &Set<HostPattern>) -> Option<Host> {
    let labels = std::iter::once("x".to_owned()).chain((1..).map(|number| format!("x{number}")));
    let names = labels
        .take(known.len() + 1)
        .map_while(|label| HostName::parse(format!("{label}.{above}").as_bytes()).ok());
    let free = |name: &HostName| !known.contains(&HostPattern::Exact(name.clone()));
    { names }.find(free).map(Host::Name)
}

/// IPv6 addresses that stand for an IPv4 address: mapped, compatible, translated, NAT64 (RFC 6052)
/// and 6to4 (RFC 3056).
fn wrappings(address: Ipv4Addr) -> impl Iterator<Item = IpAddr> {
    let bits = u128::from(u32::from(address));
    let compatible = Ipv6Addr::from(bits);
    let translated = Ipv6Addr::from((0xffff_u128 << 48) | bits);
    let nat64 = Ipv6Addr::from((0x0064_ff9b_u128 << 96) | bits);
    let six_to_four = Ipv6Addr::from((0x2002_u128 << 112) | (bits << 80));
    let mapped = address.to_ipv6_mapped();
    let all = [mapped, compatible, translated, nat64, six_to_four];
    all.into_iter().map(IpAddr::V6)
}

/// IPv6 networks that rules and selectors name or grant: an ISATAP address may have any prefix.
fn isatap_networks(policies: &[&Policy], selectors: &HostMap) -> Vec<Ipv6Net> {
    let named = policies.iter().flat_map(|policy| {
        let granted = policy.rules.iter();
        let granted = granted.flat_map(|rule| rule.grant.addresses.iter().copied());
        let named = policy.hosts.patterns(|_| true);
        let named = named.filter_map(|it| network_of(&it));
        named.chain(granted)
    });
    let selected = selectors.patterns(|_| true);
    let selected = selected.filter_map(|it| network_of(&it));
    let mut networks: Vec<Ipv6Net> = named
        .chain(selected)
        .filter_map(|network| match network {
            IpNet::V6(network) => Some(network),
            IpNet::V4(_) => None,
        })
        .collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}

fn network_of(pattern: &HostPattern) -> Option<IpNet> {
    match pattern {
        HostPattern::Network(network) => Some(*network),
        HostPattern::Below(_) | HostPattern::Exact(_) => None,
    }
}

/// The ISATAP addresses (RFC 5214 section 6.1) of an IPv4 address with the prefix of a network, with
/// and without the universal bit.
fn isatap_in(network: Ipv6Net, address: Ipv4Addr) -> impl Iterator<Item = IpAddr> {
    let prefix = u128::from(network.network()) & !u128::from(u64::MAX);
    let inside = [0x0000_5efe_u128, 0x0200_5efe].map(|id| {
        let bits = prefix | (id << 32) | u128::from(u32::from(address));
        Ipv6Addr::from(bits)
    });
    let held = move |it: &Ipv6Addr| network.contains(it);
    inside.into_iter().filter(held).map(IpAddr::V6)
}
