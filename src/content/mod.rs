//! What the body of a request does, where its head cannot tell.
//!
//! A push, a GraphQL operation, a Git LFS batch, the form for a token of a registry of images and a
//! message of the Model Context Protocol look alike from outside: a POST. Each reader here turns such
//! a body into request facts, and the policy decides each of them. All of it is pure: bytes in, facts
//! out.
//!
//! A body that two readers could understand differently is refused if it is a push or an MCP message
//! ([`Progress::Malformed`]), and is a write if it is a fetch, GraphQL, Git LFS or a form.

mod form;
mod git;
mod git_fetch;
mod graphql;
mod json;
mod lfs;
pub mod mcp;
pub mod model;
#[cfg(test)]
mod mutated;
mod published;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use crate::name::Path;
use crate::policy::{Action, Body, RequestFacts, Seen};

pub use published::published;

/// The fields of a head that say how its body is to be read. The values are as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    /// `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// `Content-Encoding`, several lines joined by commas.
    pub content_encoding: Option<&'a [u8]>,
    /// `Accept`.
    pub accept: Option<&'a [u8]>,
    /// `Mcp-Method`.
    pub mcp_method: Option<&'a [u8]>,
    /// `Mcp-Name`.
    pub mcp_name: Option<&'a [u8]>,
    /// `MCP-Protocol-Version`.
    pub mcp_protocol_version: Option<&'a [u8]>,
    /// Whether there is an `Mcp-Session-Id`.
    pub mcp_session: bool,
}

/// How far a body was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// All that there is to judge: one deed for each thing that it does, at least one.
    Done(Vec<RequestFacts>),
    /// It cannot be what it says: it is refused (400) with this sentence.
    Malformed(&'static str),
}

/// Reads what a body does. `head` has the facts of the head, `body` the bytes so far; `ended` says
/// that these are all.
///
/// Nothing is kept between calls. Only a push can be read before its end: its commands stand before
/// the pack, so that a push is decided before its pack has come.
pub fn read(
    head: &RequestFacts,
    fields: &Fields<'_>,
    method: &str,
    path: &Path,
    body: &[u8],
    ended: bool,
) -> Progress {
    match head.body {
        None => Progress::Done(vec![whole(head)]),
        Some(Body::Model) => Progress::Done(vec![with_action(head, None, Action::Call)]),
        Some(Body::GitPush) => git::read(head, fields, body, ended),
        Some(_) if !ended => Progress::More,
        Some(Body::GitFetch) => Progress::Done(vec![git_fetch::read(head, fields, body)]),
        Some(Body::GraphQl) => Progress::Done(graphql::read(head, fields, method, path, body)),
        Some(Body::LfsBatch) => Progress::Done(vec![lfs::read(head, fields, body)]),
        Some(Body::LfsVerify) => Progress::Done(vec![lfs::read_verify(head, fields, body)]),
        Some(Body::Mcp) => mcp::read(head, fields, method, body),
        Some(Body::OciToken) => Progress::Done(vec![token::read(head, fields, body)]),
    }
}

/// The facts of a body that is longer than the gate reads: a write, or refused where a write has to
/// name a ref or tool.
pub fn too_long(head: &RequestFacts) -> Progress {
    match head.body {
        None => Progress::Done(vec![whole(head)]),
        Some(Body::Model) => Progress::Done(vec![with_action(head, None, Action::Call)]),
        Some(Body::GitFetch | Body::LfsVerify) => Progress::Done(vec![unreadable(head)]),
        Some(Body::GraphQl) => Progress::Done(vec![graphql::unread(head)]),
        Some(Body::LfsBatch) => Progress::Done(vec![lfs::unread(head)]),
        Some(Body::OciToken) => Progress::Done(vec![token::unread(head)]),
        Some(Body::GitPush) => {
            Progress::Malformed("the commands of the push are too long to judge")
        }
        Some(Body::Mcp) => Progress::Malformed("the MCP message is too long to judge"),
    }
}

/// Whether a request to any host may belong to the Model Context Protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Suspicion {
    /// It does not look like it.
    No,
    /// It has headers of the protocol.
    Headers,
    /// Only its body tells ([`mcp::recognise`]).
    Body,
}

