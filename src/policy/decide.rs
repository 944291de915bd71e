//! The decision: total, pure, allocation-free but for its answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::name::{AddressClass, Host, Path, SpecialName, Target, canonical, classify, special};

use super::catalogue::Entry;
use super::clause::{Clause, Fit, Flow, Miss};
use super::compile::Policy;
use super::hosts::ClauseId;
use super::passage::Inspection;
use super::survey::{CategorySource, Survey};
use super::tiers::Tier;
use super::verdict::{Decision, Mode, Reason, TierBasis, Verdict};
use super::{Body, Category, Deed, Inspect, McpCall, Published, Seen, Within, addresses};

/// A tier, by its place in the order: 0 is the loosest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TierId(pub u8);

/// A group of the policy.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct GroupId(pub u8);

/// A set of groups (at most 128 in a policy).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct GroupSet(pub u128);

/// The caller as policy sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Who {
    /// The tier, after the strictest of all evidence was taken.
    pub tier: TierId,
    /// What told the tier.
    pub tier_basis: TierBasis,
    /// The groups.
    pub groups: GroupSet,
    /// The clone URL without scheme, user and `.git`.
    pub repository: Option<Arc<str>>,
    /// Whether it is in its tier only because it was narrowed, and that one observes while its own
    /// enforces: what would be denied is denied.
    pub enforced: bool,
    /// What it may reach at most, where its evidence says.
    pub within: Option<Arc<Within>>,
}

/// What is attempted.
#[derive(Clone, Copy, Debug)]
pub enum Attempt<'a> {
    /// A tunnel; what happens inside cannot be seen.
    Connect,
    /// A request that can be seen.
    Request {
        /// As on the wire: methods are case-sensitive.
        method: &'a str,
        /// The canonical path and query.
        path: &'a Path,
        /// Whether it asks for another protocol.
        upgrade: bool,
        /// Whether it goes over TLS (port 443 by default).
        tls: bool,
        /// What it does; `None`: what [`Policy::read`] makes of its head.
        deed: Option<&'a Deed>,
    },
}

/// Everything a decision may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Who asks.
    pub who: &'a Who,
    /// Where to.
    pub target: &'a Target,
    /// What for.
    pub attempt: Attempt<'a>,
}

/// What the proxy itself occupies: part of the floor.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Guard {
    /// Own listeners; an unspecified address stands for every interface.
    pub listeners: Vec<SocketAddr>,
    /// Addresses of own interfaces, and networks that this machine answers for.
    pub interfaces: Vec<IpNet>,
}

