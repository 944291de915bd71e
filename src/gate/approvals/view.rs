//! The views of a request: complete for its reviewers, reduced for its caller.
//!
//! Text of an agent or a third party is only in `untrusted`.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{Request, Settlement};
use crate::identity::CallerKey;

/// A request, for its reviewers.
#[derive(Clone, Debug, Serialize)]
pub struct RequestView {
    /// Its id.
    pub id: Uuid,
    /// `pending`, `allowed`, `denied`, `revoked`, `timed_out`.
    pub state: &'static str,
    /// The canonical host.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// The category of the destination.
    pub category: Option<&'static str>,
    /// The tier of the rule that asks.
    pub tier: Option<Arc<str>>,
    /// The rule that asks.
    pub rule: Option<Arc<str>>,
    /// The file and line of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_location: Option<Arc<str>>,
    /// The digest of the policy that asked.
    pub policy: Option<Arc<str>>,
    /// The caller.
    pub caller: CallerView,
    /// The repository of the caller, with its trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryView>,
    /// The tool call, if the agent's hooks report calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<CallView>,
    /// Text of the agent or a third party.
    pub untrusted: Untrusted,
    /// The time of the first attempt. For a request settled at another gate, or before this gate
    /// was started: the time of the settlement.
    pub first: Timestamp,
    /// The time of the latest attempt.
    pub last: Timestamp,
    /// The number of attempts at this gate.
    pub count: u64,
    /// The time at which the request times out.
    pub expires: Timestamp,
    /// Reviewers who allowed it, if another reviewer is required.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_by: Vec<Arc<str>>,
    /// The settlement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<SettlementView>,
    /// The flow of the first attempt, if it was at this gate, for `tidegate explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Uuid>,
}

/// The caller of a request.
#[derive(Clone, Debug, Serialize)]
pub struct CallerView {
    /// The identity to which an approval is bound: `session`, `subject` or `address`.
    pub bound_by: &'static str,
    /// The value: a session, user or network.
    pub bound_to: String,
    /// `session.id`, to be trusted as `trust` states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<str>>,
    /// `verified`, `asserted` or `none`.
    pub trust: &'static str,
    /// The verified user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// Its groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Arc<[Arc<str>]>>,
}

/// The repository of the caller.
#[derive(Clone, Debug, Serialize)]
pub struct RepositoryView {
    /// The clone URL without scheme, user and `.git`.
    pub name: Arc<str>,
    /// `verified` or `asserted`.
    pub trust: &'static str,
}

/// A tool call.
#[derive(Clone, Debug, Serialize)]
pub struct CallView {
    /// `tool_use_id`.
    pub id: Option<Arc<str>>,
    /// `verified` if the agent's own process reported it.
    pub trust: &'static str,
}

/// Text of the agent or a third party.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Untrusted {
    /// The operation: `connect`, `git push`, `mcp tools/call NAME`.
    pub operation: Box<str>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Arc<str>>,
    /// The command, secrets masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<str>>,
    /// The reason, in the agent's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// The branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<Arc<str>>,
}

/// The settlement of a request.
#[derive(Clone, Debug, Serialize)]
pub struct SettlementView {
    /// The reviewers.
    pub by: Vec<Arc<str>>,
    /// The time of the settlement.
    pub at: Timestamp,
    /// The end of its effect.
    pub until: Timestamp,
    /// `once`, `session` or seconds; absent if it was denied or revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The note of the reviewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<Box<str>>,
}

/// A request, for its caller.
#[derive(Clone, Debug, Serialize)]
pub struct OwnRequestView {
    /// Its id.
    pub id: Uuid,
    /// `pending`, `allowed`, `denied`, `revoked`, `timed_out`.
    pub state: &'static str,
    /// The canonical host.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// The operation.
    pub operation: Box<str>,
    /// The time of the first attempt.
    pub first: Timestamp,
    /// The time at which the request times out.
    pub expires: Timestamp,
    /// The end of the approval or denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Request {
    /// The view for reviewers.
    pub fn view(&self) -> RequestView {
        let facts = &self.facts;
        let call = facts.call.as_ref();
        let by_process = facts.process.as_ref().map(|it| Box::from(&*it.command));
        let (bound_by, bound_to) = match &self.key.caller {
            CallerKey::Session(session) => ("session", session.to_string()),
            CallerKey::Subject(subject) => ("subject", subject.to_string()),
            CallerKey::Address(address) => ("address", address.to_string()),
        };
        RequestView {
            id: self.id,
            state: self.state.as_str(),
            host: self.key.host.clone(),
            port: self.key.port,
            category: facts.category.map(crate::policy::Category::as_str),
            tier: facts.tier.clone(),
            rule: facts.rule.clone(),
            rule_location: facts.rule_location.clone(),
            policy: facts.policy_digest.clone(),
            caller: CallerView {
                bound_by,
                bound_to,
                session: facts.session.clone(),
                trust: facts.trust,
                user: facts.user.clone(),
                groups: facts.groups.clone(),
            },
            repository: facts.repository.as_ref().map(|it| RepositoryView {
                name: it.name.clone(),
                trust: it.trust.as_str(),
            }),
            call: call.map(|it| CallView {
                id: it.id.clone(),
                trust: facts.call_trust.as_str(),
            }),
            untrusted: Untrusted {
                operation: self.key.operation.clone(),
                tool: call.and_then(|it| it.tool.clone()),
                command: self.command.clone().or(by_process),
                reason: self.reason.clone(),
                branch: facts.work.as_ref().and_then(|it| it.ref_name.clone()),
            },
            first: self.first,
            last: self.last,
            count: self.count,
            expires: self.expires,
            allowed_by: self.votes.iter().map(|it| it.principal.name()).collect(),
            settled: self.state.settlement().map(Settlement::view),
            flow: self.attempt.as_ref().map(|_| facts.flow),
        }
    }

    /// The view for its caller.
    pub fn own_view(&self) -> OwnRequestView {
        OwnRequestView {
            id: self.id,
            state: self.state.as_str(),
            host: self.key.host.clone(),
            port: self.key.port,
            operation: self.key.operation.clone(),
            first: self.first,
            expires: self.expires,
            until: self.state.settlement().map(|how| how.until),
        }
    }
}

impl Settlement {
    fn view(&self) -> SettlementView {
        SettlementView {
            by: self.by.clone(),
            at: self.at,
            until: self.until,
            scope: self.scope.map(|scope| scope.to_string()),
            note: self.note.clone(),
        }
    }
}
