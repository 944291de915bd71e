//! `POST /v1/hooks/claude-code`: what the hooks of Claude Code tell of its tool calls, and what the
//! agent is told back: which flows of the call were refused, and that it is policy.
//!
//! What comes in only labels records. Who sends it has to have the token of the session. A report is
//! the agent's (`tidegate.call.trust` is `verified`) where the agent's own process, as `exec` started
//! it, holds the connection; any other process of the session may have made it up.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::gate::{Gate, Hold};
use crate::identity::{CallerKey, Grant, Place, Refused as RefusedFlow, ToolCall, Trust, Work};
use crate::record::{Asker, CallFacts, Event};

use super::body::{BODY_TIMEOUT, Calls, too_slow};
use super::listener::Ends;
use super::sessions::{Refused, bearer, descends};

/// Bytes of what a tool answered, which comes along and is not looked at.
const BODY_SIZE: usize = 16 * 1024 * 1024;
/// Bytes of an id.
const LONGEST: usize = 200;

/// The route of the hooks.
pub(super) fn routes(gate: &Arc<Gate>) -> Router {
    let calls = Calls::that_read(gate);
    Router::new()
        .route("/v1/hooks/claude-code", post(hook))
        .layer(from_fn(move |request, next| {
            calls.clone().run(request, next)
        }))
        .with_state(gate.clone())
}

/// What a hook tells; there is more in it than is read.
#[derive(Debug, Deserialize)]
struct Told {
    session_id: String,
    hook_event_name: String,
    permission_mode: Option<String>,
    prompt_id: Option<String>,
    agent_id: Option<String>,
    parent_agent_id: Option<String>,
    tool_name: Option<String>,
    tool_use_id: Option<String>,
    #[serde(default)]
    tool_input: Value,
}

async fn hook(
    State(gate): State<Arc<Gate>>,
    Extension(asker): Extension<Asker>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let grant = bearer(&gate, &headers)?.ok_or_else(|| {
        let detail = "a hook shows the token of its session: `Authorization: Bearer`";
        Refused::new(StatusCode::UNAUTHORIZED, "identity_required", detail)
    })?;
    let read = whole(&gate, &grant, request.into_body());
    let body = tokio::time::timeout(BODY_TIMEOUT, read).await;
    let told = parse(&body.unwrap_or_else(|_| Err(too_slow()))?)?;
    descends(&gate, &grant, &told.session_id)?;
    let trust = reporter(&gate, &grant, ends).await;
    let answer = take(&gate, &grant, &told, (trust, asker)).await?;
    Ok(Json(answer).into_response())
}

/// Whether the agent itself reports, or any process of its session may.
async fn reporter(gate: &Gate, grant: &Grant, ends: Ends) -> Trust {
    let agent = grant.root.as_ref().and_then(|root| {
        let snapshot = gate.snapshot.load();
        snapshot.identity.sessions().agent_of(root)
    });
    match (agent, ends.0) {
        (Some(agent), Some((client, local))) if agent.is_at(client, local).await => Trust::Verified,
        _ => Trust::Asserted,
    }
}

/// Reads a body. Its memory counts as its session's: one session does not hold what others need.
async fn whole(gate: &Gate, grant: &Grant, mut body: Body) -> Result<Vec<u8>, Refused> {
    let session = grant.root.clone().or_else(|| grant.session.clone());
    let session = session.unwrap_or_else(|| grant.id.clone());
    let mut hold = Hold::new(&gate.held, CallerKey::Session(session));
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let cut_off = |_| wrong("the body is cut off");
        let Ok(data) = frame.map_err(cut_off)?.into_data() else {
            continue;
        };
        if read.len() + data.len() > BODY_SIZE || !hold.grow(data.len()) {
            let detail = "the body is too long";
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Refused::new(status, "too_large", detail));
        }
        read.extend_from_slice(&data);
    }
    Ok(read)
}

fn wrong(detail: &str) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "bad_request", detail)
}

