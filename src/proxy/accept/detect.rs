//! TLS between a client and the gate.

use std::sync::Arc;

use tokio::net::TcpStream;

use crate::config::Listener;
use crate::gate::Snapshot;
use crate::http::http1::HeadError;
use crate::identity::{Certificate, Channel};
use crate::proxy::Shared;
use crate::proxy::connection::client::ClientStream;
use crate::proxy::connection::streams;
use crate::proxy::connection::{Connection, Origin};
use crate::proxy::tunnel::Tunnel;
use crate::tls::{Accepted, HandshakeError, Server};

use super::admission::Seat;

/// Serves a client that speaks TLS with the gate; returns a tunnel if the client opened one.
pub(super) async fn with_tls(
    shared: Arc<Shared>,
    (socket, mut channel, seat, index): (TcpStream, Channel, Arc<Seat>, usize),
    listener: &Arc<Listener>,
    snapshot: &Arc<Snapshot>,
) -> Option<Box<Tunnel>> {
    let metrics = shared.gate.metrics.clone();
    let server = snapshot.tls.of(listener)?;
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(snapshot.limits.header_timeout, shake(server, socket)) => shaken,
        () = shared.gate.draining.cancelled() => return None,
    };
    let accepted = match shaken.unwrap_or(Shaken::Failed(HandshakeError("timeout"))) {
        Shaken::Accepted(accepted) => accepted,
        Shaken::Failed(HandshakeError(why)) => {
            metrics.handshake("client", why);
            return None;
        }
        Shaken::PlainHttp(socket) => {
            metrics.handshake("client", "plain_http");
            let origin = Origin {
                channel: Arc::new(channel),
                listener: index,
                seat,
            };
            let connection = Connection::new(shared, ClientStream::Plain(socket), origin);
            return connection.serve(Some(Err(HeadError::Tls))).await;
        }
    };
    let Accepted {
        stream,
        http2,
        chain,
    } = accepted;
    if !chain.is_empty() {
        let clients = listener.tls.as_ref().and_then(|tls| tls.clients.as_ref());
        let kinds = clients
            .map(|clients| clients.identity.as_slice())
            .unwrap_or_default();
        // A presented certificate must be valid: a certificate without an identity is refused.
        channel.certificate = Certificate::read(chain, kinds).map(Arc::new);
        if channel.certificate.is_none() {
            metrics.handshake("client", "certificate_nameless");
            return None;
        }
    }
    metrics.handshake("client", "ok");
    let origin = Origin {
        channel: Arc::new(channel),
        listener: index,
        seat,
    };
    if http2 {
        streams::serve(shared, stream, origin).await;
        return None;
    }
    let connection = Connection::new(shared, ClientStream::Tls(stream), origin);
    connection.serve(None).await
}

/// The result of a handshake.
enum Shaken {
    Accepted(Accepted),
    Failed(HandshakeError),
    /// The client speaks HTTP: the answer can report that the listener needs TLS.
    PlainHttp(TcpStream),
}

async fn shake(server: &Server, socket: TcpStream) -> Shaken {
    let mut first = [0];
    match socket.peek(&mut first).await {
        Ok(1..) if first.first().is_some_and(u8::is_ascii_uppercase) => Shaken::PlainHttp(socket),
        Ok(_) => match server.accept(socket).await {
            Ok(accepted) => Shaken::Accepted(accepted),
            Err(why) => Shaken::Failed(why),
        },
        Err(_) => Shaken::Failed(HandshakeError("failed")),
    }
}
