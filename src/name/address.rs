//! Classes of special addresses (IANA special-purpose registries, RFC 6890 and cloud metadata).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The class of an address, which decides whether the address floor applies.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AddressClass {
    /// Link-local (169.254/16, `fe80::/10`) and deprecated site-local: never reachable.
    LinkLocal,
    /// Loopback: reachable only if a rule names it.
    Loopback,
    /// Instance metadata of any cloud: never reachable.
    Metadata,
    /// Private use, carrier-grade NAT, benchmarking, documentation, unique local: reachable only
    /// if a rule names it.
    Private,
    /// An ordinary unicast address.
    Public,
    /// Unspecified, multicast, broadcast, reserved, or a form that is never dialled: never
    /// reachable.
    Unroutable,
}

impl AddressClass {
    /// Whether no configuration can make the address reachable.
    pub fn is_never(self) -> bool {
        matches!(self, Self::LinkLocal | Self::Metadata | Self::Unroutable)
    }

    /// Rank of the class: if an address has two readings, the reading of higher rank counts.
    fn severity(self) -> u8 {
        match self {
            Self::Public => 0,
            Self::Private => 1,
            Self::Loopback => 2,
            Self::Unroutable => 3,
            Self::LinkLocal => 4,
            Self::Metadata => 5,
        }
    }
}

/// Extracts an IPv4 address from its IPv6 form (mapped, compatible, translated, NAT64, 6to4,
/// Teredo, ISATAP). If there are several readings, returns the one of the strictest class. So a
/// form whose own class is stricter than its content (a link-local ISATAP address, any Teredo
/// address) is not unwrapped.
pub fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(wrapped) = address else {
        return address;
    };
    embedded(wrapped)
        .map(IpAddr::V4)
        .fold(address, |worst, reading| {
            if severity(reading) >= severity(worst) {
                reading
            } else {
                worst
            }
        })
}

/// Returns the class of `address`, after [`canonical`].
pub fn classify(address: IpAddr) -> AddressClass {
    bare_class(canonical(address))
}

/// Returns the networks whose addresses are never reachable ([`AddressClass::is_never`]).
///
/// A narrower network within one of them may be of another class: [`classify`] decides.
pub fn closed_networks() -> impl Iterator<Item = IpNet> {
    let v4 = V4.iter().map(|(net, class)| (IpNet::from(*net), *class));
    let v6 = V6.iter().map(|(net, class)| (IpNet::from(*net), *class));
    let closed = v4.chain(v6).filter(|(_, class)| class.is_never());
    closed.map(|(net, _)| net)
}

/// Returns every network that has another class than public.
pub fn special_networks() -> impl Iterator<Item = IpNet> {
    let v4 = V4.iter().map(|(net, _)| IpNet::from(*net));
    v4.chain(V6.iter().map(|(net, _)| IpNet::from(*net)))
}

fn severity(address: IpAddr) -> u8 {
    bare_class(address).severity()
}

/// Returns the class of an address, without unwrapping.
fn bare_class(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(address) => V4
            .iter()
            .find(|(net, _)| holds(*net, address))
            .map_or(AddressClass::Public, |(_, class)| *class),
        IpAddr::V6(address) => V6
            .iter()
            .find(|(net, _)| net.contains(&address))
            .map_or(AddressClass::Unroutable, |(_, class)| *class),
    }
}

/// Whether a network contains an address: `contains` of the library computes both ends of the
/// network first, and every flow asks for some fifty of them.
fn holds(net: Ipv4Net, address: Ipv4Addr) -> bool {
    let differ = net.addr().to_bits() ^ address.to_bits();
    let host_bits = 32 - u32::from(net.prefix_len());
    differ.checked_shr(host_bits).unwrap_or(0) == 0
}

