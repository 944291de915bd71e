//! What a request shows: all to its reviewers, less to the caller that it is of.
//!
//! Text that an agent or a third party wrote stands in `untrusted`, and nowhere else.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{Request, Settlement};
use crate::identity::CallerKey;

/// A request as its reviewers see it.
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
    /// The tier that asks.
    pub tier: Option<Arc<str>>,
    /// The rule that asks.
    pub rule: Option<Arc<str>>,
    /// Where it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_location: Option<Arc<str>>,
    /// The digest of the policy that asked.
    pub policy: Option<Arc<str>>,
    /// Who asks.
    pub caller: CallerView,
    /// On what it works, and who says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryView>,
    /// The tool call, where the agent's hooks report calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<CallView>,
    /// Text that the agent or a third party wrote.
    pub untrusted: Untrusted,
    /// When it was first attempted. Of a request that was settled at another gate, or before this one
    /// was started: when it was settled.
    pub first: Timestamp,
    /// When it was last attempted.
    pub last: Timestamp,
    /// How often, at this gate.
    pub count: u64,
    /// When it times out.
    pub expires: Timestamp,
    /// Reviewers who allowed it, while another one has to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_by: Vec<Arc<str>>,
    /// How it was settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<SettlementView>,
    /// The flow of its first attempt, where that was at this gate: `tidegate explain` tells more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Uuid>,
}

/// Who asks.
#[derive(Clone, Debug, Serialize)]
pub struct CallerView {
    /// By what an approval is bound to it: `session`, `subject` or `address`.
    pub bound_by: &'static str,
    /// That session, user or network.
    pub bound_to: String,
    /// `session.id`, as far as `trust` goes.
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

/// On what the caller works.
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
    /// `verified` where the agent's own process reported it.
    pub trust: &'static str,
}

/// Text that the agent or a third party wrote.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Untrusted {
    /// What is done there: `connect`, `git push`, `mcp tools/call NAME`.
    pub operation: Box<str>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Arc<str>>,
    /// The command, secrets masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<str>>,
    /// Why, in the agent's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// The branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<Arc<str>>,
}

/// How a request was settled.
#[derive(Clone, Debug, Serialize)]
pub struct SettlementView {
    /// By which reviewers.
    pub by: Vec<Arc<str>>,
    /// When.
    pub at: Timestamp,
    /// Until when it holds.
    pub until: Timestamp,
    /// `once`, `session` or seconds; none: it was denied or taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The reviewer's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<Box<str>>,
}

/// A request as the caller that it is of sees it.
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
    /// What is done there.
    pub operation: Box<str>,
    /// When it was first attempted.
    pub first: Timestamp,
    /// When it times out.
    pub expires: Timestamp,
    /// Until when it is allowed or denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Request {
    /// As its reviewers see it.
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

    /// As the caller that it is of sees it.
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
