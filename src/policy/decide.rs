//! The decision: total, pure, allocation-free but for its answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::name::{AddressClass, Host, Path, SpecialName, Target, canonical, classify, special};

use super::clause::{Clause, Flow, Miss, Ports};
use super::compile::Policy;
use super::tiers::Tier;
use super::verdict::{Basis, Decision, Mode, Reason, TierBasis, Verdict};
use super::{Action, Category, Deed, Inspect, Within, addresses};

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
    /// Addresses of own interfaces.
    pub interfaces: Vec<IpAddr>,
}

impl Policy {
    /// Decides one flow by its name: the floor, the caller's own narrowing, then deny, ask, allow,
    /// the tier's default.
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        self.judge(query).answer(self)
    }

    /// What a request does, as its head tells: by the service of its destination, from the data
    /// files beside the catalogue.
    pub fn read(&self, _target: &Target, _method: &str, _path: &Path) -> Deed {
        Deed::default()
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
    pub(super) fn judge<'p>(&'p self, query: &Query<'p>) -> Judgement<'p> {
        let tier = self.tiers.tier(query.who.tier);
        let mut flow = Flow {
            who: query.who,
            attempt: query.attempt,
            port: query.target.port,
            category: Category::Unknown,
            action: None,
            destination_ports: &[],
            opaque: tier.opaque,
        };
        let mut found = Found::new(Ground::of(&query.target.host));
        let mut assigned = None;
        self.hosts.each(&query.target.host, |id| {
            let Some(clause) = self.clause(id) else {
                return;
            };
            assigned = assigned.or(clause.assigns.map(|category| (category, clause)));
            found.consider(clause, &flow);
        });
        let source = self.categorize(query, assigned);
        flow.category = source.category;
        flow.destination_ports = source.ports;
        if let Attempt::Request {
            method, path, deed, ..
        } = query.attempt
        {
            let told = deed.and_then(|deed| deed.action);
            flow.action = told.or_else(|| Some(Action::of(flow.category, method, path)));
        }
        let lists = self
            .hostless
            .get(usize::from(query.who.tier.0))
            .or(self.hostless.last());
        for id in lists
            .and_then(|lists| lists.get(flow.category as usize))
            .into_iter()
            .flatten()
        {
            if let Some(clause) = self.clause(*id) {
                found.consider(clause, &flow);
            }
        }
        Judgement {
            tier,
            flow,
            source,
            found,
        }
    }

    /// Says what a destination is for: a rule, else a path, else a host of the catalogue.
    fn categorize<'p>(
        &'p self,
        query: &Query<'_>,
        assigned: Option<(Category, &'p Clause)>,
    ) -> CategorySource<'p> {
        if let Some((category, clause)) = assigned {
            let ports: &[u16] = match &clause.ports {
                Ports::Listed(ports) => ports,
                Ports::Any | Ports::Default | Ports::Destination => &[],
            };
            let location = &clause.named.location;
            return CategorySource {
                category,
                basis: Basis::Rule,
                ports,
                location,
            };
        }
        let Some(entry) = self.catalogue.find(&query.target.host) else {
            let (category, basis) = (Category::Unknown, Basis::None);
            return CategorySource {
                category,
                basis,
                ports: &[],
                location: "",
            };
        };
        let split = match query.attempt {
            Attempt::Request { path, .. } => entry.split(path.path()),
            Attempt::Connect => None,
        };
        CategorySource {
            category: split.unwrap_or(entry.category),
            basis: if split.is_some() {
                Basis::Path
            } else {
                Basis::Host
            },
            ports: &entry.ports,
            location: &entry.location,
        }
    }
}

/// What a destination is for, and who says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct CategorySource<'p> {
    pub(super) category: Category,
    pub(super) basis: Basis,
    /// The ports of the destination; none: the default.
    ports: &'p [u16],
    /// `policy/web.toml:31`, `model-api.toml:14`, or nothing.
    pub(super) location: &'p str,
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
    near: Option<Miss>,
}

impl<'p> Found<'p> {
    fn new(ground: Ground) -> Self {
        Self {
            ground,
            deny: None,
            ask: None,
            allow: None,
            near: None,
        }
    }

    /// Takes up a clause; the more specific ones come first.
    fn consider(&mut self, clause: &'p Clause, flow: &Flow<'_>) {
        let slot = match clause.verdict {
            Verdict::Allow => &mut self.allow,
            Verdict::Ask => &mut self.ask,
            Verdict::Deny => &mut self.deny,
        };
        if slot.is_some() {
            return;
        }
        let is_allow = clause.verdict == Verdict::Allow;
        match clause.miss(flow) {
            None if is_allow && !self.ground.bears(&clause.addresses) => {}
            None => *slot = Some(clause),
            Some(miss @ (Miss::Port | Miss::Request)) if is_allow => {
                self.near = Some(self.near.map_or(miss, |near| near.min(miss)));
            }
            Some(_) => {}
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
    found: Found<'p>,
}

/// The stage that decides.
#[derive(Clone, Copy, Debug)]
pub(super) enum Settled<'p> {
    /// The first clause of the winning kind.
    Clause(&'p Clause),
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
        found
            .deny
            .or(found.ask)
            .or(found.allow)
            .map_or(Settled::Default, Settled::Clause)
    }

    pub(super) fn answer(&self, policy: &Policy) -> Decision {
        let settled = self.settled();
        let (verdict, reason, rule) = match settled {
            Settled::Clause(clause) => (clause.verdict, clause.reason, &clause.named),
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
            upgrade: grants.is_some_and(|clause| clause.upgrade),
            inspect: Inspect::No,
            upstream: None,
        }
    }

    fn default_reason(&self) -> Reason {
        match (self.tier.default, self.found.near) {
            (Verdict::Allow, _) => Reason::Allowed,
            (Verdict::Ask, _) => Reason::NeedsApproval,
            (Verdict::Deny, Some(Miss::Port)) => Reason::PortDenied,
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
        self.interfaces.iter().any(|own| canonical(*own) == address)
    }
}
