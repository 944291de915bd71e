//! One request: what was attempted, by whom, how often, and what became of it.

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

/// The operation of a tunnel: all that passes in it.
pub(super) const CONNECT: &str = "connect";
/// Characters of an operation. Every MCP method with its tool or URI is shorter: two operations that
/// were cut to the same text would share an approval.
const MAX_OPERATION: usize = 2048;

/// What makes two attempts one request.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RequestKey {
    /// Who asks.
    pub caller: CallerKey,
    /// The canonical host.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// `connect`; else what the request does: `git push`, `mcp tools/call NAME`, `read`, `POST`.
    pub operation: Box<str>,
}

impl RequestKey {
    /// Of an attempt.
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
    let Attempt::Request { method, deed, .. } = attempt else {
        return CONNECT.to_owned();
    };
    let mcp = deed.and_then(|deed| deed.mcp.as_ref());
    if let Some(mcp) = mcp {
        let method = mcp.method.as_deref().unwrap_or("message");
        let tool = mcp.tool.as_deref().unwrap_or_default();
        return format!("mcp {method} {tool}").trim_end().to_owned();
    }
    let words = deed.and_then(|deed| Some((deed.service.as_ref()?, deed.operation.as_ref()?)));
    if let Some((service, operation)) = words {
        return format!("{service} {operation}");
    }
    match deed.and_then(|deed| deed.action) {
        Some(action) => action.as_str().to_owned(),
        None => (*method).to_owned(),
    }
}

/// One request, from its first attempt to its settlement.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its id: a UUID of version 7.
    pub id: Uuid,
    /// What its attempts have in common.
    pub key: RequestKey,
    /// The facts of the first attempt.
    pub facts: Arc<FlowFacts>,
    /// What was attempted, to decide anew; `None`: the request was settled at another gate, or before
    /// the gate was started.
    pub attempt: Option<Arc<Attempted>>,
    /// The user whose process it was.
    pub client: ClientUser,
    /// The command of the tool call, as the agent's hook reported it: at most 200 characters, secrets
    /// masked.
    pub command: Option<Box<str>>,
    /// Why, in the agent's own words: at most 300 characters.
    pub reason: Option<Box<str>>,
    /// When it was first attempted.
    pub first: Timestamp,
    /// When it was last attempted.
    pub last: Timestamp,
    /// How often it was attempted.
    pub count: u64,
    /// When it times out.
    pub expires: Timestamp,
    /// What became of it.
    pub state: RequestState,
    /// Reviewers who allowed it, while one more has to.
    pub votes: Vec<Vote>,
}

/// What a policy needs to decide on a request anew.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// What the caller presented.
    pub presented: Presented,
    /// Where to.
    pub target: Target,
    /// What was attempted.
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
    /// Of a connection. Reads `/proc`.
    pub(super) fn of(channel: &Channel) -> Self {
        let Channel { peer, local, .. } = channel;
        if !peer.ip().is_loopback() && peer.ip() != local.ip() {
            return Self::Elsewhere;
        }
        client_user(*peer, *local).map_or(Self::Unknown, Self::Known)
    }
}

/// One reviewer's leave.
#[derive(Clone, Debug)]
pub struct Vote {
    /// Who gave it.
    pub principal: Principal,
    /// For how long.
    pub scope: Scope,
}

/// What became of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RequestState {
    /// No reviewer settled it yet.
    Pending,
    /// It is being settled: its outcome is not on record yet.
    Settling,
    /// A reviewer allowed it.
    Allowed(Settlement),
    /// A reviewer denied it.
    Denied(Settlement),
    /// A reviewer took an approval back.
    Revoked(Settlement),
    /// No reviewer settled it in time: nothing was allowed or denied.
    TimedOut,
}

/// How a reviewer settled a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settlement {
    /// The reviewers, by name.
    pub by: Vec<Arc<str>>,
    /// When.
    pub at: Timestamp,
    /// Until when it holds.
    pub until: Timestamp,
    /// For how long it was allowed; `None` where it was not.
    pub scope: Option<Scope>,
    /// The reviewer's words.
    pub note: Option<Box<str>>,
}

impl RequestState {
    /// The word, as in answers, records and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending | Self::Settling => "pending",
            Self::Allowed(_) => "allowed",
            Self::Denied(_) => "denied",
            Self::Revoked(_) => "revoked",
            Self::TimedOut => "timed_out",
        }
    }

    /// Whether it waits for reviewers.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::Settling)
    }

    /// How it was settled.
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
                deed: Some(&facts),
            };
            RequestKey::new(CallerKey::Subject("ana".into()), &target, &attempt)
        };
        let long = "x".repeat(1000);
        assert_ne!(named(&format!("{long}/a")), named(&format!("{long}/b")));
    }
}
