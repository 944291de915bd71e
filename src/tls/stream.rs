//! A connection that speaks TLS with a server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::TlsFailure;

/// How many bytes that a server sent before it went away are looked through for its reason.
const LAST_WORDS: usize = 64 << 10;

/// TLS with a server.
///
/// In TLS 1.3 a server says what it thinks of our certificate after the handshake, and may have
/// hung up when the first request is written. So a write that fails looks for what the server said
/// last: the error then has the reason, for [`TlsFailure::in_error`].
#[derive(Debug)]
pub struct ClientStream<S>(TlsStream<S>);

impl<S> ClientStream<S> {
    pub(super) fn new(stream: TlsStream<S>) -> Self {
        Self(stream)
    }

    /// The connection below, and the session.
    pub fn get_ref(&self) -> (&S, &ClientConnection) {
        self.0.get_ref()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    /// The error of a write, with what the server said before it went away.
    fn explained<T>(&mut self, cx: &mut Context<'_>, written: Written<T>) -> Written<T> {
        match written {
            Poll::Ready(Err(error)) if TlsFailure::in_error(&error).is_none() => {
                Poll::Ready(Err(self.last_words(cx).unwrap_or(error)))
            }
            written => written,
        }
    }

    fn last_words(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        let (socket, session) = self.0.get_mut();
        let mut bytes = [0; 4096];
        for _ in 0..LAST_WORDS / bytes.len() {
            let mut into = ReadBuf::new(&mut bytes);
            let Poll::Ready(Ok(())) = Pin::new(&mut *socket).poll_read(cx, &mut into) else {
                return None;
            };
            let mut said = into.filled();
            if said.is_empty() {
                return None;
            }
            while !said.is_empty() {
                session.read_tls(&mut said).ok()?;
                if let Err(why) = session.process_new_packets() {
                    return Some(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
        }
        None
    }
}

/// What became of a write.
type Written<T> = Poll<io::Result<T>>;

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Written<usize> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.0).poll_write(cx, bytes);
        this.explained(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Written<usize> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.0).poll_write_vectored(cx, parts);
        this.explained(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Written<()> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.0).poll_flush(cx);
        this.explained(cx, written)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Written<()> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.0).poll_shutdown(cx);
        this.explained(cx, written)
    }
}
