//! HTTP/2 from clients: each stream is a request or a tunnel of its own.
//!
//! A stream goes through the same stages as a connection of HTTP/1: its head is read by the same
//! strict reader ([`head`]), and what the stages write is turned into frames at the edge
//! ([`stream`]). The library bounds what a client can make us keep: streams, heads, streams that
//! were reset, windows. What it can make us do for nothing is bounded in [`frames`].

mod carrier;
mod fragments;
mod frames;
mod head;
mod hpack;
mod huffman;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection as Carrier, SendResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::tls;

use super::Shared;
use super::client::ClientStream;
use super::connection::{Connection, Origin};
use super::http1::HeadLimits;
use super::inspect::Inside;

pub(super) use carrier::{
    Carrier as OriginCarrier, Exchange, RequestHalf, ResponseHalf, is_unprocessed,
};
use fragments::Fragments;
pub(super) use stream::{ReadHalf, Stream, WriteHalf};

/// Requests and tunnels of one connection at once. One more is refused, and may be tried again.
///
/// Every head that came in one read waits in memory until it is looked at: this many times the
/// header list at most.
const STREAMS: u32 = 128;
/// Bytes that a client may send on one stream, and on all, before we have passed them on.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes that small DATA frames may cost us beyond what is in them while nobody takes them: 256 a
/// frame, so about 2048 frames. Of empty ones the library takes 100 in all.
const SMALL_DATA: usize = 512 * 1024;
/// Bytes of one stream that wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may reset before we looked at them (CVE-2023-44487); one more ends the
/// connection.
const RESET_EARLY: usize = 32;
/// Streams that we reset and still remember, so that what was on its way is passed over: all that
/// can be open.
const RESET_KEPT: usize = 128;
/// Streams that a peer may make us reset with frames that are wrong, or by opening more than it may,
/// while a connection lasts (CVE-2025-8671); one more ends it.
const RESET_CAUSED: usize = 256;
/// Why a connection ended that sent too many frames that carry nothing.
const FLOOD: &str = "flood";
/// How long a client that was told to go is waited for.
const LEAVING: Duration = Duration::from_secs(1);

/// Serves the streams of a connection until it ends.
pub(super) async fn serve(shared: Arc<Shared>, io: Box<tls::ServerStream>, origin: Origin) {
    serve_on(shared, io, origin, None).await;
}

/// As [`serve`], inside a tunnel.
pub(super) async fn serve_inside(connection: Connection) {
    let Connection {
        shared,
        stream,
        origin,
        inside,
        ..
    } = connection;
    serve_on(shared, stream, origin, inside).await;
}

