//! What a decision says.

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
    /// It passes.
    Allow,
    /// A person has to approve first.
    Ask,
    /// It does not pass.
    Deny,
}

/// Whether verdicts are carried out.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are.
    #[default]
    Enforce,
    /// Would-be denials pass, and the record has `would`. The floor still holds.
    Observe,
}

/// Why the policy decided as it did: a closed list, the policy's part of the refusal codes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The floor: the destination is a special address or name.
    AddressDenied,
    /// A `category:action` of the tier denies it, or no allow covers the action that was seen.
    ActionDenied,
    /// An allow matches.
    Allowed,
    /// Servers read the path in two ways, and an allow covers one of them only.
    BadPath,
    /// A category of the tier denies it.
    CategoryDenied,
    /// A deny rule names other credentials (`unless.credentials`).
    CredentialDenied,
    /// A deny rule names it.
    Denied,
    /// An exception would let it pass, but its budget is spent.
    ExceptionSpent,
    /// A message to a listed MCP server whose method or tool no rule allows, or a rule denies.
    McpToolDenied,
    /// An ask matches, or asking is the tier's default.
    NeedsApproval,
    /// Nothing allows it.
    NotAllowed,
    /// A deny rule asks for an older version of the package (`unless.min-age`).
    PackageTooNew,
    /// Everything fits an allow but the port.
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

/// What told the category.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The body: a message of MCP to a host that nothing labels `mcp`.
    Content,
    /// A destination of the catalogue, by host.
    Host,
    /// Nothing: `unknown`.
    None,
    /// A split of the catalogue, by path.
    Path,
    /// A `[[destination]]` of the policy, or an `[mcp.NAME]`.
    Rule,
}

/// What told the tier.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TierBasis {
    /// The floor of a group of the caller.
    Group,
    /// The listener.
    Listener,
    /// The repository.
    Repository,
    /// What the session was narrowed to.
    Session,
    /// `tiers.unattributed`.
    Unattributed,
}

/// What decides: a rule, a list of a tier, or a tier's default.
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

/// The answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What happens. In `observe` mode a would-be denial is `Allow` here.
    pub verdict: Verdict,
    /// What would have happened in `enforce` mode, where that differs.
    pub would: Option<Verdict>,
    /// The mode of the tier.
    pub mode: Mode,
    /// Why.
    pub reason: Reason,
    /// What decided.
    pub rule: Arc<Named>,
    /// What the destination is for.
    pub category: Category,
    /// What told so.
    pub basis: Basis,
    /// What is done there; `None` where it cannot be seen, and then an allow means any action.
    pub action: Option<Action>,
    /// Private networks that the deciding rule names.
    pub addresses: Arc<[IpNet]>,
    /// Whether bytes that are not TLS may pass in the tunnel.
    pub raw: bool,
    /// Whether the request may become another protocol.
    pub upgrade: bool,
    /// Whether TLS is ended here and each request inside judged.
    pub inspect: Inspect,
    /// The `[upstream.NAME]` that says how to speak TLS onward; `None`: the system's way.
    pub upstream: Option<Arc<str>>,
    /// A deny that matches unless the package is old enough. The registry has to be asked before a
    /// byte goes on.
    pub min_age: Option<MinAge>,
    /// Networks of deny rules that this flow meets: no address in them is dialled.
    pub denied: Option<Arc<[DeniedNetwork]>>,
    /// The operator's `reason` of the deciding rule, where it does not let the flow pass.
    pub why: Option<Arc<str>>,
    /// The exceptions that let the flow pass: several where one request does several things.
    pub exceptions: Vec<ByException>,
}

/// An exception that lets a flow pass.
#[derive(Clone, Debug)]
pub struct ByException {
    /// Its id, and where it is written.
    pub named: Arc<Named>,
    /// What is left of its budget; `None`: it has no limit.
    pub allowance: Option<Arc<Allowance>>,
}

impl PartialEq for ByException {
    fn eq(&self, other: &Self) -> bool {
        self.named == other.named
    }
}

/// The age that a deny rule asks of a package.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MinAge {
    /// The least age.
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

/// Why an address may not be dialled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AddressRefusal {
    /// The floor: the address is special, or no allow grants it.
    Floor,
    /// A deny rule names a network around it.
    Denied(Arc<Named>),
}

impl Decision {
    /// The deny rule that names a network around an address.
    pub fn denies(&self, address: IpAddr) -> Option<&Arc<Named>> {
        let mut denied = self.denied.iter().flat_map(|all| all.iter());
        let found = denied.find(|it| it.touches(address));
        found.map(|denied| &denied.rule)
    }

    /// Joins the decisions on two facts of one request that both pass: the grants are the
    /// intersection, and the strictest is named.
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
