//! The private networks that a rule names, and what they cover.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::canonical;

use super::pattern::{BadPattern, is_public, parse_network};

/// Networks that no rule may name: link-local, and where clouds keep their metadata.
const NEVER: [&str; 12] = [
    "100.100.100.200/32",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "192.0.0.192/32",
    "224.0.0.0/4",
    "fd00:42::42/128",
    "fd00:c1::a9fe:a9fe/128",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// One entry of `addresses`.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// What it names.
    pub(super) network: IpNet,
    /// Whether all of it is public, so that naming it has no effect.
    pub(super) public: bool,
    /// A part of it that stays closed whatever a rule says.
    pub(super) closed: Option<&'static str>,
}

/// Parses one entry of `addresses`.
pub(super) fn parse(text: &str) -> Result<Named, BadPattern> {
    let network = parse_network(text)?.ok_or_else(|| BadPattern {
        label: "neither an address nor a network".into(),
        help: "write e.g. `10.2.0.0/16` or `10.2.0.7`; names go into `hosts`".into(),
    })?;
    let parsed = |never: &str| never.parse::<IpNet>().ok();
    if let Some(never) = NEVER
        .iter()
        .find(|net| parsed(net).is_some_and(|net| net.contains(&network)))
    {
        return Err(BadPattern {
            label: format!("lies in {never}, which no rule can open"),
            help: "take it out: the floor cannot be configured away".into(),
        });
    }
    let closed = NEVER
        .iter()
        .find(|net| parsed(net).is_some_and(|net| network.contains(&net)));
    Ok(Named {
        public: is_public(&network),
        closed: closed.copied(),
        network,
    })
}

/// Whether `networks` cover `address`, as it is and as what it wraps.
///
/// The mapped form of an IPv4 address dials that address, so it is that address; any other
/// wrapping reaches it by way of a gateway, which must be named as well.
pub(super) fn cover(networks: &[IpNet], address: IpAddr) -> bool {
    let within = |address: IpAddr| networks.iter().any(|net| net.contains(&address));
    let dialled = address.to_canonical();
    let meant = canonical(address);
    within(meant) && (meant == dialled || within(dialled))
}

#[cfg(test)]
mod tests {
    use crate::name::classify;

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
            Some("100.100.100.200/32")
        );
        assert!(parse("0.0.0.0/0").unwrap().closed.is_some());
        assert!(parse("10.0.0.0/8").unwrap().closed.is_none());
    }

    #[test]
    fn the_list_agrees_with_the_floor() {
        for text in NEVER {
            let network: IpNet = text.parse().unwrap();
            assert!(classify(network.network()).is_never(), "{text}");
        }
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