fn parse(body: &[u8]) -> Result<Told, Refused> {
    let told: Told = serde_json::from_slice(body).map_err(|_| wrong("this is no hook's JSON"))?;
    let ids = [
        Some(&told.session_id),
        told.permission_mode.as_ref(),
        told.prompt_id.as_ref(),
        told.agent_id.as_ref(),
        told.parent_agent_id.as_ref(),
        told.tool_name.as_ref(),
        told.tool_use_id.as_ref(),
    ];
    let sound = |id: &String| {
        id.len() <= LONGEST && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !ids.into_iter().flatten().all(sound) {
        return Err(wrong("ids are printable, without blanks, and short"));
    }
    Ok(told)
}

/// Takes up what was told, when it stands in the log; the answer for the agent.
async fn take(
    gate: &Gate,
    grant: &Grant,
    told: &Told,
    (trust, asker): (Trust, Asker),
) -> Result<Value, Refused> {
    let snapshot = gate.snapshot.load_full();
    let sessions = snapshot.identity.sessions();
    let session: Arc<str> = told.session_id.as_str().into();
    // Where the agent itself can be told from its commands, they do not say its mode.
    let agent = (grant.root.as_deref()).and_then(|root| sessions.agent_of(root));
    let believed = trust == Trust::Verified || agent.is_none();
    if let Some(mode) = told.permission_mode.as_ref().filter(|_| believed) {
        let work = sessions.live(&session).map(|live| live.work);
        let work = work.unwrap_or_else(|| grant.work.clone());
        if work.permission_mode.as_deref() != Some(mode) {
            let permission_mode = Some(mode.as_str().into());
            let work = Work {
                permission_mode,
                ..Work::clone(&work)
            };
            sessions.works(&session, Arc::new(work));
        }
    }
    let (Some(tool), Some(id)) = (&told.tool_name, &told.tool_use_id) else {
        return Ok(json!({}));
    };
    let Some(place) = Place::of_tool(tool) else {
        return Ok(json!({}));
    };
    let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
    let call = ToolCall {
        trust,
        id: Some(id.as_str().into()),
        prompt: shared(&told.prompt_id),
        agent: shared(&told.agent_id),
        parent_agent: shared(&told.parent_agent_id),
        tool: Some(tool.as_str().into()),
    };
    let facts = Box::new(CallFacts {
        session: Some(session.clone()),
        call: call.clone(),
        asker,
    });
    match told.hook_event_name.as_str() {
        "PreToolUse" => {
            let event = gate.recorder.queue_event(&Event::ToolCallStarted(facts));
            event.written().await?;
            let command = told.tool_input.get("command").and_then(Value::as_str);
            let calls = sessions.calls();
            calls.open(&session, (call, place), command, gate.clock.now());
            Ok(json!({}))
        }
        event @ ("PostToolUse" | "PostToolUseFailure") => {
            let queued = gate.recorder.queue_event(&Event::ToolCallEnded(facts));
            queued.written().await?;
            Ok(answer(event, &sessions.calls().close(&session, id, trust)))
        }
        _ => Ok(json!({})),
    }
}

/// Tells the agent what was refused: hosts in canonical form, words of closed lists, the names of
/// tiers. Nothing in it was written by a stranger.
fn answer(event: &str, refused: &[RefusedFlow]) -> Value {
    if refused.is_empty() {
        return json!({});
    }
    let mut text = String::from("tidegate, the network policy of this machine, refused:\n");
    for it in refused {
        let tier = it.tier.as_deref().unwrap_or("unknown");
        let RefusedFlow {
            target,
            category,
            reason,
            ..
        } = it;
        let _ = writeln!(
            text,
            "- {target}: {reason} (category {category}, tier {tier})"
        );
    }
    text.push_str(
        "This is policy, not a network fault: do not retry, do not look for another way. If the \
         task needs it, say so to the person you work for; they can see why with:",
    );
    for it in refused.iter().take(3) {
        let _ = write!(text, "\n  tidegate explain {}", it.flow);
    }
    json!({ "hookSpecificOutput": { "hookEventName": event, "additionalContext": text } })
}
