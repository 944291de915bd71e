//! Sockets: bound eagerly or inherited, accepted with back-off.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::identity::Channel;

use super::Shared;
use super::capture::{self, Names};
use super::client::ClientStream;
use super::connect::Tunnel;
use super::connection::{Connection, Origin};
use super::front;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long accepting rests after the machine ran out of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How a client came, and so what it says first.
#[derive(Clone)]
pub(super) enum Front {
    /// To a proxy, by the listener of that number.
    Proxy(usize),
    /// From a jail, meaning to reach somebody else.
    Captured(Arc<Names>),
}

/// Binds a listener; a port of 0 takes a free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts clients until shutdown begins.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, front: Front) {
    let gate = shared.gate.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gate.draining.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => welcome(&shared, stream, peer, &front),
            Err(error) if exhausted(&error) => {
                tracing::warn!(%error, "cannot accept; resting");
                tokio::time::sleep(BACK_OFF).await;
            }
            // The client left before it was accepted.
            Err(_) => {}
        }
    }
}

fn welcome(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr, front: &Front) {
    let Ok(turn) = shared.connections.clone().try_acquire_owned() else {
        // Closed at once: nothing was asked, so there is nothing to record, only to count.
        shared.gate.metrics.flow_unstarted();
        return;
    };
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().map_or(peer, canonical);
    let channel = Channel::plain(canonical(peer), local);
    let (shared, front) = (shared.clone(), front.clone());
    shared.gate.tasks.clone().spawn(async move {
        // Boxed, and made in here: a tunnel that rests must not hold what it took to open it.
        let tunnel = Box::pin(serving(shared, stream, channel, front)).await;
        if let Some(tunnel) = tunnel {
            tunnel.carry().await;
        }
        drop(turn);
    });
}

/// Serves a client as it came; hands back a tunnel that opened.
async fn serving(
    shared: Arc<Shared>,
    stream: TcpStream,
    mut channel: Channel,
    front: Front,
) -> Option<Box<Tunnel>> {
    let index = match front {
        Front::Proxy(index) => index,
        Front::Captured(_) => 0,
    };
    match shared.tenants.get(index) {
        Some(Some(tenant)) => tenant.receive(&mut channel).await,
        _ => look_at(&shared, &channel),
    }
    match front {
        Front::Proxy(index) => front::serve(shared, stream, channel, index).await,
        Front::Captured(names) => {
            let local = channel.local;
            let origin = Origin {
                channel: Arc::new(channel),
                listener: 0,
            };
            let connection = Connection::new(shared, ClientStream::Plain(stream), origin);
            Box::pin(capture::serve(connection, &names, local)).await
        }
    }
}

/// Looks, beside the connection, whether its client is the user of the gate.
fn look_at(shared: &Shared, channel: &Channel) {
    let (gate, client, local) = (shared.gate.clone(), channel.peer, channel.local);
    if gate.is_look_due(client, local) {
        let tasks = gate.tasks.clone();
        tasks.spawn_blocking(move || gate.look_at_caller(client, local));
    }
}

/// Out of descriptors or memory: trying again at once would only spin.
fn exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A client that came over an IPv6 socket with an IPv4 address is an IPv4 client.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
