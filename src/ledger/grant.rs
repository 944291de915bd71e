//! A granted exception, with the keys of `[[exception]]`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An exception: an allow with an owner and an end. Tiers and groups are names, so that every gate
/// applies its own policy to the grant.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Grant {
    /// `tidegate.exception.id`; unique in the ledger and among `[[exception]]`.
    pub id: String,
    /// The command, for the reviewer and the record. Not enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The reason.
    pub reason: String,
    /// The principals who take responsibility.
    pub reviewer: Vec<String>,
    /// The compensating control, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// The end of the exception: from this time on it is not in force.
    pub expires: Timestamp,
    /// The digest of the policy that the reviewers saw; empty for an exception in a file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy_digest: String,
    /// The callers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub from: From,
    /// The destinations.
    pub to: To,
    /// The requests.
    #[serde(default, skip_serializing_if = "is_default")]
    pub does: Does,
    /// Bounds that all gates of the ledger share.
    #[serde(default, skip_serializing_if = "Limit::is_empty")]
    pub limit: Limit,
}

/// `from` of an exception. For each key, an empty list means all.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct From {
    /// Names of tiers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<String>,
    /// Names of groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Patterns for the caller's own repository, which evidence must show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// Patterns for the verified user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionScope>,
}

/// The session that an exception is for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SessionScope {
    /// The id of the session, or of its root session.
    pub id: String,
    /// Whether the session must have verified evidence, as when the exception was granted. A caller
    /// that only asserts the id does not match.
    pub verified: bool,
}

/// `to` of an exception.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct To {
    /// Names, `*.suffix`, addresses or networks; at least one.
    pub hosts: Vec<String>,
    /// Categories of the destination; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// Ports; empty: those of the destination, or 443 (80 for plain HTTP).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// `does` of an exception: the requests. An exception with any of these does not match a tunnel
/// that is not inspected.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Does {
    /// `read`, `write`, `call`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// Operations of the service's data file, e.g. `publish`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
    /// Repositories at the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// Refs that are pushed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<String>,
    /// Methods of HTTP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// MCP servers, by the names of their `[mcp.NAME]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Tools of MCP servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Methods of MCP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mcp_methods: Vec<String>,
    /// Packages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
}

/// Bounds of an exception, or a part of them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limit {
    /// Bytes from clients to the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Flows: each uninspected tunnel, and each inspected or plain request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
}

impl Limit {
    /// Whether there is no bound.
    pub fn is_empty(&self) -> bool {
        self.bytes_out.is_none() && self.requests.is_none()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
