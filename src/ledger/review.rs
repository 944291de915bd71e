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
