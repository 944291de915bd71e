//! `POST /v1/hooks/claude-code`: receives reports of the hooks of Claude Code, Codex, Copilot CLI,
//! Gemini CLI and opencode on their sessions and tool calls. The answer lists the refused flows of the agent,
//! and names the policy as the reason.
//!
//! A report only labels records. Its sender shows the token of the session, or connects to the
//! control socket. A report is the agent's own (`tidegate.call.trust` is `verified`) in two cases:
//!
//! - The agent's process, as `exec` started it, holds the connection.
//! - The gate itself reads the report from the standard input of the hook that asks, and that is an
//!   end of a pair of sockets that the agent's process made (`POST /v1/hooks/claude-code/stdin`).
//!
//! Any other report may come from any process of the session.

mod answer;
mod report;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use crate::gate::{Gate, Hold};
use crate::identity::{
    AgentProcess, AgentReport, CallerKey, EndedCall, Grant, NewCall, Refused as RefusedFlow,
    Sessions, ToolCall, Trust, Work, session_of_agent,
};
use crate::record::{Asker, CallFacts, Event};

use super::Door;
use super::body::{BODY_TIMEOUT, Calls, too_slow};
use super::listener::Ends;
use super::sessions::{Refused, bearer, descends, speaks_for};
use report::{EventKind, Report, wrong};

/// Bytes of a report, at most. A report includes the answer of the tool, which the gate ignores.
const MAX_REPORT: usize = 16 * 1024 * 1024;
/// The bytes read at once.
const READ_SIZE: usize = 64 * 1024;

/// The routes of the hooks.
pub(super) fn routes(gate: &Arc<Gate>) -> Router {
    let calls = Calls::that_read(gate);
    Router::new()
        .route("/v1/hooks/claude-code", post(posted))
        .route("/v1/hooks/claude-code/stdin", post(on_stdin))
        .layer(from_fn(move |request, next| {
            calls.clone().run(request, next)
        }))
        .with_state(gate.clone())
}

/// The sender of a report: its session, and the trust in the report.
struct Reporter {
    grant: Arc<Grant>,
    trust: Trust,
    asker: Asker,
    /// The start time of the hook's process, if known.
    hook_began: Option<u64>,
    /// The place of the hook, if no launcher of this gate started the agent.
    hook: Option<HookPlace>,
    /// The process that started the hook, if a launcher of this gate started the agent and the
    /// report may come from another process.
    above: Option<u32>,
}

/// Where the process of a hook is found.
#[derive(Clone, Copy)]
enum HookPlace {
    /// The client of the control socket.
    Process(u32),
    /// The client's end of a TCP connection.
    Connection(SocketAddr, SocketAddr),
}

/// Takes the report from the request body.
async fn posted(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let shown = bearer(&gate, &headers)?;
    if shown.is_none() && door != Door::Control {
        return Err(no_token());
    }
    let read = whole(&gate, shown.as_deref(), request.into_body());
    let body = tokio::time::timeout(BODY_TIMEOUT, read).await;
    let report = Report::parse(&body.unwrap_or_else(|_| Err(too_slow()))?)?;
    let grant = match shown {
        Some(grant) => grant,
        None => registered(&gate, &report.session_id, asker.pid).await?,
    };
    let trust = match (agent_of(&gate, &grant), ends.0) {
        (Some(agent), Some((client, local))) if agent.is_at(client, local).await => Trust::Verified,
        _ => Trust::Asserted,
    };
    let hook = match (agent_of(&gate, &grant), ends.0) {
        (Some(agent), Some((client, local))) => agent.hook_at(client, local).await,
        _ => None,
    };
    let place = match (agent_of(&gate, &grant), ends.0) {
        (Some(_), _) => None,
        (None, Some((client, local))) => Some(HookPlace::Connection(client, local)),
        (None, None) => asker.pid.map(HookPlace::Process),
    };
    let reporter = Reporter {
        grant,
        trust,
        asker,
        hook_began: hook.map(|hook| hook.began),
        hook: place,
        above: hook.map(|hook| hook.above),
    };
    Ok(Json(take(&gate, &reporter, &report).await?).into_response())
}

/// Takes the report from the standard input of the hook process that sends the request.
async fn on_stdin(
    State(gate): State<Arc<Gate>>,
    Extension(asker): Extension<Asker>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let grant = bearer(&gate, &headers)?.ok_or_else(no_token)?;
    let (Some(agent), Some((client, local))) = (agent_of(&gate, &grant), ends.0) else {
        return Err(not_readable());
    };
    let found = agent.report_at(client, local).await;
    let AgentReport { input, began } = found.ok_or_else(not_readable)?;
    let read = whole_input(&gate, &grant, input);
    let body = tokio::time::timeout(BODY_TIMEOUT, read).await;
    let report = Report::parse(&body.unwrap_or_else(|_| Err(too_slow()))?)?;
    let reporter = Reporter {
        grant,
        trust: Trust::Verified,
        asker,
        hook_began: Some(began),
        hook: None,
        above: None,
    };
    let answer = take(&gate, &reporter, &report).await?;
    Ok(Json(json!({ "report": report.excerpt(), "answer": answer })).into_response())
}

