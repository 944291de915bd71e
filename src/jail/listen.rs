//! The listeners of a jail: made in the jail's network, used by the gate outside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, Socket, Type};

use super::wire::{MAX_DESCRIPTORS, Orders};

/// Maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Number of the gate's own sockets: the proxy's, and two of DNS.
pub(super) const LISTENERS: usize = 3;
/// Number of descriptors that [`super::refused`] adds.
const REFUSED: usize = 2;

/// Makes the listeners: the proxy's, DNS over UDP and TCP, the local ones, and one for each
/// captured port.
pub(super) fn listen(orders: &Orders, ipv6: bool) -> io::Result<Vec<OwnedFd>> {
    let inside = IpAddr::from(Ipv4Addr::LOCALHOST);
    let everywhere = if ipv6 {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    };
    let mut sockets = vec![
        bound(inside, orders.proxy_port, Type::STREAM)?,
        bound(everywhere, 53, Type::DGRAM)?,
        bound(everywhere, 53, Type::STREAM)?,
    ];
    for port in &orders.local {
        sockets.push(bound(inside, *port, Type::STREAM)?);
    }
    let mut ports = orders.ports.clone();
    ports.sort_unstable();
    ports.dedup();
    ports.retain(|port| ![0, 53, orders.proxy_port].contains(port));
    ports.retain(|port| !orders.local.contains(port));
    if ports.len() + sockets.len() + REFUSED > MAX_DESCRIPTORS {
        return Err(io::Error::other("too many ports are captured"));
    }
    for port in ports {
        sockets.push(bound(everywhere, port, Type::STREAM)?);
    }
    Ok(sockets.into_iter().map(OwnedFd::from).collect())
}

fn bound(address: IpAddr, port: u16, kind: Type) -> io::Result<Socket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
