//! One line of the decision log, with the fields for judging a flow again.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Deref;

use serde::Deserialize;

/// Maximum length of a record's text in reports, in characters.
const MAX_TEXT: usize = 253;

/// A text of a line: borrowed if it has no escapes.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A line of schema `record/1`. Fields that are not here do not affect a decision; an absent field
/// is unknown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Recorded<'a> {
    /// `decision`, `close`, `refusals_repeated` …
    #[serde(borrow, rename = "event.name")]
    pub event: Text<'a>,
    /// When the line was made.
    #[serde(borrow)]
    pub timestamp: Text<'a>,
    /// The flow's id.
    #[serde(borrow, rename = "tidegate.flow.id")]
    pub flow: Text<'a>,
    /// The tunnel of an inspected request.
    #[serde(borrow, rename = "tidegate.flow.parent")]
    pub parent: Option<Text<'a>>,
    /// `allow`, `ask`, `deny`, or `error` if the policy reached no verdict.
    #[serde(borrow, rename = "tidegate.verdict")]
    pub verdict: Text<'a>,
    /// The verdict of `enforce` mode, if different.
    #[serde(borrow, rename = "tidegate.would")]
    pub would: Option<Text<'a>>,
    /// A code of the closed list of refusals, or `allowed`.
    #[serde(borrow, rename = "tidegate.reason")]
    pub reason: Option<Text<'a>>,
    /// The rule that decided.
    #[serde(borrow, rename = "security_rule.name")]
    pub rule: Option<Text<'a>>,
    /// The location of that rule.
    #[serde(borrow, rename = "tidegate.rule.location")]
    pub location: Option<Text<'a>>,
    /// The digest of the policy that decided.
    #[serde(borrow, rename = "tidegate.policy.digest")]
    pub digest: Option<Text<'a>>,
    /// The exception that let the flow pass against the rule.
    #[serde(borrow, rename = "tidegate.exception.id")]
    pub exception: Option<Text<'a>>,
    /// The category of the destination.
    #[serde(borrow, rename = "tidegate.category")]
    pub category: Option<Text<'a>>,
    /// The basis of the category.
    #[serde(borrow, rename = "tidegate.category.basis")]
    pub category_basis: Option<Text<'a>>,
    /// `read`, `write`, `call`, `any`.
    #[serde(borrow, rename = "tidegate.action")]
    pub action: Option<Text<'a>>,
    /// The caller's tier.
    #[serde(borrow, rename = "tidegate.tier")]
    pub tier: Option<Text<'a>>,
    /// The basis of the tier.
    #[serde(borrow, rename = "tidegate.tier.basis")]
    pub tier_basis: Option<Text<'a>>,
    /// The strictest tier of the listener or the session's narrowing, if different.
    #[serde(borrow, rename = "tidegate.tier.given")]
    pub tier_given: Option<Text<'a>>,
    /// The tier of the repository in an issuer's token.
    #[serde(borrow, rename = "tidegate.tier.issued")]
    pub tier_issued: Option<Text<'a>>,
    /// The session.
    #[serde(borrow, rename = "session.id")]
    pub session: Option<Text<'a>>,
    /// The session that this one is a child of, which has the evidence.
    #[serde(borrow, rename = "tidegate.session.root")]
    pub session_root: Option<Text<'a>>,
    /// The evidence of the session: `token`, `certificate`, `username` …
    #[serde(borrow, rename = "tidegate.session.evidence")]
    pub session_evidence: Option<Text<'a>>,
    /// The tool of the agent, as its hook reported it.
    #[serde(borrow, rename = "tidegate.tool.name")]
    pub tool: Option<Text<'a>>,
    /// The user.
    #[serde(borrow, rename = "user.id")]
    pub user: Option<Text<'a>>,
    /// The caller's groups.
    #[serde(borrow, rename = "user.groups")]
    pub groups: Vec<Text<'a>>,
    /// The caller's repository.
    #[serde(borrow, rename = "vcs.repository.url.full")]
    pub repository: Option<Text<'a>>,
    /// `verified`, `asserted`, `none`.
    #[serde(borrow, rename = "tidegate.repository.trust")]
    pub repository_trust: Option<Text<'a>>,
    /// The verified repository, if the caller claims another one.
    #[serde(borrow, rename = "tidegate.repository.verified")]
    pub repository_verified: Option<Text<'a>>,
    /// Repositories that the caller only claims.
    #[serde(borrow, rename = "tidegate.repository.claimed")]
    pub repository_claimed: Option<Vec<Text<'a>>>,
    /// Repositories that count only if the policy lists them.
    #[serde(borrow, rename = "tidegate.repository.hinted")]
    pub repository_hinted: Vec<Text<'a>>,
    /// The branch that is checked out.
    #[serde(borrow, rename = "vcs.ref.head.name")]
    pub branch: Option<Text<'a>>,
    /// The CI pipeline.
    #[serde(borrow, rename = "cicd.pipeline.name")]
    pub pipeline: Option<Text<'a>>,
    /// The task of the CI pipeline.
    #[serde(borrow, rename = "cicd.pipeline.task.name")]
    pub task: Option<Text<'a>>,
    /// The most that the session may use.
    #[serde(borrow, rename = "tidegate.within")]
    pub within: Option<Vec<Text<'a>>>,
    /// Whether refusals are enforced although the tier observes.
    #[serde(rename = "tidegate.enforced")]
    pub enforced: bool,
    /// The host.
    #[serde(borrow, rename = "server.address")]
    pub host: Option<Text<'a>>,
    /// The port.
    #[serde(rename = "server.port")]
    pub port: Option<u16>,
    /// The addresses that the host resolved to.
    #[serde(rename = "dns.answers")]
    pub answers: Vec<IpAddr>,
    /// `connect`, `http`, `captured`, `dns`.
    #[serde(borrow, rename = "network.protocol.name")]
    pub protocol: Option<Text<'a>>,
    /// The client program, as it names itself.
    #[serde(borrow, rename = "user_agent.original")]
    pub user_agent: Option<Text<'a>>,
    /// The method.
    #[serde(borrow, rename = "http.request.method")]
    pub method: Option<Text<'a>>,
    /// The path, if `[record] paths` enables it.
    #[serde(borrow, rename = "url.path")]
    pub path: Option<Text<'a>>,
    /// Whether the request asks for another protocol.
    #[serde(rename = "tidegate.upgrade")]
    pub upgrade: bool,
    /// `inspected`, `opaque`, `none`.
    #[serde(borrow, rename = "tidegate.tls.mode")]
    pub tls_mode: Option<Text<'a>>,
    /// The service whose protocol the request uses.
    #[serde(borrow, rename = "tidegate.service")]
    pub service: Option<Text<'a>>,
    /// The operation in that service.
    #[serde(borrow, rename = "tidegate.operation")]
    pub operation: Option<Text<'a>>,
    /// The repository at the destination.
    #[serde(borrow, rename = "tidegate.destination.repository")]
    pub destination_repository: Option<Text<'a>>,
    /// The ref that is pushed.
    #[serde(borrow, rename = "tidegate.destination.ref")]
    pub destination_ref: Option<Text<'a>>,
    /// The package.
    #[serde(borrow, rename = "tidegate.package.name")]
    pub package: Option<Text<'a>>,
    /// The version of the package.
    #[serde(borrow, rename = "tidegate.package.version")]
    pub version: Option<Text<'a>>,
    /// When the version was published, if a rule required it.
    #[serde(borrow, rename = "tidegate.package.published")]
    pub published: Option<Text<'a>>,
    /// `none` or `some`: whether the request has a credential, if a rule required it.
    #[serde(borrow, rename = "tidegate.presented")]
    pub presented: Option<Text<'a>>,
    /// The number of facts of the request, if there are several.
    #[serde(rename = "tidegate.request.facts")]
    pub facts: Option<u64>,
    /// The number of other readings of the request by servers.
    #[serde(rename = "tidegate.request.readings")]
    pub readings: Option<u64>,
    /// `head`: the flow was refused before its body was read.
    #[serde(borrow, rename = "tidegate.request.seen")]
    pub seen: Option<Text<'a>>,
    /// The listed MCP server.
    #[serde(borrow, rename = "tidegate.mcp.server")]
    pub mcp_server: Option<Text<'a>>,
    /// The method of MCP.
    #[serde(borrow, rename = "mcp.method.name")]
    pub mcp_method: Option<Text<'a>>,
    /// The tool of MCP.
    #[serde(borrow, rename = "mcp.tool.name")]
    pub mcp_tool: Option<Text<'a>>,
    /// `open` or `ended`, of a line that counts refusals.
    #[serde(borrow, rename = "tidegate.repeat.state")]
    pub repeat_state: Option<Text<'a>>,
    /// The number of refusals that the line counts.
    #[serde(rename = "tidegate.repeat.count")]
    pub repeat_count: u64,
}

