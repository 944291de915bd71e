//! Captured connections of a jail: they do not name a target to the proxy, and are decided like
//! CONNECT requests.
//!
//! The target is the address at which the connection was accepted. An address from the jail's name
//! server stands for the name that it was given for; any other is an address literal.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use hashbrown::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::config::Listener;
use crate::gate::Gate;
use crate::http::http1::{Method, RequestHead};
use crate::jail::Sockets;
use crate::metrics::FlowKind;
use crate::name::{Host, HostName, Path, Target, Url};
use crate::proxy::connection::Connection;
use crate::proxy::refusal::{Code, Refusal};
use crate::proxy::tunnel::{Tunnel, tunnel_to};
use crate::proxy::{MAX_SEARCHES, Shared, Tenant};

use super::admission::Connections;
use super::tenant::Tenancy;
use super::{Front, accept, dns, refused};

/// The port whose connections speak plain HTTP.
const HTTP: u16 = 80;
/// A fatal `access_denied` (RFC 8446 section 6).
const ACCESS_DENIED: &[u8] = &[21, 3, 3, 0, 2, 2, 49];
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 22;
/// How long the gate waits for the first byte of a refused client, to find out whether it speaks
/// TLS.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// Names with placeholder addresses in one jail, at most.
const MAX_NAMES: u32 = 65_000;
/// The first placeholder addresses, in 28.0.0.0/16 and `3000::/64`.
///
/// Agents look a host up before they fetch a page, and refuse every address of a special block
/// (Gemini CLI: 198.18.0.0/15, `100::/64`). These two blocks count as public there: 28.0.0.0/8 has
/// a single owner (US Department of Defense), `3000::/4` is not allocated. A connection to a
/// placeholder address is decided by its name, and any other by its address.
const FIRST_V4: u32 = u32::from_be_bytes([28, 0, 0, 1]);
const FIRST_V6: u128 = 0x3000_u128 << 112;

/// The sockets of a jail, and the identity of its processes.
#[derive(Debug)]
pub struct Inside {
    /// The sockets that the jail handed to the gate.
    pub sockets: Sockets,
    /// The listener with the evidence for callers from the jail.
    pub listener: Arc<Listener>,
    /// The session of the command.
    pub tenant: Option<Tenant>,
}

/// Serves a jail until shutdown begins; must be called within the runtime.
///
/// `connections` bounds the clients connected at once.
pub fn serve_jail(gate: &Arc<Gate>, inside: Inside, connections: usize) -> io::Result<()> {
    let shared = Arc::new(Shared {
        gate: gate.clone(),
        buffers: Arc::new(crate::proxy::buffers_of(gate)),
        listeners: vec![inside.listener],
        unknown: Arc::new(crate::proxy::unknown_listener()),
        connections: Arc::new(Connections::new(connections, gate)),
        searches: Semaphore::new(MAX_SEARCHES),
        tenants: vec![inside.tenant],
    });
    let names = Arc::new(Names::default());
    let mut ports = Vec::new();
    let tasks = &gate.tasks;
    tasks.spawn(shared.connections.clone().report_evictions(gate.clone()));
    let sockets = inside.sockets;
    for listener in sockets.captured {
        ports.push(listener.local_addr()?.port());
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let front = Front::Captured(names.clone());
        tasks.spawn(accept(shared.clone(), listener, front));
    }
    let proxy = tokio::net::TcpListener::from_std(sockets.proxy)?;
    tasks.spawn(accept(shared.clone(), proxy, Front::Proxy(0)));
    let tenancy = Arc::new(Tenancy::new(shared));
    let watch = refused::Watch::new(tenancy.clone(), names.clone());
    tasks.spawn(watch.serve(refused::Packets::new(sockets.refused)?));
    let stub = Arc::new(dns::Stub::new(tenancy, names, ports));
    let dns = dns::Datagrams::new(sockets.dns)?;
    let dns_tcp = tokio::net::TcpListener::from_std(sockets.dns_tcp)?;
    tasks.spawn(dns::serve(stub.clone(), dns));
    tasks.spawn(dns::serve_tcp(stub, dns_tcp));
    Ok(())
}

/// The names that a jail asked for, with their placeholder addresses. Names are never removed,
/// because a client may keep an answer for any time.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Names(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    names: Vec<HostName>,
    places: HashMap<HostName, u32>,
}

impl Names {
    /// The index of a name, new or known; `None` if the table is full.
    pub(in crate::proxy) fn place(&self, name: &HostName) -> Option<u32> {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = given.places.get(name) {
            return Some(*place);
        }
        let place = u32::try_from(given.names.len()).ok()?;
        if place >= MAX_NAMES {
            return None;
        }
        given.names.push(name.clone());
        given.places.insert(name.clone(), place);
        Some(place)
    }

    /// The name of a placeholder address; any other address unchanged.
    pub(super) fn host(&self, address: IpAddr) -> Host {
        let place = match address {
            IpAddr::V4(address) => address.to_bits().checked_sub(FIRST_V4),
            IpAddr::V6(address) => {
                let beyond = address.to_bits().checked_sub(FIRST_V6 + 1);
                beyond.and_then(|place| u32::try_from(place).ok())
            }
        };
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = place.and_then(|place| given.names.get(usize::try_from(place).ok()?));
        name.map_or(Host::Address(address), |name| Host::Name(name.clone()))
    }
}

/// The IPv4 placeholder address of the name with this index.
pub(super) fn v4(place: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_V4.saturating_add(place))
}

