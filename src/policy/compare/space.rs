//! The tree of parts: sets of flows that the policies decide alike.

use std::cell::RefCell;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::Serialize;

use crate::name::{Host, Path, Target};
use crate::policy::category::Categories;
use crate::policy::compiled::Policy;
use crate::policy::facts::McpCall;
use crate::policy::index::RuleId;
use crate::policy::pattern::{PortSet, TooComplex};
use crate::policy::query::{Attempt, GroupSet, Query, TierId, Who};
use crate::policy::regions::cell::{self, Cell};
use crate::policy::regions::{Point, RequestDimension, anyone, default_ports, drop_overruled};
use crate::policy::rule::{Ports, Rule};
use crate::policy::verdict::{Decision, Mode, Verdict};

use super::callers::Callers;
use super::hosts::HostSets;
use super::outcome::{Outcome, Tunnel};
use super::same::{Meanings, say_the_same_of};
use super::selectors::Selectors;

/// The flows that one or two policies distinguish.
#[derive(Debug)]
pub(in crate::policy) struct Space<'p> {
    pub(in crate::policy) policies: Vec<&'p Policy>,
    selectors: &'p Selectors<'p>,
    pub(in crate::policy) hosts: HostSets,
    callers: Callers<'p>,
    meanings: Meanings,
    /// Earlier splits of requests: the same rules split requests to the same hosts alike.
    splits: RefCell<HashMap<SplitKey, Arc<[Cell]>, FixedState>>,
}

/// The facts on which the cells of a split depend.
#[derive(Debug, Eq, Hash, PartialEq)]
struct SplitKey {
    level: Level,
    /// The index of the hosts, if they matter.
    hosts: Option<usize>,
    is_message: bool,
    is_to_endpoint: bool,
    /// The service that reads the requests, in each policy, if operations are split.
    readers: Vec<Option<Box<str>>>,
    /// For each policy, the rules with a condition by which this level is split.
    rules: Vec<Vec<RuleId>>,
    /// The selectors with such a condition.
    selectors: Vec<u32>,
}

/// A set of flows that each policy decides alike.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Part {
    /// The index of the hosts in [`Space::hosts`].
    pub(in crate::policy) hosts: usize,
    /// Whether the policies treat the hosts alike, apart from rules.
    same_hosts: bool,
    /// The tier of the caller in each policy.
    pub(in crate::policy) tiers: Vec<TierId>,
    /// The groups of the caller in each policy.
    pub(in crate::policy) groups: Vec<GroupSet>,
    /// One of the flows, without its tier and groups.
    witness: Point,
    /// The ports.
    pub(in crate::policy) ports: PortSet,
    /// The listed MCP server that a message goes to, in each policy.
    servers: Vec<Option<Arc<str>>>,
    /// Whether the part stands for requests of every action, because no rule of the part distinguishes
    /// actions. The witness then has no action.
    any_action: bool,
    /// For each policy, the rules that can decide some flow of the part.
    pub(in crate::policy) rules: Vec<Vec<RuleId>>,
    /// For each policy, the rules that deny networks, if the host is a name that may resolve into
    /// one.
    network_denies: Vec<Vec<RuleId>>,
    /// The selectors that may match some flow of the part.
    pub(in crate::policy) selectors: Vec<u32>,
    /// The tunnel that a request over TLS goes through, in each policy.
    pub(in crate::policy) tunnels: Vec<Tunnel>,
    /// The level of the next split.
    level: Level,
}

/// The property by which a part is split next.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Level {
    Tier,
    Subject,
    Groups,
    Repository,
    Protocol,
    Port,
    Message,
    Request(RequestDimension),
    End,
}

/// The level after [`Level::Message`].
const PATH: Level = Level::Request(RequestDimension::Path);
const ACTION: Level = Level::Request(RequestDimension::Action);
const OPERATION: Level = Level::Request(RequestDimension::Operation);