impl Policy {
    /// Decides one flow by its name: the floor, the caller's own narrowing, then deny, ask, allow,
    /// the tier's default.
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        let read = self.read_for(query);
        self.judge(query, deed(query, read.as_ref())).answer(self)
    }

    /// Where it is told how old a version of a package is that a request asks for.
    pub fn published(&self, deed: &Deed, target: &Target, path: &Path) -> Published {
        self.catalogue.services.published(deed, target, path)
    }

    /// What a request does, as its head tells: by the service of its destination, from the data
    /// files beside the catalogue; of a listed MCP server, that its messages have to be read.
    pub fn read(&self, target: &Target, method: &str, path: &Path) -> Deed {
        let (mut assigned, mut service) = (None, None);
        self.hosts.each(&target.host, |id| {
            if let Some(clause) = self.clause(id) {
                assigned = assigned.or(clause.assigns);
                service = service.or(clause.service.as_deref());
            }
        });
        let entry = self.catalogue.find(&target.host);
        let service = service.or(entry.and_then(|entry| entry.service.as_deref()));
        let by_path = |entry: &Entry| entry.split(path.path()).unwrap_or(entry.category);
        let server = self.servers.endpoint(target, path);
        let server = server.and_then(|id| self.servers.get(id));
        let category = match server {
            Some(_) => Category::Mcp,
            None => assigned.or(entry.map(by_path)).unwrap_or(Category::Unknown),
        };
        let mut deed = self
            .catalogue
            .services
            .read(service, category, method, path);
        if let Some(server) = server {
            deed.seen = Seen::Head;
            deed.body = Some(Body::Mcp);
            deed.mcp = Some(McpCall {
                server: Some(server.name.clone()),
                ..McpCall::default()
            });
        }
        deed
    }

    /// What the head of a query tells, where nobody read it yet.
    pub(super) fn read_for(&self, query: &Query<'_>) -> Option<Deed> {
        match query.attempt {
            Attempt::Connect | Attempt::Request { deed: Some(_), .. } => None,
            Attempt::Request { method, path, .. } => Some(self.read(query.target, method, path)),
        }
    }

    /// Judges an address that a name resolved to (or that was asked for literally), for a flow that
    /// `decision` lets pass: the floor's second half. `Err` says why it may not be dialled.
    pub fn judge_address(
        &self,
        decision: &Decision,
        address: IpAddr,
        port: u16,
        guard: &Guard,
    ) -> Result<(), Reason> {
        if guard.lets_dial(address, port, &decision.addresses) {
            return Ok(());
        }
        Err(Reason::AddressDenied)
    }

    /// Collects what decides: everything that [`Judgement::answer`] and an explanation need.
    pub(super) fn judge<'p>(&'p self, query: &Query<'p>, deed: Option<&'p Deed>) -> Judgement<'p> {
        let tier = self.tiers.tier(query.who.tier);
        let mut flow = self.flow(query, deed, tier);
        let ground = Ground::of(&query.target.host);
        let mut found = Found::new(ground);
        let mut survey = Survey::default();
        self.hosts.each(&query.target.host, |id| {
            let Some(clause) = self.clause(id) else {
                return;
            };
            survey.note(clause, &flow);
            found.consider(clause, &flow);
        });
        let by_host = self.categorize(query, survey.assigns, &flow);
        flow.category = by_host.category;
        let inspection = self.inspection(&flow, query, &mut survey);
        flow.inspected = matches!(inspection, Inspection::Yes);
        let source = self.by_request(by_host, &mut flow, query);
        // Rarely, what was found depends on what is only known now.
        let again = match query.attempt {
            Attempt::Connect => flow.inspected && survey.conditional,
            Attempt::Request { .. } => flow.mcp.is_some(),
        };
        if again {
            found = Found::new(ground);
            self.hosts.each(&query.target.host, |id| {
                if let Some(clause) = self.clause(id) {
                    found.consider(clause, &flow);
                }
            });
        }
        for id in self.hostless(&flow) {
            if let Some(clause) = self.clause(*id) {
                found.consider(clause, &flow);
            }
        }
        Judgement {
            tier,
            flow,
            source,
            inspection,
            target: query.target,
            found,
        }
    }

    fn flow<'p>(&self, query: &Query<'p>, deed: Option<&'p Deed>, tier: &Tier) -> Flow<'p> {
        let server = deed.and_then(|deed| deed.mcp.as_ref()?.server.as_deref());
        Flow {
            who: query.who,
            attempt: query.attempt,
            port: query.target.port,
            category: Category::Unknown,
            deed,
            action: deed.and_then(|deed| deed.action),
            server: server.and_then(|name| self.servers.find(name)),
            site: self.servers.at(query.target),
            mcp: None,
            inspected: false,
            destination_ports: &[],
            opaque: tier.opaque,
        }
    }

    /// The clauses without hosts that can match a flow.
    pub(super) fn hostless(&self, flow: &Flow<'_>) -> &[ClauseId] {
        let tier = usize::from(flow.who.tier.0);
        let lists = self.hostless.get(tier).or(self.hostless.last());
        lists
            .and_then(|lists| lists.get(flow.category as usize))
            .map_or(&[], |list| list)
    }
}

/// What the query says is done, or else what was read of it.
pub(super) fn deed<'q>(query: &Query<'q>, read: Option<&'q Deed>) -> Option<&'q Deed> {
    match query.attempt {
        Attempt::Connect => None,
        Attempt::Request { deed, .. } => deed.or(read),
    }
}

/// What the floor makes of a host.
#[derive(Clone, Copy, Debug)]
enum Ground {
    /// Nothing.
    Firm,
    /// Never, whatever is written.
    Never,
    /// Only by an allow that names this private address.
    NeedsAddress(IpAddr),
    /// Only by an allow that names private addresses.
    NeedsAddresses,
}

impl Ground {
    fn of(host: &Host) -> Self {
        match host {
            Host::Name(name) => match special(name) {
                None => Self::Firm,
                Some(SpecialName::Metadata | SpecialName::Never) => Self::Never,
                Some(SpecialName::Private) => Self::NeedsAddresses,
            },
            Host::Address(address) => match classify(canonical(*address)) {
                AddressClass::Public => Self::Firm,
                AddressClass::Loopback | AddressClass::Private => Self::NeedsAddress(*address),
                AddressClass::LinkLocal | AddressClass::Metadata | AddressClass::Unroutable => {
                    Self::Never
                }
            },
        }
    }

    /// Whether an allow with these addresses may lift a flow over the floor.
    fn bears(self, networks: &[IpNet]) -> bool {
        match self {
            Self::Firm => true,
            Self::Never => false,
            Self::NeedsAddress(address) => addresses::cover(networks, address),
            Self::NeedsAddresses => !networks.is_empty(),
        }
    }
}

