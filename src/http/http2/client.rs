//! An HTTP/2 connection with a client, and the requests on it.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection, SendResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Limits;
use crate::http::http1::{HeadError, HeadLimits, RequestHead};

use super::fragments::{Fragment, Fragments};
use super::frames::{self, Counted};
use super::stream::Stream;
use super::{
    CONNECTION_WINDOW, RESET_CAUSED, RESET_EARLY, RESET_KEPT, SEND_BUFFER, SMALL_DATA,
    STREAM_WINDOW, STREAMS, head,
};

/// An HTTP/2 connection with a client.
pub(crate) struct ClientCarrier<S> {
    connection: Connection<Counted<S>, Bytes>,
    flooded: CancellationToken,
    /// The streams of the client whose `:path` contains `#`.
    fragments: Fragments,
}

/// A stream that a client opened.
pub(crate) struct Arrival {
    request: http::Request<h2::RecvStream>,
    respond: SendResponse<Bytes>,
    fragment: Fragment,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientCarrier<S> {
    /// Starts HTTP/2 on a connection; `None` if the client does not. `sockets`: whether a stream
    /// may become a WebSocket (RFC 8441).
    pub(crate) async fn begin(io: S, clock: Clock, limits: &Limits, sockets: bool) -> Option<Self> {
        let mut builder = builder(limits);
        if sockets {
            builder.enable_connect_protocol();
        }
        let fragments = Fragments::default();
        let (io, flooded) = frames::from_client(io, clock, fragments.clone());
        let handshake = builder.handshake(io);
        let Ok(Ok(connection)) = tokio::time::timeout(limits.header_timeout, handshake).await
        else {
            return None;
        };
        Some(Self {
            connection,
            flooded,
            fragments,
        })
    }

    /// Returns a token that is cancelled when the client sends too many frames without content.
    pub(crate) fn flooded(&self) -> CancellationToken {
        self.flooded.clone()
    }

    /// Returns the next stream; moves the frames of all streams. `None` when the connection has
    /// ended.
    pub(crate) async fn accept(&mut self) -> Option<Result<Arrival, h2::Error>> {
        let accepted = self.connection.accept().await?;
        let arrival = |(request, respond): (http::Request<h2::RecvStream>, _)| {
            let stream = request.body().stream_id().as_u32();
            Arrival {
                request,
                respond,
                fragment: self.fragments.take(stream),
            }
        };
        Some(accepted.map(arrival))
    }

    /// Accepts no more streams; open streams continue.
    pub(crate) fn leave(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Ends the connection of a client that floods; waits at most `longest` for the notice to be
    /// sent.
    pub(crate) async fn end_flood(&mut self, longest: Duration) {
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let _ = tokio::time::timeout(longest, self.connection.accept()).await;
    }
}

impl Arrival {
    /// Reads the head of the request. `patience`: how long to wait for the end of a request without
    /// content.
    pub(crate) async fn read(
        self,
        bounds: HeadLimits,
        sockets: bool,
        patience: Duration,
    ) -> (Result<RequestHead, HeadError>, Stream) {
        let (parts, mut body) = self.request.into_parts();
        let mut ended = body.is_end_stream();
        if !ended && head::has_no_content(&parts) {
            // Some clients end a request without content in a separate frame.
            let ending = tokio::time::timeout(patience, is_empty(&mut body));
            ended = ending.await.unwrap_or(false);
        }
        let head = head::request(&parts, self.fragment, ended, bounds, sockets);
        drop(parts);
        let extended = head.as_ref().is_ok_and(|head| head.extended);
        (head, Stream::new(body, self.respond, extended))
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.header_size).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESET_EARLY)
        .max_concurrent_reset_streams(RESET_KEPT)
        .max_local_error_reset_streams(Some(RESET_CAUSED))
        .data_frame_budget(SMALL_DATA);
    builder
}

/// Whether a body ends without a byte; waits for the first byte.
async fn is_empty(body: &mut h2::RecvStream) -> bool {
    loop {
        match body.data().await {
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(_) | Err(_)) => return false,
            None => return true,
        }
    }
}
