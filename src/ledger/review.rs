//! The decision of reviewers on a request for approval.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A request for approval, with the decision of the reviewers. Tier, rule and category are names,
/// so that every gate compares an approval with its own policy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Review {
    /// The id of the request.
    pub request: Uuid,
    /// The decision.
    pub result: ReviewResult,
    /// The caller of the request.
    pub caller: ReviewedCaller,
    /// The canonical host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The requested operation: `connect`, `git push`, `mcp tools/call NAME`.
    pub operation: String,
    /// The name of the tier that required approval.
    pub tier: String,
    /// The name of the rule that required approval.
    pub rule: String,
    /// The category of the destination.
    pub category: String,
    /// The digest of the policy that the reviewers saw.
    pub policy_digest: String,
    /// The reviewers.
    pub reviewers: Vec<String>,
    /// The end of the approval or of the denial.
    pub until: Timestamp,
    /// `once`, `session` or a time; `None` if the request was denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The reviewer's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Review {
    /// Whether another request is of the same caller, for the same operation, and asked by the same
    /// rule of the same tier.
    pub fn is_like(&self, other: &Self) -> bool {
        self.caller == other.caller
            && (&self.host, self.port) == (&other.host, other.port)
            && self.operation == other.operation
            && (&self.tier, &self.rule) == (&other.tier, &other.rule)
            && self.category == other.category
    }
}

/// A reviewer who allowed a request that two have to allow: the evidence, so that every gate checks
/// with its own policy whether this is still a reviewer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Voter {
    /// The name in records: `uid:0`, `subject:sec@acme.example`.
    pub name: String,
    /// The user of a process at a Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The verified name of a certificate or a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Claims of a verified token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<(String, String)>,
    /// Subject alternative names of a verified certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sans: Vec<String>,
    /// Groups named by a verified token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// The decision on a request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReviewResult {
    /// Approved.
    Allowed,
    /// Refused.
    Denied,
}

/// The caller of a request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReviewedCaller {
    /// A session with evidence.
    Session(String),
    /// A verified user.
    Subject(String),
    /// The network of a caller without either, as the gate saw it: so it has the same meaning only
    /// at the gates of one host.
    Address(IpAddr),
}