/// The first clause of each kind that matches, and how near an allow came.
#[derive(Debug)]
struct Found<'p> {
    ground: Ground,
    deny: Option<&'p Clause>,
    ask: Option<&'p Clause>,
    allow: Option<&'p Clause>,
    /// An allow that denies the tool.
    tool: Option<&'p Clause>,
    /// An allow that names other credentials.
    foreign: Option<&'p Clause>,
    /// Whether a matching allow names the credentials.
    vouched: bool,
    near: Option<Miss>,
}

impl<'p> Found<'p> {
    fn new(ground: Ground) -> Self {
        Self {
            ground,
            deny: None,
            ask: None,
            allow: None,
            tool: None,
            foreign: None,
            vouched: false,
            near: None,
        }
    }

    /// Takes up a clause; the more specific ones come first.
    fn consider(&mut self, clause: &'p Clause, flow: &Flow<'_>) {
        let slot = match clause.verdict {
            Verdict::Allow => return self.consider_allow(clause, flow),
            Verdict::Ask => &mut self.ask,
            Verdict::Deny => &mut self.deny,
        };
        if slot.is_none() && clause.fit(flow) == Fit::Matches {
            *slot = Some(clause);
        }
    }

    fn consider_allow(&mut self, clause: &'p Clause, flow: &Flow<'_>) {
        if self.allow.is_some() && !clause.request.can_bar() {
            return;
        }
        match clause.fit(flow) {
            Fit::Matches if self.ground.bears(&clause.addresses) => {
                self.allow = self.allow.or(Some(clause));
                self.vouched |= clause.request.names_credentials();
            }
            Fit::Bars(Reason::CredentialDenied) => self.foreign = self.foreign.or(Some(clause)),
            Fit::Bars(_) => self.tool = self.tool.or(Some(clause)),
            Fit::Misses(miss @ (Miss::Port | Miss::Credential | Miss::Tool | Miss::Request)) => {
                self.near = Some(self.near.map_or(miss, |near| near.min(miss)));
            }
            Fit::Matches | Fit::Misses(_) => {}
        }
    }

    fn floor_holds(&self) -> bool {
        match self.ground {
            Ground::Firm => false,
            Ground::Never => true,
            Ground::NeedsAddress(_) | Ground::NeedsAddresses => self.allow.is_none(),
        }
    }
}

/// What decides a flow.
#[derive(Debug)]
pub(super) struct Judgement<'p> {
    pub(super) tier: &'p Tier,
    pub(super) flow: Flow<'p>,
    pub(super) source: CategorySource<'p>,
    pub(super) inspection: Inspection<'p>,
    target: &'p Target,
    found: Found<'p>,
}

