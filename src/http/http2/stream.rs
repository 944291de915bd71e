//! One stream as a byte source and a byte sink.
//!
//! A response begins with a head in HTTP/1 form, which becomes a HEADERS frame; the body follows up
//! to the end of the stream. So the stages work the same for each version of HTTP. Windows are
//! honoured both ways: the client's window opens as bytes are read, and the library gets only as
//! many bytes as the client has room for.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use crate::http::http1::{Asked, BodySink, BodySource, parse_response};
use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head;

/// One request of a client, and its response.
pub(crate) struct Stream {
    receiving: Receiving,
    sending: Arc<Mutex<Sending>>,
}

/// The bytes that the client sends on a stream.
pub(crate) struct ReadHalf<'s> {
    receiving: &'s mut Receiving,
    sending: &'s Mutex<Sending>,
}

/// The bytes that the client receives on a stream.
pub(crate) struct WriteHalf<'s> {
    sending: &'s Mutex<Sending>,
}

struct Receiving {
    body: RecvStream,
    /// Received bytes that were not read yet.
    rest: Bytes,
}

struct Sending {
    respond: SendResponse<Bytes>,
    /// The part of the head that was written so far.
    head: BytesMut,
    /// A complete head that is not sent yet: it is sent with the end if no body follows.
    ready: Option<http::Response<()>>,
    /// Set once the head is sent.
    body: Option<SendStream<Bytes>>,
    ended: bool,
    /// Whether a WebSocket is asked for (RFC 8441).
    extended: bool,
}

impl Stream {
    /// A stream whose request head was read; `extended`: whether the request asks for a WebSocket.
    pub(super) fn new(body: RecvStream, respond: SendResponse<Bytes>, extended: bool) -> Self {
        Self {
            receiving: Receiving {
                body,
                rest: Bytes::new(),
            },
            sending: Arc::new(Mutex::new(Sending {
                respond,
                head: BytesMut::new(),
                ready: None,
                body: None,
                ended: false,
                extended,
            })),
        }
    }

    /// Returns both directions separately.
    pub(crate) fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        let sending = &self.sending;
        let read = ReadHalf {
            receiving: &mut self.receiving,
            sending,
        };
        (read, WriteHalf { sending })
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.receiving.poll_read(cx, into)
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.sending).poll_write(cx, bytes)
    }

    /// Completes when the client resets the stream, even without a read or write.
    pub(crate) fn gone(&self) -> impl Future<Output = io::Error> + use<> {
        let sending = self.sending.clone();
        poll_fn(move |cx| lock(&sending).poll_reset(cx))
    }

    /// Sends a complete head.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        lock(&self.sending).flush()
    }

    /// Ends the response.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        lock(&self.sending).end()
    }

    /// Resets the stream: the response is incomplete.
    pub(crate) fn break_off(&mut self) {
        lock(&self.sending).reset(Reason::INTERNAL_ERROR);
    }

    /// Resets the stream because the connection of a tunnel broke (RFC 9113 section 8.5).
    pub(crate) fn upstream_broke_off(&mut self) {
        lock(&self.sending).reset(Reason::CONNECT_ERROR);
    }
}

impl ReadHalf<'_> {
    /// Waits until the client resets the stream.
    pub(crate) async fn reset(&self) -> io::Error {
        poll_fn(|cx| lock(self.sending).poll_reset(cx)).await
    }
}

impl Receiving {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let take = self.rest.len().min(into.remaining());
        into.put_slice(self.rest.get(..take).unwrap_or_default());
        self.rest.advance(take);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        let released = self.body.flow_control().release_capacity(take);
        Poll::Ready(released.map_err(broken))
    }
}

impl BodySource for ReadHalf<'_> {
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let trailers = ready!(self.receiving.body.poll_trailers(cx)).map_err(broken)?;
        Poll::Ready(Ok(trailers.map(|it| put_trailers(&it)).unwrap_or_default()))
    }
}

impl BodySink for WriteHalf<'_> {
    fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        lock(self.sending).finish(trailers)
    }
}