fn no_token() -> Refused {
    let detail = "a hook shows the token of its session: `Authorization: Bearer`";
    Refused::new(StatusCode::UNAUTHORIZED, "identity_required", detail)
}

/// The answer if the gate cannot read the input: the hook command then reads and posts the report
/// itself.
fn not_readable() -> Refused {
    let detail = "the standard input of this hook is not an end of a pair of sockets that the agent \
                  of this gate made: post the report as the body";
    Refused::new(StatusCode::CONFLICT, "not_readable", detail)
}

/// The grant of a session that was registered at the control socket, else of the present session of
/// the agent that started the hook: a forked conversation has an id that no `SessionStart` named. The
/// token of the session is for commands; a client of the control socket acts for the agent.
async fn registered(gate: &Gate, session: &str, hook: Option<u32>) -> Result<Arc<Grant>, Refused> {
    let snapshot = gate.snapshot.load_full();
    let sessions = snapshot.identity.sessions().clone();
    let mut live = sessions.live(&session_of_agent(session));
    if let (None, Some(hook)) = (&live, hook) {
        let search = move || {
            let session = sessions.session_above(hook)?;
            sessions.live(&session)
        };
        live = tokio::task::spawn_blocking(search)
            .await
            .unwrap_or_default();
    }
    let grant = live.map(|live| live.grant).ok_or_else(|| {
        let detail = "no session of that id is registered: `SessionStart` registers one";
        Refused::new(StatusCode::NOT_FOUND, "unknown_session", detail)
    })?;
    Ok(Arc::new(Grant {
        channel: None,
        ..Grant::clone(&grant)
    }))
}

fn agent_of(gate: &Gate, grant: &Grant) -> Option<AgentProcess> {
    let snapshot = gate.snapshot.load();
    snapshot.identity.sessions().agent_of(grant.root.as_ref()?)
}

/// The memory for a report, counted for its session, so that one session does not use up the memory
/// of others.
fn room(gate: &Gate, grant: Option<&Grant>) -> Hold {
    let session = grant.map(|grant| {
        let session = grant.root.clone().or_else(|| grant.session.clone());
        session.unwrap_or_else(|| grant.id.clone())
    });
    let session = session.unwrap_or_else(|| "control".into());
    Hold::new(&gate.held, CallerKey::Session(session))
}

fn too_long() -> Refused {
    let detail = "the report is too long";
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}

async fn whole(gate: &Gate, grant: Option<&Grant>, mut body: Body) -> Result<Vec<u8>, Refused> {
    let mut hold = room(gate, grant);
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let cut_off = |_| wrong("the body is cut off");
        let Ok(data) = frame.map_err(cut_off)?.into_data() else {
            continue;
        };
        if read.len() + data.len() > MAX_REPORT || !hold.grow(data.len()) {
            return Err(too_long());
        }
        read.extend_from_slice(&data);
    }
    Ok(read)
}

async fn whole_input(
    gate: &Gate,
    grant: &Grant,
    input: std::os::unix::net::UnixStream,
) -> Result<Vec<u8>, Refused> {
    let unreadable = |_: io::Error| wrong("the standard input of the hook cannot be read");
    input.set_nonblocking(true).map_err(unreadable)?;
    let mut input = UnixStream::from_std(input).map_err(unreadable)?;
    let mut hold = room(gate, Some(grant));
    let mut read = Vec::new();
    loop {
        if read.len() > MAX_REPORT || !hold.grow(READ_SIZE) {
            return Err(too_long());
        }
        read.reserve(READ_SIZE);
        if input.read_buf(&mut read).await.map_err(unreadable)? == 0 {
            return Ok(read);
        }
    }
}

