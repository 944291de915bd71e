//! The client's side of a connection: a socket, TLS over one, or one stream of HTTP/2.
//!
//! The stages use one interface for all three. Two operations work on sockets only, at no extra
//! cost: waiting without a buffer, and moving the bytes in the kernel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, tcp};

use crate::http::http1::{BodySink, BodySource};
use crate::http::http2;
use crate::tls;

/// Bytes read at once while a client is only watched.
const WATCHED: usize = 2048;

/// The client's side of a connection.
pub(in crate::proxy) enum ClientStream {
    /// A socket.
    Plain(TcpStream),
    /// TLS that ends at the gate.
    Tls(Box<tls::ServerStream>),
    /// TLS that ends at the gate, inside a tunnel over any of the other kinds.
    Inside(Box<tls::InsideStream<Self>>),
    /// One stream of an HTTP/2 connection.
    Http2(Box<http2::Stream>),
}

/// The read half of a client's stream.
pub(in crate::proxy) enum ClientRead<'c> {
    Plain(tcp::ReadHalf<'c>),
    Tls(tokio::io::ReadHalf<&'c mut tls::ServerStream>),
    Inside(tokio::io::ReadHalf<&'c mut tls::InsideStream<ClientStream>>),
    Http2(http2::ReadHalf<'c>),
}

/// The write half of a client's stream.
pub(in crate::proxy) enum ClientWrite<'c> {
    Plain(tcp::WriteHalf<'c>),
    Tls(tokio::io::WriteHalf<&'c mut tls::ServerStream>),
    Inside(tokio::io::WriteHalf<&'c mut tls::InsideStream<ClientStream>>),
    Http2(http2::WriteHalf<'c>),
}

impl ClientStream {
    /// Splits the stream, to move bytes in both directions at once.
    pub(in crate::proxy) fn split(&mut self) -> (ClientRead<'_>, ClientWrite<'_>) {
        match self {
            Self::Plain(socket) => {
                let (read, write) = socket.split();
                (ClientRead::Plain(read), ClientWrite::Plain(write))
            }
            Self::Tls(stream) => {
                let (read, write) = tokio::io::split(&mut **stream);
                (ClientRead::Tls(read), ClientWrite::Tls(write))
            }
            Self::Inside(stream) => {
                let (read, write) = tokio::io::split(&mut **stream);
                (ClientRead::Inside(read), ClientWrite::Inside(write))
            }
            Self::Http2(stream) => {
                let (read, write) = stream.split();
                (ClientRead::Http2(read), ClientWrite::Http2(write))
            }
        }
    }

    /// Waits until an idle client closes its connection. Never returns if a close cannot be
    /// detected without reading: TLS, HTTP/2, a client that sends more.
    pub(in crate::proxy) async fn closed(&self) {
        if let Self::Plain(socket) = self
            && !matches!(socket.peek(&mut [0]).await, Ok(1..))
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Ends the connection with an error that the client can detect: the answer is incomplete.
    pub(in crate::proxy) fn break_off(&mut self) {
        match self {
            Self::Plain(socket) => {
                let _ = socket.set_zero_linger();
            }
            Self::Tls(stream) => {
                let _ = stream.get_ref().0.set_zero_linger();
            }
            Self::Inside(stream) => stream.get_mut().0.carrier().break_off(),
            Self::Http2(stream) => stream.break_off(),
        }
    }

    /// Signals that the other side of a tunnel broke off, if the protocol has such a signal.
    pub(in crate::proxy) fn upstream_broke_off(&mut self) {
        if let Self::Http2(stream) = self {
            stream.upstream_broke_off();
        }
    }
}

impl ClientRead<'_> {
    /// Waits until the client sends more or closes: 0 if it closed. Bytes that had to be read are
    /// in `buffer`.
    pub(in crate::proxy) async fn watch(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(read) => read.peek(&mut [0]).await,
            Self::Tls(read) => {
                buffer.reserve(WATCHED);
                read.read_buf(buffer).await
            }
            Self::Inside(read) => {
                buffer.reserve(WATCHED);
                read.read_buf(buffer).await
            }
            Self::Http2(read) => Err(read.reset().await),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Inside(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Http2(stream) => stream.poll_read(cx, into),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Inside(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Http2(stream) => stream.poll_write(cx, bytes),
        }
    }

    // TLS inside a tunnel writes several records at once.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Inside(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Http2(stream) => {
                let first = parts.iter().find(|part| !part.is_empty());
                stream.poll_write(cx, first.map_or(&[], |part| part))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Inside(stream) => stream.is_write_vectored(),
            Self::Http2(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Inside(stream) => Pin::new(stream).poll_flush(cx),
            Self::Http2(stream) => Poll::Ready(stream.flush()),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Inside(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Http2(stream) => Poll::Ready(stream.end()),
        }
    }
}

impl AsyncRead for ClientRead<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(read) => Pin::new(read).poll_read(cx, into),
            Self::Tls(read) => Pin::new(read).poll_read(cx, into),
            Self::Inside(read) => Pin::new(read).poll_read(cx, into),
            Self::Http2(read) => Pin::new(read).poll_read(cx, into),
        }
    }
}

impl BodySource for ClientRead<'_> {
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Http2(read) => read.poll_trailers(cx),
            _ => Poll::Ready(Ok(Bytes::new())),
        }
    }
}

impl BodySink for ClientWrite<'_> {
    fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        match self {
            Self::Http2(write) => write.finish(trailers),
            _ => Ok(()),
        }
    }
}

impl AsyncWrite for ClientWrite<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(write) => Pin::new(write).poll_write(cx, bytes),
            Self::Tls(write) => Pin::new(write).poll_write(cx, bytes),
            Self::Inside(write) => Pin::new(write).poll_write(cx, bytes),
            Self::Http2(write) => Pin::new(write).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(write) => Pin::new(write).poll_flush(cx),
            Self::Tls(write) => Pin::new(write).poll_flush(cx),
            Self::Inside(write) => Pin::new(write).poll_flush(cx),
            Self::Http2(write) => Pin::new(write).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(write) => Pin::new(write).poll_shutdown(cx),
            Self::Tls(write) => Pin::new(write).poll_shutdown(cx),
            Self::Inside(write) => Pin::new(write).poll_shutdown(cx),
            Self::Http2(write) => Pin::new(write).poll_shutdown(cx),
        }
    }
}
