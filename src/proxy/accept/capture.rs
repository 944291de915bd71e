//! What connects in a jail without asking the proxy: captured, and judged as if it had asked.
//!
//! Where it wanted to go is the address that its connection was accepted at. An address that the
//! jail's DNS gave out stands for the name it was given for; any other is an address literal.

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
/// How long a refused client is listened to, to learn whether it would understand an alert.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// The most names that one jail is given addresses for.
const MOST_NAMES: u32 = 65_000;
/// Where the placeholder addresses begin, in 28.0.0.0/16 and `3000::/64`.
///
/// Agents look a host up before they fetch a page, and refuse every address of a special block (Gemini
/// CLI: 198.18.0.0/15, `100::/64`). These two blocks count as public there: 28.0.0.0/8 is of one
/// owner (US Department of Defense), `3000::/4` is not allocated. A connection to an address that
/// stands for a name is decided by that name, and to any other as to an address.
const FIRST_V4: u32 = u32::from_be_bytes([28, 0, 0, 1]);
const FIRST_V6: u128 = 0x3000_u128 << 112;

/// What a jail hands out, and whose it is.
#[derive(Debug)]
pub struct Inside {
    /// What came out of it.
    pub sockets: Sockets,
    /// The evidence on callers from there.
    pub listener: Arc<Listener>,
    /// The session of the command.
    pub tenant: Option<Tenant>,
}

/// Serves a jail until shutdown begins; call it within the runtime.
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

/// The names that a jail asked for, and the addresses that stand for them there; never forgotten,
/// since a client may keep an answer for as long as it likes.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Names(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    names: Vec<HostName>,
    places: HashMap<HostName, u32>,
}

impl Names {
    /// The place of a name; none where there is room for no more.
    pub(in crate::proxy) fn place(&self, name: &HostName) -> Option<u32> {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = given.places.get(name) {
            return Some(*place);
        }
        let place = u32::try_from(given.names.len()).ok()?;
        if place >= MOST_NAMES {
            return None;
        }
        given.names.push(name.clone());
        given.places.insert(name.clone(), place);
        Some(place)
    }

    /// What an address stands for.
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

/// The address that stands for the name in a place.
pub(super) fn v4(place: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_V4.saturating_add(place))
}

/// As [`v4`].
pub(super) fn v6(place: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(FIRST_V6 + 1 + u128::from(place))
}

/// Takes a captured client where it wants to go, or refuses.
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
            // The client was not sent a status.
            flow.facts.status = None;
            let _ = flow.recorded(&refusal).await;
            drop(flow);
            turn_away(connection).await;
            None
        }
    }
}

/// An alert to who speaks TLS; to others the end of the connection, which is not to look orderly.
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

/// The target and path of a request that was sent to its origin, as the client thinks: the target is
/// where it connected, and `Host` must say the same.
pub(in crate::proxy) fn url(head: &RequestHead, target: &Target) -> Result<Url, Refusal> {
    let refused = |why: &'static str| Err(Refusal::because(Code::BadRequest, why));
    if head.method == Method::Connect || !head.target().starts_with(b"/") {
        return refused("this connection was captured: the request target must be a path");
    }
    let host = head.host().map(|host| Target::from_authority(host, HTTP));
    let Some(Ok(host)) = host else {
        return refused("a captured request needs the Host that it was sent to");
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

/// Whether a client calls the loopback address that it connected to `localhost`.
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
        for number in 0..MOST_NAMES {
            let name = HostName::parse(format!("n{number}.example").as_bytes()).expect("a name");
            assert!(names.place(&name).is_some());
        }
        let late = HostName::parse(b"late.example").expect("a name");
        assert_eq!(names.place(&late), None);
        let last = v4(MOST_NAMES - 1).octets();
        assert!(last < [28, 1, 0, 0], "{last:?}");
    }
}