/// Applies a report after it is written to the log; returns the answer for the agent.
async fn take(gate: &Gate, reporter: &Reporter, report: &Report) -> Result<Value, Refused> {
    let snapshot = gate.snapshot.load_full();
    let sessions = snapshot.identity.sessions();
    let Reporter { grant, trust, .. } = reporter;
    let root = grant.root.as_ref().or(grant.session.as_ref());
    let root = root.ok_or_else(|| wrong("the token is of no session"))?;
    if report.names_session() {
        speaks_for(gate, grant, &report.session_id)?;
        note_session(sessions, reporter, root, report).await;
    } else {
        descends(gate, grant, &report.session_id)?;
    }
    note_mode(sessions, reporter, report);
    let event = report.hook_event_name.as_str();
    let Some((key, call)) = tool_call(report, *trust) else {
        let earlier = if report.event().is_read() {
            sessions.calls().untold(root, *trust)
        } else {
            Vec::new()
        };
        if report.starts_session() && earlier.is_empty() && snapshot.policy.has_reviewers() {
            return Ok(answer::how_to_ask(event));
        }
        return Ok(answer::context(event, &[], &earlier));
    };
    let facts = Box::new(CallFacts {
        session: Some(report.session_id.as_str().into()),
        call: call.clone(),
        asker: reporter.asker.clone(),
    });
    match report.event() {
        EventKind::BeforeTool => {
            let event = gate.recorder.queue_event(&Event::ToolCallStarted(facts));
            event.written().await?;
            if let Some(place) = report.place() {
                let call = NewCall {
                    call,
                    place,
                    command: report.command(),
                    page: report.page(),
                    not_before: reporter.hook_began,
                };
                sessions.calls().open(root, call, gate.clock.now());
            }
            Ok(json!({}))
        }
        EventKind::AfterTool => {
            let queued = gate.recorder.queue_event(&Event::ToolCallEnded(facts));
            queued.written().await?;
            let own = close(sessions, root, &key, (reporter, report));
            let earlier = if report.shows_error_only {
                Vec::new()
            } else {
                sessions.calls().untold(root, *trust)
            };
            Ok(answer::context(event, &own, &earlier))
        }
        _ => Ok(json!({})),
    }
}

/// Ends a call; returns the refused flows to report.
fn close(
    sessions: &Sessions,
    root: &str,
    key: &str,
    (reporter, report): (&Reporter, &Report),
) -> Vec<RefusedFlow> {
    let ended = EndedCall {
        key,
        trust: reporter.trust,
        is_read: !report.shows_error_only,
        not_after: reporter.hook_began,
    };
    sessions.calls().close(root, &ended)
}

/// Sets the present session of the agent, and its process. A report of another agent, which a
/// command of this one started, sets nothing.
async fn note_session(
    sessions: &Arc<Sessions>,
    reporter: &Reporter,
    root: &Arc<str>,
    report: &Report,
) {
    let Reporter { grant, trust, .. } = reporter;
    let above = match reporter.hook {
        None => reporter.above,
        Some(hook) => agent_above(hook).await,
    };
    if report.starts_session() {
        sessions.agent_starts(root, *trust, above);
    }
    if let (Some(agent), Some(_), true) = (above, reporter.hook, report.starts_session()) {
        // The commands of Claude Code have credentials of their own.
        let name = grant.work.agent.as_deref();
        let (sessions, session) = (sessions.clone(), root.clone());
        let with_commands = name != Some("claude-code");
        let register = move || sessions.register_agent(&session, agent, with_commands);
        let _ = tokio::task::spawn_blocking(register).await;
    }
    if sessions.is_of_agent(root, *trust, above) {
        sessions.succeed(root, &report.session_id, *trust);
    }
}

/// The process of the agent that started a hook.
async fn agent_above(hook: HookPlace) -> Option<u32> {
    let search = move || match hook {
        HookPlace::Process(pid) => Sessions::agent_above(pid),
        HookPlace::Connection(client, local) => Sessions::agent_above_client(client, local),
    };
    let found = tokio::task::spawn_blocking(search).await;
    found.unwrap_or_default()
}

/// The call in a report, if its tool reaches the network.
fn tool_call(report: &Report, trust: Trust) -> Option<(Arc<str>, ToolCall)> {
    report.place()?;
    let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
    let call = ToolCall {
        trust,
        session: Some(report.session_id.to_ascii_lowercase().into()),
        id: shared(&report.tool_use_id),
        handle: report.handle().map(Arc::from),
        prompt: report.prompt().map(Arc::from),
        agent: shared(&report.agent_id),
        parent_agent: shared(&report.parent_agent_id),
        tool: shared(&report.tool_name),
    };
    Some((call.key()?.into(), call))
}

/// Saves the permission mode. If the gate can distinguish the agent from its commands, a command's
/// report cannot set the mode.
fn note_mode(sessions: &Sessions, reporter: &Reporter, report: &Report) {
    let agent = (reporter.grant.root.as_deref()).and_then(|root| sessions.agent_of(root));
    let believed = reporter.trust == Trust::Verified || agent.is_none();
    let Some(mode) = report.permission_mode.as_ref().filter(|_| believed) else {
        return;
    };
    let live = sessions.live(&report.session_id).map(|live| live.work);
    let work = live.unwrap_or_else(|| reporter.grant.work.clone());
    if work.permission_mode.as_deref() == Some(mode) {
        return;
    }
    let permission_mode = Some(mode.as_str().into());
    let work = Arc::new(Work {
        permission_mode,
        ..Work::clone(&work)
    });
    sessions.works(&report.session_id, work.clone());
    if let Some(root) = &reporter.grant.root {
        sessions.works(root, work);
    }
}