/// The kind of a flow.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A CONNECT.
    Tunnel,
    /// A request through a tunnel.
    Https,
    /// A request in plain HTTP.
    Http,
}

/// An iterator over the parts, without the branches that `keep` rejects.
pub(in crate::policy) struct Parts<'s, 'p, K> {
    space: &'s Space<'p>,
    keep: K,
    open: Vec<Part>,
    /// The remaining hosts, the next one last.
    hosts: Vec<usize>,
    /// The number of branches that may still be made.
    branches_left: usize,
}

/// The reason why parts are missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::policy) enum Incomplete {
    /// A branch has too many patterns to compare. The parts of other branches follow.
    #[error(transparent)]
    Branch(#[from] TooComplex),
    /// The bound on branches is reached. No part follows.
    #[error("all that follows: there are too many differences")]
    Rest,
}

impl From<Incomplete> for TooComplex {
    fn from(_: Incomplete) -> Self {
        Self
    }
}

impl Level {
    /// Whether a rule has a condition by which this level is split.
    fn is_in(self, rule: &Rule) -> bool {
        match self {
            Self::Port => matches!(rule.to.ports, Ports::Listed(_)),
            Self::Request(dimension) => dimension.is_in(rule),
            _ => false,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Tier => Self::Subject,
            Self::Subject => Self::Groups,
            Self::Groups => Self::Repository,
            Self::Repository => Self::Protocol,
            Self::Protocol => Self::Port,
            Self::Port => Self::Message,
            Self::Message => PATH,
            Self::Request(dimension) => dimension.next().map_or(Self::End, Self::Request),
            Self::End => Self::End,
        }
    }
}

