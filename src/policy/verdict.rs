//! What a decision says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::{Action, Category, Inspect};

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
    /// Would-be denials pass, and the record says so. The floor holds all the same.
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
    /// A category of the tier denies it.
    CategoryDenied,
    /// A rule that allows it names other credentials.
    CredentialDenied,
    /// A deny rule names it.
    Denied,
    /// A message to a listed MCP server whose method or tool no rule allows, or whose tool is denied.
    McpToolDenied,
    /// An ask matches, or asking is the tier's default.
    NeedsApproval,
    /// Nothing allows it.
    NotAllowed,
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
            Self::CategoryDenied => "category_denied",
            Self::CredentialDenied => "credential_denied",
            Self::Denied => "denied",
            Self::McpToolDenied => "mcp_tool_denied",
            Self::NeedsApproval => "needs_approval",
            Self::NotAllowed => "not_allowed",
            Self::PortDenied => "port_denied",
        }
    }
}

/// What told the category.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// What is said there: messages of MCP, where nothing else says that it is for them.
    Content,
    /// A destination of the catalogue, by host.
    Host,
    /// Nothing: `unknown`.
    None,
    /// A split of the catalogue, by path.
    Path,
    /// A rule with `category` and `hosts`.
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
    /// How old a version of a package has to be, where the deciding rule says.
    pub min_age: Option<Duration>,
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
