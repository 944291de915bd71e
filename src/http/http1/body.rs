//! Copies one body from one connection to the other, in the pieces in which it arrives.
//!
//! Each read is passed on at once, so that an origin's single events arrive as single events. Bytes
//! of the next message stay in the buffer of the connection that they came on.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::ledger::Meter;

use super::BodyLength;
use super::chunks::Chunks;
use super::credential_fields::carries_credential;
use super::fields::Name;

/// How a body arrives and how it is passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Passage {
    /// The framing that the sender used.
    pub(crate) from: BodyLength,
    /// The framing that the recipient expects.
    pub(crate) to: BodyLength,
    /// Whether trailers are passed on, if all of them are harmless; see [`Sender`].
    pub(crate) trailers: bool,
    /// The side that sends the body.
    pub(crate) sender: Sender,
}

/// The side that sends a body; it decides how strictly the body is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sender {
    /// A client: its chunks have no blanks, and only some kinds of trailers are passed on.
    Client,
    /// An origin: blanks after a chunk size are ignored (RFC 9112 section 7.1.1), and trailers are
    /// passed on that mean nothing to a proxy.
    Origin,
}

/// Why a body did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The sender's chunks are malformed.
    #[error("malformed chunks: {0}")]
    Chunk(&'static str),
    /// The sender closed the connection in the middle.
    #[error("the sender broke off")]
    Read(#[source] io::Error),
    /// The sender's end came before the announced end.
    #[error("the body ended before its announced end")]
    Truncated,
    /// The recipient closed the connection.
    #[error("the recipient broke off")]
    Write(#[source] io::Error),
}

/// The source of a body.
pub(crate) trait BodySource: AsyncRead + Unpin {
    /// Returns the trailers after the end, as HTTP/1 writes them, if they are not part of the
    /// bytes.
    fn poll_trailers(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        Poll::Ready(Ok(Bytes::new()))
    }
}

/// The destination of a body.
pub(crate) trait BodySink: AsyncWrite + Unpin {
    /// Marks the body as whole, with its trailers, if the bytes do not show the end.
    fn finish(&mut self, _trailers: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl BodySource for tokio::io::DuplexStream {}
impl BodySink for tokio::io::DuplexStream {}

/// Copies exactly one body; `buffer` has the bytes that were read from `from` before.
///
/// Content is counted in `moved` as it is written, without its framing. After an error both
/// connections are unusable, and the recipient must not see the body as whole. Dropping the future
/// leaves both connections in the middle of the body.
pub(crate) async fn copy_body<R, W>(
    from: &mut R,
    buffer: &mut BytesMut,
    to: &mut W,
    passage: Passage,
    moved: &Meter,
) -> Result<(), BodyError>
where
    R: BodySource,
    W: BodySink,
{
    let mut sink = Sink {
        to,
        chunked: passage.to == BodyLength::Chunked,
        moved,
    };
    match passage.from {
        BodyLength::Chunked => copy_chunks(from, buffer, &mut sink, passage).await,
        BodyLength::Length(length) => copy_length(from, buffer, &mut sink, length).await,
        BodyLength::None => sink.end(),
        BodyLength::UntilClose => copy_rest(from, buffer, &mut sink, passage).await,
    }
}

async fn copy_length<R, W>(
    from: &mut R,
    buffer: &mut BytesMut,
    sink: &mut Sink<'_, W>,
    mut length: u64,
) -> Result<(), BodyError>
where
    R: BodySource,
    W: BodySink,
{
    if length == 0 {
        return sink.put(b"", Some(b"")).await;
    }
    while length > 0 {
        if buffer.is_empty() && fill(from, buffer).await? == 0 {
            return Err(BodyError::Truncated);
        }
        let take = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        length -= take as u64;
        let last = (length == 0).then_some(&b""[..]);
        sink.put(buffer.get(..take).unwrap_or_default(), last)
            .await?;
        buffer.advance(take);
    }
    Ok(())
}

async fn copy_rest<R, W>(
    from: &mut R,
    buffer: &mut BytesMut,
    sink: &mut Sink<'_, W>,
    passage: Passage,
) -> Result<(), BodyError>
where
    R: BodySource,
    W: BodySink,
{
    while !buffer.is_empty() || fill(from, buffer).await? > 0 {
        sink.put(buffer, None).await?;
        buffer.clear();
    }
    let said = poll_fn(|cx| from.poll_trailers(cx)).await;
    let said = said.map_err(BodyError::Read)?;
    sink.put(b"", Some(passage.trailers_of(&said))).await
}

async fn copy_chunks<R, W>(
    from: &mut R,
    buffer: &mut BytesMut,
    sink: &mut Sink<'_, W>,
    passage: Passage,
) -> Result<(), BodyError>
where
    R: BodySource,
    W: BodySink,
{
    let mut chunks = match passage.sender {
        Sender::Client => Chunks::default(),
        Sender::Origin => Chunks::with_blanks(),
    };
    while !chunks.is_done() {
        if buffer.is_empty() && fill(from, buffer).await? == 0 {
            return Err(BodyError::Truncated);
        }
        let decoded = chunks.decode(buffer).map_err(BodyError::Chunk)?;
        let content = buffer.get(..decoded.content).unwrap_or_default();
        let last = chunks
            .is_done()
            .then(|| passage.trailers_of(chunks.trailers()));
        sink.put(content, last).await?;
        buffer.advance(decoded.consumed);
    }
    Ok(())
}

/// The destination of a body, with its framing.
struct Sink<'s, W> {
    to: &'s mut W,
    chunked: bool,
    moved: &'s Meter,
}

impl<W: BodySink> Sink<'_, W> {
    /// Ends the body.
    fn end(&mut self) -> Result<(), BodyError> {
        self.to.finish(b"").map_err(BodyError::Write)
    }

    /// Writes content; with `last`, the end of the body and its trailers too.
    async fn put(&mut self, content: &[u8], last: Option<&[u8]>) -> Result<(), BodyError> {
        poll_fn(|cx| self.moved.poll_ready(cx)).await;
        self.write(content, last).await.map_err(BodyError::Write)?;
        self.moved
            .fetch_add(content.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn write(&mut self, content: &[u8], last: Option<&[u8]>) -> io::Result<()> {
        if !self.chunked {
            if !content.is_empty() {
                self.to.write_all(content).await?;
            }
            if let Some(trailers) = last {
                self.to.finish(trailers)?;
            }
            return self.to.flush().await;
        }
        let mut framed = BytesMut::with_capacity(content.len() + FRAMING);
        if !content.is_empty() {
            framed.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
            framed.extend_from_slice(content);
            framed.extend_from_slice(b"\r\n");
        }
        if let Some(trailers) = last {
            framed.extend_from_slice(b"0\r\n");
            framed.extend_from_slice(trailers);
            framed.extend_from_slice(b"\r\n");
        }
        // One write: each write would be a separate TLS record and packet.
        self.to.write_all(&framed).await?;
        self.to.flush().await
    }
}

/// Reads once; 0 at the end.
async fn fill<R: BodySource>(from: &mut R, buffer: &mut BytesMut) -> Result<usize, BodyError> {
    buffer.reserve(READ);
    from.read_buf(buffer).await.map_err(BodyError::Read)
}

/// Bytes requested in one read.
const READ: usize = 64 * 1024;

/// Bytes reserved for the framing of a chunk and of the end.
const FRAMING: usize = 32;

impl Passage {
    /// Returns `trailers` if all of them may be passed on, otherwise nothing.
    fn trailers_of(self, trailers: &[u8]) -> &[u8] {
        let harmless = match self.sender {
            Sender::Client => is_harmless_in_request,
            Sender::Origin => is_harmless_in_response,
        };
        if self.trailers && !trailers.is_empty() && all_are(trailers, harmless) {
            trailers
        } else {
            b""
        }
    }
}

fn all_are(trailers: &[u8], harmless: fn(&str) -> bool) -> bool {
    let mut room = [httparse::EMPTY_HEADER; 32];
    // The parser needs the empty line that ends the section.
    let section = [trailers, b"\r\n"].concat();
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&section, &mut room)
    else {
        return false;
    };
    fields.iter().all(|field| harmless(field.name))
}

/// Whether a trailer of a request describes only the body, or belongs to gRPC. A server may merge
/// trailers into the fields of the request (RFC 9110 section 6.5.1), and could take them for a
/// path, a method or a tool that the policy did not judge.
fn is_harmless_in_request(name: &str) -> bool {
    let starts = |prefix: &&str| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    DIGESTS
        .iter()
        .any(|digest| digest.eq_ignore_ascii_case(name))
        || DIGEST_PREFIXES.iter().any(starts)
}

/// Digests of a body (RFC 9530, RFC 3230, RFC 1864), which are available only at its end.
const DIGESTS: [&str; 4] = ["Content-Digest", "Content-MD5", "Digest", "Repr-Digest"];
/// Prefixes of such names: checksums of object stores, and the fields at the end of a gRPC call.
const DIGEST_PREFIXES: [&str; 3] = ["grpc-", "x-amz-checksum-", "x-goog-hash"];

/// Whether a trailer of a response means nothing to a proxy or a cache, nor to a client's framing,
/// routing or credentials (RFC 9110 section 6.5.1).
fn is_harmless_in_response(name: &str) -> bool {
    Name::of(name.as_bytes()) == Name::Other
        && !Name::is_disguised(name.as_bytes())
        && !carries_credential(&name.as_bytes().to_ascii_lowercase())
        && !FORBIDDEN
            .iter()
            .any(|forbidden| forbidden.eq_ignore_ascii_case(name))
}

/// Fields that are valid only before the body.
const FORBIDDEN: [&str; 24] = [
    "Age",
    "Alt-Svc",
    "Authorization",
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
    "Content-Range",
    "Content-Security-Policy",
    "Content-Type",
    "Cookie",
    "Date",
    "Expires",
    "Location",
    "Max-Forwards",
    "Pragma",
    "Range",
    "Retry-After",
    "Set-Cookie",
    "Strict-Transport-Security",
    "Vary",
    "WWW-Authenticate",
    "Warning",
];

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use super::*;

    /// Records each write separately.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl BodySink for Writes {}

    impl AsyncWrite for Writes {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.get_mut().0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_chunk_is_one_write_with_its_framing() {
        let (mut from, mut to) = (&b"hello"[..], Writes::default());
        let (mut buffer, moved) = (BytesMut::new(), Meter::default());
        let passage = passage(BodyLength::UntilClose, BodyLength::Chunked);
        let result = copy_body(&mut from, &mut buffer, &mut to, passage, &moved).await;
        assert!(result.is_ok());
        assert_eq!(to.0, [&b"5\r\nhello\r\n"[..], b"0\r\n\r\n"]);
    }

    impl BodySource for &[u8] {}
    impl BodySink for Vec<u8> {}

    /// Returns the result, the bytes that arrived, the bytes left over, and the counted content.
    async fn pass(text: &[u8], passage: Passage) -> (Result<(), BodyError>, Vec<u8>, Vec<u8>, u64) {
        let (mut from, mut buffer, mut to) = (text, BytesMut::new(), Vec::new());
        let moved = Meter::default();
        let result = copy_body(&mut from, &mut buffer, &mut to, passage, &moved).await;
        let left = [&buffer[..], from].concat();
        (result, to, left, moved.into_inner())
    }

    fn passage(from: BodyLength, to: BodyLength) -> Passage {
        Passage {
            from,
            to,
            trailers: true,
            sender: Sender::Origin,
        }
    }

    #[tokio::test]
    async fn a_body_ends_where_its_length_says() {
        let length = BodyLength::Length(5);
        let (result, to, left, moved) = pass(b"helloGET /", passage(length, length)).await;
        assert!(result.is_ok());
        assert_eq!((to, left, moved), (b"hello".to_vec(), b"GET /".to_vec(), 5));
    }

    #[tokio::test]
    async fn what_was_read_before_goes_first() {
        let (mut from, mut to) = (&b"lo"[..], Vec::new());
        let mut buffer = BytesMut::from(&b"hel"[..]);
        let five = passage(BodyLength::Length(5), BodyLength::Length(5));
        let moved = Meter::default();
        let result = copy_body(&mut from, &mut buffer, &mut to, five, &moved).await;
        assert!(result.is_ok());
        assert_eq!(to, b"hello");
    }

    #[tokio::test]
    async fn chunks_are_written_anew_without_their_extensions() {
        let chunked = passage(BodyLength::Chunked, BodyLength::Chunked);
        let text = b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\nGET /";
        let (result, to, left, moved) = pass(text, chunked).await;
        assert!(result.is_ok());
        assert_eq!(to, b"5\r\nhello\r\n0\r\nA: b\r\n\r\n");
        assert_eq!((left, moved), (b"GET /".to_vec(), 5));
    }

    #[tokio::test]
    async fn framing_changes_where_the_recipient_was_told_another() {
        for (from, to, text, expected) in [
            (
                BodyLength::Chunked,
                BodyLength::UntilClose,
                "5\r\nhello\r\n0\r\n\r\n",
                "hello",
            ),
            (
                BodyLength::UntilClose,
                BodyLength::Chunked,
                "hello",
                "5\r\nhello\r\n0\r\n\r\n",
            ),
            (BodyLength::UntilClose, BodyLength::Chunked, "", "0\r\n\r\n"),
            (
                BodyLength::UntilClose,
                BodyLength::UntilClose,
                "hello",
                "hello",
            ),
            (BodyLength::Length(0), BodyLength::Chunked, "", "0\r\n\r\n"),
            (BodyLength::None, BodyLength::None, "", ""),
        ] {
            let (result, written, ..) = pass(text.as_bytes(), passage(from, to)).await;
            assert!(result.is_ok());
            assert_eq!(written, expected.as_bytes(), "{from:?} to {to:?}");
        }
    }

    #[tokio::test]
    async fn a_body_cut_short_is_never_made_to_look_whole() {
        for (from, text) in [
            (BodyLength::Length(9), "hello"),
            (BodyLength::Chunked, "9\r\nhello"),
            (BodyLength::Chunked, "5\r\nhello\r\n"),
            (BodyLength::Chunked, "5\r\nhello\r\n0\r\nA: b\r\n"),
        ] {
            let (result, to, ..) = pass(text.as_bytes(), passage(from, BodyLength::Chunked)).await;
            assert!(matches!(result, Err(BodyError::Truncated)), "{text:?}");
            assert_eq!(to, b"5\r\nhello\r\n");
        }
    }

    #[tokio::test]
    async fn trailers_of_requests_and_harmful_ones_are_dropped() {
        let chunked = passage(BodyLength::Chunked, BodyLength::Chunked);
        for (trailers, allowed) in [
            ("A: b\r\n", false),
            ("A: b\r\nAuthorization: x\r\n", true),
            ("Host: evil.example\r\n", true),
            ("Content-Length: 7\r\n", true),
            ("content_length: 7\r\n", true),
            ("Set-Cookie: a\r\n", true),
            ("Private-Token: a\r\n", true),
            ("no colon\r\n", true),
            ("A: b\r\n folded\r\n", true),
        ] {
            let text = format!("1\r\na\r\n0\r\n{trailers}\r\n");
            let passage = Passage {
                trailers: allowed,
                ..chunked
            };
            let (result, to, ..) = pass(text.as_bytes(), passage).await;
            assert!(result.is_ok());
            assert_eq!(to, b"1\r\na\r\n0\r\n\r\n", "{trailers:?}");
        }
    }

    #[tokio::test]
    async fn only_digests_and_grpc_pass_behind_a_request() {
        let chunked = Passage {
            sender: Sender::Client,
            ..passage(BodyLength::Chunked, BodyLength::Chunked)
        };
        for (trailers, passes) in [
            ("Content-Digest: sha-256=:AA==:\r\n", true),
            ("grpc-status: 0\r\nGRPC-Message: ok\r\n", true),
            ("X-Amz-Checksum-Crc32: AAAAAA==\r\n", true),
            ("A: b\r\n", false),
            ("Digest: a\r\nMcp-Method: tools/list\r\n", false),
            ("mcp_name: delete\r\n", false),
            ("X-Original-URL: /admin\r\n", false),
            ("X-Rewrite-Url: /admin\r\n", false),
            ("X-HTTP-Method-Override: DELETE\r\n", false),
            ("X-Accel-Redirect: /admin\r\n", false),
            ("Content-Type: text/plain\r\n", false),
        ] {
            let text = format!("1\r\na\r\n0\r\n{trailers}\r\n");
            let (result, to, ..) = pass(text.as_bytes(), chunked).await;
            assert!(result.is_ok());
            let expected = if passes { trailers } else { "" };
            let expected = format!("1\r\na\r\n0\r\n{expected}\r\n");
            assert_eq!(to, expected.as_bytes(), "{trailers:?}");
        }
    }

    #[tokio::test]
    async fn blanks_behind_a_size_are_passed_over_in_a_response_alone() {
        let chunked = passage(BodyLength::Chunked, BodyLength::Chunked);
        let of_client = Passage {
            sender: Sender::Client,
            ..chunked
        };
        for text in [
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\t \r\nhello\r\n0 \r\n\r\n",
            "5 ;a=b\r\nhello\r\n0\r\n\r\n",
        ] {
            let (result, to, ..) = pass(text.as_bytes(), chunked).await;
            assert!(result.is_ok(), "{text:?}");
            assert_eq!(to, b"5\r\nhello\r\n0\r\n\r\n", "{text:?}");
            let (result, ..) = pass(text.as_bytes(), of_client).await;
            assert!(matches!(result, Err(BodyError::Chunk(_))), "{text:?}");
        }
        for text in [
            " 5\r\nhello\r\n0\r\n\r\n".to_owned(),
            "5 5\r\nhello\r\n0\r\n\r\n".to_owned(),
            "5 \nhello\r\n0\r\n\r\n".to_owned(),
            "5\x0b\r\nhello\r\n0\r\n\r\n".to_owned(),
            format!("5{}\r\nhello\r\n0\r\n\r\n", " ".repeat(20_000)),
        ] {
            let (result, ..) = pass(text.as_bytes(), chunked).await;
            assert!(matches!(result, Err(BodyError::Chunk(_))), "{text:?}");
        }
    }

    #[tokio::test]
    async fn malformed_chunks_end_the_body() {
        let chunked = passage(BodyLength::Chunked, BodyLength::Chunked);
        let (result, to, ..) = pass(b"5\r\nhello\r\n0x0\r\n\r\n", chunked).await;
        assert!(matches!(result, Err(BodyError::Chunk(_))));
        assert!(!to.ends_with(b"0\r\n\r\n"));
    }

    #[tokio::test]
    async fn each_piece_is_passed_on_before_the_next_comes() {
        let (mut origin, mut from) = tokio::io::duplex(64);
        let (mut to, mut client) = tokio::io::duplex(64);
        let events = async {
            for event in ["one", "two"] {
                origin
                    .write_all(format!("3\r\n{event}\r\n").as_bytes())
                    .await
                    .expect("open");
                let mut seen = [0; 8];
                client.read_exact(&mut seen).await.expect("passed on");
                assert_eq!(seen, *format!("3\r\n{event}\r\n").as_bytes());
            }
            origin.write_all(b"0\r\n\r\n").await.expect("open");
        };
        let mut buffer = BytesMut::new();
        let moved = Meter::default();
        let chunked = passage(BodyLength::Chunked, BodyLength::Chunked);
        let copy = copy_body(&mut from, &mut buffer, &mut to, chunked, &moved);
        let (result, ()) = tokio::join!(copy, events);
        assert!(result.is_ok());
        assert_eq!(moved.into_inner(), 6);
    }
}