impl<'p> Space<'p> {
    /// Returns the space of some policies. Fails if they have too many patterns to compare.
    pub(in crate::policy) fn new(
        policies: &[&'p Policy],
        selectors: &'p Selectors<'p>,
    ) -> Result<Self, TooComplex> {
        Ok(Self {
            callers: Callers::new(policies, &selectors.rules)?,
            hosts: HostSets::new(policies, selectors),
            meanings: Meanings::new(policies),
            policies: policies.to_vec(),
            selectors,
            splits: RefCell::default(),
        })
    }

    /// Iterates over the parts. `keep` is called for each branch before a further split. At most
    /// `max_branches` branches are made: each set of hosts that `keep` accepts is one, and each
    /// result of a split.
    pub(in crate::policy) fn parts<K: Fn(&Part) -> bool>(
        &self,
        max_branches: usize,
        keep: K,
    ) -> Parts<'_, 'p, K> {
        let mut hosts: Vec<usize> = (0..self.hosts.sets.len()).collect();
        // In the order of names, so that the same policies have the same first witness.
        hosts.sort_by_cached_key(|at| {
            let set = self.hosts.sets.get(*at);
            std::cmp::Reverse(set.map(|set| set.witness.to_string()))
        });
        Parts {
            space: self,
            keep,
            open: Vec::new(),
            hosts,
            branches_left: max_branches,
        }
    }

    /// Returns the part of all flows to one set of hosts.
    fn whole(&self, at: usize) -> Option<Part> {
        let set = self.hosts.sets.get(at)?;
        let mut selectors: Vec<u32> = set.selectors.clone();
        selectors.extend(&self.selectors.hostless);
        selectors.sort_unstable();
        selectors.dedup();
        let of_networks = |policy: &&Policy| match set.witness {
            Host::Name(_) => policy.network_denies.to_vec(),
            Host::Address(_) => Vec::new(),
        };
        let is_one = self.policies.len() < 2;
        Some(Part {
            hosts: at,
            same_hosts: is_one || say_the_same_of(&self.policies, &set.witness),
            network_denies: self.policies.iter().map(of_networks).collect(),
            tiers: Vec::new(),
            groups: Vec::new(),
            witness: Point {
                who: anyone(),
                target: Target {
                    host: set.witness.clone(),
                    port: 443,
                },
                request: None,
            },
            ports: PortSet::all(),
            servers: vec![None; self.policies.len()],
            any_action: false,
            rules: set.rules.clone(),
            selectors,
            tunnels: Vec::new(),
            level: Level::Tier,
        })
    }

    /// Whether the policies decide all flows of a branch alike.
    pub(in crate::policy) fn is_same(&self, part: &Part) -> bool {
        let has_caller = part.level > Level::Repository;
        let asks = self.may_ask(part);
        let same_tiers = match part.level {
            Level::Tier => self.meanings.all_tiers_are_same(asks),
            _ => self.meanings.are_same_tiers(&part.tiers, asks),
        };
        let says = |tunnel: &Tunnel| {
            let decision = &tunnel.decision;
            (tunnel.is_inspected, decision.verdict, decision.would)
        };
        let mut tunnels = part.tunnels.iter().map(says);
        let first = tunnels.next();
        part.same_hosts
            && same_tiers
            && (has_caller || self.callers.are_alike())
            && self.meanings.are_same(&part.rules, !has_caller)
            && self.meanings.are_same(&part.network_denies, !has_caller)
            && tunnels.all(|tunnel| Some(tunnel) == first)
    }

    /// Whether some policy may ask for approval of some flow of a part.
    fn may_ask(&self, part: &Part) -> bool {
        let asks = |verdict: Verdict| verdict == Verdict::Ask;
        let by_tunnel = |tunnel: &Tunnel| {
            let decision = &tunnel.decision;
            asks(decision.would.unwrap_or(decision.verdict))
        };
        let sides = self.policies.iter().zip(&part.rules).enumerate();
        part.tunnels.iter().any(by_tunnel) || { sides }.any(|(side, (policy, rules))| {
            let by_default = |tier| asks(policy.tiers.tier(tier).default);
            let by_rule = |id: &RuleId| policy.rule(*id).is_some_and(|rule| asks(rule.verdict));
            rules.iter().any(by_rule)
                || match part.tiers.get(side) {
                    Some(tier) => by_default(*tier),
                    None => policy.tiers.ids().any(by_default),
                }
        })
    }

    /// Returns the rules that can decide some flow of a part, for each policy. Selectors are with
    /// the rules of the first policy.
    fn rules_of(&self, part: &Part) -> Vec<Vec<&Rule>> {
        let sides = self
            .policies
            .iter()
            .zip(&part.rules)
            .zip(&part.network_denies);
        let of = |((policy, ids), denies): ((&&'p Policy, &Vec<RuleId>), &Vec<RuleId>)| {
            let all = ids.iter().chain(denies);
            all.filter_map(|id| policy.rule(*id))
                .collect::<Vec<&Rule>>()
        };
        let mut rules: Vec<Vec<&Rule>> = sides.map(of).collect();
        if let Some(first) = rules.first_mut() {
            let selectors = part.selectors.iter();
            first.extend(selectors.filter_map(|at| self.selectors.rule(*at)));
        }
        rules
    }

    fn split(&self, part: &Part) -> Result<Vec<Part>, TooComplex> {
        if part.level <= Level::Repository {
            return self.split_callers(part, &self.rules_of(part));
        }
        if part.level == Level::Message {
            return Ok(self.messages(part));
        }
        let key = self.split_key(part);
        let known = self.splits.borrow().get(&key).cloned();
        let cells = if let Some(cells) = known {
            cells
        } else {
            let cells: Arc<[Cell]> = self.cells(part)?.into();
            self.splits.borrow_mut().insert(key, cells.clone());
            cells
        };
        let parts = cells.iter().filter_map(|cell| self.within(part, cell));
        Ok(parts.collect())
    }

    fn split_key(&self, part: &Part) -> SplitKey {
        let set = self.hosts.sets.get(part.hosts);
        let is_plain = set.is_some_and(|set| set.is_plain(&self.policies));
        let level = part.level;
        let reader = |policy: &&Policy| {
            let request = part.witness.request.as_ref()?;
            let service = policy.reader_of(&part.witness.target, &request.path)?;
            Some(Box::from(service))
        };
        let reads = level == OPERATION && !is_plain;
        let read_by = self.policies.iter().filter(|_| reads);
        let rules = part.rules.iter().zip(&part.network_denies);
        let rules = self.policies.iter().zip(rules);
        let rules = rules.map(|(policy, (rules, denies))| {
            let splits = |id: &&RuleId| policy.rule(**id).is_some_and(|rule| level.is_in(rule));
            let all = rules.iter().chain(denies);
            all.filter(splits).copied().collect()
        });
        let splits = |at: &&u32| {
            self.selectors
                .rule(**at)
                .is_some_and(|rule| level.is_in(rule))
        };
        SplitKey {
            level,
            hosts: (!is_plain).then_some(part.hosts),
            is_message: part.is_message(),
            is_to_endpoint: part.is_to_endpoint(),
            readers: read_by.map(reader).collect(),
            rules: rules.collect(),
            selectors: part.selectors.iter().filter(splits).copied().collect(),
        }
    }

    /// Returns the cells by which a part is split.
    fn cells(&self, part: &Part) -> Result<Vec<Cell>, TooComplex> {
        let rules = self.rules_of(part);
        let flat: Vec<&Rule> = rules.iter().flatten().copied().collect();
        let witness = &part.witness;
        Ok(match part.level {
            Level::Protocol => cell::protocols(false),
            Level::Port => {
                let usual = default_ports(&self.policies, &witness.target);
                let mut cells = cell::ports(&flat, &usual);
                cells.sort_by_key(|cell| !matches!(cell, Cell::Port(ports) if ports.contains(443)));
                cells
            }
            PATH if part.is_to_endpoint() => vec![Cell::Any],
            Level::Request(dimension) => {
                let mut cells = dimension.cells(&self.policies, witness, &flat)?;
                // The categories of a path are those of one host, and the cells may be for several:
                // `at_path` compares them for each part.
                for cell in &mut cells {
                    if let Cell::Path { categories, .. } = cell {
                        *categories = None;
                    }
                }
                cells
            }
            Level::Tier
            | Level::Subject
            | Level::Groups
            | Level::Repository
            | Level::Message
            | Level::End => Vec::new(),
        })
    }

    /// Returns the flows of a part in a cell; `None` if there are no relevant ones.
    fn within(&self, part: &Part, cell: &Cell) -> Option<Part> {
        let mut inner = part.clone();
        cell.write(&mut inner.witness);
        let point = inner.witness.clone();
        self.retain(&mut inner, |_, rule| cell.may_match(rule, &point));
        match (cell, part.level) {
            (Cell::Port(ports), _) => self.at_ports(&mut inner, ports)?,
            (_, PATH) => self.at_path(&mut inner),
            (Cell::Any, ACTION) => inner.any_action = true,
            _ => {}
        }
        if part.level >= ACTION && !self.is_possible(&inner) {
            return None;
        }
        inner.level = inner.level_after();
        Some(inner)
    }

    /// Removes rules that a deny overrules, and requests through tunnels in which none is judged.
    fn at_ports(&self, part: &mut Part, ports: &PortSet) -> Option<()> {
        part.ports = ports.clone();
        // An exception overrules a deny, and rules grant the private addresses that it reaches.
        if self.selectors.within().is_none() {
            let sides = self.policies.iter().zip(&mut part.rules).enumerate();
            for (side, (policy, rules)) in sides {
                if !self.passes_denied(policy, part.tiers.get(side).copied()) {
                    drop_overruled(policy, rules, None);
                }
            }
        }
        let over_tls = part.witness.request.as_ref().is_some_and(|it| it.tls);
        if !over_tls {
            return Some(());
        }
        let sides = 0..self.policies.len();
        part.tunnels = sides
            .filter_map(|side| Some(Tunnel::new(self.decide_tunnel(part, side)?)))
            .collect();
        part.tunnels.iter().any(|it| it.is_inspected).then_some(())
    }

    /// Whether a comparison of two policies counts a denied flow of a tier as passing: in `observe`
    /// mode the flow passes with the addresses and the inspection that allows grant. A proof treats
    /// such a tier as enforcing.
    fn passes_denied(&self, policy: &Policy, tier: Option<TierId>) -> bool {
        let observes = |tier| policy.tiers.tier(tier).mode == Mode::Observe;
        self.policies.len() > 1 && tier.is_some_and(observes)
    }

    /// Removes the rules for other categories than those of a path.
    fn at_path(&self, part: &mut Part) {
        let Some(request) = &part.witness.request else {
            return;
        };
        let target = &part.witness.target;
        let categories: Vec<Categories> = self
            .policies
            .iter()
            .map(|policy| {
                let mut categories = policy.path_categories(target, &request.path);
                if request.facts.mcp.is_some() {
                    categories.insert(crate::policy::Category::Mcp);
                }
                categories
            })
            .collect();
        self.retain(part, |side, rule| {
            let wanted = rule.to.categories;
            let of = categories.get(side);
            wanted.is_empty() || of.is_none_or(|of| wanted.intersects(*of))
        });
    }

    fn split_callers(&self, part: &Part, rules: &[Vec<&Rule>]) -> Result<Vec<Part>, TooComplex> {
        let mut parts = Vec::new();
        let next = part.level.next();
        let mut push = |fill: &dyn Fn(&mut Part)| {
            let mut inner = part.clone();
            fill(&mut inner);
            inner.level = next;
            parts.push(inner);
        };
        match part.level {
            Level::Tier => {
                for tiers in self.callers.tiers() {
                    push(&|inner| inner.tiers.clone_from(&tiers));
                }
            }
            Level::Subject => {
                for (subject, groups) in self.callers.subjects(rules) {
                    push(&|inner| {
                        inner.witness.who.subject = subject.map(Into::into);
                        inner.groups.clone_from(groups);
                    });
                }
            }
            Level::Groups => {
                for groups in self.callers.groups(&part.tiers, &part.groups, rules)? {
                    push(&|inner| inner.groups.clone_from(&groups));
                }
            }
            _ => {
                let repositories = self.callers.repositories(&part.tiers, &part.groups, rules);
                for repository in repositories {
                    push(&|inner| inner.witness.who.repository = repository.map(Into::into));
                }
            }
        }
        for inner in &mut parts {
            let (tiers, groups) = (inner.tiers.clone(), inner.groups.clone());
            let who = inner.witness.who.clone();
            self.retain(inner, |side, rule| {
                let tier = tiers.get(side).copied();
                match part.level {
                    Level::Tier => tier.is_some_and(|tier| rule.from.tiers & tier.bit() != 0),
                    Level::Subject => rule.from.has_subject(&who),
                    Level::Groups => {
                        let groups = groups.get(side).map_or(0, |groups| groups.0);
                        rule.from.groups == 0 || rule.from.groups & groups != 0
                    }
                    _ => rule.from.has_repository(&who),
                }
            });
        }
        Ok(parts)
    }

    /// Removes the rules that can no longer match.
    fn retain(&self, part: &mut Part, holds: impl Fn(usize, &Rule) -> bool) {
        let lists = part.rules.iter_mut().zip(&mut part.network_denies);
        for (side, (policy, (rules, denies))) in self.policies.iter().zip(lists).enumerate() {
            let keep = |id: &RuleId| policy.rule(*id).is_some_and(|rule| holds(side, rule));
            rules.retain(keep);
            denies.retain(keep);
        }
        let selectors = &mut part.selectors;
        selectors.retain(|at| self.selectors.rule(*at).is_some_and(|rule| holds(0, rule)));
    }

    /// Returns the cells of MCP: no message, a message to an unlisted server, and one to each
    /// listed endpoint.
    fn messages(&self, part: &Part) -> Vec<Part> {
        let target = &part.witness.target;
        let servers = self.policies.iter().flat_map(|policy| policy.servers.all());
        let here = servers.filter(|server| server.target == *target);
        let mut endpoints: Vec<&Path> = Vec::new();
        for server in here {
            if !endpoints
                .iter()
                .any(|path| path.path() == server.path.path())
            {
                endpoints.push(&server.path);
            }
        }
        let mut parts = Vec::new();
        let kinds = [None, Some(None)].into_iter();
        for kind in kinds.chain(endpoints.into_iter().map(|path| Some(Some(path)))) {
            let mut inner = part.clone();
            inner.level = PATH;
            let Some(request) = &mut inner.witness.request else {
                continue;
            };
            request.facts.mcp = kind.map(|_| McpCall::default());
            if let Some(Some(path)) = kind {
                request.path = path.clone();
                let of = |policy: &&Policy| {
                    let server = policy.servers.endpoint(target, path)?;
                    Some(policy.servers.get(server)?.name.clone())
                };
                inner.servers = self.policies.iter().map(of).collect();
            }
            parts.push(inner);
        }
        parts
    }

    /// Whether the readers of the services can read such facts from some request. Without a
    /// service, only the action is read.
    fn is_possible(&self, part: &Part) -> bool {
        let Some(request) = &part.witness.request else {
            return true;
        };
        let facts = &request.facts;
        let names_something = [&facts.repository, &facts.package, &facts.reference]
            .iter()
            .any(|fact| fact.is_some());
        if !names_something && facts.operation.is_none() {
            return true;
        }
        let possible = |policy: &&Policy| {
            let Some(service) = policy.reader_of(&part.witness.target, &request.path) else {
                return false;
            };
            let services = &policy.catalogue.services;
            let acts = |action| part.any_action || facts.action == Some(action);
            let operation = facts.operation.as_deref();
            operation.is_none_or(|operation| services.may_do(service, operation, acts))
        };
        self.policies.iter().any(possible)
    }

    /// Returns one of the flows of a part, under a policy.
    pub(in crate::policy) fn point(&self, part: &Part, side: usize) -> Point {
        let mut point = part.witness.clone();
        point.who = Self::who(part, side);
        if let Some(request) = &mut point.request {
            if let Some(call) = &mut request.facts.mcp {
                call.server = part.servers.get(side).cloned().flatten();
            }
            let policy = self.policies.get(side);
            let reader = policy.and_then(|it| it.reader_of(&point.target, &request.path));
            if reader.is_none() {
                let facts = &mut request.facts;
                facts.operation = None;
                facts.repository = None;
                facts.package = None;
                facts.reference = None;
            }
        }
        point
    }

    /// Returns the services that read the requests of a part, one for each of two policies, if they
    /// differ and a rule for the callers and hosts has a condition on facts that they read. The facts of
    /// the part then belong to different requests in each policy.
    pub(in crate::policy) fn readers(&self, part: &Part) -> Option<[Option<&'p str>; 2]> {
        let request = part.witness.request.as_ref()?;
        let [before, after] = self.policies[..] else {
            return None;
        };
        let readers = [before, after].map(|it| it.reader_of(&part.witness.target, &request.path));
        let rules = &self.hosts.sets.get(part.hosts)?.rules;
        let sides = self.policies.iter().zip(rules).zip(&part.tiers);
        let mut rules = sides.flat_map(|((policy, ids), tier)| {
            let rules = ids.iter().filter_map(|id| policy.rule(*id));
            rules.filter(|rule| rule.from.tiers & tier.bit() != 0)
        });
        let [before, after] = readers;
        (before != after && rules.any(Rule::has_facts)).then_some(readers)
    }

    /// Returns the caller of a part, under a policy.
    fn who(part: &Part, side: usize) -> Who {
        Who {
            tier: part.tiers.get(side).copied().unwrap_or(TierId(0)),
            groups: part.groups.get(side).copied().unwrap_or_default(),
            ..part.witness.who.clone()
        }
    }

    fn decide_tunnel(&self, part: &Part, side: usize) -> Option<Decision> {
        let policy = self.policies.get(side)?;
        let query = Query {
            who: &Self::who(part, side),
            target: &part.witness.target,
            attempt: Attempt::Connect,
        };
        Some(policy.decide_with(&query, self.selectors.live()))
    }

    /// Returns the outcome of the flows of a part under a policy.
    pub(in crate::policy) fn outcome(&self, part: &Part, side: usize) -> Option<Outcome> {
        let policy = self.policies.get(side)?;
        let decide = || {
            let point = self.point(part, side);
            let mut query = point.query();
            // A request for another protocol changes only whether the upgrade is granted.
            if let Attempt::Request { upgrade, .. } = &mut query.attempt {
                *upgrade = true;
            }
            policy.decide_with(&query, self.selectors.live())
        };
        if let Some(tunnel) = part.tunnels.get(side) {
            return Some(Outcome::within(tunnel, decide));
        }
        Some(Outcome {
            ech: policy.allows_ech(part.tiers.get(side).copied()?),
            ..Outcome::of(decide())
        })
    }
}

impl Part {
    /// One of its hosts.
    pub(in crate::policy) fn host(&self) -> &Host {
        &self.witness.target.host
    }

    /// Whether all flows are requests.
    pub(in crate::policy) fn is_request(&self) -> bool {
        self.witness.request.is_some()
    }

    /// Returns the kind of the flows.
    pub(in crate::policy) fn kind(&self) -> Kind {
        match &self.witness.request {
            None => Kind::Tunnel,
            Some(request) if request.tls => Kind::Https,
            Some(_) => Kind::Http,
        }
    }

    fn is_message(&self) -> bool {
        let request = self.witness.request.as_ref();
        request.is_some_and(|request| request.facts.mcp.is_some())
    }

    fn is_to_endpoint(&self) -> bool {
        self.servers.iter().any(Option::is_some)
    }

    /// Whether a tunnel is split no further: the last split is by port.
    fn level_after(&self) -> Level {
        match self.level.next() {
            next if next > Level::Port && !self.is_request() => Level::End,
            next => next,
        }
    }
}

impl<K: Fn(&Part) -> bool> Parts<'_, '_, K> {
    /// Counts branches. Ends the iteration if there are too many.
    fn count(&mut self, branches: usize) -> Result<(), Incomplete> {
        if let Some(left) = self.branches_left.checked_sub(branches) {
            self.branches_left = left;
            return Ok(());
        }
        self.open.clear();
        self.hosts.clear();
        Err(Incomplete::Rest)
    }

    /// Opens the part of all flows to a set of hosts.
    fn open_hosts(&mut self, at: usize) -> Result<(), Incomplete> {
        let whole = self.space.whole(at);
        if let Some(whole) = whole.filter(|whole| (self.keep)(whole)) {
            self.count(1)?;
            self.open.push(whole);
        }
        Ok(())
    }

    /// Splits a part. Returns the part itself if it is split no further.
    fn split(&mut self, part: Part) -> Result<Option<Part>, Incomplete> {
        if part.level == Level::End {
            return Ok(Some(part));
        }
        let parts = self.space.split(&part)?;
        self.count(parts.len())?;
        let kept = parts.into_iter().rev().filter(|part| (self.keep)(part));
        self.open.extend(kept);
        Ok(None)
    }
}

impl<K: Fn(&Part) -> bool> Iterator for Parts<'_, '_, K> {
    type Item = Result<Part, Incomplete>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let step = if let Some(part) = self.open.pop() {
                self.split(part)
            } else {
                let at = self.hosts.pop()?;
                self.open_hosts(at).map(|()| None)
            };
            if let Some(found) = step.transpose() {
                return Some(found);
            }
        }
    }
}
