//! What comes before HTTP: who the balancer says that the client is, and TLS.

use std::net::SocketAddr;
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
use super::balancer;

/// Serves one client from its first byte on; hands back a tunnel that opened.
pub(in crate::proxy) async fn serve(
    shared: Arc<Shared>,
    mut socket: TcpStream,
    (mut channel, seat): (Channel, Arc<Seat>),
    index: usize,
) -> Option<Box<Tunnel>> {
    let snapshot = shared.gate.snapshot.load_full();
    let bound = shared.listeners.get(index)?;
    let listener = snapshot.listener(bound);
    if is_balancer(&listener, channel.peer) {
        let longest = snapshot.limits.header_timeout;
        let said = tokio::time::timeout(longest, balancer::read(&mut socket)).await;
        let Ok(Ok(client)) = said else {
            shared.gate.metrics.flow_unstarted();
            return None;
        };
        channel.peer = client.unwrap_or(channel.peer);
        seat.set_client(channel.peer.ip());
    }
    if listener.tls.is_some() {
        let arrived = (socket, channel, seat, index);
        // Boxed: a plain connection must not carry the room that a handshake takes.
        return Box::pin(with_tls(shared, arrived, &listener, &snapshot)).await;
    }
    let origin = Origin {
        channel: Arc::new(channel),
        listener: index,
        seat,
    };
    drop((listener, snapshot));
    let connection = Connection::new(shared, ClientStream::Plain(socket), origin);
    connection.serve(None).await
}

fn is_balancer(listener: &Listener, peer: SocketAddr) -> bool {
    listener
        .balancers
        .iter()
        .any(|net| net.contains(&peer.ip()))
}

async fn with_tls(
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
        // A credential that is presented must be valid: an unknown user is not.
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

/// What became of a handshake.
enum Shaken {
    Accepted(Accepted),
    Failed(HandshakeError),
    /// The client speaks HTTP, and can be told that TLS is spoken here.
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
