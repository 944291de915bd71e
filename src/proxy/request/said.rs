//! The statements of an agent about itself in its own requests: labels for the record, never
//! evidence.

use crate::config::HeaderMismatch;
use crate::content::model;
use crate::http::http1::RequestHead;
use crate::identity::Trust;
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{Code, Refusal};
use crate::record::Said;

/// Fields that name the session.
const SESSIONS: [&[u8]; 2] = [b"x-claude-code-session-id", b"x-mcp-client-session-id"];
/// Fields that name the agent's own conversation: Codex's thread, the session of opencode.
const CONVERSATIONS: [&[u8]; 2] = [b"thread-id", b"x-session-affinity"];
/// Bytes of a label, at most.
const MAX_TEXT: usize = 128;

/// Reads the agent's own header fields.
pub(in crate::proxy) fn of(head: &RequestHead, flow: &mut Flow) {
    let mut said = Said::default();
    for field in head.fields.iter() {
        let slot = match () {
            () if SESSIONS.iter().any(|name| is(field.name, name)) => {
                // One matching id does not make up for another that differs.
                said.mismatch |= !label(field.value).is_some_and(|id| belongs(flow, &id));
                &mut said.session
            }
            () if is(field.name, b"x-claude-code-agent-id") => &mut said.agent,
            () if is(field.name, b"x-claude-code-parent-agent-id") => &mut said.parent_agent,
            () if is(field.name, b"x-claude-code-prompt-id") => &mut said.prompt,
            () if CONVERSATIONS.iter().any(|name| is(field.name, name)) => &mut said.conversation,
            () if is(field.name, b"x-client-request-id") => &mut said.request,
            () if is(field.name, b"traceparent") => {
                said.trace = trace(field.value);
                continue;
            }
            () => continue,
        };
        *slot = label(field.value);
    }
    keep(said, flow);
}

/// Reads the labels in the body of a request to a model.
pub(super) fn of_model(body: &[u8], flow: &mut Flow) {
    let Some(model) = model::said(body) else {
        return;
    };
    let mut said = flow.facts.said.take().map_or_else(Said::default, |it| *it);
    let named = model.session.as_deref();
    said.mismatch |= named.is_some_and(|id| !belongs(flow, id));
    said.session = said.session.or(model.session);
    said.server_tools = model.server_tools;
    keep(said, flow);
}

/// Whether an id in a request belongs to the session: its own id, one of its agent, or one of a
/// child. Also `true` if the session is unknown.
fn belongs(flow: &Flow, id: &str) -> bool {
    let facts = &flow.facts;
    let Some(own) = facts.session.as_deref() else {
        return true;
    };
    let root = facts.root.as_deref().unwrap_or(own);
    if [own, root]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(id))
    {
        return true;
    }
    let snapshot = flow.snapshot();
    let sessions = snapshot.identity.sessions();
    // A command of the agent must not set the agent's id.
    let named = match facts.channel.as_deref() {
        Some("bash") => sessions.has_id(root, id),
        _ => sessions.takes_id(root, id),
    };
    let child = || {
        let live = sessions.live(&id.to_ascii_lowercase());
        live.is_some_and(|live| live.root.as_deref() == Some(root))
    };
    named || child()
}

/// Refuses a request that names another session than its evidence, if the configuration requires
/// it. Ids that the agent of the session reported, and ids of its children, belong to the session.
pub(super) fn agrees(known: &Known, flow: &mut Flow) -> Result<(), Refusal> {
    let differs = flow.facts.said.as_ref().is_some_and(|said| said.mismatch);
    let denies = flow.snapshot().identity.header_mismatch() == HeaderMismatch::Deny;
    if !differs || !denies || known.caller.trust != Trust::Verified {
        return Ok(());
    }
    flow.facts.rule = Some(RULE.into());
    flow.facts.rule_location = None;
    let detail = "the request names another session than its evidence";
    Err(Refusal::because(Code::Denied, detail))
}

/// The rule name in the record of such a refusal.
const RULE: &str = "identity.session.header-mismatch";

fn keep(said: Said, flow: &mut Flow) {
    if said != Said::default() {
        flow.facts.said = Some(Box::new(said));
    }
}

fn is(name: &[u8], known: &[u8]) -> bool {
    name.eq_ignore_ascii_case(known)
}

fn label(value: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let plain = |c: char| c.is_ascii_graphic();
    let sound = !text.is_empty() && text.len() <= MAX_TEXT && text.chars().all(plain);
    sound.then(|| text.into())
}

/// Trace and span of a W3C `traceparent`.
fn trace(value: &[u8]) -> Option<(Box<str>, Box<str>)> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let mut parts = text.split('-');
    let (_version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    (hex(trace, 32) && hex(span, 16)).then(|| (trace.into(), span.into()))
}
