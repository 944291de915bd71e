//! The regions of a policy: the sets of flows that its rules can distinguish.
//!
//! A [`Region`] is a set of flows (caller × host × port × request) that the policy decides in the
//! same way: the same stage, by the same rule, with the same grants. It has a witness, one of its
//! flows. The regions of a policy do not overlap, and each flow is in one of them, except flows of
//! narrowed sessions, of callers that only claim a repository, and requests whose body was not read
//! yet: those are judged again afterwards.
//!
//! The regions are the leaves of a tree. Each level splits the remaining flows by one
//! [`Dimension`], and only by the conditions of rules that can still decide: a deny that matches
//! every request ends the branch. [`Regions`] visits the leaves one after the other, so a search
//! for one region visits only one path.

pub(super) mod cell;
mod hosts;
pub(super) mod requests;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use crate::name::{Path, Target};

use super::compiled::Policy;
use super::decide::Judgement;
use super::facts::{McpCall, RequestFacts, Seen};
use super::index::RuleId;
use super::pattern::{PortSet, TooComplex};
use super::query::{Attempt, GroupSet, Query, TierId, Who};
use super::rule::Rule;
use super::servers::ServerId;
use super::verdict::{TierBasis, Verdict};

use cell::Cell;
use hosts::HostGroup;
pub(super) use hosts::HostGroups;
pub(super) use requests::RequestDimension;

/// One flow, owned.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) who: Who,
    pub(super) target: Target,
    /// `None`: a tunnel.
    pub(super) request: Option<Request>,
}

/// The request of a flow.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) tls: bool,
    pub(super) method: Box<str>,
    pub(super) path: Path,
    pub(super) facts: RequestFacts,
}

/// A set of flows that the policy decides in the same way.
#[derive(Clone, Debug)]
pub(super) struct Region {
    cells: Vec<Cell>,
    /// One of the flows.
    pub(super) witness: Point,
    /// The rules that can decide some flow here, in the order of comparison.
    pub(super) rules: Vec<RuleId>,
}

/// Whether there is a request with the facts of a witness.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Feasible {
    /// The reader of the service reads these facts from this method and path.
    Yes,
    /// The reader gets a part of them from the head; the rest is in a body.
    InBody,
    /// The reader gets other facts from this method and path. Another path may have them.
    Unproved,
}

/// The dimensions of splits, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Dimension {
    Host,
    Tier,
    Groups,
    Subject,
    Repository,
    Protocol,
    Port,
    Message,
    Request(RequestDimension),
}

impl Dimension {
    /// Returns the dimension after this one.
    fn next(self) -> Option<Self> {
        Some(match self {
            Self::Host => Self::Tier,
            Self::Tier => Self::Groups,
            Self::Groups => Self::Subject,
            Self::Subject => Self::Repository,
            Self::Repository => Self::Protocol,
            Self::Protocol => Self::Port,
            Self::Port => Self::Message,
            Self::Message => Self::Request(RequestDimension::Path),
            Self::Request(dimension) => Self::Request(dimension.next()?),
        })
    }

    /// Whether only requests have this dimension.
    fn is_of_requests(self) -> bool {
        matches!(self, Self::Message | Self::Request(_))
    }
}

/// The regions to visit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope<'p> {
    /// Only the region of this flow.
    pub(super) point: Option<&'p Point>,
    /// Only flows of this rule: its callers, destinations and requests.
    pub(super) rule: Option<RuleId>,
    /// Only callers in this tier.
    pub(super) tier: Option<TierId>,
    /// Only tunnels; the rule's conditions on requests are ignored.
    pub(super) tunnels: bool,
    /// Maximum number of splits; the rest then counts as too complex. `None`: no limit.
    pub(super) max_splits: Option<usize>,
}

/// The regions of a policy, one after the other.
pub(super) struct Regions<'p> {
    policy: &'p Policy,
    groups: &'p HostGroups,
    scope: Scope<'p>,
    /// The groups of hosts that were not started, in reverse order.
    hosts: Vec<&'p Arc<HostGroup>>,
    /// The branches that were not split completely, in reverse order.
    open: Vec<Branch>,
    /// The number of splits so far.
    splits: usize,
}

/// A set of flows that is split up to a dimension.
#[derive(Clone, Debug)]
struct Branch {
    region: Region,
    /// The next dimension to split.
    next: Option<Dimension>,
}

impl Policy {
    /// Returns the hosts of the policy, grouped by the facts of rules, destinations and the floor.
    pub(super) fn host_groups(&self) -> HostGroups {
        HostGroups::new(self)
    }

