//! One origin on loopback that stands in for every destination (`tidegate redteam run`).
//!
//! A dialer with a stand-in connects to nothing else: an attacker who could switch it on would cut
//! a gate off, and reach nothing more. Only code makes one; no configuration key, variable or
//! option of a gate for callers does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The answer of every look-up: a public address (RFC 7535) for the checks of the policy, which is
/// never dialled.
const ANSWER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 31, 196, 1));

/// The origin on loopback that stands in for every destination.
#[derive(Clone, Copy, Debug)]
pub struct StandIn {
    origin: SocketAddr,
}

impl StandIn {
    /// Returns the stand-in at an address; `None` if that is not loopback.
    pub fn at(origin: SocketAddr) -> Option<Self> {
        origin.ip().is_loopback().then_some(Self { origin })
    }

    /// The addresses of every name.
    pub(super) fn answers() -> Vec<IpAddr> {
        vec![ANSWER]
    }

    /// The address that is dialled.
    pub(super) fn origin(&self) -> SocketAddr {
        self.origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{AddressClass, classify};

    #[test]
    fn a_stand_in_is_on_loopback_and_its_answer_is_a_public_address() {
        assert_eq!(classify(ANSWER), AddressClass::Public);
        assert!(StandIn::at(([127, 0, 0, 1], 80).into()).is_some());
        assert!(StandIn::at(([192, 168, 0, 1], 80).into()).is_none());
        assert!(StandIn::at(([0, 0, 0, 0], 80).into()).is_none());
    }
}