impl<'a> Recorded<'a> {
    /// Reads a line of the log, or a line that `serde_json` has read.
    ///
    /// # Errors
    ///
    /// If it is no JSON object, or a field has another type than in its schema.
    pub fn read(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// Like [`Recorded::read`], from an object that was read before.
    ///
    /// # Errors
    ///
    /// If a field has another type than in its schema.
    pub fn of(object: &'a serde_json::Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(object)
    }

    /// Whether the flow was allowed.
    pub fn is_allowed(&self) -> bool {
        &*self.verdict == "allow"
    }

    /// Whether the flow was a tunnel, with only host and port.
    pub fn is_tunnel(&self) -> bool {
        let method = self.method.as_deref().unwrap_or_default();
        let has_method = !method.is_empty() && method != "CONNECT";
        let protocol = self.protocol.as_deref().unwrap_or_default();
        protocol != "http" && !(protocol == "captured" && has_method)
    }

    /// Whether the flow was a request inside an inspected tunnel.
    pub fn is_inside(&self) -> bool {
        self.parent.is_some() && self.tls_mode.as_deref() != Some("none")
    }

    /// Whether the recorded repository is verified.
    pub fn is_repository_verified(&self) -> bool {
        self.repository_trust.as_deref() == Some("verified")
    }
}

/// Truncates a text of a record for reports, to the length that a gate writes.
pub(super) fn kept(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