async fn serve_on<S>(shared: Arc<Shared>, io: S, origin: Origin, inside: Option<Arc<Inside>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = shared.gate.snapshot.load().limits.clone();
    let sockets = match &inside {
        Some(inside) => inside.takes_sockets(limits.header_timeout).await,
        None => false,
    };
    let mut builder = builder(&limits);
    if sockets {
        builder.enable_connect_protocol();
    }
    let fragments = Fragments::default();
    let clock = shared.gate.clock.clone();
    let (io, flooded) = frames::from_client(io, clock, fragments.clone());
    let handshake = builder.handshake(io);
    let Ok(Ok(carrier)) = tokio::time::timeout(limits.header_timeout, handshake).await else {
        return;
    };
    let service = Service {
        shared,
        origin,
        limits,
        inside,
        sockets,
        flooded,
        fragments,
        open: Arc::new(()),
    };
    service.run(carrier).await;
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

type Arrival = (http::Request<h2::RecvStream>, SendResponse<Bytes>);

/// One connection and what its streams share.
struct Service {
    shared: Arc<Shared>,
    origin: Origin,
    limits: Limits,
    inside: Option<Arc<Inside>>,
    /// Whether a stream of the client may become a WebSocket, as one of the origin may.
    sockets: bool,
    /// Cancelled when the client sends too many frames that carry nothing.
    flooded: CancellationToken,
    /// The streams of the client whose `:path` contains `#`.
    fragments: Fragments,
    /// Held by every stream: how many are open.
    open: Arc<()>,
}

impl Service {
    /// Takes streams until the client leaves, is idle for too long, or shutdown begins.
    async fn run<S>(self, mut carrier: Carrier<S, Bytes>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let draining = match &self.inside {
            Some(inside) => inside.ending.clone(),
            None => self.shared.gate.draining.clone(),
        };
        let mut leaving = false;
        let mut quiet = 0;
        loop {
            let pause = if leaving {
                LEAVING
            } else {
                self.limits.keep_alive / 2
            };
            tokio::select! {
                arrival = carrier.accept() => match arrival {
                    Some(Ok(arrival)) => {
                        quiet = 0;
                        self.take(arrival);
                    }
                    Some(Err(error)) => return self.note(&error),
                    None => return,
                },
                () = self.flooded.cancelled() => {
                    self.shared.gate.metrics.http2_ended(self.side(), FLOOD);
                    carrier.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    let _ = tokio::time::timeout(LEAVING, carrier.accept()).await;
                    return;
                }
                () = draining.cancelled(), if !leaving => {
                    leaving = true;
                    carrier.graceful_shutdown();
                }
                () = tokio::time::sleep(pause) => {
                    quiet = if Arc::strong_count(&self.open) == 1 { quiet + 1 } else { 0 };
                    match quiet {
                        1.. if leaving => return,
                        2.. => {
                            (leaving, quiet) = (true, 0);
                            carrier.graceful_shutdown();
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// Counts a connection that the library ended.
    fn note(&self, error: &h2::Error) {
        note(&self.shared.gate.metrics, self.side(), error);
    }

    fn side(&self) -> &'static str {
        match self.inside {
            Some(_) => "inside",
            None => "client",
        }
    }

    /// Serves one stream in a task of its own.
    fn take(&self, (request, respond): Arrival) {
        let (parts, mut body) = request.into_parts();
        let bounds = HeadLimits {
            bytes: self.limits.header_size,
            fields: self.limits.header_count,
        };
        let (sockets, patience) = (self.sockets, self.limits.header_timeout);
        let (shared, origin, inside) = (
            self.shared.clone(),
            self.origin.clone(),
            self.inside.clone(),
        );
        let open = self.open.clone();
        let fragment = self.fragments.take(body.stream_id().as_u32());
        self.shared.gate.tasks.spawn(async move {
            let mut ended = body.is_end_stream();
            if !ended && head::has_no_content(&parts) {
                // Some clients end a request without content in a frame of its own.
                let ending = tokio::time::timeout(patience, is_empty(&mut body));
                ended = ending.await.unwrap_or(false);
            }
            let head = head::request(&parts, fragment, ended, bounds, sockets);
            drop(parts);
            let extended = head.as_ref().is_ok_and(|head| head.extended);
            let stream = ClientStream::Http2(Box::new(Stream::new(body, respond, extended)));
            let mut connection = Connection::new(shared, stream, origin);
            connection.inside = inside;
            let tunnel = Box::pin(connection.serve(Some(head))).await;
            if let Some(tunnel) = tunnel {
                tunnel.carry().await;
            }
            drop(open);
        });
    }
}

/// Whether a body ends without a byte; waits for its first one.
async fn is_empty(body: &mut h2::RecvStream) -> bool {
    loop {
        match body.data().await {
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(_) | Err(_)) => return false,
            None => return true,
        }
    }
}

/// Counts a connection that was ended for what the other side sent.
fn note(metrics: &Metrics, side: &'static str, error: &h2::Error) {
    if !error.is_library() {
        return;
    }
    let reason = match error.reason() {
        Some(Reason::PROTOCOL_ERROR) => "protocol_error",
        Some(Reason::FLOW_CONTROL_ERROR) => "flow_control_error",
        Some(Reason::STREAM_CLOSED) => "stream_closed",
        Some(Reason::FRAME_SIZE_ERROR) => "frame_size_error",
        Some(Reason::COMPRESSION_ERROR) => "compression_error",
        Some(Reason::ENHANCE_YOUR_CALM) => "enhance_your_calm",
        _ => return,
    };
    metrics.http2_ended(side, reason);
}
