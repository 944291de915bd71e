//! HTTP/2 from clients: each stream goes through the same stages as an HTTP/1 connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Limits;
use crate::http::http1::HeadLimits;
use crate::http::http2::{Arrival, ClientCarrier, FLOOD, note};
use crate::proxy::Shared;
use crate::proxy::inspect::Inside;
use crate::tls;

use super::client::ClientStream;
use super::{Connection, Origin};

/// How long to wait for a client after `GOAWAY`.
const LEAVING: Duration = Duration::from_secs(1);

/// Serves the streams of a connection until it ends.
pub(in crate::proxy) async fn serve(
    shared: Arc<Shared>,
    io: Box<tls::ServerStream>,
    origin: Origin,
) {
    serve_on(shared, io, origin, None).await;
}

/// Like [`serve`], inside a tunnel.
pub(in crate::proxy) async fn serve_inside(connection: Connection) {
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
    let clock = shared.gate.clock.clone();
    let Some(carrier) = ClientCarrier::begin(io, clock, &limits, sockets).await else {
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

/// One connection with the shared state of its streams.
struct Service {
    shared: Arc<Shared>,
    origin: Origin,
    limits: Limits,
    inside: Option<Arc<Inside>>,
    /// Whether a stream of the client may become a WebSocket; true if the origin supports it.
    sockets: bool,
    /// Held by every stream, to count the open streams.
    open: Arc<()>,
}

impl Service {
    /// Accepts streams until the client leaves, is idle for too long, or shutdown begins.
    async fn run<S>(self, mut carrier: ClientCarrier<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let draining = match &self.inside {
            Some(inside) => inside.ending.clone(),
            None => self.shared.gate.draining.clone(),
        };
        let flooded = carrier.flooded();
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
                () = flooded.cancelled() => {
                    self.shared.gate.metrics.http2_ended(self.side(), FLOOD);
                    carrier.end_flood(LEAVING).await;
                    return;
                }
                () = draining.cancelled(), if !leaving => {
                    leaving = true;
                    carrier.leave();
                }
                () = tokio::time::sleep(pause) => {
                    quiet = if Arc::strong_count(&self.open) == 1 { quiet + 1 } else { 0 };
                    match quiet {
                        1.. if leaving => return,
                        2.. => {
                            (leaving, quiet) = (true, 0);
                            carrier.leave();
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// Counts a connection that the HTTP/2 library ended.
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
    fn take(&self, arrival: Arrival) {
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
        self.shared.gate.tasks.spawn(async move {
            let (head, stream) = arrival.read(bounds, sockets, patience).await;
            let stream = ClientStream::Http2(Box::new(stream));
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
