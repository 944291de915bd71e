//! Sockets: bound eagerly or inherited, accepted with back-off.

pub(super) mod admission;
mod balancer;
pub(super) mod capture;
mod detect;
mod dns;
mod refused;
mod tenant;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::config::Listener;
use crate::dial::keep_alive;
use crate::identity::Channel;
use crate::proxy::Shared;
use crate::proxy::connection::client::ClientStream;
use crate::proxy::connection::{Connection, Origin};
use crate::proxy::tunnel::Tunnel;

use admission::Seat;
use capture::Names;

/// The length of the queue of connections not yet accepted.
const BACKLOG: i32 = 4096;
/// The pause after an error that may persist.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Clients in a row that may leave before they are accepted, without a pause.
const MAX_ABORTED_IN_A_ROW: u32 = 64;
/// The minimum time between two log lines about accept errors.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The kind of listener that a client came by.
#[derive(Clone)]
pub(super) enum Front {
    /// A proxy listener, by its index.
    Proxy(usize),
    /// A port of a jail that captures connections to other targets.
    Captured(Arc<Names>),
}

/// Binds a listener; port 0 stands for any free port.
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
    set_options(&socket);
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Sets the options that accepted connections inherit (`tcp(7)`). They are set before `listen`,
/// because a client may connect as soon as the socket listens.
fn set_options<S: AsFd>(socket: &S) {
    keep_alive(socket);
    // An error leaves the default of the system: small writes may be delayed.
    let _ = SockRef::from(socket).set_tcp_nodelay(true);
}

