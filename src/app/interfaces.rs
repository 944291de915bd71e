//! The addresses of this machine's interfaces: nothing that is allowed by a name may lead back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use crate::config;
use crate::policy::Guard;

/// Own listeners and interface addresses, as the floor takes them.
pub(super) fn guard(listeners: &[SocketAddr]) -> Arc<Guard> {
    Arc::new(Guard {
        listeners: listeners.to_vec(),
        interfaces: own(),
    })
}

/// Every address of this machine, sorted; empty where the system does not tell (not Linux).
pub(super) fn own() -> Vec<IpAddr> {
    let four = config::read(Path::new("/proc/net/fib_trie")).unwrap_or_default();
    let six = config::read(Path::new("/proc/net/if_inet6")).unwrap_or_default();
    let mut all: Vec<IpAddr> = local_v4(&four)
        .map(IpAddr::V4)
        .chain(six.lines().filter_map(local_v6).map(IpAddr::V6))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// In the kernel's routing trie an own address is a leaf, `|-- ADDRESS`, with `/32 host LOCAL`
/// below it.
fn local_v4(trie: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut leaf = None;
    trie.lines().filter_map(move |line| {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
            return None;
        }
        (line.starts_with("/32 host LOCAL"))
            .then_some(leaf)
            .flatten()
    })
}

/// A line of `if_inet6` begins with the address in 32 hex digits.
fn local_v6(line: &str) -> Option<Ipv6Addr> {
    let digits = line.split_ascii_whitespace().next()?;
    let bits = u128::from_str_radix(digits, 16).ok()?;
    (digits.len() == 32).then(|| Ipv6Addr::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_the_local_leaves() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.1.0.0\n        /16 link UNICAST\n     \
                    |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.255.255\n        \
                    /32 link BROADCAST\n";
        assert_eq!(
            local_v4(trie).collect::<Vec<_>>(),
            [Ipv4Addr::new(10, 1, 2, 3)]
        );
        let line = "00000000000000000000000000000001 01 80 10 80       lo";
        assert_eq!(local_v6(line), Some(Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn this_machine_has_loopback() {
        assert!(own().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
