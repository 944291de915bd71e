//! The result of a decision.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use crate::diag::Place;

use crate::ledger::Allowance;

use super::action::Action;
use super::category::Category;
use super::facts::Inspect;
use super::floor;

/// What happens to a flow.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The flow passes.
    Allow,
    /// A person has to approve first.
    Ask,
    /// The flow does not pass.
    Deny,
}

/// Whether verdicts are enforced.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Verdicts are enforced.
    #[default]
    Enforce,
    /// Would-be denials pass, and the record has `would`. The floor still holds.
    Observe,
}

/// The reason of a decision: a closed list, the policy's part of the refusal codes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The floor: the destination is a special address or name.
    AddressDenied,
    /// A `category:action` of the tier denies the action, or no allow covers it.
    ActionDenied,
    /// An allow matches.
    Allowed,
    /// Servers read the path in two ways, and an allow covers only one of them.
    BadPath,
    /// A category of the tier denies the flow.
    CategoryDenied,
    /// A deny rule names other credentials (`unless.credentials`).
    CredentialDenied,
    /// A deny rule matches.
    Denied,
    /// An exception would let the flow pass, but its budget is spent.
    ExceptionSpent,
    /// A message to a listed MCP server whose method or tool no rule allows, or a rule denies.
    McpToolDenied,
    /// An ask matches, or asking is the tier's default.
    NeedsApproval,
    /// Nothing allows the flow.
    NotAllowed,
    /// A deny rule asks for an older version of the package (`unless.min-age`).
    PackageTooNew,
    /// An allow matches except for the port.
    PortDenied,
}

impl Reason {
    /// The code, as in records, metrics and refusals.
    pub fn code(self) -> &'static str {
        match self {
            Self::ActionDenied => "action_denied",
            Self::AddressDenied => "address_denied",
            Self::Allowed => "allowed",
            Self::BadPath => "bad_path",
            Self::CategoryDenied => "category_denied",
            Self::CredentialDenied => "credential_denied",
            Self::Denied => "denied",
            Self::ExceptionSpent => "exception_spent",
            Self::McpToolDenied => "mcp_tool_denied",
            Self::NeedsApproval => "needs_approval",
            Self::NotAllowed => "not_allowed",
            Self::PackageTooNew => "package_too_new",
            Self::PortDenied => "port_denied",
        }
    }
}

/// The basis of the category.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The body: a message of MCP to a host that nothing labels `mcp`.
    Content,
    /// A destination of the catalogue, by host.
    Host,
    /// No basis: the category is `unknown`.
    None,
    /// A split of the catalogue, by path.
    Path,
    /// A `[[destination]]` of the policy, or an `[mcp.NAME]`.
    Rule,
}

/// The basis of the tier.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TierBasis {
    /// The floor of a group of the caller.
    Group,
    /// The listener.
    Listener,
    /// The repository.
    Repository,
    /// The narrowing of the session.
    Session,
    /// `tiers.unattributed`.
    Unattributed,
}

/// The rule, list of a tier, or default of a tier that decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Named {
    /// `docs`, `tier.standard.allow`, `tier.standard.default`, `floor`.
    pub name: Arc<str>,
    /// `policy/web.toml:31`; empty for the floor.
    pub location: Arc<str>,
}

impl Named {
    pub(super) fn at(name: impl Into<Arc<str>>, place: &Place) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            location: place.to_string().into(),
        })
    }
}

