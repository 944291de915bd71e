//! What an agent says of itself in its own requests: labels for the record, never evidence.

use crate::config::HeaderMismatch;
use crate::content::model;
use crate::http::http1::RequestHead;
use crate::identity::Trust;
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{Code, Refusal};
use crate::record::Said;

/// Fields that name the session.
const SESSIONS: [&[u8]; 2] = [b"x-claude-code-session-id", b"x-mcp-client-session-id"];
/// Longest label, in bytes.
const LONGEST: usize = 128;

/// Reads the agent's own header fields.
pub(in crate::proxy) fn of(head: &RequestHead, flow: &mut Flow) {
    let mut said = Said::default();
    let known = flow.facts.session.as_deref();
    for field in head.fields.iter() {
        let slot = match () {
            () if SESSIONS.iter().any(|name| is(field.name, name)) => {
                // One that agrees does not make up for another that does not.
                let differs = |known: &str| !is(field.value.trim_ascii(), known.as_bytes());
                said.mismatch |= known.is_some_and(differs);
                &mut said.session
            }
            () if is(field.name, b"x-claude-code-agent-id") => &mut said.agent,
            () if is(field.name, b"x-claude-code-parent-agent-id") => &mut said.parent_agent,
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

/// Reads what a request to a model says besides.
pub(super) fn of_model(body: &[u8], flow: &mut Flow) {
    let Some(model) = model::said(body) else {
        return;
    };
    let mut said = flow.facts.said.take().map_or_else(Said::default, |it| *it);
    let known = flow.facts.session.as_deref();
    let differs = |known: &str| {
        model
            .session
            .as_deref()
            .is_some_and(|it| !it.eq_ignore_ascii_case(known))
    };
    said.mismatch |= known.is_some_and(differs);
    said.session = said.session.or(model.session);
    said.server_tools = model.server_tools;
    keep(said, flow);
}

/// Refuses a request that names another session than the evidence shows, where the configuration
/// says so.
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

/// What the record names then.
const RULE: &str = "identity.session.header-mismatch";

fn keep(mut said: Said, flow: &mut Flow) {
    let known = flow.facts.session.as_deref();
    let differs = |session: &str| known.is_some_and(|known| !known.eq_ignore_ascii_case(session));
    said.mismatch |= said.session.as_deref().is_some_and(differs);
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
    let sound = !text.is_empty() && text.len() <= LONGEST && text.chars().all(plain);
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
