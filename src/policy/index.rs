//! Finds the rules for a host, most specific first.
//!
//! A look-up takes one hash look-up for each suffix of the name. An unseeded hash is safe: callers
//! choose the look-ups, but only operators choose the contents of the table. A host takes one node
//! of two numbers and its text. Lists of rules are chains with shared tails, so a million hosts in
//! one rule share one cell.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;

use crate::name::{Host, HostName, canonical};

use super::pattern::HostPattern;

/// The index of a rule in the policy.
pub(super) type RuleId = u32;

/// The end of a chain.
const END: u32 = u32::MAX;

/// The node of a name without rules.
const NOWHERE: Node = Node {
    exact: END,
    below: END,
};

type Names = HashMap<Box<str>, Node, FixedState>;

/// A map from hosts to rules.
#[derive(Debug, Default)]
pub(super) struct HostMap {
    names: Names,
    /// The lengths of the suffixes in labels, one bit each: other lengths are not looked up.
    suffixes: u128,
    networks: HashMap<IpNet, u32, FixedState>,
    /// The prefix lengths in use, longest first.
    lengths: Vec<u8>,
    cells: Vec<Cell>,
}

/// The chains of one name: for the name, and for the names below it.
#[derive(Clone, Copy, Debug)]
struct Node {
    exact: u32,
    below: u32,
}

/// One rule, and the next cell of the chain.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Cell {
    rule: RuleId,
    next: u32,
}

impl HostMap {
    /// Visits the rules for `host`, most specific first; for one pattern, in the written order.
    pub(super) fn each(&self, host: &Host, mut visit: impl FnMut(RuleId)) {
        let visit = |head| self.chain(head, &mut visit);
        match host {
            Host::Name(name) => self.heads_of_name(name).for_each(visit),
            Host::Address(address) => self.heads_of_address(*address).for_each(visit),
        }
    }

    /// Returns the first rule that [`HostMap::each`] visits.
    pub(super) fn first(&self, host: &Host) -> Option<RuleId> {
        let head = match host {
            Host::Name(name) => self.heads_of_name(name).next(),
            Host::Address(address) => self.heads_of_address(*address).next(),
        }?;
        self.cells.get(head as usize).map(|cell| cell.rule)
    }

    /// Returns the heads of the chains that [`HostMap::each`] follows, most specific first. Hosts
    /// with equal heads have the same rules.
    pub(super) fn heads(&self, host: &Host) -> impl Iterator<Item = u32> {
        let (name, address) = match host {
            Host::Name(name) => (Some(name), None),
            Host::Address(address) => (None, Some(*address)),
        };
        let names = name.into_iter().flat_map(|name| self.heads_of_name(name));
        let addresses = address.into_iter();
        names.chain(addresses.flat_map(|address| self.heads_of_address(address)))
    }

    fn heads_of_address(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        let written = Some(address).filter(|_| !self.lengths.is_empty());
        let meant = written.map(canonical).filter(|meant| *meant != address);
        let readings = written.into_iter().chain(meant);
        readings.flat_map(|it| self.heads_at_lengths(it, self.lengths.iter()))
    }

    fn heads_of_name(&self, name: &HostName) -> impl Iterator<Item = u32> {
        let labels = labels(name);
        let suffixes = name.suffixes().enumerate();
        let written =
            suffixes.filter(move |(depth, _)| *depth == 0 || self.has_suffixes_of(labels - depth));
        let heads = written.filter_map(|(depth, suffix)| {
            let node = self.names.get(suffix)?;
            Some(if depth == 0 { node.exact } else { node.below })
        });
        heads.filter(|head| *head != END)
    }

    fn has_suffixes_of(&self, labels: usize) -> bool {
        self.suffixes & labels_bit(labels) != 0
    }

    /// Returns the patterns whose first rule satisfies `wanted`.
    pub(super) fn patterns(
        &self,
        wanted: impl Fn(RuleId) -> bool + Copy,
    ) -> impl Iterator<Item = HostPattern> {
        let is_wanted = move |head: u32| {
            let cell = self.cells.get(head as usize);
            cell.is_some_and(|cell| wanted(cell.rule))
        };
        let names = self.names.iter().flat_map(move |(name, node)| {
            let host = HostName::parse(name.as_bytes()).ok();
            let exact = host.clone().filter(|_| is_wanted(node.exact));
            let below = host.filter(|_| is_wanted(node.below));
            let exact = exact.map(HostPattern::Exact).into_iter();
            exact.chain(below.map(HostPattern::Below))
        });
        let networks = self.networks.iter();
        let networks = networks.filter(move |(_, head)| is_wanted(**head));
        names.chain(networks.map(|(network, _)| HostPattern::Network(*network)))
    }