    /// Returns the regions of the policy within a scope. `Err` for a part with too many patterns to
    /// compare; the rest follows.
    pub(super) fn regions<'p>(&'p self, groups: &'p HostGroups, scope: Scope<'p>) -> Regions<'p> {
        let holds = |group: &&Arc<HostGroup>| {
            let host = scope.point.map(|point| &point.target.host);
            host.is_none_or(|host| groups.holds(self, group, host))
        };
        let hosts = groups.within(scope.rule).into_iter().rev().filter(holds);
        Regions {
            policy: self,
            groups,
            scope,
            hosts: hosts.collect(),
            open: Vec::new(),
            splits: 0,
        }
    }
}

/// Returns a caller without evidence.
pub(super) fn anyone() -> Who {
    Who {
        tier: TierId(0),
        tier_basis: TierBasis::Unattributed,
        groups: GroupSet::default(),
        subject: None,
        repository: None,
        claimed: Vec::new(),
        enforced: false,
        within: None,
        session: None,
    }
}

impl Iterator for Regions<'_> {
    type Item = Result<Region, TooComplex>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let branch = self.next_branch()?;
            let Some(dimension) = branch.next.filter(|it| branch.has(*it)) else {
                return Some(Ok(branch.region));
            };
            if self
                .scope
                .max_splits
                .is_some_and(|most| self.splits >= most)
            {
                self.open.clear();
                self.hosts.clear();
                return Some(Err(TooComplex));
            }
            self.splits += 1;
            let parts = match self.split(&branch.region, dimension) {
                Ok(parts) => parts,
                Err(error) => return Some(Err(error)),
            };
            let next = dimension.next();
            let branches = parts
                .into_iter()
                .rev()
                .map(|region| Branch { region, next });
            self.open.extend(branches);
        }
    }
}

impl Branch {
    fn has(&self, dimension: Dimension) -> bool {
        !dimension.is_of_requests() || self.region.witness.request.is_some()
    }
}

impl Regions<'_> {
    /// Returns the number of splits so far: a measure of the time that was spent.
    pub(super) fn splits(&self) -> usize {
        self.splits
    }

    /// Returns the next branch to split: a started one, otherwise the next group of hosts.
    fn next_branch(&mut self) -> Option<Branch> {
        if let Some(branch) = self.open.pop() {
            return Some(branch);
        }
        let group = self.hosts.pop()?;
        let rules = group.rules.iter().chain(&self.groups.hostless);
        Some(Branch {
            region: Region {
                cells: vec![Cell::Host(group.clone())],
                witness: Point {
                    who: anyone(),
                    target: Target {
                        host: group.witness.clone(),
                        port: 443,
                    },
                    request: None,
                },
                rules: rules.copied().collect(),
            },
            next: Dimension::Host.next(),
        })
    }

    /// Returns the parts of a region by one dimension, without parts outside the scope's rule.
    fn split(&self, region: &Region, dimension: Dimension) -> Result<Vec<Region>, TooComplex> {
        let policy = self.policy;
        let rules: Vec<&Rule> = region
            .rules
            .iter()
            .filter_map(|id| policy.rule(*id))
            .collect();
        let cells = match dimension {
            Dimension::Host => vec![Cell::Any],
            Dimension::Tier => self.tiers(),
            Dimension::Groups => cell::groups(&rules)?,
            Dimension::Subject => cell::subjects(&rules)?,
            Dimension::Repository => cell::repositories(&rules)?,
            Dimension::Protocol => cell::protocols(self.scope.tunnels),
            Dimension::Port => {
                let usual = default_ports(&[policy], &region.witness.target);
                cell::ports(&rules, &usual)
            }
            Dimension::Message => requests::messages(policy, &region.witness.target),
            Dimension::Request(dimension) => dimension.cells(&[policy], &region.witness, &rules)?,
        };
        let holds = |cell: &Cell| {
            let point = self.scope.point;
            point.is_none_or(|point| cell.contains(policy, self.groups, point))
        };
        let part = |cell: Cell| self.part(region, dimension, cell);
        Ok(cells.into_iter().filter(holds).filter_map(part).collect())
    }

    fn tiers(&self) -> Vec<Cell> {
        let wanted = |tier: &TierId| self.scope.tier.is_none_or(|only| only == *tier);
        let tiers = self.policy.tiers.ids().filter(wanted);
        tiers.map(Cell::Tier).collect()
    }

    /// Returns one part of a region; `None` if the rule of the scope applies to none of its flows.
    fn part(&self, region: &Region, dimension: Dimension, cell: Cell) -> Option<Region> {
        let mut part = region.clone();
        cell.write(&mut part.witness);
        let matched = |id: &RuleId| {
            let rule = self.policy.rule(*id);
            rule.is_some_and(|rule| cell.may_match(rule, &part.witness))
        };
        part.rules.retain(matched);
        part.cells.push(cell);
        if dimension == Dimension::Port {
            drop_overruled(self.policy, &mut part.rules, self.scope.rule);
        }
        let wanted = self.scope.rule.is_none_or(|rule| {
            part.rules.contains(&rule) || dimension.is_of_requests() && self.scope.tunnels
        });
        wanted.then_some(part)
    }
}