/// The decision on a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The verdict. In `observe` mode, a would-be denial is `Allow` here.
    pub verdict: Verdict,
    /// The verdict of `enforce` mode, if different.
    pub would: Option<Verdict>,
    /// The mode of the tier.
    pub mode: Mode,
    /// The reason.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Arc<Named>,
    /// The category of the destination.
    pub category: Category,
    /// The basis of the category.
    pub basis: Basis,
    /// The action; `None` if it is not visible, and then an allow covers any action.
    pub action: Option<Action>,
    /// The private networks in the deciding rule.
    pub addresses: Arc<[IpNet]>,
    /// Whether bytes that are not TLS may pass in the tunnel.
    pub raw: bool,
    /// Whether the request may become another protocol.
    pub upgrade: bool,
    /// Whether TLS is terminated and each request inside is judged.
    pub inspect: Inspect,
    /// The `[upstream.NAME]` with the settings for outgoing TLS; `None`: the system's settings.
    pub upstream: Option<Arc<str>>,
    /// A deny that matches unless the package is old enough. The gate asks the registry before it
    /// forwards a byte.
    pub min_age: Option<MinAge>,
    /// Networks of deny rules that match the flow: no address in them is dialled.
    pub denied: Option<Arc<[DeniedNetwork]>>,
    /// The operator's `reason` of the deciding rule, if the flow does not pass.
    pub why: Option<Arc<str>>,
    /// The exceptions that let the flow pass: several if one request does several things.
    pub exceptions: Vec<ByException>,
}

/// An exception that lets a flow pass.
#[derive(Clone, Debug)]
pub struct ByException {
    /// The id and location.
    pub named: Arc<Named>,
    /// The rest of the budget; `None`: no limit.
    pub allowance: Option<Arc<Allowance>>,
}

impl PartialEq for ByException {
    fn eq(&self, other: &Self) -> bool {
        self.named == other.named
    }
}

/// The age of a package that a deny rule requires.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MinAge {
    /// The minimum age.
    pub least: Duration,
    /// The rule.
    pub rule: Arc<Named>,
    /// The operator's `reason`.
    pub why: Option<Arc<str>>,
}

/// A network in `to.hosts` of a deny rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeniedNetwork {
    /// The network.
    pub network: IpNet,
    /// The rule.
    pub rule: Arc<Named>,
}

impl DeniedNetwork {
    /// Whether a name that resolves to this address resolves into the network, also in an IPv6 form
    /// of an IPv4 address.
    pub(super) fn touches(&self, address: IpAddr) -> bool {
        floor::touches(&self.network, address)
    }
}

/// The reason why an address may not be dialled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AddressRefusal {
    /// The floor: the address is special, or no allow grants it.
    Floor,
    /// A deny rule names a network around it.
    Denied(Arc<Named>),
}

impl Decision {
    /// Returns the deny rule that names a network around an address.
    pub fn denies(&self, address: IpAddr) -> Option<&Arc<Named>> {
        let mut denied = self.denied.iter().flat_map(|all| all.iter());
        let found = denied.find(|it| it.touches(address));
        found.map(|denied| &denied.rule)
    }

    /// Joins the decisions on two facts of one request that both pass. The grants are the
    /// intersection, and the strictest decision is named.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let strictest = |it: &Self| it.would.unwrap_or(it.verdict);
        let (mut named, other) = if strictest(&other) > strictest(&self) {
            (other, self)
        } else {
            (self, other)
        };
        let in_other = |net: &&IpNet| other.addresses.iter().any(|around| around.contains(*net));
        let in_named = |net: &&IpNet| named.addresses.iter().any(|around| around.contains(*net));
        if named.addresses != other.addresses {
            let both = named.addresses.iter().filter(in_other);
            let all = both.chain(other.addresses.iter().filter(in_named));
            named.addresses = all.copied().collect();
        }
        let more = other.exceptions.into_iter();
        let more = more.filter(|it| !named.exceptions.contains(it));
        let more: Vec<_> = more.collect();
        named.exceptions.extend(more);
        named.raw &= other.raw;
        named.upgrade &= other.upgrade;
        if named.upstream != other.upstream {
            named.upstream = None;
        }
        let least = |age: &Option<MinAge>| age.as_ref().map(|age| age.least);
        if least(&other.min_age) > least(&named.min_age) {
            named.min_age = other.min_age;
        }
        named.denied = match (named.denied, other.denied) {
            (Some(one), Some(other)) => Some(one.iter().chain(other.iter()).cloned().collect()),
            (one, other) => one.or(other),
        };
        named
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        })
    }
}
