//! `http://tidegate.internal/v1/requests`: lists a caller's own requests for approval, and files
//! new ones. A caller can settle no request, and sees no request of another caller.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::gate::approvals::{Explained, Filed, MAX_OPEN_OF_ONE, Request};
use crate::http::http1::{Method, RequestHead};
use crate::identity::CallerKey;
use crate::name::Target;
use crate::policy::{Attempt, Query, Verdict};
use crate::proxy::connection::Connection;
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{Code, Refusal};

use super::peek::Peek;

/// The path of a caller's requests.
pub(super) const PATH: &str = "/v1/requests";
/// The longest body of a new request, in bytes.
const MAX_BODY: usize = 4 * 1024;
/// The time limit for such a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest reason of an agent, in characters.
const MAX_REASON: usize = 300;

/// A request for approval, as an agent files it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filing {
    /// The host to connect to.
    host: Option<String>,
    /// The port; 443 by default.
    port: Option<u16>,
    /// The open request that `reason` explains, instead of a host.
    id: Option<Uuid>,
    /// The reason, for the reviewer.
    reason: Option<String>,
}

/// Whether a path belongs to these calls.
pub(super) fn is_here(path: &str) -> bool {
    path == PATH
        || path
            .strip_prefix(PATH)
            .is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the status and the document of an answer.
pub(super) async fn answer(
    connection: &mut Connection,
    flow: &mut Flow,
    head: &RequestHead,
    (path, known): (&str, &Known),
) -> Result<(u16, Value), Refusal> {
    let caller = flow.caller_key(known);
    let rest = path.strip_prefix(PATH).unwrap_or_default();
    let id = rest.strip_prefix('/').filter(|id| !id.is_empty());
    match (&head.method, id) {
        (Method::Get | Method::Head, None) => Ok((200, all_of(flow, &caller))),
        (Method::Get | Method::Head, Some(id)) => Ok(one_of(flow, &caller, id)),
        (Method::Post, None) => {
            let filing = read(connection, head).await?;
            Ok(file(flow, known, &caller, &filing))
        }
        _ => Err(Refusal::malformed(
            405,
            "GET requests, or POST one to /v1/requests",
        )),
    }
}

fn all_of(flow: &Flow, caller: &CallerKey) -> Value {
    let own = flow.gate.requests.list(|it| it.key.caller == *caller);
    let views: Vec<_> = own.iter().map(Request::own_view).collect();
    json!({ "requests": views, "most_open": MAX_OPEN_OF_ONE })
}

fn one_of(flow: &Flow, caller: &CallerKey, id: &str) -> (u16, Value) {
    let found = id.parse().ok().and_then(|id| flow.gate.requests.get(id));
    match found.filter(|it| it.key.caller == *caller) {
        Some(request) => (200, json!(request.own_view())),
        None => problem(404, "unknown_request", "this caller has no such request"),
    }
}

fn problem(status: u16, error: &str, detail: &str) -> (u16, Value) {
    (status, json!({ "error": error, "detail": detail }))
}

/// Reads the body. JSON is required, because a page in a browser cannot send JSON without a CORS
/// preflight.
async fn read(connection: &mut Connection, head: &RequestHead) -> Result<Filing, Refusal> {
    let bad = |why: &str| Refusal::malformed(400, why);
    let mut fields = head.fields.iter();
    let kind = fields.find(|field| field.name.eq_ignore_ascii_case(b"content-type"));
    let is_json = kind.is_some_and(|field| {
        let kind = field
            .value
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if !is_json {
        return Err(Refusal::malformed(
            415,
            "send JSON: Content-Type: application/json",
        ));
    }
    let mut peek = Peek::new(head);
    let whole = async {
        while !peek.ended && peek.kept() <= MAX_BODY {
            peek.more(connection).await?;
        }
        Ok::<_, Refusal>(())
    };
    let read = tokio::time::timeout(BODY_TIMEOUT, whole).await;
    read.unwrap_or_else(|_| Err(Refusal::malformed(408, "the body did not come in time")))?;
    if peek.kept() > MAX_BODY {
        return Err(Refusal::malformed(413, "the body has more than 4096 bytes"));
    }
    serde_json::from_slice(&peek.content).map_err(|_| {
        bad("send {\"host\": …, \"port\": …, \"reason\": …}, or {\"id\": …, \"reason\": …}")
    })
}

fn file(flow: &Flow, known: &Known, caller: &CallerKey, filing: &Filing) -> (u16, Value) {
    let reason = filing.reason.as_deref().map(tidy);
    let reason = reason.as_deref().filter(|reason| !reason.is_empty());
    let explain = |id| match reason {
        Some(reason) => flow.gate.explain_request(id, caller, reason),
        None => Explained::Added,
    };
    match (filing.id, &filing.host) {
        (Some(id), None) => match explain(id) {
            Explained::Added => one_of(flow, caller, &id.to_string()),
            Explained::Read => {
                let why = "a program of the operator reads each request as it is filed: its reason \
                           cannot be added later";
                problem(409, "read_before", why)
            }
            Explained::Unknown => {
                let why = "this caller has no such open request";
                problem(404, "unknown_request", why)
            }
        },
        (None, Some(host)) => {
            let target = (&**host, filing.port.unwrap_or(443));
            match file_for(flow, known, caller, target, reason) {
                Ok((id, is_new)) => {
                    // For a request that a reviewer denied, the answer contains its state.
                    if !is_new {
                        explain(id);
                    }
                    one_of(flow, caller, &id.to_string())
                }
                Err(answer) => answer,
            }
        }
        _ => {
            let why = "name a `host`, or the `id` of a request";
            problem(400, "bad_request", why)
        }
    }
}

/// Files a request for a tunnel; returns its id and whether it is new, or the answer if no approval
/// is needed or possible.
fn file_for(
    flow: &Flow,
    known: &Known,
    caller: &CallerKey,
    (host, port): (&str, u16),
    reason: Option<&str>,
) -> Result<(Uuid, bool), (u16, Value)> {
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let target = Target::from_connect(format!("{host}:{port}").as_bytes());
    let target = target.map_err(|error| problem(400, "bad_target", &error.to_string()))?;
    let query = Query {
        who: &known.caller.who,
        target: &target,
        attempt: Attempt::Connect,
    };
    let snapshot = flow.snapshot();
    let (decision, _) = flow
        .gate
        .decide(&snapshot, &query, &flow.asks(caller, false));
    match decision.verdict {
        Verdict::Allow => Err((
            200,
            json!({ "state": "allowed", "host": target.host.to_string(), "port": port }),
        )),
        Verdict::Deny => {
            let code = Code::from(decision.reason).as_str();
            Err(problem(
                403,
                code,
                "the policy denies it: no reviewer can allow it",
            ))
        }
        Verdict::Ask if !snapshot.policy.asking(query.who.tier).has_reviewers() => {
            let why = "the tier names no reviewers: a rule has to allow it";
            Err(problem(403, Code::NeedsApproval.as_str(), why))
        }
        Verdict::Ask => match flow.file_for(known, &query, &decision, reason) {
            Filed::New(request) => Ok((request.id, true)),
            Filed::Known(id) | Filed::Denied(id) => Ok((id, false)),
            Filed::Full => Err(problem(
                429,
                "too_many_requests",
                "too many requests are open",
            )),
        },
    }
}

/// The reason of an agent on one line, shortened.
fn tidy(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.trim().chars().map(plain).take(MAX_REASON).collect()
}
