//! The addresses of this machine, which no allowed name may reach.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config;
use crate::policy::Guard;

/// The flag of a route to this machine (`RTF_LOCAL` of Linux).
const LOCAL: u32 = 0x8000_0000;

/// The own listeners and local addresses, for the address floor.
pub(super) fn guard(listeners: &[SocketAddr]) -> Arc<Guard> {
    Arc::new(Guard {
        listeners: listeners.to_vec(),
        interfaces: own(),
    })
}

/// Every address and network of this machine, sorted; empty if the system does not list them (not
/// Linux).
///
/// Besides interface addresses, these are networks that a route makes local (`ip route add local
/// 192.0.2.0/24 dev lo`): a listener on all interfaces answers there. A route that makes *every*
/// address local is left out: this process is in a jail, whose gate answers.
pub(super) fn own() -> Vec<IpNet> {
    let read = |path: &str| config::read(Path::new(path)).unwrap_or_default();
    let (four, six) = (read("/proc/net/fib_trie"), read("/proc/net/ipv6_route"));
    let addresses = read("/proc/net/if_inet6");
    let interfaces = addresses.lines().filter_map(|line| network_v6(line, "80"));
    let routes = six.lines().filter_map(local_v6);
    let all = local_v4(&four).map(IpNet::V4);
    let mut all: Vec<IpNet> = all.chain(interfaces.chain(routes).map(IpNet::V6)).collect();
    all.retain(|network| network.prefix_len() > 0);
    all.sort_unstable();
    all.dedup();
    all
}

/// Local IPv4 addresses in the kernel's routing trie. Each is a leaf, `|-- ADDRESS`, with `/PREFIX
/// host LOCAL` below it.
fn local_v4(trie: &str) -> impl Iterator<Item = Ipv4Net> {
    let mut leaf: Option<Ipv4Addr> = None;
    trie.lines().filter_map(move |line| {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
            return None;
        }
        let prefix = line.strip_prefix('/')?.strip_suffix(" host LOCAL")?;
        Ipv4Net::new(leaf?, prefix.parse().ok()?).ok()
    })
}

/// A local network of `ipv6_route`: a line begins with the network and its prefix; the ninth field
/// has the flags.
fn local_v6(line: &str) -> Option<Ipv6Net> {
    let mut fields = line.split_ascii_whitespace();
    let (_, prefix) = (fields.next()?, fields.next()?);
    let flags = u32::from_str_radix(fields.nth(6)?, 16).ok()?;
    (flags & LOCAL != 0)
        .then(|| network_v6(line, prefix))
        .flatten()
}

/// The address at the beginning of a line, in 32 hex digits, with a prefix in hex digits.
fn network_v6(line: &str, prefix: &str) -> Option<Ipv6Net> {
    let digits = line.split_ascii_whitespace().next()?;
    let bits = u128::from_str_radix(digits, 16).ok()?;
    let prefix = u8::from_str_radix(prefix, 16).ok()?;
    let address = (digits.len() == 32).then(|| Ipv6Addr::from_bits(bits))?;
    Ipv6Net::new(address, prefix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_the_local_leaves() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.1.0.0\n        /16 link UNICAST\n     \
                    |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.255.255\n        \
                    /32 link BROADCAST\n     |-- 45.77.1.0\n        /24 host LOCAL\n";
        let own: Vec<String> = local_v4(trie).map(|network| network.to_string()).collect();
        assert_eq!(own, ["10.1.2.3/32", "45.77.1.0/24"]);
        let line = "00000000000000000000000000000001 01 80 10 80       lo";
        let own = network_v6(line, "80").expect("a network");
        assert_eq!(own.to_string(), "::1/128");
    }

    #[test]
    fn a_route_of_ipv6_is_own_where_it_is_local() {
        let none = "00000000000000000000000000000000 00";
        let line = |flags: &str| {
            let network = "20010db8000000000000000000000000 40";
            format!(
                "{network} {none} {} 00000000 1 0 {flags}       lo",
                "0".repeat(32)
            )
        };
        let own = local_v6(&line("80200001")).expect("a network");
        assert_eq!(own.to_string(), "2001:db8::/64");
        assert_eq!(local_v6(&line("00000001")), None);
        assert_eq!(local_v6("short"), None);
    }

    #[test]
    fn this_machine_has_loopback() {
        let loopback = "127.0.0.1".parse::<std::net::IpAddr>().expect("an address");
        assert!(own().iter().any(|network| network.contains(&loopback)));
    }
}
