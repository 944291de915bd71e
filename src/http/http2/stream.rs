//! One stream as two sides that bytes come from and go to.
//!
//! What is written begins with a head as HTTP/1 has it, which becomes a HEADERS frame; what follows
//! is the body, up to the end of the stream. So the stages need not know which HTTP they answer in.
//! Windows are honoured both ways: the client's is opened as bytes are taken, and not more is handed
//! to the library than the client has room for.

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

/// One request of a client, and its answer.
pub(crate) struct Stream {
    receiving: Receiving,
    sending: Arc<Mutex<Sending>>,
}

/// What the client sends on a stream.
pub(crate) struct ReadHalf<'s> {
    receiving: &'s mut Receiving,
    sending: &'s Mutex<Sending>,
}

/// What it is sent.
pub(crate) struct WriteHalf<'s> {
    sending: &'s Mutex<Sending>,
}

struct Receiving {
    body: RecvStream,
    /// What came and was not taken yet.
    rest: Bytes,
}

struct Sending {
    respond: SendResponse<Bytes>,
    /// What of the head was written.
    head: BytesMut,
    /// A head that is whole and not sent yet: it goes with the end where nothing follows it.
    ready: Option<http::Response<()>>,
    /// Set once the head is sent.
    body: Option<SendStream<Bytes>>,
    ended: bool,
    /// Whether a WebSocket is asked for (RFC 8441).
    extended: bool,
}

impl Stream {
    /// A request whose head was read; `extended`: whether it asks for a WebSocket.
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

    /// Both ways apart.
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

    /// Ready when the client broke off, also while there is no read or write.
    pub(crate) fn gone(&self) -> impl Future<Output = io::Error> + use<> {
        let sending = self.sending.clone();
        poll_fn(move |cx| lock(&sending).poll_reset(cx))
    }

    /// Sends a head that is whole.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        lock(&self.sending).flush()
    }

    /// Ends our side.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        lock(&self.sending).end()
    }

    /// Resets: what was sent is not whole.
    pub(crate) fn break_off(&mut self) {
        lock(&self.sending).reset(Reason::INTERNAL_ERROR);
    }

    /// Says that the connection of a tunnel broke off (RFC 9113 section 8.5).
    pub(crate) fn upstream_broke_off(&mut self) {
        lock(&self.sending).reset(Reason::CONNECT_ERROR);
    }
}

impl ReadHalf<'_> {
    /// Waits until the client breaks off.
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

    /// The body, after the head that is ready was sent; `None` where there is no head.
    fn begun(&mut self) -> io::Result<Option<&mut SendStream<Bytes>>> {
        if let Some(response) = self.ready.take() {
            let body = self.respond.send_response(response, false);
            self.body = Some(body.map_err(broken)?);
        }
        Ok(self.body.as_mut())
    }

    /// Takes what belongs to the head; what came with its end is body.
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
            // No more than one write of ours holds; the library keeps it until there is room.
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

    /// Ends the answer, with trailers where there are some.
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
            // RFC 8441 section 5: this is how the connection of a WebSocket breaks off.
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

/// Trailers as HTTP/1 writes them.
pub(super) fn put_trailers(fields: &http::HeaderMap) -> Bytes {
    let mut text = BytesMut::new();
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.freeze()
}

/// The fields of trailers as HTTP/1 writes them; nothing where there are none.
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

/// Hands over as much as the other side has room for.
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

/// A stream that was reset broke off, as a socket would have.
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
