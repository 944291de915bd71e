//! One thing that can match a flow: a rule, or an entry of a list of a tier.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::conditions::{Conditions, Met};
use super::servers::ServerId;
use super::verdict::{Named, Reason, Verdict};
use super::{Action, Attempt, Category, Deed, Seen, Who};

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
    /// The service that it says its hosts speak.
    pub(super) service: Option<Arc<str>>,
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
    /// Whether TLS is ended there, where it says.
    pub(super) inspect: Option<bool>,
    /// How TLS is spoken onward.
    pub(super) upstream: Option<Arc<str>>,
    /// How old a version of a package has to be.
    pub(super) min_age: Option<Duration>,
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

/// A flow as clauses see it.
#[derive(Clone, Debug)]
pub(super) struct Flow<'a> {
    pub(super) who: &'a Who,
    pub(super) attempt: Attempt<'a>,
    pub(super) port: u16,
    pub(super) category: Category,
    /// What it does, as far as it was read; nothing of a tunnel.
    pub(super) deed: Option<&'a Deed>,
    pub(super) action: Option<Action>,
    /// The listed MCP server that a message goes to.
    pub(super) server: Option<ServerId>,
    /// The first listed MCP server at the target.
    pub(super) site: Option<ServerId>,
    /// What is known of where a message of MCP goes; `None` where it is none.
    pub(super) mcp: Option<Recipient>,
    /// Whether TLS is ended here: each request will be judged.
    pub(super) inspected: bool,
    /// Where the category comes from says which ports it is for; empty: the default.
    pub(super) destination_ports: &'a [u16],
    /// Whether an allow that needs what is not seen matches all the same.
    pub(super) opaque: bool,
}

/// Where a message of MCP goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Recipient {
    /// A server that is listed.
    Listed,
    /// A host that a rule or the catalogue says is for MCP.
    Known,
    /// Anywhere else.
    Unlisted,
}

/// How a flow stands to a clause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fit {
    Matches,
    Misses(Miss),
    /// An allow that forbids what the flow does within its reach.
    Bars(Reason),
}

/// The first condition that a flow does not meet, nearest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Miss {
    /// Everything else fits.
    Port,
    /// Everything else fits, but not the credentials.
    Credential,
    /// Everything else fits, but not the tool or the method of MCP.
    Tool,
    /// Everything else fits, but not what the request does.
    Request,
    /// Neither port nor request.
    PortAndRequest,
    Groups,
    Tier,
    Category,
}

impl Clause {
    /// How `flow` stands to it. Hosts are not looked at: that is how the clause was found.
    pub(super) fn fit(&self, flow: &Flow<'_>) -> Fit {
        if let Some(miss) = self.outside(flow) {
            return Fit::Misses(miss);
        }
        let request = self.request.met(flow, self.verdict);
        match (self.ports.hold(flow), request) {
            (true, Met::Yes) => Fit::Matches,
            (false, Met::Yes) => Fit::Misses(Miss::Port),
            (true, Met::Barred(reason)) => Fit::Bars(reason),
            (true, Met::ButTool) => Fit::Misses(Miss::Tool),
            (true, Met::ButCredential) => Fit::Misses(Miss::Credential),
            (true, Met::No) => Fit::Misses(Miss::Request),
            (false, _) => Fit::Misses(Miss::PortAndRequest),
        }
    }

    /// Whether a flow is one of those that this is about, whatever it does there.
    pub(super) fn reaches(&self, flow: &Flow<'_>) -> bool {
        self.is_for(flow) && self.ports.hold(flow) && self.request.is_site(flow.site)
    }

    fn is_for(&self, flow: &Flow<'_>) -> bool {
        self.tiers & flow.who.tier.bit() != 0
            && (self.groups == 0 || self.groups & flow.who.groups.0 != 0)
            && self
                .category
                .is_none_or(|selected| selected == flow.category)
    }

    fn outside(&self, flow: &Flow<'_>) -> Option<Miss> {
        if self.tiers & flow.who.tier.bit() == 0 {
            return Some(Miss::Tier);
        }
        if self.groups != 0 && self.groups & flow.who.groups.0 == 0 {
            return Some(Miss::Groups);
        }
        let other = self
            .category
            .is_some_and(|selected| selected != flow.category);
        let stranger = flow.mcp.is_some_and(|to| !self.speaks_mcp_with(to, flow));
        (other || stranger).then_some(Miss::Category)
    }

    /// Whether a message of MCP can be meant. What denies or asks is meant for all messages.
    fn speaks_mcp_with(&self, recipient: Recipient, flow: &Flow<'_>) -> bool {
        let of_category = self.category == Some(Category::Mcp);
        let assigned = self.assigns == Some(Category::Mcp);
        self.verdict != Verdict::Allow
            || match recipient {
                Recipient::Listed => of_category || self.request.names_server(flow.server),
                Recipient::Known => of_category || assigned,
                Recipient::Unlisted => assigned,
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

impl Flow<'_> {
    /// Whether something is only told by a body that was not read yet.
    pub(super) fn unread(&self) -> bool {
        let unread = |deed: &Deed| deed.seen == Seen::Head && deed.body.is_some();
        self.deed.is_some_and(unread)
    }

    /// 80 for plain http, else 443.
    pub(super) fn default_port(&self) -> u16 {
        match self.attempt {
            Attempt::Request { tls: false, .. } => 80,
            Attempt::Connect | Attempt::Request { .. } => 443,
        }
    }
}