/// Returns the ports of conditions without ports.
pub(super) fn default_ports(policies: &[&Policy], target: &Target) -> PortSet {
    let of_policy = |policy: &&Policy| {
        let servers = policy.servers.all();
        let here = servers.filter(|server| server.target.host == target.host);
        let of_entry = policy.label(target).ports.iter().copied();
        of_entry
            .chain(here.map(|server| server.target.port))
            .collect::<Vec<u16>>()
    };
    PortSet::of(policies.iter().flat_map(of_policy).chain([80, 443]))
}

/// Removes the rules that a deny overrules for every request, except the denies before it, which a
/// record may name, and the rule to `keep`.
pub(super) fn drop_overruled(policy: &Policy, rules: &mut Vec<RuleId>, keep: Option<RuleId>) {
    let rule = |id: RuleId| policy.rule(id);
    let settled = |id: &RuleId| rule(*id).is_some_and(|rule| is_deny(rule) && is_whole(rule));
    let Some(place) = rules.iter().position(settled) else {
        return;
    };
    let mut at = 0;
    rules.retain(|id| {
        let before = at <= place;
        at += 1;
        (before && rule(*id).is_some_and(is_deny)) || keep == Some(*id)
    });
}

fn is_deny(rule: &Rule) -> bool {
    rule.verdict == Verdict::Deny
}

/// Whether a rule matches each flow of its callers, hosts and ports.
fn is_whole(rule: &Rule) -> bool {
    rule.does.is_empty()
        && rule.unless.is_none()
        && rule.to.categories.is_empty()
        && cell::has_plain_ports(rule)
}

impl Region {
    /// Whether a flow is in the region.
    #[cfg_attr(not(test), expect(dead_code, reason = "for differences of policies"))]
    pub(super) fn contains(&self, policy: &Policy, groups: &HostGroups, point: &Point) -> bool {
        let who = &point.who;
        who.claimed.is_empty()
            && who.within.is_none()
            && self
                .cells
                .iter()
                .all(|cell| cell.contains(policy, groups, point))
    }
}

impl Point {
    /// Returns the flow as a query to the policy.
    pub(super) fn query(&self) -> Query<'_> {
        Query {
            who: &self.who,
            target: &self.target,
            attempt: match &self.request {
                None => Attempt::Connect,
                Some(request) => Attempt::Request {
                    method: &request.method,
                    path: &request.path,
                    upgrade: false,
                    tls: request.tls,
                    request_facts: Some(&request.facts),
                },
            },
        }
    }

    /// Returns the policy's judgement of the flow.
    pub(super) fn judge<'p>(&'p self, policy: &'p Policy) -> Judgement<'p> {
        let facts = self.request.as_ref().map(|request| &request.facts);
        policy.judge(&self.query(), facts, None)
    }

    /// Whether the reader of the service reads the facts of the flow from its method and path.
    pub(super) fn feasible(&self, policy: &Policy) -> Feasible {
        let Some(request) = &self.request else {
            return Feasible::Yes;
        };
        let read = policy.read(&self.target, &request.method, &request.path);
        let (facts, in_body) = (&request.facts, read.seen == Seen::Head);
        let same = |read: Option<&str>, fact: Option<&str>| match (read, fact) {
            (Some(read), Some(fact)) => read == fact,
            (None, Some(_)) => in_body,
            (Some(_), None) => false,
            (None, None) => true,
        };
        let names = same(read.repository.as_deref(), facts.repository.as_deref())
            && same(read.package.as_deref(), facts.package.as_deref())
            && same(read.reference.as_deref(), facts.reference.as_deref())
            && (in_body || read.operation == facts.operation)
            && (in_body || read.action == facts.action)
            && (in_body || read.mcp.is_some() == facts.mcp.is_some());
        match (names, in_body) {
            (true, false) => Feasible::Yes,
            (true, true) => Feasible::InBody,
            (false, _) => Feasible::Unproved,
        }
    }
}

/// Returns a request without facts.
fn blank(tls: bool) -> Option<Request> {
    let path = Path::parse(b"/").ok()?;
    Some(Request {
        tls,
        method: "GET".into(),
        path,
        facts: RequestFacts {
            seen: Seen::Whole,
            ..RequestFacts::default()
        },
    })
}

/// Returns a call of a tool, or another message, to an MCP server.
fn message(policy: &Policy, server: Option<ServerId>) -> McpCall {
    let server = server.and_then(|id| policy.servers.get(id));
    McpCall {
        server: server.map(|server| Arc::clone(&server.name)),
        ..McpCall::default()
    }
}