/// Accepts clients until shutdown begins.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, front: Front) {
    let gate = shared.gate.clone();
    // For inherited sockets.
    set_options(&listener);
    let bound = address_of_all(&listener, &front);
    let mut failures = Failures::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gate.draining.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                failures.in_a_row = 0;
                handle_accepted(&shared, stream, (peer, bound), &front).await;
            }
            Err(error) => {
                gate.metrics.accept_failed(AcceptError::of(&error).as_str());
                let response = failures.add(&error, gate.clock.instant());
                if let Some(count) = response.log {
                    tracing::warn!(%error, count, "cannot accept clients");
                }
                if response.pause {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Accept errors of one listener.
#[derive(Debug, Default)]
struct Failures {
    /// The number since the last accepted client.
    in_a_row: u32,
    /// The number since the last log line.
    unlogged: u32,
    logged: Option<Instant>,
}

/// The response to an accept error.
#[derive(Debug, Eq, PartialEq)]
struct Response {
    /// Whether to pause before the next accept.
    pause: bool,
    /// The number of errors for one log line; `None`: no line.
    log: Option<u32>,
}

impl Failures {
    fn add(&mut self, error: &io::Error, now: Instant) -> Response {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let aborted = AcceptError::of(error) == AcceptError::Aborted;
        // An error of the listener itself recurs at once: without a pause the loop would spin.
        let pause = !aborted || self.in_a_row > MAX_ABORTED_IN_A_ROW;
        if !pause {
            return Response { pause, log: None };
        }
        self.unlogged = self.unlogged.saturating_add(1);
        let recent = |logged: Instant| now.saturating_duration_since(logged) < ACCEPT_LOG_INTERVAL;
        if self.logged.is_some_and(recent) {
            return Response { pause, log: None };
        }
        self.logged = Some(now);
        let log = Some(std::mem::take(&mut self.unlogged));
        Response { pause, log }
    }
}

/// The kind of an accept error: a label of `tidegate_accept_errors_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AcceptError {
    /// The client left, or the network failed for this one client (`accept(2)`).
    Aborted,
    /// Out of descriptors or memory.
    Exhausted,
    /// Any other error: the listener itself failed.
    Other,
}

impl AcceptError {
    fn of(error: &io::Error) -> Self {
        use rustix::io::Errno;
        const OF_ONE_CLIENT: [Errno; 8] = [
            Errno::CONNABORTED,
            Errno::CONNRESET,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::NETDOWN,
            Errno::NETUNREACH,
            Errno::PERM,
            Errno::PROTO,
        ];
        const OF_THE_MACHINE: [Errno; 4] =
            [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        let is = |errno: &Errno| error.raw_os_error() == Some(errno.raw_os_error());
        if OF_ONE_CLIENT.iter().any(is) || error.kind() == io::ErrorKind::Interrupted {
            return Self::Aborted;
        }
        if OF_THE_MACHINE.iter().any(is) {
            return Self::Exhausted;
        }
        Self::Other
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Exhausted => "exhausted",
            Self::Other => "other",
        }
    }
}

/// The local address of every connection of a listener; `None` if it differs for each connection: a
/// listener for all addresses, or one of a jail, whose clients connect to other addresses.
fn address_of_all(listener: &TcpListener, front: &Front) -> Option<SocketAddr> {
    let bound = listener.local_addr().ok()?;
    let one = matches!(front, Front::Proxy(_)) && !bound.ip().is_unspecified();
    one.then(|| canonical(bound))
}

/// Admits a client and serves it in a task of its own.
async fn handle_accepted(
    shared: &Arc<Shared>,
    stream: TcpStream,
    (peer, bound): (SocketAddr, Option<SocketAddr>),
    front: &Front,
) {
    let Some(turn) = shared.connections.admit(peer.ip()).await else {
        // The client sent no request: it is counted, but not recorded.
        shared.gate.metrics.flow_unstarted();
        return;
    };
    let local = bound.unwrap_or_else(|| stream.local_addr().map_or(peer, canonical));
    let channel = Channel::plain(canonical(peer), local);
    let (shared, front, seat) = (shared.clone(), front.clone(), turn.seat());
    let tasks = shared.gate.tasks.clone();
    // Boxed: an idle tunnel must not hold the memory that opening it took.
    let serving = Box::pin(serving(shared, stream, (channel, turn.seat()), front));
    let task = tasks.spawn(async move {
        let tunnel = serving.await;
        if let Some(tunnel) = tunnel {
            tunnel.carry().await;
        }
        drop(turn);
    });
    seat.set_task(task.abort_handle());
}

/// Serves a client by the kind of its listener; returns a tunnel if the client opened one.
async fn serving(
    shared: Arc<Shared>,
    stream: TcpStream,
    (mut channel, seat): (Channel, Arc<Seat>),
    front: Front,
) -> Option<Box<Tunnel>> {
    let index = match front {
        Front::Proxy(index) => index,
        Front::Captured(_) => 0,
    };
    if let Some(Some(tenant)) = shared.tenants.get(index) {
        tenant.receive(&mut channel).await;
    } else {
        look_at(&shared, &channel);
        find_agent(&shared, &mut channel).await;
    }
    seat.set_served();
    match front {
        Front::Proxy(index) => serve_proxied(shared, stream, (channel, seat), index).await,
        Front::Captured(names) => {
            let local = channel.local;
            let origin = Origin {
                channel: Arc::new(channel),
                listener: 0,
                seat,
            };
            let connection = Connection::new(shared, ClientStream::Plain(stream), origin);
            Box::pin(capture::serve(connection, &names, local)).await
        }
    }
}

/// Serves a client of a proxy listener: reads the PROXY header first, then TLS, if the listener has
/// them. Returns a tunnel if the client opened one.
async fn serve_proxied(
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
        // Boxed: a plain connection must not hold the memory of a handshake.
        return Box::pin(detect::with_tls(shared, arrived, &listener, &snapshot)).await;
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

/// Sets the session and process, if the client is a registered agent or a process below one.
async fn find_agent(shared: &Shared, channel: &mut Channel) {
    let snapshot = shared.gate.snapshot.load_full();
    let sessions = snapshot.identity.sessions().clone();
    let (client, local) = (channel.peer, channel.local);
    if !sessions.has_registered_agents() || !client.ip().is_loopback() {
        return;
    }
    // Bounded: each search reads the kernel's tables.
    let Ok(_turn) = shared.searches.acquire().await else {
        return;
    };
    let find = move || sessions.registered_agent(client, local);
    let found = tokio::task::spawn_blocking(find).await;
    if let Ok(Some((session, process))) = found {
        channel.agent_session = Some(session);
        channel.process = Some(Arc::new(process));
    }
}

/// Checks in the background whether the client has the user of the gate.
fn look_at(shared: &Shared, channel: &Channel) {
    let (gate, client, local) = (shared.gate.clone(), channel.peer, channel.local);
    if gate.is_look_due(client, local) {
        let tasks = gate.tasks.clone();
        tasks.spawn_blocking(move || gate.look_at_caller(client, local));
    }
}

/// The IPv4 address of a client that came over an IPv6 socket with an IPv4-mapped address.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use rustix::net::{Shutdown, shutdown};

    use super::*;
    use crate::clock::Clock;

    fn error(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[test]
    fn any_error_that_lasts_rests_and_is_logged_at_a_bounded_rate() {
        let lasting = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::INVAL,
            Errno::BADF,
            Errno::NOTSOCK,
            Errno::OPNOTSUPP,
        ];
        for errno in lasting {
            let (clock, mut failures) = (Clock::system(), Failures::default());
            let now = clock.instant();
            let log = |failures: &mut Failures, after: u64| {
                let response = failures.add(&error(errno), now + Duration::from_secs(after));
                assert!(response.pause, "{errno:?}");
                response.log
            };
            assert_eq!(log(&mut failures, 0), Some(1), "{errno:?}");
            for second in 0..10 {
                assert_eq!(log(&mut failures, second), None, "{errno:?}");
            }
            assert_eq!(log(&mut failures, 10), Some(11), "{errno:?}");
        }
    }

    #[test]
    fn clients_that_leave_do_not_hold_the_others_up_unless_there_are_only_such() {
        let (now, mut failures) = (Clock::system().instant(), Failures::default());
        for errno in [Errno::CONNABORTED, Errno::PERM, Errno::NETUNREACH] {
            assert!(!failures.add(&error(errno), now).pause, "{errno:?}");
        }
        for _ in failures.in_a_row..MAX_ABORTED_IN_A_ROW {
            assert!(!failures.add(&error(Errno::CONNABORTED), now).pause);
        }
        assert!(failures.add(&error(Errno::CONNABORTED), now).pause);
        failures.in_a_row = 0;
        assert!(!failures.add(&error(Errno::CONNABORTED), now).pause);
    }

    #[tokio::test]
    async fn a_listener_that_no_longer_listens_is_no_client_that_left() {
        let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        shutdown(&listener, Shutdown::Both).expect("shut down");
        for _ in 0..3 {
            let error = listener.accept().await.expect_err("it is shut down");
            assert_eq!(AcceptError::of(&error), AcceptError::Other, "{error}");
        }
    }
}
