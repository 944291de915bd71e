//! The request facts in a body, for requests whose head is not enough.
//!
//! A push, a GraphQL operation, a Git LFS batch, the token form of an image registry and a message
//! of the Model Context Protocol all have the head of a POST. Each reader here turns such a body
//! into request facts, and the policy decides each of them. The readers are pure: bytes in, facts
//! out.
//!
//! A body that two readers could understand differently is refused if it is a push or an MCP
//! message ([`Progress::Malformed`]), and counts as a write if it is a fetch, GraphQL, Git LFS or a
//! form.

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

/// The header fields that decide how a body is read. The values are as received.
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

/// The progress of reading a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// All request facts of the body: one for each thing that the request does, at least one.
    Done(Vec<RequestFacts>),
    /// The body contradicts the head: the request is refused (400) with this sentence.
    Malformed(&'static str),
}

/// Reads the request facts of a body. `head` has the facts of the head, `body` the bytes so far;
/// `ended`: whether these are all.
///
/// No state is kept between calls. Only a push can be read before its end: its commands precede the
/// pack, so a push is decided before its pack has arrived.
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

/// Returns the facts of a body that is longer than the gate reads: a write; or refuses it, if a
/// write has to name a ref or tool.
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
    /// The head shows no sign of the protocol.
    No,
    /// The head has headers of the protocol.
    Headers,
    /// Only the body can show it ([`mcp::recognise`]).
    Body,
}

/// Whether a request may belong to the Model Context Protocol, by its head. Every request with a
/// body may: servers of the older transport read a body of any type and method. A body in another
/// charset counts as the protocol; so does a body with an unreadable coding and the `Accept` of the
/// protocol.
///
/// The exception is a stream of gRPC, if `http2`: whether its origin could speak gRPC. Its client
/// may wait for a response before it sends anything.
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

/// Whether a client accepts the types that clients of the Model Context Protocol must accept.
fn accepts_both(fields: &Fields<'_>) -> bool {
    let accept = fields.accept.unwrap_or_default();
    contains(accept, b"text/event-stream") && contains(accept, b"application/json")
}

/// Whether the charset encodes even ASCII characters differently.
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

/// Returns the facts of the head for a request that needs no further reading.
fn whole(head: &RequestFacts) -> RequestFacts {
    RequestFacts {
        seen: Seen::Whole,
        body: None,
        ..head.clone()
    }
}

/// Like [`whole`], with the operation and action of the body. `None` keeps the operation of the
/// head.
fn with_action(head: &RequestFacts, operation: Option<&str>, action: Action) -> RequestFacts {
    RequestFacts {
        operation: operation.map(Arc::from).or_else(|| head.operation.clone()),
        action: Some(action),
        ..whole(head)
    }
}

/// Returns the facts of a body that does not match its path: a write without an operation.
fn unreadable(head: &RequestFacts) -> RequestFacts {
    with_action(head, Some("other"), Action::Write)
}

/// Whether a reader can use the bytes of a body directly: not compressed, and text only as UTF-8.
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

/// Whether a type has no charset, or one that reads as UTF-8 does.
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

/// Returns the type and subtype of a `Content-Type`, in lower case.
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
