//! The body of a request during its transfer: detects a slow client, and keeps a short body so that
//! it can be sent again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::http::http1::BodySource;
use crate::proxy::connection::client::ClientRead;

/// The most bytes of a body, with framing, that are kept for another attempt.
const MAX_KEPT: usize = 64 * 1024;

/// The client's part of a transfer, observed during reading.
pub(super) struct Upload<'c> {
    from: ClientRead<'c>,
    waits: bool,
    kept: Option<BytesMut>,
}

impl<'c> Upload<'c> {
    /// Reads from a client. With `keep`, the bytes are kept up to [`MAX_KEPT`]; `early` are the
    /// bytes that were read before.
    pub(in crate::proxy) fn new(from: ClientRead<'c>, early: &[u8], keep: bool) -> Self {
        Self {
            from,
            waits: false,
            kept: (keep && early.len() <= MAX_KEPT).then(|| BytesMut::from(early)),
        }
    }

    /// Whether the gate waits for the client to send more.
    pub(in crate::proxy) fn waits(&self) -> bool {
        self.waits
    }

    /// All bytes of the client since the head, if they were kept.
    pub(super) fn into_kept(self) -> Option<BytesMut> {
        self.kept
    }

    /// Waits until the client sends more or closes; see [`ClientRead::watch`].
    pub(in crate::proxy) async fn watch(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.waits = false;
        let before = buffer.len();
        let watched = self.from.watch(buffer).await;
        self.keep(buffer.get(before..).unwrap_or_default());
        watched
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = |kept: &BytesMut| MAX_KEPT.saturating_sub(kept.len());
        if self
            .kept
            .as_ref()
            .is_some_and(|kept| bytes.len() > room(kept))
        {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
    }
}

impl AsyncRead for Upload<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let read = Pin::new(&mut this.from).poll_read(cx, into);
        this.waits = read.is_pending();
        this.keep(into.filled().get(before..).unwrap_or_default());
        read
    }
}

impl BodySource for Upload<'_> {
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let trailers = self.from.poll_trailers(cx);
        self.waits = trailers.is_pending();
        if matches!(&trailers, Poll::Ready(Ok(trailers)) if !trailers.is_empty()) {
            // Trailers can be read only once.
            self.kept = None;
        }
        trailers
    }
}
