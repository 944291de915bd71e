//! A TLS connection with a server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

/// Maximum number of bytes that are searched for the reason of a server that closed the connection.
const LAST_WORDS: usize = 64 << 10;

/// TLS with a server.
///
/// In TLS 1.3 a server rejects the gate's certificate only after the handshake, and may have closed
/// the connection when the gate writes the first request. So a write that fails reads the server's
/// last alert: the error then has the reason, for
/// [`TlsFailure::in_error`](super::TlsFailure::in_error).
#[derive(Debug)]
pub struct ClientStream<S> {
    tls: TlsStream<S>,
    /// The error of the write, while the reason is searched.
    broken: Option<io::Error>,
}

impl<S> ClientStream<S> {
    pub(super) fn new(tls: TlsStream<S>) -> Self {
        Self { tls, broken: None }
    }

    /// Returns the connection below, and the session.
    pub fn get_ref(&self) -> (&S, &ClientConnection) {
        self.tls.get_ref()
    }
}

/// Writes the records that TLS has ready. A single one, as of most requests, goes by a plain write,
/// which costs the kernel less than a vectored one.
pub(crate) fn write_records<S: AsyncWrite>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    records: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match records {
        [record] => stream.poll_write(cx, record),
        records => stream.poll_write_vectored(cx, records),
    }
}

/// The result of a write.
type Written<T> = Poll<io::Result<T>>;

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    /// Writes; the error has the reason why the server closed the connection.
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<S>>, &mut Context<'_>) -> Written<T>,
    ) -> Written<T> {
        if self.broken.is_none() {
            match write(Pin::new(&mut self.tls), cx) {
                Poll::Ready(Err(error)) if is_gone(&error) => self.broken = Some(error),
                written => return written,
            }
        }
        let reason = ready!(self.last_words(cx));
        let broken = self.broken.take();
        let error = reason.or(broken);
        Poll::Ready(Err(
            error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
        ))
    }

    /// Returns the last alert of a closed connection, if the alert was the reason. Data before the
    /// alert stays readable. Waits only for bytes that have arrived: the connection is closed.
    fn last_words(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Error>> {
        let (socket, session) = self.tls.get_mut();
        let mut bytes = [0; 4096];
        for _ in 0..LAST_WORDS / bytes.len() {
            // A concurrent read may have found the alert.
            if let Err(why) = session.process_new_packets() {
                return Poll::Ready(Some(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            let mut into = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut *socket).poll_read(cx, &mut into));
            let mut said = into.filled();
            if read.is_err() || said.is_empty() {
                break;
            }
            while !said.is_empty() {
                if session.read_tls(&mut said).is_err() {
                    return Poll::Ready(None);
                }
                let _ = session.process_new_packets();
            }
        }
        Poll::Ready(None)
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset
    )
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Written<usize> {
        self.get_mut()
            .write(cx, |tls, cx| tls.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Written<usize> {
        self.get_mut()
            .write(cx, |tls, cx| tls.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Written<()> {
        self.get_mut().write(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Written<()> {
        self.get_mut().write(cx, AsyncWrite::poll_shutdown)
    }
}
