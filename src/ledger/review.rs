//! What reviewers decided on a request for approval, in plain words.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A request for approval, and what reviewers decided. Names stand for the tier, the rule and the
/// category, so that every gate holds an approval against the policy that it has.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Review {
    /// The id of the request.
    pub request: Uuid,
    /// What was decided.
    pub result: ReviewResult,
    /// Who asked.
    pub caller: ReviewedCaller,
    /// The canonical host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What was to be done there: `connect`, `git push`, `mcp tools/call NAME`.
    pub operation: String,
    /// The name of the tier that asked.
    pub tier: String,
    /// The name of the rule that asked.
    pub rule: String,
    /// The category of the destination.
    pub category: String,
    /// The digest of the policy that the reviewers saw.
    pub policy_digest: String,
    /// The reviewers.
    pub reviewers: Vec<String>,
    /// The end of the approval or of the denial.
    pub until: Timestamp,
    /// `once`, `session` or a time; `None` where it was denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The reviewer's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What was decided on a request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReviewResult {
    /// Approved.
    Allowed,
    /// Refused.
    Denied,
}

/// The caller that a request is of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReviewedCaller {
    /// A session that evidence shows.
    Session(String),
    /// A verified user.
    Subject(String),
    /// The network of a caller that shows neither: as the gate saw it, so it means the same at the
    /// gates of one host only.
    Address(IpAddr),
}