/// Whether a request looks like the Model Context Protocol, from its head. Every request with a
/// body may: servers of the older transport read a body of any type and method. A body in
/// another charset, and one that is compressed by a coding that is not read and comes with the
/// `Accept` of the protocol, count as the protocol.
///
/// Only a stream of gRPC is left alone, where `http2` says that its origin could speak it: its
/// client may wait for an answer before it sends anything.
pub fn looks_like_mcp(fields: &Fields<'_>, has_body: bool, http2: bool) -> Suspicion {
    let headers = [
        fields.mcp_method,
        fields.mcp_name,
        fields.mcp_protocol_version,
    ];
    if fields.mcp_session || headers.iter().any(Option::is_some) {
        return Suspicion::Headers;
    }
    if !has_body {
        return Suspicion::No;
    }
    let unreadable = !mcp::is_readable(fields) && accepts_both(fields);
    if unreadable || has_wide_charset(fields.content_type) {
        return Suspicion::Headers;
    }
    let streams = ["application/grpc", "application/connect+"];
    let kind = essence(fields.content_type).unwrap_or_default();
    if http2 && streams.iter().any(|stream| kind.starts_with(stream)) {
        return Suspicion::No;
    }
    Suspicion::Body
}

/// Whether a client takes what clients of the Model Context Protocol must take.
fn accepts_both(fields: &Fields<'_>) -> bool {
    let accept = fields.accept.unwrap_or_default();
    contains(accept, b"text/event-stream") && contains(accept, b"application/json")
}

/// Whether text in that charset is not even ASCII where it could be.
fn has_wide_charset(content_type: Option<&[u8]>) -> bool {
    let kind = content_type.unwrap_or_default();
    let wide = [
        &b"utf-16"[..],
        b"utf16",
        b"utf-32",
        b"utf32",
        b"utf-7",
        b"ucs",
    ];
    !has_known_charset(content_type) && wide.iter().any(|charset| contains(kind, charset))
}

/// The facts of the head once there is nothing more to read.
fn whole(head: &RequestFacts) -> RequestFacts {
    RequestFacts {
        seen: Seen::Whole,
        body: None,
        ..head.clone()
    }
}

/// As [`whole`], with the operation and action that the body shows. `None` keeps the operation of
/// the head.
fn with_action(head: &RequestFacts, operation: Option<&str>, action: Action) -> RequestFacts {
    RequestFacts {
        operation: operation.map(Arc::from).or_else(|| head.operation.clone()),
        action: Some(action),
        ..whole(head)
    }
}

/// A request whose body is not what its path says: a write that no operation describes.
fn unreadable(head: &RequestFacts) -> RequestFacts {
    with_action(head, Some("other"), Action::Write)
}

/// Whether the bytes of a body are what its reader sees: not compressed, and text only as UTF-8.
fn is_plain(fields: &Fields<'_>) -> bool {
    is_identity(fields) && has_known_charset(fields.content_type)
}

/// Whether a body is not compressed.
fn is_identity(fields: &Fields<'_>) -> bool {
    let codings = fields.content_encoding.unwrap_or_default();
    codings.split(|byte| *byte == b',').all(|coding| {
        let coding = coding.trim_ascii();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
    })
}

/// Whether a type names no charset, or one that reads as UTF-8 does.
fn has_known_charset(content_type: Option<&[u8]>) -> bool {
    let parameters = content_type.unwrap_or_default().split(|byte| *byte == b';');
    parameters.skip(1).all(|parameter| {
        let mut halves = parameter.splitn(2, |byte| *byte == b'=');
        let name = halves.next().unwrap_or_default().trim_ascii();
        let value = halves.next().unwrap_or_default().trim_ascii();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = value.strip_suffix(b"\"").unwrap_or(value);
        let known = [&b"utf-8"[..], b"utf8", b"us-ascii"];
        !name.eq_ignore_ascii_case(b"charset")
            || known.iter().any(|known| value.eq_ignore_ascii_case(known))
    })
}

/// The type and subtype of a `Content-Type`, in lower case.
fn essence(content_type: Option<&[u8]>) -> Option<String> {
    let first = content_type?
        .split(|byte| *byte == b';')
        .next()?
        .trim_ascii();
    Some(String::from_utf8_lossy(first).to_ascii_lowercase())
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len())
        .any(|part| part.eq_ignore_ascii_case(word))
}
