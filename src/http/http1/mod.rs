//! HTTP/1 without a library (RFC 9110, RFC 9112): heads, bodies, and the forwarded message.
//!
//! A proxy that judges requests must read them exactly as the origin will. So the gate parses a
//! head once, strictly, refuses a message that two parsers could read differently, and writes the
//! forwarded message anew from the parsed form, with its own framing.
//!
//! A ready-made server is not used: the cost of a tunnel is system calls, and everything between
//! them separates a proxy from the limit of the machine. A head is one `Bytes`, its fields are
//! ranges in it, and a body is forwarded in the pieces in which it arrives.

mod body;
mod chunks;
mod credential_fields;
mod encode;
mod fields;
mod head;
mod response;
mod seen;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

pub(crate) use body::{BodyError, BodySink, BodySource, Passage, Sender, copy_body};
pub(crate) use chunks::Chunks;
pub(crate) use credential_fields::carries_credential;
pub(crate) use encode::{Client, Onward, encode_request, encode_response, onward_fields, put_host};
pub(crate) use fields::{Name, via_before, via_has};
#[cfg(test)]
pub(crate) use head::parse_request;
pub(crate) use head::{
    HeadError, HeadLimits, HeadParts, Method, RequestHead, is_idempotent, scan_request,
};
pub(crate) use response::{Asked, ResponseHead, parse_response, scan_response};

/// The version of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Version {
    /// HTTP/1.0: no chunks, no interim responses, closes unless asked to keep.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// One stream of HTTP/2, which ends with the message: no chunks, and no second request.
    Http2,
}

/// How long the body of a message is (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyLength {
    /// Chunks, each with its size, and one of size 0 at the end.
    Chunked,
    /// This number of bytes, possibly 0.
    Length(u64),
    /// No body, and no header about one.
    None,
    /// All bytes until the connection or the HTTP/2 stream ends; for requests only in HTTP/2.
    UntilClose,
}

/// Bytes requested in one read of a head.
const READ_SIZE: usize = 8192;

/// Reads once, and appends the bytes: most heads are short, and take no more memory than needed.
pub(crate) async fn read_onto(
    from: &mut (impl AsyncRead + Unpin),
    onto: &mut BytesMut,
) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut room = [const { MaybeUninit::uninit() }; READ_SIZE];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
        if onto.is_empty() {
            // Exactly as much memory as bytes: the head can be frozen in place.
            *onto = BytesMut::from(read.filled());
        } else {
            onto.extend_from_slice(read.filled());
        }
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

/// Removes the first `len` bytes, a head. Bytes behind the head stay where they are.
fn take_head(buffer: &mut BytesMut, len: usize) -> Bytes {
    if buffer.len() == len {
        return std::mem::take(buffer).freeze();
    }
    let head = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
    buffer.advance(len);
    head
}

impl BodyLength {
    /// Whether no byte of body follows the head.
    pub(crate) fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// Returns the framing for forwarding a request: its end cannot be that of the connection.
    pub(crate) fn onward(self) -> Self {
        match self {
            Self::UntilClose => Self::Chunked,
            known => known,
        }
    }
}

/// The progress of scanning an incomplete head: each byte is scanned once, however small the pieces
/// of the head are.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The number of scanned bytes.
    seen: usize,
    line_start: usize,
    previous: u8,
    /// Whether an empty line before the head was removed.
    skipped: bool,
}

impl Scan {
    /// Returns the end of the head at the start of `bytes`, if the head is complete. `bytes` begin
    /// as in the call before.
    ///
    /// Refuses line ends other than CR LF and control characters other than a tab as soon as they
    /// arrive, so that the gate does not wait for a peer of another protocol.
    fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Unprintable> {
        loop {
            self.pass_text(bytes);
            let at = self.seen;
            let Some(&byte) = bytes.get(at) else {
                return Ok(None);
            };
            match byte {
                b'\n' if self.previous != b'\r' => return Err(Unprintable::LineEnd),
                b'\n' if at == self.line_start + 1 => return Ok(Some(at + 1)),
                b'\n' => self.line_start = at + 1,
                _ if self.previous == b'\r' => return Err(Unprintable::LineEnd),
                b'\t' | b'\r' | b' '.. => {}
                _ => return Err(Unprintable::Control),
            }
            self.previous = byte;
            self.seen += 1;
        }
    }

    /// Skips printable bytes, many at once.
    #[expect(
        clippy::needless_bitwise_bool,
        reason = "without an early end the compiler looks at many bytes at once"
    )]
    fn pass_text(&mut self, bytes: &[u8]) {
        if self.previous == b'\r' {
            return;
        }
        let fresh = bytes.get(self.seen..).unwrap_or_default();
        let pieces = fresh.chunks_exact(TEXT_PIECE);
        let is_text = |piece: &&[u8]| piece.iter().fold(true, |all, byte| all & (*byte >= b' '));
        let passed = TEXT_PIECE * pieces.take_while(is_text).count();
        let rest = fresh.get(passed..).unwrap_or_default();
        let is_other = |byte: &u8| *byte < b' ';
        let passed = passed + rest.iter().position(is_other).unwrap_or(rest.len());
        if let Some(last) = fresh.get(..passed).and_then(<[u8]>::last) {
            self.previous = *last;
            self.seen += passed;
        }
    }

    /// Removes the one empty line that may precede a request (RFC 9112 section 2.2); returns
    /// whether more bytes are needed to decide.
    fn skips(&mut self, buffer: &mut BytesMut) -> bool {
        if self.seen > 0 || self.skipped {
            return false;
        }
        if buffer.starts_with(b"\r\n") {
            buffer.advance(2);
            self.skipped = true;
        }
        **buffer == *b"\r"
    }
}

/// Bytes of a head that are scanned in one step.
const TEXT_PIECE: usize = 16;

/// Bytes that are not allowed in a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unprintable {
    Control,
    LineEnd,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scanned bytes are overwritten: a second scan of them would fail.
    #[test]
    fn each_byte_of_a_dribbled_head_is_looked_at_once() {
        let mut text = b"GET / HTTP/1.1\r\n".to_vec();
        for number in 0..4000 {
            text.extend(format!("A{number}: b\r\n").bytes());
        }
        text.extend(b"\r\n");
        for step in [1, 2, 3, 7, 4096] {
            let (mut scan, mut come, mut end) = (Scan::default(), Vec::new(), None);
            for piece in text.chunks(step) {
                come.extend(piece);
                end = scan.end(&come).expect("no error");
                come.fill(0);
            }
            assert_eq!(end, Some(text.len()), "in pieces of {step}");
        }
    }

    #[test]
    fn an_empty_line_before_a_request_is_taken_away_once() {
        let mut scan = Scan::default();
        let mut buffer = BytesMut::from(&b"\r"[..]);
        assert!(scan.skips(&mut buffer));
        buffer.extend_from_slice(b"\n\r\n");
        assert!(!scan.skips(&mut buffer));
        assert_eq!(buffer, b"\r\n"[..]);
        assert!(!scan.skips(&mut buffer));
        assert_eq!(buffer, b"\r\n"[..]);
    }
}