/// Returns every IPv4 address that some host on the path may read from an IPv6 address.
#[expect(
    clippy::many_single_char_names,
    reason = "the groups of an address have no other names"
)]
fn embedded(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let low = v4(g, h);
    let [first, second] = match (a, b) {
        // ::/96 compatible (but :: and ::1), ::ffff:0:0/96 mapped, ::ffff:0:0:0/96 translated.
        (0, 0) => {
            let wraps = matches!((c, d, e, f), (0, 0, 0, 0 | 0xffff) | (0, 0, 0xffff, 0));
            let is_own = f == 0 && e == 0 && g == 0 && h <= 1;
            [(wraps && !is_own).then_some(low), None]
        }
        // RFC 6052 section 2.1, and the same layout at the beginning of RFC 8215's prefix.
        (0x64, 0xff9b) if matches!((c, d, e, f), (0 | 1, 0, 0, 0)) => [Some(low), None],
        // Teredo (RFC 4380 section 4): the server, and the client with every bit inverted.
        (0x2001, 0) => [Some(v4(c, d)), Some(v4(!g, !h))],
        // 6to4 (RFC 3056).
        (0x2002, _) => [Some(v4(b, c)), None],
        _ => [None, None],
    };
    // ISATAP (RFC 5214 section 6.1), with or without the universal bit, below any prefix.
    let isatap = (e & !0x0200 == 0 && f == 0x5efe).then_some(low);
    [first, second, isatap].into_iter().flatten()
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

const fn net4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// Returns the network of the first two and the last two groups; all groups between are zero.
const fn net6(a: u16, b: u16, g: u16, h: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, g, h), prefix)
}

/// The first entry that contains an address decides; without one: [`AddressClass::Public`].
const V4: [(Ipv4Net, AddressClass); 25] = {
    use AddressClass::{LinkLocal, Loopback, Metadata, Private, Unroutable};
    [
        // Metadata: AWS, Google, Azure, Oracle, IBM and most others; AWS DNS, AWS ECS, AWS EKS,
        // Tencent, Scaleway; Alibaba; Azure's wire server; Oracle.
        (net4(169, 254, 169, 254, 32), Metadata),
        (net4(169, 254, 169, 253, 32), Metadata),
        (net4(169, 254, 170, 2, 32), Metadata),
        (net4(169, 254, 170, 23, 32), Metadata),
        (net4(169, 254, 0, 23, 32), Metadata),
        (net4(169, 254, 42, 42, 32), Metadata),
        (net4(100, 100, 100, 200, 32), Metadata),
        (net4(168, 63, 129, 16, 32), Metadata),
        (net4(192, 0, 0, 192, 32), Metadata),
        (net4(0, 0, 0, 0, 8), Unroutable),
        (net4(10, 0, 0, 0, 8), Private),
        (net4(100, 64, 0, 0, 10), Private),
        (net4(127, 0, 0, 0, 8), Loopback),
        (net4(169, 254, 0, 0, 16), LinkLocal),
        (net4(172, 16, 0, 0, 12), Private),
        (net4(192, 0, 0, 0, 24), Private),
        (net4(192, 0, 2, 0, 24), Private),
        // 6to4 relays, deprecated by RFC 7526.
        (net4(192, 88, 99, 0, 24), Unroutable),
        (net4(192, 168, 0, 0, 16), Private),
        (net4(198, 18, 0, 0, 15), Private),
        (net4(198, 51, 100, 0, 24), Private),
        (net4(203, 0, 113, 0, 24), Private),
        (net4(224, 0, 0, 0, 4), Unroutable),
        (net4(240, 0, 0, 0, 4), Unroutable),
        (net4(255, 255, 255, 255, 32), Unroutable),
    ]
};