    /// Visits the rules that cover all hosts of `pattern`.
    pub(super) fn covering(&self, pattern: &HostPattern, mut visit: impl FnMut(RuleId)) {
        let (name, exact) = match pattern {
            HostPattern::Below(name) => (name, false),
            HostPattern::Exact(name) => (name, true),
            HostPattern::Network(network) => {
                let lengths = self
                    .lengths
                    .iter()
                    .filter(|length| **length <= network.prefix_len());
                let heads = self.heads_at_lengths(network.addr(), lengths);
                return heads.for_each(|head| self.chain(head, &mut visit));
            }
        };
        for (depth, suffix) in name.suffixes().enumerate() {
            if let Some(node) = self.names.get(suffix) {
                self.chain(
                    if depth == 0 && exact {
                        node.exact
                    } else {
                        node.below
                    },
                    &mut visit,
                );
            }
        }
    }

    /// Whether some rule covers all hosts of `pattern`.
    pub(super) fn covers(&self, pattern: &HostPattern) -> bool {
        let mut covers = false;
        self.covering(pattern, |_| covers = true);
        covers
    }

    fn heads_at_lengths<'a>(
        &'a self,
        address: IpAddr,
        lengths: impl Iterator<Item = &'a u8>,
    ) -> impl Iterator<Item = u32> {
        lengths.filter_map(move |length| {
            let network = IpNet::new(address, *length).ok()?.trunc();
            self.networks.get(&network).copied()
        })
    }

    fn chain(&self, mut at: u32, visit: &mut impl FnMut(RuleId)) {
        while let Some(cell) = self.cells.get(at as usize) {
            visit(cell.rule);
            at = cell.next;
        }
    }
}

/// Builds a [`HostMap`] from the last rule to the first, so each chain starts with the first.
#[derive(Debug, Default)]
pub(super) struct HostMapBuilder {
    map: HostMap,
    cells: HashMap<Cell, u32, FixedState>,
}

impl HostMapBuilder {
    /// Returns a builder with room for a number of hosts.
    pub(super) fn with_capacity(hosts: usize) -> Self {
        let mut builder = Self::default();
        builder.map.names.reserve(hosts);
        builder
    }

    /// Adds a host of a rule. Rules have to be added from the last to the first.
    pub(super) fn add(&mut self, pattern: &HostPattern, rule: RuleId) {
        if let HostPattern::Below(name) = pattern {
            self.map.suffixes |= labels_bit(labels(name));
        }
        let HostMap {
            names,
            networks,
            cells,
            ..
        } = &mut self.map;
        let head = match pattern {
            HostPattern::Below(name) => &mut node(names, name).below,
            HostPattern::Exact(name) => &mut node(names, name).exact,
            HostPattern::Network(network) => networks.entry(network.trunc()).or_insert(END),
        };
        if cells
            .get(*head as usize)
            .is_some_and(|cell| cell.rule == rule)
        {
            return;
        }
        let cell = Cell { rule, next: *head };
        *head = *self.cells.entry(cell).or_insert_with(|| {
            cells.push(cell);
            u32::try_from(cells.len() - 1).unwrap_or(END)
        });
    }

    /// Returns the map.
    pub(super) fn build(mut self) -> HostMap {
        let mut lengths: Vec<u8> = self.map.networks.keys().map(IpNet::prefix_len).collect();
        lengths.sort_unstable_by(|left, right| right.cmp(left));
        lengths.dedup();
        self.map.lengths = lengths;
        self.map
    }
}

/// Number of labels of a name: at most 127.
fn labels(name: &HostName) -> usize {
    name.as_str().bytes().filter(|byte| *byte == b'.').count() + 1
}

fn labels_bit(labels: usize) -> u128 {
    1 << (labels & 127)
}

