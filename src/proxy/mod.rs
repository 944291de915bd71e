//! The data path: accept, identify, decide, dial, relay, record.

mod accept;
mod asking;
mod attribution;
mod connection;
mod dial;
mod flow;
mod inspect;
mod refusal;
mod request;
mod tunnel;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::{IdentityDemand, Listener};
use crate::gate::Gate;
use crate::identity::{Channel, Family, Grant, Kin};

use accept::Front;
use accept::admission::Connections;
use tunnel::buffers::Buffers;

pub use accept::bind;
pub use accept::capture::{Inside, serve_jail};
pub use refusal::{Code, REASONS, Refusal};

/// What every connection shares.
struct Shared {
    gate: Arc<Gate>,
    buffers: Arc<Buffers>,
    /// The listeners as they were when they were bound.
    listeners: Vec<Arc<Listener>>,
    /// Whose each of them is, where it is one session's.
    tenants: Vec<Option<Tenant>>,
    /// Fallback for an unknown listener: identity required, no tier.
    unknown: Arc<Listener>,
    connections: Arc<Connections>,
    /// Turns to look the process of a client up.
    searches: Semaphore,
}

/// Characters of a `User-Agent` that are recorded.
const MAX_USER_AGENT: usize = 200;
/// Clients whose processes are looked up at once.
const MAX_SEARCHES: usize = 4;

/// A listener that was bound.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub socket: TcpListener,
    /// What its configuration says.
    pub listener: Arc<Listener>,
    /// Whose it is, where it is one session's.
    pub tenant: Option<Tenant>,
}

/// The session that a listener belongs to.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// What the listener says of its callers.
    pub grant: Arc<Grant>,
    /// The processes that it serves; `None`: every process that reaches it.
    pub family: Option<Arc<Family>>,
    /// Whether only those processes can reach it (a jail): a client whose process is not found is one.
    pub alone: bool,
}

impl Bound {
    /// A listener that serves every process.
    pub fn open(socket: TcpListener, listener: Arc<Listener>) -> Self {
        Self {
            socket,
            listener,
            tenant: None,
        }
    }
}

impl Tenant {
    /// Says on a new connection whose listener it came by, and which process it is.
    async fn receive(&self, channel: &mut Channel) {
        channel.grant = Some(self.grant.clone());
        if let Some(family) = &self.family {
            (channel.kin, channel.process) = family.owner(channel.peer, channel.local).await;
        }
        if self.alone && channel.kin == Kin::Unknown {
            channel.kin = Kin::Own;
        }
    }
}

/// Serves clients on listeners that were bound, each beside what its configuration says.
///
/// `connections` bounds the clients connected at once. Returns at once; the gate's tasks go on
/// until shutdown begins and its flows have ended.
pub fn serve(gate: &Arc<Gate>, bound: Vec<Bound>, connections: usize) {
    let shared = Arc::new(Shared {
        gate: gate.clone(),
        buffers: Arc::new(buffers_of(gate)),
        listeners: bound.iter().map(|bound| bound.listener.clone()).collect(),
        tenants: bound.iter().map(|bound| bound.tenant.clone()).collect(),
        unknown: Arc::new(unknown_listener()),
        connections: Arc::new(Connections::new(connections, gate)),
        searches: Semaphore::new(MAX_SEARCHES),
    });
    let reporting = shared.connections.clone().report_evictions(gate.clone());
    gate.tasks.spawn(reporting);
    for (index, bound) in bound.into_iter().enumerate() {
        gate.tasks.spawn(accept::accept(
            shared.clone(),
            bound.socket,
            Front::Proxy(index),
        ));
    }
}

/// Buffers of a gate, whose pipes are part of its budget of descriptors.
fn buffers_of(gate: &Gate) -> Buffers {
    Buffers::within(gate.snapshot.load().dialer.descriptors.clone())
}

fn unknown_listener() -> Listener {
    Listener {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        tier: None,
        user: None,
        groups: Vec::new(),
        repository: None,
        identity: IdentityDemand::Required,
        tls: None,
        balancers: Vec::new(),
    }
}

/// `User-Agent` for the record: at most 200 characters.
fn user_agent(value: &[u8]) -> Box<str> {
    match str::from_utf8(value) {
        Ok(text) if text.len() <= MAX_USER_AGENT => text.into(),
        _ => String::from_utf8_lossy(value)
            .chars()
            .take(MAX_USER_AGENT)
            .collect(),
    }
}

/// The kind of an I/O error as `error.type` says it.
fn io_code(error: &io::Error) -> &'static str {
    kind_code(error.kind())
}

fn kind_code(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::BrokenPipe => "broken_pipe",
        io::ErrorKind::ConnectionAborted => "connection_aborted",
        io::ErrorKind::ConnectionReset => "connection_reset",
        io::ErrorKind::TimedOut => "timed_out",
        io::ErrorKind::UnexpectedEof => "unexpected_eof",
        _ => "io_error",
    }
}

/// Why an address could not be connected to, in words of ours.
fn io_reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::HostUnreachable => "host unreachable",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::PermissionDenied => "not permitted by the system",
        _ => "the connection failed",
    }
}