impl Sending {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.body.is_none() && self.ready.is_none() {
            return Poll::Ready(self.add_to_head(bytes).map(|()| bytes.len()));
        }
        match self.begun()? {
            Some(body) => poll_body(body, cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Sends a complete head, and returns the body; `None` if there is no head.
    fn begun(&mut self) -> io::Result<Option<&mut SendStream<Bytes>>> {
        if let Some(response) = self.ready.take() {
            let body = self.respond.send_response(response, false);
            self.body = Some(body.map_err(broken)?);
        }
        Ok(self.body.as_mut())
    }

    /// Adds bytes to the head; bytes after the head's end are body.
    fn add_to_head(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.head.extend_from_slice(bytes);
        loop {
            let asked = Asked {
                upgrade: self.extended,
                ..Asked::default()
            };
            let head = parse_response(&mut self.head, asked);
            let Some(head) = head.map_err(io::Error::other)? else {
                return Ok(());
            };
            let response = head::response(&head).ok_or(io::ErrorKind::InvalidData)?;
            if head.is_interim() {
                let sent = self.respond.send_informational(response);
                sent.map_err(broken)?;
                continue;
            }
            self.ready = Some(response);
            // At most the bytes of one write; the library holds them until there is room.
            let early = std::mem::take(&mut self.head).freeze();
            if !early.is_empty()
                && let Some(body) = self.begun()?
            {
                body.send_data(early, false).map_err(broken)?;
            }
            return Ok(());
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.finish(b"")
    }

    /// Ends the response, with trailers if there are any.
    fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let trailers = trailer_fields(trailers);
        if trailers.is_none()
            && let Some(response) = self.ready.take()
        {
            let sent = self.respond.send_response(response, true);
            return sent.map(drop).map_err(broken);
        }
        let Some(body) = self.begun()? else {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        };
        let ended = match trailers {
            Some(fields) => body.send_trailers(fields),
            None => body.send_data(Bytes::new(), true),
        };
        ended.map_err(broken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.begun().map(drop)
    }

    fn reset(&mut self, why: Reason) {
        self.ended = true;
        match &mut self.body {
            // RFC 8441 section 5: the reset code of a WebSocket whose connection broke.
            Some(body) if self.extended => body.send_reset(Reason::CANCEL),
            Some(body) => body.send_reset(why),
            None => self.respond.send_reset(why),
        }
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let reset = match &mut self.body {
            Some(body) => ready!(body.poll_reset(cx)),
            None => ready!(self.respond.poll_reset(cx)),
        };
        Poll::Ready(reset.map_or_else(broken, |_| io::ErrorKind::ConnectionReset.into()))
    }
}

/// Writes trailers as HTTP/1 does.
pub(super) fn put_trailers(fields: &http::HeaderMap) -> Bytes {
    let mut text = BytesMut::new();
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.freeze()
}

/// Parses trailers written as HTTP/1; `None` if there are none.
pub(super) fn trailer_fields(trailers: &[u8]) -> Option<http::HeaderMap> {
    let mut fields = http::HeaderMap::new();
    for line in trailers.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let name = http::HeaderName::from_bytes(name).ok()?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        fields.append(name, http::HeaderValue::from_bytes(value).ok()?);
    }
    (!fields.is_empty()).then_some(fields)
}

/// Sends as much as the other side has room for.
pub(super) fn poll_body(
    body: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    body.reserve_capacity(bytes.len());
    while body.capacity() == 0 && !bytes.is_empty() {
        match ready!(body.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
    let take = bytes.len().min(body.capacity());
    let piece = Bytes::copy_from_slice(bytes.get(..take).unwrap_or_default());
    let sent = body.send_data(piece, false);
    Poll::Ready(sent.map(|()| take).map_err(broken))
}

/// Converts an error: a reset stream counts as a broken connection, as with a socket.
pub(super) fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or(io::ErrorKind::ConnectionAborted.into());
    }
    io::ErrorKind::ConnectionReset.into()
}

fn lock(sending: &Mutex<Sending>) -> MutexGuard<'_, Sending> {
    sending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().receiving.poll_read(cx, into)
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(self.sending).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(lock(self.sending).flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(lock(self.sending).end())
    }
}
