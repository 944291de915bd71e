//! One request: its operation, its caller, its attempts, and its state.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::gate::Asked;
use crate::identity::{CallerKey, Channel, Presented, client_user};
use crate::name::Target;
use crate::policy::Attempt;
use crate::record::FlowFacts;

use super::{Principal, Scope};

/// The operation of a tunnel: all of its content.
pub(super) const CONNECT: &str = "connect";
/// Characters of an operation, at most. Every MCP method with its tool or URI is shorter: two
/// operations cut to the same text would share an approval.
const MAX_OPERATION: usize = 2048;

/// Identifies a request: attempts with the same key belong to it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RequestKey {
    /// The caller.
    pub caller: CallerKey,
    /// The canonical host.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// `connect`; otherwise the operation: `git push`, `mcp tools/call NAME`, `read`, `POST`.
    pub operation: Box<str>,
}

impl RequestKey {
    /// The key of an attempt.
    pub fn new(caller: CallerKey, target: &Target, attempt: &Attempt<'_>) -> Self {
        Self {
            caller,
            host: target.host.to_string().into(),
            port: target.port,
            operation: operation(attempt).chars().take(MAX_OPERATION).collect(),
        }
    }
}

fn operation(attempt: &Attempt<'_>) -> String {
    let Attempt::Request {
        method,
        request_facts,
        ..
    } = attempt
    else {
        return CONNECT.to_owned();
    };
    let mcp = request_facts.and_then(|request_facts| request_facts.mcp.as_ref());
    if let Some(mcp) = mcp {
        let method = mcp.method.as_deref().unwrap_or("message");
        let tool = mcp.tool.as_deref().unwrap_or_default();
        return format!("mcp {method} {tool}").trim_end().to_owned();
    }
    let words = request_facts.and_then(|request_facts| {
        Some((
            request_facts.service.as_ref()?,
            request_facts.operation.as_ref()?,
        ))
    });
    if let Some((service, operation)) = words {
        return format!("{service} {operation}");
    }
    match request_facts.and_then(|request_facts| request_facts.action) {
        Some(action) => action.as_str().to_owned(),
        None => (*method).to_owned(),
    }
}

/// One request, from its first attempt to its settlement.
#[derive(Clone, Debug)]
pub struct Request {
    /// The id: a UUID of version 7.
    pub id: Uuid,
    /// The key of its attempts.
    pub key: RequestKey,
    /// The facts of the first attempt.
    pub facts: Arc<FlowFacts>,
    /// The first attempt, to decide it again; `None`: the request was settled at another gate, or
    /// before this gate was started.
    pub attempt: Option<Arc<Attempted>>,
    /// The user of the client process.
    pub client: ClientUser,
    /// The command of the tool call, as the agent's hook reported it: at most 200 characters, secrets
    /// masked.
    pub command: Option<Box<str>>,
    /// The reason in the agent's words: at most 300 characters.
    pub reason: Option<Box<str>>,
    /// The time of the first attempt.
    pub first: Timestamp,
    /// The time of the latest attempt.
    pub last: Timestamp,
    /// The number of attempts.
    pub count: u64,
    /// The time at which the request times out.
    pub expires: Timestamp,
    /// The state.
    pub state: RequestState,
    /// The votes of reviewers who allowed it, if another reviewer is required.
    pub votes: Vec<Vote>,
}

/// The facts for deciding an attempt again.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// The evidence of the caller.
    pub presented: Presented,
    /// The target.
    pub target: Target,
    /// The attempted operation.
    pub asked: Asked,
}

/// The user whose process opened the connection of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientUser {
    /// The client is on another host, or in another network namespace of this one.
    Elsewhere,
    /// A user of this host.
    Known(u32),
    /// The client is on this host, and its user could not be seen.
    Unknown,
}

impl ClientUser {
    /// Finds the user of a connection. Reads `/proc`.
    pub(super) fn of(channel: &Channel) -> Self {
        let Channel { peer, local, .. } = channel;
        if !peer.ip().is_loopback() && peer.ip() != local.ip() {
            return Self::Elsewhere;
        }
        client_user(*peer, *local).map_or(Self::Unknown, Self::Known)
    }
}

/// The vote of one reviewer to allow a request.
#[derive(Clone, Debug)]
pub struct Vote {
    /// The reviewer.
    pub principal: Principal,
    /// The scope of the vote.
    pub scope: Scope,
}

/// The state of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RequestState {
    /// No reviewer settled it yet.
    Pending,
    /// A reviewer is settling it: the outcome is not recorded yet.
    Settling,
    /// A reviewer allowed it.
    Allowed(Settlement),
    /// A reviewer denied it.
    Denied(Settlement),
    /// A reviewer revoked the approval.
    Revoked(Settlement),
    /// No reviewer settled it in time: nothing was allowed or denied.
    TimedOut,
}

/// The settlement of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settlement {
    /// The reviewers, by name.
    pub by: Vec<Arc<str>>,
    /// The time of the settlement.
    pub at: Timestamp,
    /// The end of its effect.
    pub until: Timestamp,
    /// The scope of the approval; `None` for a denial.
    pub scope: Option<Scope>,
    /// The note of the reviewer.
    pub note: Option<Box<str>>,
}

impl RequestState {
    /// The word for this state in answers, records and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending | Self::Settling => "pending",
            Self::Allowed(_) => "allowed",
            Self::Denied(_) => "denied",
            Self::Revoked(_) => "revoked",
            Self::TimedOut => "timed_out",
        }
    }

    /// Whether the request waits for reviewers.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::Settling)
    }

    /// The settlement, if there is one.
    pub fn settlement(&self) -> Option<&Settlement> {
        match self {
            Self::Allowed(how) | Self::Denied(how) | Self::Revoked(how) => Some(how),
            Self::Pending | Self::Settling | Self::TimedOut => None,
        }
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.operation, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Path;
    use crate::policy::{McpCall, RequestFacts};

    #[test]
    fn long_operations_that_begin_alike_are_different_requests() {
        let path = Path::parse(b"/mcp").expect("a path");
        let target = Target::from_connect(b"mcp.example.net:443").expect("a target");
        let named = |uri: &str| {
            let mcp = McpCall {
                method: Some("resources/read".into()),
                tool: Some(uri.into()),
                ..McpCall::default()
            };
            let facts = RequestFacts {
                mcp: Some(mcp),
                ..RequestFacts::default()
            };
            let attempt = Attempt::Request {
                method: "POST",
                path: &path,
                upgrade: false,
                tls: false,
                request_facts: Some(&facts),
            };
            RequestKey::new(CallerKey::Subject("ana".into()), &target, &attempt)
        };
        let long = "x".repeat(1000);
        assert_ne!(named(&format!("{long}/a")), named(&format!("{long}/b")));
    }
}
