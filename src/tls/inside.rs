//! TLS inside a tunnel: the gate terminates it in the name of the destination.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;

use super::server::word;
use super::{HandshakeError, Server, write_records};

/// TLS with a caller inside its tunnel.
pub type InsideStream<S> = tokio_rustls::server::TlsStream<Rewound<S>>;

/// A stream whose first bytes were read before, and are read again.
#[derive(Debug)]
pub struct Rewound<S> {
    early: Bytes,
    stream: S,
}

/// A finished handshake inside a tunnel.
#[derive(Debug)]
pub struct EnteredInside<S> {
    /// The decrypted stream of the caller.
    pub stream: Box<InsideStream<S>>,
    /// Whether the caller speaks HTTP/2.
    pub http2: bool,
    /// The caller's verified client certificate, in DER; `None` if the caller presented none.
    pub certificate: Option<Box<[u8]>>,
}

impl<S> Rewound<S> {
    /// A stream of which `early` was read before.
    pub(crate) fn new(early: Bytes, stream: S) -> Self {
        Self { early, stream }
    }

    /// Returns the stream below TLS.
    pub fn carrier(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl Server {
    /// Performs the handshake on a stream of which `early` was read before.
    pub async fn enter<S>(
        &self,
        early: Bytes,
        stream: S,
    ) -> Result<EnteredInside<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config.clone());
        let stream = acceptor
            .accept(Rewound::new(early, stream))
            .await
            .map_err(|error| {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                HandshakeError(inner.map_or("failed", word))
            })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown.and_then(|chain| chain.first());
        let certificate = certificate.map(|leaf| leaf.as_ref().into());
        Ok(EnteredInside {
            certificate,
            stream: Box::new(stream),
            http2,
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, into);
        }
        let take = this.early.len().min(into.remaining());
        into.put_slice(this.early.get(..take).unwrap_or_default());
        this.early.advance(take);
        if this.early.is_empty() {
            this.early = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        records: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        write_records(Pin::new(&mut self.get_mut().stream), cx, records)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