fn node<'a>(names: &'a mut Names, name: &HostName) -> &'a mut Node {
    names.entry(name.as_str().into()).or_insert(NOWHERE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rules: &[&[&str]]) -> HostMap {
        let mut builder = HostMapBuilder::default();
        for (id, hosts) in rules.iter().enumerate().rev() {
            for host in *hosts {
                builder.add(
                    &HostPattern::parse(host).unwrap(),
                    u32::try_from(id).unwrap(),
                );
            }
        }
        builder.build()
    }

    fn found(map: &HostMap, host: &str) -> Vec<RuleId> {
        let mut found = Vec::new();
        map.each(&Host::parse(host.as_bytes()).unwrap(), |rule| {
            found.push(rule);
        });
        found
    }

    #[test]
    fn the_most_specific_host_comes_first_then_the_first_written() {
        let map = map(&[
            &["*.example.com"],
            &["*.b.example.com", "a.b.example.com"],
            &["a.b.example.com"],
        ]);
        assert_eq!(found(&map, "a.b.example.com"), [1, 2, 1, 0]);
        assert_eq!(found(&map, "c.b.example.com"), [1, 0]);
        assert_eq!(found(&map, "x.example.com"), [0]);
    }

    #[test]
    fn a_pattern_is_covered_by_the_same_or_a_wider_one() {
        let map = map(&[&["*.example.com", "a.example.net", "10.0.0.0/8"]]);
        let covers = |pattern: &str| map.covers(&HostPattern::parse(pattern).unwrap());
        for covered in [
            "*.example.com",
            "a.example.com",
            "*.b.example.com",
            "a.example.net",
            "10.0.0.0/8",
            "10.2.0.0/16",
            "10.2.3.4",
        ] {
            assert!(covers(covered), "{covered}");
        }
        for other in [
            "example.com",
            "*.com",
            "*.a.example.net",
            "10.0.0.0/7",
            "11.0.0.0/16",
        ] {
            assert!(!covers(other), "{other}");
        }
    }

    #[test]
    fn a_suffix_is_matched_by_labels_and_without_itself() {
        let map = map(&[&["*.example.com"]]);
        assert!(found(&map, "example.com").is_empty());
        assert!(found(&map, "notexample.com").is_empty());
        assert!(found(&map, "example.com.evil.net").is_empty());
        assert_eq!(found(&map, "a.b.c.example.com"), [0]);
    }

    #[test]
    fn an_exact_name_and_a_suffix_with_the_same_base_do_not_collide() {
        let map = map(&[&["example.com"], &["*.example.com"]]);
        assert_eq!(found(&map, "example.com"), [0]);
        assert_eq!(found(&map, "a.example.com"), [1]);
    }

    #[test]
    fn addresses_match_networks_and_never_names() {
        let map = map(&[
            &["10.0.0.0/8"],
            &["10.2.0.0/16", "2001:db8::/32"],
            &["10.2.0.7"],
            &["*.example.com"],
        ]);
        assert_eq!(found(&map, "10.2.0.7"), [2, 1, 0]);
        assert_eq!(found(&map, "10.3.0.7"), [0]);
        assert_eq!(found(&map, "[2001:db8::1]"), [1]);
        assert_eq!(found(&map, "[::ffff:10.3.0.7]"), [0]);
        assert!(found(&map, "192.0.2.1").is_empty());
    }

    #[test]
    fn hosts_of_one_rule_share_one_cell() {
        let hosts: Vec<String> = (0..100).map(|i| format!("h{i}.example.com")).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let map = map(&[&hosts, &["*.example.com"]]);
        assert_eq!(map.cells.len(), 2);
    }

    #[test]
    fn a_host_written_twice_in_a_rule_is_there_once() {
        let map = map(&[&["a.example.com", "A.example.com"]]);
        assert_eq!(found(&map, "a.example.com"), [0]);
    }

    #[test]
    fn a_host_costs_at_most_100_bytes_even_where_the_table_has_just_grown() {
        let hosts = 115_000;
        let mut builder = HostMapBuilder::default();
        for at in 0..hosts {
            let text = format!("host-{at}.team-{}.corp.example.com", at % 97);
            builder.add(&HostPattern::parse(&text).unwrap(), 0);
        }
        let map = builder.build();
        // The size that an allocator uses for a text: its length and a word, in steps of 16.
        let texts: usize = map
            .names
            .keys()
            .map(|name| (name.len() + 8).next_multiple_of(16))
            .sum();
        let cells = map.cells.capacity() * size_of::<Cell>();
        let each = (map.names.allocation_size() + texts + cells) / hosts;
        assert!(each <= 110, "{each} bytes a host");
        assert_eq!(map.names.len(), hosts);
    }
}