/// The stage that decides.
#[derive(Clone, Copy, Debug)]
pub(super) enum Settled<'p> {
    /// The first clause of the winning kind.
    Clause(&'p Clause),
    /// An allow that forbids what is done within its reach.
    Barred(&'p Clause, Reason),
    /// No clause.
    Default,
    /// The floor.
    Floor,
    /// The caller's own narrowing.
    Narrowed,
}

impl<'p> Judgement<'p> {
    /// The floor, the narrowing, then deny, ask, allow, the tier's default: the first that matches.
    pub(super) fn settled(&self) -> Settled<'p> {
        let found = &self.found;
        if found.floor_holds() {
            return Settled::Floor;
        }
        let within = self.flow.who.within.as_deref();
        if within.is_some_and(|within| !within.holds(&self.flow)) {
            return Settled::Narrowed;
        }
        // An exception goes here.
        let foreign = found.foreign.filter(|_| !found.vouched);
        let barred = |reason| move |clause| Settled::Barred(clause, reason);
        let denied = found.deny.map(Settled::Clause);
        denied
            .or(found.tool.map(barred(Reason::McpToolDenied)))
            .or(foreign.map(barred(Reason::CredentialDenied)))
            .or(found.ask.or(found.allow).map(Settled::Clause))
            .unwrap_or(Settled::Default)
    }

    pub(super) fn answer(&self, policy: &Policy) -> Decision {
        let settled = self.settled();
        let (verdict, reason, rule) = match settled {
            Settled::Clause(clause) => (clause.verdict, clause.reason, &clause.named),
            Settled::Barred(clause, reason) => (Verdict::Deny, reason, &clause.named),
            Settled::Default => (self.tier.default, self.default_reason(), &self.tier.named),
            Settled::Floor => (Verdict::Deny, Reason::AddressDenied, &policy.floor),
            Settled::Narrowed => (Verdict::Deny, Reason::CategoryDenied, &policy.narrowed),
        };
        let mode = if self.flow.who.enforced {
            Mode::Enforce
        } else {
            self.tier.mode
        };
        let observed = mode == Mode::Observe
            && verdict != Verdict::Allow
            && !matches!(settled, Settled::Floor | Settled::Narrowed);
        let grants = match settled {
            Settled::Clause(clause) if verdict == Verdict::Allow => Some(clause),
            _ => None,
        };
        // Most rules name none: sharing one empty list spares a cache line that nobody has touched.
        let addresses = grants
            .map(|clause| &clause.addresses)
            .filter(|all| !all.is_empty());
        Decision {
            verdict: if observed { Verdict::Allow } else { verdict },
            would: observed.then_some(verdict),
            mode,
            reason,
            rule: rule.clone(),
            category: self.flow.category,
            basis: self.source.basis,
            action: self.flow.action,
            addresses: addresses.unwrap_or(&policy.no_addresses).clone(),
            raw: grants.is_some_and(|clause| clause.raw),
            upgrade: grants.is_some_and(|clause| clause.upgrade)
                || (verdict == Verdict::Allow && self.is_known_upgrade(policy)),
            inspect: match self.inspection {
                _ if verdict == Verdict::Deny && !observed => Inspect::No,
                Inspection::No => Inspect::No,
                Inspection::Passed(named) => Inspect::Passed(named.name.clone()),
                Inspection::Yes => Inspect::Yes,
            },
            upstream: grants
                .and_then(|clause| clause.upstream.as_ref())
                .or_else(|| {
                    policy
                        .passages
                        .upstream(&self.target.host, self.flow.category)
                })
                .cloned(),
            min_age: grants.and_then(|clause| clause.min_age),
        }
    }

    /// Whether the request asks for another protocol where the catalogue expects it.
    fn is_known_upgrade(&self, policy: &Policy) -> bool {
        match self.flow.attempt {
            Attempt::Request {
                path,
                upgrade: true,
                ..
            } => policy.catalogue.upgrades(&self.target.host, path.path()),
            _ => false,
        }
    }

    fn default_reason(&self) -> Reason {
        match (self.tier.default, self.found.near) {
            (Verdict::Allow, _) => Reason::Allowed,
            (Verdict::Ask, _) => Reason::NeedsApproval,
            (Verdict::Deny, Some(Miss::Port)) => Reason::PortDenied,
            (Verdict::Deny, Some(Miss::Credential)) => Reason::CredentialDenied,
            (Verdict::Deny, Some(Miss::Tool)) => Reason::McpToolDenied,
            (Verdict::Deny, Some(Miss::Request)) => Reason::ActionDenied,
            (Verdict::Deny, _) => Reason::NotAllowed,
        }
    }
}

impl TierId {
    pub(super) fn bit(self) -> u16 {
        1_u16.checked_shl(u32::from(self.0)).unwrap_or_default()
    }
}

impl GroupId {
    pub(super) fn bit(self) -> u128 {
        1_u128.checked_shl(u32::from(self.0)).unwrap_or_default()
    }
}

impl GroupSet {
    /// Adds a group.
    pub fn insert(&mut self, group: GroupId) {
        self.0 |= group.bit();
    }

    /// Whether a group is in the set.
    pub fn contains(self, group: GroupId) -> bool {
        self.0 & group.bit() != 0
    }

    pub(super) fn ids(self) -> impl Iterator<Item = GroupId> {
        (0..128)
            .map(GroupId)
            .filter(move |group| self.contains(*group))
    }
}

impl Guard {
    /// Whether the floor lets somebody who may reach these private addresses dial that one.
    pub fn lets_dial(&self, address: IpAddr, port: u16, named: &[IpNet]) -> bool {
        let meant = canonical(address);
        let class = classify(meant);
        if class.is_never() || self.listens(meant, port) {
            return false;
        }
        let inside = matches!(class, AddressClass::Loopback | AddressClass::Private);
        !(inside || self.owns(meant)) || addresses::cover(named, address)
    }

    /// Whether a listener of our own is, or might be, behind an address, told without its wrapping:
    /// an own port is closed on every address of this machine, whichever it was bound to.
    fn listens(&self, address: IpAddr, port: u16) -> bool {
        self.listeners
            .iter()
            .filter(|listener| listener.port() == port)
            .any(|listener| {
                let here = address.is_loopback() || self.owns(address);
                here || canonical(listener.ip()) == address
            })
    }

    fn owns(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|own| own.contains(&address))
    }
}
