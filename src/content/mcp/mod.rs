//! Messages of the Model Context Protocol: JSON-RPC 2.0 over HTTP, all versions of it.
//!
//! The gate judges the body. Headers of newer versions that repeat facts of the body must match it,
//! so that a server that trusts the headers does nothing else.

mod answer;
mod encoded;
mod events;
mod glance;
mod headers;
mod listing;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::policy::{Action, McpCall, RequestFacts};

use super::json::{self, Object};
use super::{Fields, Progress, is_plain, whole, with_action};

pub use answer::refusal;
pub use events::whole_events;
pub use glance::{Recognised, is_readable, may_begin, recognise};
pub use listing::allowed_tools;

/// Maximum nesting depth of a message.
const MAX_DEPTH: usize = 64;
/// Maximum length of the name of a method, tool or prompt, in bytes.
const MAX_NAME_SIZE: usize = 128;
/// Maximum length of the URI of a resource, in bytes.
const MAX_URI_SIZE: usize = 1024;
/// Maximum number of messages in a batch.
const MAX_MESSAGES: usize = 256;

/// The keys of a message; none may occur in another case.
const KEYS: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
/// Like [`KEYS`], for the parameters.
const PARAMETERS: &[&str] = &["name", "uri", "taskId", "_meta"];

const TOOL_USE_ID: &str = "claudecode/toolUseId";
const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Reads a whole request to an MCP server.
pub(super) fn read(
    head: &RequestFacts,
    fields: &Fields<'_>,
    method: &str,
    body: &[u8],
) -> Progress {
    let bare = |operation: &str, action: Action| {
        let action = head.action.unwrap_or(action);
        Progress::Done(vec![RequestFacts {
            mcp: Some(call(head)),
            ..with_action(head, Some(operation), action)
        }])
    };
    match method {
        "POST" => posted(head, fields, body).map_or_else(Progress::Malformed, Progress::Done),
        // A server that no policy lists may read a message with any method.
        _ if !body.is_empty() && call(head).server.is_none() => {
            posted(head, fields, body).map_or_else(Progress::Malformed, Progress::Done)
        }
        _ if !body.is_empty() => Progress::Malformed("only a POST carries an MCP message"),
        "GET" | "HEAD" => bare("stream", Action::Read),
        "DELETE" => bare("end-session", Action::Call),
        "OPTIONS" => Progress::Done(vec![whole(head)]),
        _ => Progress::Malformed("MCP is spoken with POST, GET and DELETE"),
    }
}

/// Returns the call of the head: only the server is known.
fn call(head: &RequestFacts) -> McpCall {
    McpCall {
        server: head.mcp.as_ref().and_then(|call| call.server.clone()),
        ..McpCall::default()
    }
}

fn posted(
    head: &RequestFacts,
    fields: &Fields<'_>,
    body: &[u8],
) -> Result<Vec<RequestFacts>, &'static str> {
    if !is_plain(fields) {
        return Err("an MCP message that is compressed, or not UTF-8, cannot be judged");
    }
    let text = str::from_utf8(body).map_err(|_| "the MCP message is not UTF-8")?;
    if !json::is_shallow(text, MAX_DEPTH) {
        return Err("the MCP message is nested too deep");
    }
    if text.trim_ascii_start().starts_with('[') {
        return batch(head, fields, text);
    }
    let message = Message::parse(text)?;
    headers::agree(fields, &message)?;
    Ok(vec![message.request_facts(head)])
}

/// Reads several messages in an array, which 2025-03-26 allowed.
fn batch(
    head: &RequestFacts,
    fields: &Fields<'_>,
    text: &str,
) -> Result<Vec<RequestFacts>, &'static str> {
    headers::allow_batch(fields)?;
    let elements = json::elements(text).ok_or("the MCP batch is not JSON")?;
    if elements.is_empty() {
        return Err("the MCP batch is empty");
    }
    if elements.len() > MAX_MESSAGES {
        return Err("the MCP batch has too many messages");
    }
    let one = |element: &RawValue| {
        let message = Message::parse(element.get())?;
        headers::agree(fields, &message)?;
        Ok(message.request_facts(head))
    };
    elements.into_iter().map(one).collect()
}

/// The facts of one message, without its arguments.
struct Message<'a> {
    /// `None` for a response.
    method: Option<Cow<'a, str>>,
    /// Whether the sender expects a response.
    has_id: bool,
    /// The name that the method applies to, if any.
    name: Option<Cow<'a, str>>,
    tool_use_id: Option<Cow<'a, str>>,
    /// The protocol version in the message.
    version: Option<Cow<'a, str>>,
}

