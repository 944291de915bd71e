//! Which addresses are special (IANA special-purpose registries, RFC 6890 and what clouds add).

use std::net::IpAddr;

/// What an address is, as far as a guard cares.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AddressClass {
    /// Link-local (169.254/16, fe80::/10) and deprecated site-local: never reachable.
    LinkLocal,
    /// Loopback: reachable only where a rule names it.
    Loopback,
    /// Instance metadata of any cloud: never reachable.
    Metadata,
    /// Private use, carrier-grade NAT, benchmarking, documentation, unique local: reachable only
    /// where a rule names it.
    Private,
    /// An ordinary unicast address.
    Public,
    /// Unspecified, multicast, broadcast, reserved, or a form nobody should dial: never reachable.
    Unroutable,
}

impl AddressClass {
    /// Whether no configuration can make it reachable.
    pub fn is_never(self) -> bool {
        matches!(self, Self::LinkLocal | Self::Metadata | Self::Unroutable)
    }
}

/// Takes an IPv4 address out of its IPv6 wrapping (mapped, compatible, NAT64, 6to4, Teredo, ISATAP).
pub fn canonical(_address: IpAddr) -> IpAddr {
    todo!()
}

/// Says what `address` is, after [`canonical`].
pub fn classify(_address: IpAddr) -> AddressClass {
    todo!()
}