/// The IPv6 placeholder address, like [`v4`].
pub(super) fn v6(place: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(FIRST_V6 + 1 + u128::from(place))
}

/// Opens a tunnel for a captured client to its target, or refuses the connection.
pub(in crate::proxy) async fn serve(
    mut connection: Connection,
    names: &Names,
    local: SocketAddr,
) -> Option<Box<Tunnel>> {
    let target = Target {
        host: names.host(local.ip()),
        port: local.port(),
    };
    connection.captured = Some(target.clone());
    let snapshot = connection.gate().snapshot.load_full();
    let is_plain = target.port == HTTP || snapshot.policy.has_plain_server(&target);
    drop(snapshot);
    if is_plain {
        return connection.serve(None).await;
    }
    let mut flow = connection.begin(FlowKind::Captured).await?;
    flow.aim(target.clone());
    let opened = match connection.identify_by(&mut flow, None).await {
        Ok(known) => tunnel_to(&connection, &mut flow, &known, &target).await,
        Err(refusal) => Err(refusal),
    };
    match opened {
        Ok(way) => Some(Tunnel::untold(flow, connection, way)),
        Err(refusal) => {
            let limited = connection.limit_refusal(&flow, &refusal).await;
            flow.refuse(limited.as_ref().unwrap_or(&refusal));
            // The client received no status.
            flow.facts.status = None;
            let _ = flow.recorded(&refusal).await;
            drop(flow);
            turn_away(connection).await;
            None
        }
    }
}

/// Sends a TLS alert to a client that speaks TLS; ends any other connection with an error, so that
/// it does not look like an orderly end.
async fn turn_away(mut connection: Connection) {
    let mut first = BytesMut::new();
    let heard = connection.stream.read_buf(&mut first);
    let heard = tokio::time::timeout(FIRST_WORD, heard).await;
    if matches!(heard, Ok(Ok(1..))) && first.first() == Some(&HANDSHAKE) {
        let told = connection.stream.write_all(ACCESS_DENIED);
        let _ = tokio::time::timeout(FIRST_WORD, told).await;
        connection.linger().await;
    } else {
        connection.stream.break_off();
    }
}

/// The target and path of a captured request: the target is the address it connected to, and `Host`
/// must name the same.
pub(in crate::proxy) fn url(head: &RequestHead, target: &Target) -> Result<Url, Refusal> {
    let refused = |why: &'static str| Err(Refusal::because(Code::BadRequest, why));
    if head.method == Method::Connect || !head.target().starts_with(b"/") {
        return refused("this connection was captured: the request target must be a path");
    }
    let host = head.host().map(|host| Target::from_authority(host, HTTP));
    let Some(Ok(host)) = host else {
        return refused("a captured request needs a `Host` field");
    };
    if host != *target && !is_same_loopback(&host, target) {
        return refused("the Host field is not where this connection was meant to go");
    }
    let path = Path::parse(head.target())
        .map_err(|error| Refusal::because(Code::BadPath, error.to_string()))?;
    Ok(Url {
        tls: false,
        target: target.clone(),
        path,
    })
}

/// Whether `Host` is `localhost` for the loopback address that the client connected to.
fn is_same_loopback(named: &Target, target: &Target) -> bool {
    let is_localhost = matches!(&named.host, Host::Name(name) if name.as_str() == "localhost");
    let is_loopback = matches!(target.host, Host::Address(address) if address.is_loopback());
    is_localhost && is_loopback && named.port == target.port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_the_loopback_address_that_was_connected_to() {
        let target = |text: &[u8]| Target::from_authority(text, HTTP).expect("a target");
        let same = |named: &[u8], at: &[u8]| is_same_loopback(&target(named), &target(at));
        assert!(same(b"localhost:4000", b"127.0.0.1:4000"));
        assert!(same(b"localhost:4000", b"[::1]:4000"));
        assert!(!same(b"localhost:4001", b"127.0.0.1:4000"));
        assert!(!same(b"localhost:4000", b"10.0.0.1:4000"));
        assert!(!same(b"a.example:4000", b"127.0.0.1:4000"));
    }

    #[test]
    fn an_address_that_was_given_stands_for_its_name_and_no_other_does() {
        let names = Names::default();
        let name = |text: &str| HostName::parse(text.as_bytes()).expect("a name");
        let first = names.place(&name("a.example")).expect("room");
        let second = names.place(&name("b.example")).expect("room");
        assert_eq!(names.place(&name("a.example")), Some(first));
        assert_ne!(first, second);
        for place in [IpAddr::from(v4(second)), v6(second).into()] {
            assert_eq!(names.host(place), Host::Name(name("b.example")));
        }
        for other in [
            "28.0.0.0",
            "28.0.0.3",
            "3000::",
            "3000::3",
            "127.0.0.1",
            "::1",
            "ffff::",
        ] {
            let other: IpAddr = other.parse().expect("an address");
            assert_eq!(names.host(other), Host::Address(other));
        }
    }

    #[test]
    fn a_jail_gets_no_more_names_than_there_are_places() {
        let names = Names::default();
        for number in 0..MAX_NAMES {
            let name = HostName::parse(format!("n{number}.example").as_bytes()).expect("a name");
            assert!(names.place(&name).is_some());
        }
        let late = HostName::parse(b"late.example").expect("a name");
        assert_eq!(names.place(&late), None);
        let last = v4(MAX_NAMES - 1).octets();
        assert!(last < [28, 1, 0, 0], "{last:?}");
    }
}