impl<'a> Message<'a> {
    fn parse(text: &'a str) -> Result<Self, &'static str> {
        let object = Object::parse(text).ok_or("the MCP message is not a JSON object")?;
        if object.repeats_a_key() || object.varies(KEYS) {
            return Err("the MCP message has a key twice");
        }
        if object.text("jsonrpc").as_deref() != Some("2.0") {
            return Err("the MCP message is not JSON-RPC 2.0");
        }
        let answers = object.get("result").is_some() || object.get("error").is_some();
        match object.get("method") {
            Some(_) if answers => Err("the MCP message is both a question and an answer"),
            Some(method) => Self::asking(json::text(method), &object),
            None if answers => Ok(Self::answer()),
            None => Err("the MCP message has no method"),
        }
    }

    fn answer() -> Self {
        Self {
            method: None,
            has_id: true,
            name: None,
            tool_use_id: None,
            version: None,
        }
    }

    fn asking(method: Option<Cow<'a, str>>, object: &Object<'a>) -> Result<Self, &'static str> {
        let method = method.filter(|method| is_method(method));
        let method = method.ok_or("the MCP message has no sound method")?;
        let parameters = members(object.get("params"), PARAMETERS)?;
        let meta = members(parameters.as_ref().and_then(|all| all.get("_meta")), &[])?;
        let name = named(&method, parameters.as_ref())?;
        let noted = |key: &str| meta.as_ref().and_then(|meta| meta.text(key));
        let id = noted(TOOL_USE_ID).filter(|id| is_name(id, MAX_NAME_SIZE));
        Ok(Self {
            has_id: object.get("id").is_some(),
            name,
            tool_use_id: id,
            version: noted(PROTOCOL_VERSION),
            method: Some(method),
        })
    }

    fn request_facts(&self, head: &RequestFacts) -> RequestFacts {
        let boxed = |text: &Option<Cow<'_, str>>| text.as_deref().map(Box::from);
        let call = McpCall {
            method: boxed(&self.method),
            tool: boxed(&self.name),
            tool_use_id: boxed(&self.tool_use_id),
            ..call(head)
        };
        let operation = self.method.as_deref().unwrap_or("response");
        RequestFacts {
            mcp: Some(call),
            ..with_action(head, Some(operation), Action::Call)
        }
    }
}

/// Parses an object that may be absent or `null`. None of `keys` may occur in another case.
fn members<'a>(
    value: Option<&'a RawValue>,
    keys: &[&str],
) -> Result<Option<Object<'a>>, &'static str> {
    let Some(value) = value.filter(|value| !json::is_null(value)) else {
        return Ok(None);
    };
    let object = Object::parse(value.get()).ok_or("the MCP message has parameters of no sense")?;
    if object.repeats_a_key() || object.varies(keys) {
        return Err("the MCP message has a parameter twice");
    }
    Ok(Some(object))
}

/// Returns the parameter that names the object of a method, and its maximum length.
fn name_of(method: &str) -> Option<(&'static str, usize)> {
    match method {
        "tools/call" | "prompts/get" => Some(("name", MAX_NAME_SIZE)),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            Some(("uri", MAX_URI_SIZE))
        }
        _ if method.starts_with("tasks/") => Some(("taskId", MAX_NAME_SIZE)),
        _ => None,
    }
}

fn named<'a>(
    method: &str,
    parameters: Option<&Object<'a>>,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    let Some((key, max_size)) = name_of(method) else {
        return Ok(None);
    };
    let value = parameters.and_then(|parameters| parameters.get(key));
    if value.is_none() && key == "taskId" {
        return Ok(None);
    }
    let name = value
        .and_then(json::text)
        .filter(|name| is_name(name, max_size));
    name.map(Some).ok_or("the MCP message has no sound name")
}

/// Whether a method can be matched as it is: no server could take it for another method that names
/// a tool, by ignoring spaces or case.
fn is_method(method: &str) -> bool {
    let lower = method.to_ascii_lowercase();
    is_name(method, MAX_NAME_SIZE)
        && method.bytes().all(|byte| byte.is_ascii_graphic())
        && (lower == method || name_of(&lower).is_none())
}

/// Whether a name can be matched and recorded as it is.
fn is_name(name: &str, max_size: usize) -> bool {
    let bare = name.trim() == name && !name.contains(char::is_control);
    (1..=max_size).contains(&name.len()) && bare
}
