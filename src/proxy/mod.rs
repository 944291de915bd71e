//! The data path: accept, identify, decide, dial, relay, record.

mod accept;
mod asking;
mod attribution;
mod connection;
mod dial_failure;
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

/// The shared state of every connection.
struct Shared {
    gate: Arc<Gate>,
    buffers: Arc<Buffers>,
    /// The listeners with their configuration at the time of binding.
    listeners: Vec<Arc<Listener>>,
    /// The session of each listener, if it belongs to one.
    tenants: Vec<Option<Tenant>>,
    /// Fallback for an unknown listener: identity required, no tier.
    unknown: Arc<Listener>,
    connections: Arc<Connections>,
    /// Limits concurrent searches for client processes.
    searches: Semaphore,
}

/// The recorded length of a `User-Agent`, in characters.
const MAX_USER_AGENT: usize = 200;
/// Concurrent searches for client processes, at most.
const MAX_SEARCHES: usize = 4;

/// A bound listener.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub socket: TcpListener,
    /// The configuration of the listener.
    pub listener: Arc<Listener>,
    /// The session of the listener, if it belongs to one.
    pub tenant: Option<Tenant>,
}

/// The session that a listener belongs to.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The evidence that the listener gives to its callers.
    pub grant: Arc<Grant>,
    /// The processes that may use the listener; `None`: every process that reaches it.
    pub family: Option<Arc<Family>>,
    /// Whether only those processes can reach the listener (a jail): a client whose process is not
    /// found then counts as one of them.
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
    /// Sets the session of the listener, and the process of the client, on a new connection.
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

/// Serves clients on bound listeners, each with its configuration.
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

/// The buffers of a gate, whose pipes count against the descriptor budget.
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

/// The name of an I/O error for `error.type`.
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

/// The reason of a failed connection, in a fixed wording.
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
