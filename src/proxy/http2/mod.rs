//! HTTP/2 from clients: each stream is a request or a tunnel of its own.
//!
//! A stream goes through the same stages as a connection of HTTP/1: its head is read by the same
//! strict reader ([`head`]), and what the stages write is turned into frames at the edge
//! ([`stream`]). The library bounds what a client can make us keep: streams, heads, streams that
//! were reset, windows.

mod carrier;
mod head;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection as Carrier, SendResponse};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Limits;
use crate::tls;

use super::Shared;
use super::client::ClientStream;
use super::connection::{Connection, Origin};
use super::http1::HeadLimits;
use super::inspect::Inside;

pub(super) use carrier::{Carrier as OriginCarrier, Exchange, RequestHalf, ResponseHalf};
pub(super) use stream::{ReadHalf, Stream, WriteHalf};

/// Requests and tunnels of one connection at once.
const STREAMS: u32 = 256;
/// Bytes that a client may send on one stream, and on all, before we have passed them on.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one stream that wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were reset before we looked at them, and those that we still remember.
const RESET_EARLY: usize = 32;
const RESET_KEPT: usize = 64;
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
        .max_concurrent_reset_streams(RESET_KEPT);
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
                    Some(Err(_)) | None => return,
                },
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

    /// Serves one stream in a task of its own.
    fn take(&self, (request, respond): Arrival) {
        let (parts, body) = request.into_parts();
        let bounds = HeadLimits {
            bytes: self.limits.header_size,
            fields: self.limits.header_count,
        };
        let head = head::request(&parts, body.is_end_stream(), bounds, self.sockets);
        let extended = head.as_ref().is_ok_and(|head| head.extended);
        let stream = ClientStream::Http2(Box::new(Stream::new(body, respond, extended)));
        let mut connection = Connection::new(self.shared.clone(), stream, self.origin.clone());
        connection.inside.clone_from(&self.inside);
        let open = self.open.clone();
        self.shared.gate.tasks.spawn(async move {
            let tunnel = Box::pin(connection.serve(Some(head))).await;
            if let Some(tunnel) = tunnel {
                tunnel.carry().await;
            }
            drop(open);
        });
    }
}
