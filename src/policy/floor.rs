//! The floor: the addresses that no configuration can open, and the private ones that an allow must
//! grant explicitly.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::name::{AddressClass, Host, SpecialName, canonical, classify, closed_networks, special};

use super::pattern::{BadPattern, is_public, parse_network};

/// The proxy's own addresses: part of the floor.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Guard {
    /// The proxy's listeners; an unspecified address stands for every interface.
    pub listeners: Vec<SocketAddr>,
    /// The addresses of the proxy's interfaces, and networks that this machine answers for.
    pub interfaces: Vec<IpNet>,
}

/// The requirement of the floor for a host.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum AddressFloor {
    /// No requirement.
    #[default]
    Open,
    /// The host is never reached.
    Never,
    /// An allow must grant this private address.
    NeedsAddress(IpAddr),
    /// An allow must grant some private addresses: the name exists only in private networks.
    NeedsAddresses,
}

impl AddressFloor {
    pub(super) fn of(host: &Host) -> Self {
        match host {
            Host::Name(name) => match special(name) {
                None => Self::Open,
                Some(SpecialName::Metadata | SpecialName::Never) => Self::Never,
                Some(SpecialName::Private) => Self::NeedsAddresses,
            },
            Host::Address(address) => match classify(canonical(*address)) {
                AddressClass::Public => Self::Open,
                AddressClass::Loopback | AddressClass::Private => Self::NeedsAddress(*address),
                AddressClass::LinkLocal | AddressClass::Metadata | AddressClass::Unroutable => {
                    Self::Never
                }
            },
        }
    }

    /// Whether a grant of these networks satisfies the floor.
    pub(super) fn is_lifted_by(self, networks: &[IpNet]) -> bool {
        match self {
            Self::Open => true,
            Self::Never => false,
            Self::NeedsAddress(address) => cover(networks, address),
            Self::NeedsAddresses => !networks.is_empty(),
        }
    }
}

impl Guard {
    /// Whether the floor lets a caller with a grant of these private networks dial an address.
    pub fn lets_dial(&self, address: IpAddr, port: u16, granted: &[IpNet]) -> bool {
        let meant = canonical(address);
        let class = classify(meant);
        if class.is_never() || self.listens(meant, port) {
            return false;
        }
        let inside = matches!(class, AddressClass::Loopback | AddressClass::Private);
        !(inside || self.owns(meant)) || cover(granted, address)
    }

    /// Whether one of the proxy's listeners is, or may be, at an address (given without its IPv6
    /// form). A listener's port is closed on every address of this machine, whichever address it
    /// was bound to.
    fn listens(&self, address: IpAddr, port: u16) -> bool {
        self.listeners
            .iter()
            .filter(|listener| listener.port() == port)
            .any(|listener| {
                let here = address.is_loopback() || self.owns(address);
                here || canonical(listener.ip()) == address
            })
    }

    fn owns(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|own| own.contains(&address))
    }
}

/// One entry of `grant.addresses`.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    /// The network.
    pub(super) network: IpNet,
    /// Whether the whole network is public, so that the grant has no effect.
    pub(super) public: bool,
    /// A part of the network that no rule can open.
    pub(super) closed: Option<IpNet>,
}

/// Parses one entry of `grant.addresses`.
pub(super) fn parse(text: &str) -> Result<Granted, BadPattern> {
    let network = parse_network(text)?.ok_or_else(|| BadPattern {
        label: "neither an address nor a network".into(),
        help: "write e.g. `10.2.0.0/16` or `10.2.0.7`; names go into `to.hosts`".into(),
    })?;
    let around = closed_networks().filter(|net| net.contains(&network));
    let never = classify(network.network()).is_never();
    if let Some(never) = around.filter(|_| never).min_by_key(IpNet::prefix_len) {
        return Err(BadPattern {
            label: format!("lies in {never}, which no rule can open"),
            help: "take it out: the floor cannot be configured away".into(),
        });
    }
    Ok(Granted {
        public: is_public(&network),
        closed: closed_networks().find(|net| network.contains(net)),
        network,
    })
}

/// Whether `networks` contain `address`, in its own form and in its IPv4 form.
///
/// The mapped form of an IPv4 address dials that address, so it is that address. Any other IPv6
/// form reaches the address through a gateway, which must be granted as well.
pub(super) fn cover(networks: &[IpNet], address: IpAddr) -> bool {
    let within = |address: IpAddr| networks.iter().any(|net| net.contains(&address));
    let dialled = address.to_canonical();
    let meant = canonical(address);
    within(meant) && (meant == dialled || within(dialled))
}

/// Whether an address, in its own form or in its IPv4 form, is in a network.
pub(super) fn touches(network: &IpNet, address: IpAddr) -> bool {
    let readings = [address, address.to_canonical(), canonical(address)];
    readings.iter().any(|reading| network.contains(reading))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_can_open_cannot_be_named() {
        for text in ["169.254.0.0/16", "169.254.169.254", "fe80::1"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let bad = parse("169.254.169.254").unwrap_err();
        assert_eq!(bad.label, "lies in 169.254.0.0/16, which no rule can open");
    }

    #[test]
    fn a_wider_network_may_be_named_and_says_what_stays_closed() {
        assert_eq!(
            parse("100.64.0.0/10").unwrap().closed,
            "100.100.100.200/32".parse().ok()
        );
        assert!(parse("0.0.0.0/0").unwrap().closed.is_some());
        assert!(parse("10.0.0.0/8").unwrap().closed.is_none());
    }

    #[test]
    fn public_networks_are_marked() {
        assert!(parse("8.8.8.0/24").unwrap().public);
        assert!(!parse("10.0.0.0/8").unwrap().public);
        assert!(!parse("::1").unwrap().public);
        assert!(parse("docs.rs").is_err());
    }

    #[test]
    fn a_wrapped_address_is_covered_only_as_itself_too() {
        let networks = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let covers =
            |nets: &[&str], address: &str| cover(&networks(nets), address.parse().unwrap());
        assert!(covers(&["10.2.0.0/16"], "10.2.0.7"));
        assert!(!covers(&["10.2.0.0/16"], "10.3.0.7"));
        assert!(covers(&["10.2.0.0/16"], "::ffff:10.2.0.7"));
        assert!(!covers(&["10.2.0.0/16"], "64:ff9b::10.2.0.7"));
        assert!(!covers(&["64:ff9b::/96"], "64:ff9b::10.2.0.7"));
        assert!(covers(
            &["64:ff9b::/96", "10.2.0.0/16"],
            "64:ff9b::10.2.0.7"
        ));
    }
}
