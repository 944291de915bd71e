//! HTTP/1 by hand (RFC 9110, RFC 9112): heads, bodies, and what a proxy writes on.
//!
//! A proxy that judges requests must read them exactly as the origin will. So a head is taken
//! apart once, strictly; whatever two readers could take in two ways is refused; and what goes on
//! is written anew from what was understood, with a framing of our own.
//!
//! Why not a ready-made server: the cost of a tunnel is system calls, and everything between them
//! is what separates a proxy from the limit of the machine. A head is one `Bytes`, its fields are
//! ranges into it, and a body is passed on in the pieces in which it came.

mod body;
mod chunks;
mod encode;
mod fields;
mod head;
mod response;
mod seen;

pub(crate) use body::{BodyError, BodySink, BodySource, Passage, Sender, copy_body};
pub(crate) use chunks::Chunks;
pub(crate) use encode::{Client, Onward, encode_request, encode_response};
pub(crate) use fields::{Name, via_before, via_has};
pub(crate) use head::{HeadError, HeadLimits, Method, RequestHead, is_idempotent, parse_request};
pub(crate) use response::{Asked, ResponseHead, parse_response};

/// The version of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Version {
    /// HTTP/1.0: no chunks, no interim responses, closes unless asked to keep.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// One stream of HTTP/2, whose end is that of the message: no chunks, and no second request.
    Http2,
}

/// How long the body of a message is (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyLength {
    /// Chunks, each with its size, and one of size 0 at the end.
    Chunked,
    /// So many bytes, perhaps 0.
    Length(u64),
    /// No body, and nothing said about one.
    None,
    /// Whatever comes until the connection ends, or the stream of HTTP/2; requests only there.
    UntilClose,
}

impl BodyLength {
    /// Whether not one byte of body follows the head.
    pub(crate) fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// How the body of a request goes on: its end cannot be that of the connection.
    pub(crate) fn onward(self) -> Self {
        match self {
            Self::UntilClose => Self::Chunked,
            known => known,
        }
    }
}

/// Where the head at the start of `bytes` ends, if it ends there.
///
/// Refuses line ends other than CR LF and control characters other than a tab as soon as they are
/// seen, so that a peer that speaks something else is not waited for.
fn head_end(bytes: &[u8]) -> Result<Option<usize>, Unprintable> {
    let mut line_start = 0;
    let mut previous = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if previous != b'\r' => return Err(Unprintable::LineEnd),
            b'\n' if at == line_start + 1 => return Ok(Some(at + 1)),
            b'\n' => line_start = at + 1,
            _ if previous == b'\r' => return Err(Unprintable::LineEnd),
            b'\t' | b'\r' | b' '.. => {}
            _ => return Err(Unprintable::Control),
        }
        previous = byte;
    }
    Ok(None)
}

/// Bytes that no head may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unprintable {
    Control,
    LineEnd,
}
