//! Checks the headers of MCP, which must match the body.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Fields, Message, name_of};

/// The first version whose headers repeat facts of the body.
const FIRST_WITH_HEADERS: &str = "2026-07-28";
/// Versions whose bodies may be batches.
const WITH_BATCHES: &[&str] = &["2024-11-05", "2025-03-26"];

/// Checks that headers and body of a message agree.
pub(super) fn agree(fields: &Fields<'_>, message: &Message<'_>) -> Result<(), &'static str> {
    let version = value(fields.mcp_protocol_version)?;
    if let (Some(header), Some(body)) = (&version, &message.version)
        && header != body
    {
        return Err("MCP-Protocol-Version and the message name different versions");
    }
    let (method, name) = (value(fields.mcp_method)?, value(fields.mcp_name)?);
    if method.is_some() && method != message.method {
        return Err("Mcp-Method and the message name different methods");
    }
    if name.is_some() && name != message.name {
        return Err("Mcp-Name and the message name different things");
    }
    let newest = version.as_ref().or(message.version.as_ref());
    if newest.is_some_and(|version| has_headers(version)) {
        required(fields, message)?;
    }
    Ok(())
}

/// Checks that all headers of a newer version are present.
fn required(fields: &Fields<'_>, message: &Message<'_>) -> Result<(), &'static str> {
    let Some(method) = message.method.as_deref().filter(|_| message.has_id) else {
        return Ok(());
    };
    if fields.mcp_protocol_version.is_none() {
        return Err("the MCP message needs the header MCP-Protocol-Version");
    }
    if fields.mcp_method.is_none() {
        return Err("the MCP message needs the header Mcp-Method");
    }
    let by_name = matches!(name_of(method), Some(("name" | "uri", _)));
    let subscribes = method.starts_with("resources/") && method != "resources/read";
    if by_name && !subscribes && fields.mcp_name.is_none() {
        return Err("the MCP message needs the header Mcp-Name");
    }
    Ok(())
}

/// Whether a version has headers that repeat facts of the body. Versions are dates, and compare as
/// text; a version that is no date (a draft) is unknown, and needs no headers.
fn has_headers(version: &str) -> bool {
    let is_date = version.len() == FIRST_WITH_HEADERS.len()
        && version
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-');
    is_date && version >= FIRST_WITH_HEADERS
}

/// Checks that a body may be a batch.
pub(super) fn allow_batch(fields: &Fields<'_>) -> Result<(), &'static str> {
    if fields.mcp_method.is_some() || fields.mcp_name.is_some() {
        return Err("an MCP batch has no single method that a header could name");
    }
    match value(fields.mcp_protocol_version)? {
        Some(version) if !WITH_BATCHES.contains(&&*version) => {
            Err("this version of MCP has no batches")
        }
        _ => Ok(()),
    }
}

/// Returns a header as text; decodes its base64 form (`=?base64?…?=`).
fn value(field: Option<&[u8]>) -> Result<Option<Cow<'_, str>>, &'static str> {
    const UNREADABLE: &str = "an MCP header cannot be read";
    let Some(field) = field else {
        return Ok(None);
    };
    let text = str::from_utf8(field.trim_ascii()).map_err(|_| UNREADABLE)?;
    let inner = text
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="));
    let Some(inner) = inner else {
        return Ok(Some(Cow::Borrowed(text)));
    };
    let bytes = STANDARD.decode(inner).map_err(|_| UNREADABLE)?;
    let text = String::from_utf8(bytes).map_err(|_| UNREADABLE)?;
    Ok(Some(Cow::Owned(text)))
}
