//! Tests that every address is local, and the network has no interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config;

use super::Tried;

/// Addresses for documentation (RFC 5737, RFC 3849): a packet to them reaches no host.
const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

pub(super) fn tried() -> Tried {
    let table = config::read("/proc/self/net/dev".as_ref()).map_err(|error| error.to_string())?;
    let names = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'));
    let mut names = names.map(|(name, _)| name.trim());
    if let Some(name) = names.find(|name| *name != "lo") {
        return Err(format!("there is a network interface, {name}"));
    }
    for address in ADDRESSES {
        match goes_out_from(address) {
            Ok(local) if local != address && !local.is_loopback() => {
                return Err(format!(
                    "{address} is reached from {local}, not by the gate"
                ));
            }
            // IPv6 may be disabled.
            Ok(_) | Err(_) => {}
        }
    }
    Ok("no interface but lo, and every address is local".to_owned())
}

/// Returns the local address for packets to an address; sends nothing.
fn goes_out_from(address: IpAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(SocketAddr::new(address, 9))?;
    Ok(socket.local_addr()?.ip())
}
