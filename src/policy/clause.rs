//! One thing that can match a flow: a rule, or an entry of a list of a tier.

use std::sync::Arc;

use ipnet::IpNet;

use super::paths::PathPattern;
use super::verdict::{Named, Reason, Verdict};
use super::{Action, Attempt, Category, Who};

/// One thing that can match a flow.
#[derive(Debug)]
pub(super) struct Clause {
    /// What a record names when this decides.
    pub(super) named: Arc<Named>,
    /// What it says.
    pub(super) verdict: Verdict,
    /// Why a flow that it decides is decided so.
    pub(super) reason: Reason,
    /// The tiers that it reaches, a bit each.
    pub(super) tiers: u16,
    /// The groups that it reaches, a bit each; none: everybody.
    pub(super) groups: u128,
    /// The category that it selects; of its hosts' flows it selects all.
    pub(super) category: Option<Category>,
    /// The category that it gives to its hosts.
    pub(super) assigns: Option<Category>,
    /// The ports that it reaches.
    pub(super) ports: Ports,
    /// What it asks of a request.
    pub(super) request: Conditions,
    /// Private networks that it opens.
    pub(super) addresses: Arc<[IpNet]>,
    /// Whether bytes that are not TLS may pass.
    pub(super) raw: bool,
    /// Whether the request may become another protocol.
    pub(super) upgrade: bool,
    /// The first of its hosts, as written, to explain with.
    pub(super) sample: Box<[Box<str>]>,
    /// How many hosts it names.
    pub(super) hosts: usize,
}

/// The ports that a clause reaches.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Ports {
    /// Every port.
    Any,
    /// 443 for CONNECT and https, 80 for http.
    Default,
    /// The ports of the destination.
    Destination,
    /// These.
    Listed(Box<[u16]>),
}

/// What a clause asks of a request; each part that is not empty must hold.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) action: Option<Action>,
    pub(super) methods: Box<[Box<str>]>,
    pub(super) paths: Box<[PathPattern]>,
}

/// A flow as clauses see it.
#[derive(Clone, Debug)]
pub(super) struct Flow<'a> {
    pub(super) who: &'a Who,
    pub(super) attempt: Attempt<'a>,
    pub(super) port: u16,
    pub(super) category: Category,
    pub(super) action: Option<Action>,
    /// Where the category comes from says which ports it is for; empty: the default.
    pub(super) destination_ports: &'a [u16],
    /// Whether an allow that needs what is not seen matches all the same.
    pub(super) opaque: bool,
}

/// The first condition that a flow does not meet.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Miss {
    /// Everything else fits.
    Port,
    /// Everything else fits, but not the action, method or path.
    Request,
    /// Neither port nor request.
    PortAndRequest,
    Groups,
    Tier,
    Category,
}

impl Clause {
    /// The first condition that `flow` does not meet; `None` where it matches. Hosts are not looked
    /// at: that is how the clause was found.
    pub(super) fn miss(&self, flow: &Flow<'_>) -> Option<Miss> {
        if self.tiers & flow.who.tier.bit() == 0 {
            return Some(Miss::Tier);
        }
        if self.groups != 0 && self.groups & flow.who.groups.0 == 0 {
            return Some(Miss::Groups);
        }
        if self
            .category
            .is_some_and(|category| category != flow.category)
        {
            return Some(Miss::Category);
        }
        match (self.ports.hold(flow), self.request.hold(flow, self.verdict)) {
            (true, true) => None,
            (false, true) => Some(Miss::Port),
            (true, false) => Some(Miss::Request),
            (false, false) => Some(Miss::PortAndRequest),
        }
    }
}

impl Ports {
    pub(super) fn hold(&self, flow: &Flow<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Default => flow.port == flow.default_port(),
            Self::Destination if flow.destination_ports.is_empty() => {
                flow.port == flow.default_port()
            }
            Self::Destination => flow.destination_ports.contains(&flow.port),
            Self::Listed(ports) => ports.contains(&flow.port),
        }
    }
}

impl Conditions {
    /// Whether any part asks something.
    pub(super) fn is_empty(&self) -> bool {
        self.action.is_none() && self.methods.is_empty() && self.paths.is_empty()
    }

    fn hold(&self, flow: &Flow<'_>, verdict: Verdict) -> bool {
        match flow.attempt {
            _ if self.is_empty() => true,
            Attempt::Connect => verdict == Verdict::Allow && flow.opaque,
            Attempt::Request { method, path, .. } => {
                self.action.is_none_or(|action| flow.action == Some(action))
                    && (self.methods.is_empty() || self.has_method(method))
                    && (self.paths.is_empty()
                        || self
                            .paths
                            .iter()
                            .any(|pattern| pattern.matches(path.path())))
            }
        }
    }

    /// Whether the method is named; `GET` implies `HEAD`.
    pub(super) fn has_method(&self, method: &str) -> bool {
        let named = |method: &str| self.methods.iter().any(|named| **named == *method);
        named(method) || (method == "HEAD" && named("GET"))
    }
}

impl Flow<'_> {
    /// 80 for plain http, else 443.
    pub(super) fn default_port(&self) -> u16 {
        match self.attempt {
            Attempt::Request { tls: false, .. } => 80,
            Attempt::Connect | Attempt::Request { .. } => 443,
        }
    }
}