/// The first entry that contains an address decides; without one: [`AddressClass::Unroutable`].
///
/// IPv6 forms of IPv4 addresses are `Public` here: the class of the IPv4 address counts.
const V6: [(Ipv6Net, AddressClass); 20] = {
    use AddressClass::{LinkLocal, Loopback, Metadata, Private, Public, Unroutable};
    [
        // Metadata: AWS (and its time and name servers), Google, Oracle, Scaleway.
        (net6(0xfd00, 0xec2, 0, 0, 32), Metadata),
        (net6(0xfd20, 0xce, 0, 0x254, 128), Metadata),
        (net6(0xfd00, 0xc1, 0xa9fe, 0xa9fe, 128), Metadata),
        (net6(0xfd00, 0x42, 0, 0x42, 128), Metadata),
        (net6(0, 0, 0, 0, 128), Unroutable),
        (net6(0, 0, 0, 1, 128), Loopback),
        // Compatible; mapped; translated; NAT64.
        (net6(0, 0, 0, 0, 96), Public),
        (
            Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
            Public,
        ),
        (
            Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96),
            Public,
        ),
        (net6(0x64, 0xff9b, 0, 0, 96), Public),
        // NAT64 of one network only (RFC 8215): each network puts the IPv4 address in a different
        // position.
        (
            Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
            Private,
        ),
        (
            Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48),
            Private,
        ),
        // Protocol assignments: Teredo, ORCHID, anycast of relays.
        (net6(0x2001, 0, 0, 0, 23), Unroutable),
        (net6(0x2001, 0xdb8, 0, 0, 32), Private),
        (net6(0x3fff, 0, 0, 0, 20), Private),
        (net6(0x2000, 0, 0, 0, 3), Public),
        (net6(0xfc00, 0, 0, 0, 7), Private),
        (net6(0xfe80, 0, 0, 0, 10), LinkLocal),
        (net6(0xfec0, 0, 0, 0, 10), LinkLocal),
        (net6(0xff00, 0, 0, 0, 8), Unroutable),
    ]
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::AddressClass::{LinkLocal, Loopback, Metadata, Private, Public, Unroutable};
    use super::*;

    fn class(text: &str) -> AddressClass {
        classify(text.parse().unwrap())
    }

    proptest! {
        #[test]
        fn an_address_is_in_the_networks_that_contain_it(
            near: [u8; 4],
            bits in 0_u8..=32,
            at in 0..V4.len(),
        ) {
            // An address at random, and one that differs from a listed network only behind `bits`.
            let own = V4[at].0.addr().to_bits();
            let behind = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
            let near = u32::from_be_bytes(near);
            for bits in [near, own ^ (near & behind)] {
                let address = Ipv4Addr::from_bits(bits);
                for (net, _) in V4 {
                    prop_assert_eq!(holds(net, address), net.contains(&address), "{} {}", net, address);
                }
            }
        }
    }

    #[test]
    fn ipv4_addresses_are_what_the_registries_say() {
        for (text, expected) in [
            ("169.254.169.254", Metadata),
            ("169.254.169.253", Metadata),
            ("169.254.170.2", Metadata),
            ("169.254.170.23", Metadata),
            ("100.100.100.200", Metadata),
            ("168.63.129.16", Metadata),
            ("192.0.0.192", Metadata),
            ("169.254.0.1", LinkLocal),
            ("169.254.255.255", LinkLocal),
            ("0.0.0.0", Unroutable),
            ("0.1.2.3", Unroutable),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("100.64.0.1", Private),
            ("100.127.255.255", Private),
            ("198.18.0.1", Private),
            ("198.19.255.255", Private),
            ("192.0.2.1", Private),
            ("198.51.100.1", Private),
            ("203.0.113.1", Private),
            ("192.0.0.8", Private),
            ("192.88.99.1", Unroutable),
            ("224.0.0.1", Unroutable),
            ("239.255.255.255", Unroutable),
            ("240.0.0.1", Unroutable),
            ("255.255.255.255", Unroutable),
            ("1.1.1.1", Public),
            ("9.255.255.255", Public),
            ("11.0.0.0", Public),
            ("100.63.255.255", Public),
            ("100.128.0.0", Public),
            ("126.255.255.255", Public),
            ("128.0.0.0", Public),
            ("169.253.255.255", Public),
            ("169.255.0.0", Public),
            ("172.15.255.255", Public),
            ("172.32.0.0", Public),
            ("192.0.1.0", Public),
            ("192.0.3.0", Public),
            ("198.17.255.255", Public),
            ("198.20.0.0", Public),
            ("203.0.114.0", Public),
            ("223.255.255.255", Public),
        ] {
            assert_eq!(class(text), expected, "{text}");
        }
    }

    #[test]
    fn ipv6_addresses_are_what_the_registries_say() {
        for (text, expected) in [
            ("fd00:ec2::254", Metadata),
            ("fd00:ec2::123", Metadata),
            ("fd20:ce::254", Metadata),
            ("fd00:c1::a9fe:a9fe", Metadata),
            ("fd00:42::42", Metadata),
            ("::", Unroutable),
            ("::1", Loopback),
            ("fc00::1", Private),
            ("fdff::1", Private),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("fec0::1", LinkLocal),
            ("feff::1", LinkLocal),
            ("ff02::1", Unroutable),
            ("2001:db8::1", Private),
            ("3fff::1", Private),
            ("3fff:fff::1", Private),
            ("2001:2::1", Private),
            ("2001:10::1", Unroutable),
            ("2001:20::1", Unroutable),
            ("2001:1::1", Unroutable),
            ("100::1", Unroutable),
            ("5f00::1", Unroutable),
            ("4000::1", Unroutable),
            ("1fff::1", Unroutable),
            ("2606:4700:4700::1111", Public),
            ("2001:4860:4860::8888", Public),
            ("2001:200::1", Public),
            ("2001:db7::1", Public),
            ("2001:db9::1", Public),
            ("3fff:1000::1", Public),
        ] {
            assert_eq!(class(text), expected, "{text}");
        }
    }

    #[test]
    fn a_wrapped_address_is_judged_by_what_it_wraps() {
        for (text, expected) in [
            ("::ffff:169.254.169.254", Metadata),
            ("::ffff:a9fe:a9fe", Metadata),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:10.0.0.1", Private),
            ("::ffff:1.1.1.1", Public),
            ("::ffff:0.0.0.0", Unroutable),
            ("::ffff:0:127.0.0.1", Loopback),
            ("::127.0.0.1", Loopback),
            ("::169.254.169.254", Metadata),
            ("::2", Unroutable),
            ("64:ff9b::7f00:1", Loopback),
            ("64:ff9b::a9fe:a9fe", Metadata),
            ("64:ff9b::1.1.1.1", Public),
            ("64:ff9b:0:0:0:1::1", Unroutable),
            ("64:ff9b:1::7f00:1", Loopback),
            ("64:ff9b:1::169.254.169.254", Metadata),
            ("64:ff9b:1::1.1.1.1", Private),
            ("64:ff9b:1:a9fe:a9:fe00::", Private),
            ("64:ff9b:2::1", Unroutable),
            ("2002:7f00:1::", Loopback),
            ("2002:a9fe:a9fe::1", Metadata),
            ("2002:a00:1::1", Private),
            ("2002:101:101::1", Public),
            ("2001:0:101:101:0:0:fefe:fefe", Unroutable),
            ("2001:0:101:101:0:0:5601:5601", Metadata),
            ("2001:0:a9fe:a9fe:0:0:fefe:fefe", Metadata),
            ("2606:4700::5efe:169.254.169.254", Metadata),
            ("2606:4700::200:5efe:127.0.0.1", Loopback),
            ("2606:4700::5efe:1.1.1.1", Public),
            ("fe80::5efe:1.1.1.1", LinkLocal),
            ("fe80::5efe:10.0.0.1", LinkLocal),
            ("fc00::5efe:169.254.169.254", Metadata),
            ("2002:101:101::5efe:169.254.169.254", Metadata),
            ("2002:101:101::5efe:10.0.0.1", Private),
        ] {
            assert_eq!(class(text), expected, "{text}");
        }
    }

    #[test]
    fn unwrapping_gives_the_address_that_a_rule_would_name() {
        for (text, expected) in [
            ("::ffff:10.2.0.7", "10.2.0.7"),
            ("64:ff9b::10.2.0.7", "10.2.0.7"),
            ("2002:a02:7::1", "10.2.0.7"),
            ("::ffff:1.1.1.1", "1.1.1.1"),
            ("fe80::5efe:10.2.0.7", "fe80::5efe:10.2.0.7"),
            ("::1", "::1"),
            ("10.2.0.7", "10.2.0.7"),
        ] {
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(canonical(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn only_three_classes_can_be_named_by_a_rule() {
        for (class, never) in [
            (LinkLocal, true),
            (Loopback, false),
            (Metadata, true),
            (Private, false),
            (Public, false),
            (Unroutable, true),
        ] {
            assert_eq!(class.is_never(), never);
        }
    }

    proptest! {
        #[test]
        fn canonicalisation_is_idempotent_and_never_softens(
            prefix in prop::sample::select(vec![
                0_u128, 0xffff << 32, 0xffff << 48, 0x0064_ff9b << 96, 0x0064_ff9b_0001 << 80,
                0x2001 << 112, 0x2002 << 112, 0xfe80 << 112, 0x2606 << 112, 0xfc00 << 112,
            ]),
            shape in prop::sample::select(vec![
                0_u128, 0x5efe << 32, 0x0200_5efe << 32, 0x0808_0808 << 80, 0x7f00_0001 << 80,
                0x0808_0808 << 64, 0xa9fe_a9fe << 64,
            ]),
            low: u32,
        ) {
            let address = IpAddr::V6(Ipv6Addr::from(prefix | shape | u128::from(low)));
            let once = canonical(address);
            prop_assert_eq!(canonical(once), once);
            prop_assert_eq!(classify(once), classify(address));
            if let IpAddr::V6(wrapped) = address {
                for reading in embedded(wrapped) {
                    prop_assert!(severity(once) >= severity(reading.into()));
                }
            }
        }

        #[test]
        fn every_address_has_a_class(address: IpAddr) {
            let once = canonical(address);
            prop_assert_eq!(canonical(once), once);
            prop_assert_eq!(classify(once), classify(address));
        }
    }
}
