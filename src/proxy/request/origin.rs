//! The origin's side of an exchange: an HTTP/1 connection, or one HTTP/2 stream.
//!
//! An HTTP/2 stream is translated to HTTP/1 and read by the same strict reader, so that the stages
//! do not depend on the HTTP version of the origin.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp;

use crate::dial::Stream;
use crate::http::http1::{BodySink, BodySource};
use crate::http::http2;

/// The connection or stream of a request.
pub(in crate::proxy) enum OriginStream {
    /// An HTTP/1 connection.
    Wire(Stream),
    /// One exchange on a shared HTTP/2 connection.
    Http2(Box<http2::Exchange>),
}

/// The read half of the origin's side.
pub(in crate::proxy) enum OriginRead<'o> {
    Plain(tcp::ReadHalf<'o>),
    Wire(tokio::io::ReadHalf<&'o mut Stream>),
    Http2(http2::ResponseHalf<'o>),
}

/// The write half of the origin's side.
pub(in crate::proxy) enum OriginWrite<'o> {
    Plain(tcp::WriteHalf<'o>),
    Wire(tokio::io::WriteHalf<&'o mut Stream>),
    Http2(http2::RequestHalf<'o>),
}

/// Splits a connection into its two directions.
pub(in crate::proxy) fn split(stream: &mut Stream) -> (OriginRead<'_>, OriginWrite<'_>) {
    if let Stream::Tcp(socket) = stream {
        let (read, write) = socket.split();
        return (OriginRead::Plain(read), OriginWrite::Plain(write));
    }
    let (read, write) = tokio::io::split(stream);
    (OriginRead::Wire(read), OriginWrite::Wire(write))
}

impl OriginStream {
    /// Splits the stream, to move a request and its answer at once.
    pub(in crate::proxy) fn split(&mut self) -> (OriginRead<'_>, OriginWrite<'_>) {
        match self {
            Self::Wire(stream) => split(stream),
            Self::Http2(exchange) => {
                let (read, write) = exchange.split();
                (OriginRead::Http2(read), OriginWrite::Http2(write))
            }
        }
    }
}

impl AsyncRead for OriginRead<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(read) => Pin::new(read).poll_read(cx, into),
            Self::Wire(read) => Pin::new(read).poll_read(cx, into),
            Self::Http2(read) => read.poll_read(cx, into),
        }
    }
}

impl BodySource for OriginRead<'_> {
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Http2(read) => read.poll_trailers(cx),
            Self::Plain(_) | Self::Wire(_) => Poll::Ready(Ok(Bytes::new())),
        }
    }
}

impl AsyncWrite for OriginWrite<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(write) => Pin::new(write).poll_write(cx, bytes),
            Self::Wire(write) => Pin::new(write).poll_write(cx, bytes),
            Self::Http2(write) => write.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(write) => Pin::new(write).poll_flush(cx),
            Self::Wire(write) => Pin::new(write).poll_flush(cx),
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(write) => Pin::new(write).poll_shutdown(cx),
            Self::Wire(write) => Pin::new(write).poll_shutdown(cx),
            Self::Http2(write) => Poll::Ready(write.finish(b"")),
        }
    }
}

impl BodySink for OriginWrite<'_> {
    fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        match self {
            Self::Http2(write) => write.finish(trailers),
            Self::Plain(_) | Self::Wire(_) => Ok(()),
        }
    }
}
