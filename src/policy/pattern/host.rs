//! Host patterns of rules: an exact name, an address, a network, the names below a suffix.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::{
    AddressClass, Host, HostName, SpecialName, canonical, classify, is_shared_domain, special,
};

/// One entry of `hosts`, parsed.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(in crate::policy) enum HostPattern {
    /// The names below a name, at any depth, without the name itself.
    Below(HostName),
    /// That name.
    Exact(HostName),
    /// Address literals within a network; an address alone is a network of one.
    Network(IpNet),
}

/// An invalid pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::policy) struct BadPattern {
    /// The label at the pattern.
    pub(in crate::policy) label: String,
    /// The text to write instead.
    pub(in crate::policy) help: String,
}

/// The width of a pattern whose author should be warned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::policy) enum Width {
    /// Any customer of the owner can get a name there: by the private section of the public suffix
    /// list, or by the list of shared domains.
    Customers,
    /// Any person can register a domain there.
    Registry,
}

impl HostPattern {
    /// Parses a pattern; U-labels become A-labels.
    pub(in crate::policy) fn parse(text: &str) -> Result<Self, BadPattern> {
        if let Some(network) = parse_network(text)? {
            return Ok(Self::Network(network));
        }
        refuse_shape(text)?;
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let host = HostName::from_unicode(name).map_err(|error| BadPattern {
            label: error.to_string(),
            help: "write a name such as `docs.example.com` or `*.example.com`".into(),
        })?;
        Ok(if below {
            Self::Below(host)
        } else {
            Self::Exact(host)
        })
    }

    /// Whether hosts of other owners can match the pattern.
    ///
    /// Suffixes of private networks have no registrar; to reach them a rule grants `addresses`.
    pub(in crate::policy) fn width(&self) -> Option<Width> {
        let (Self::Below(name) | Self::Exact(name)) = self else {
            return None;
        };
        let text = name.as_str();
        if text.contains('.') && special(name) == Some(SpecialName::Private) {
            return None;
        }
        let suffix = psl::suffix(text.as_bytes()).filter(|suffix| *suffix == text);
        match suffix.and_then(|suffix| suffix.typ()) {
            Some(psl::Type::Icann) => Some(Width::Registry),
            Some(psl::Type::Private) => Some(Width::Customers),
            None => {
                let is_shared = matches!(self, Self::Below(name) if is_shared_domain(name));
                is_shared.then_some(Width::Customers)
            }
        }
    }

    /// Whether a host matches. An IPv4 address within an IPv6 address matches as both.
    pub(in crate::policy) fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(only), Host::Name(name)) => only == name,
            (Self::Below(above), Host::Name(name)) => is_below(name, above),
            (Self::Network(network), Host::Address(address)) => {
                network.contains(address) || network.contains(&canonical(*address))
            }
            _ => false,
        }
    }

    /// Whether this pattern matches each host that `other` matches.
    pub(in crate::policy) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(only), Self::Exact(name)) => only == name,
            (Self::Below(above), Self::Exact(name)) => is_below(name, above),
            (Self::Below(above), Self::Below(name)) => above == name || is_below(name, above),
            (Self::Network(outer), Self::Network(inner)) => outer.contains(inner),
            _ => false,
        }
    }

    /// Whether some host matches both patterns: then one of them covers the other.
    #[cfg_attr(not(test), expect(dead_code, reason = "for differences of policies"))]
    pub(in crate::policy) fn intersects(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Returns a host that matches and that none of `others` matches; `None` if there is none.
    pub(in crate::policy) fn witness_outside(&self, others: &[&Self]) -> Option<Host> {
        if others.iter().any(|other| other.covers(self)) {
            return None;
        }
        match self {
            Self::Exact(name) => Some(Host::Name(name.clone())),
            Self::Below(name) => fresh_name(name, others),
            Self::Network(network) => {
                let networks = others.iter().filter_map(|other| match other {
                    Self::Network(network) => Some(*network),
                    Self::Exact(_) | Self::Below(_) => None,
                });
                fresh_address(*network, &networks.collect::<Vec<_>>()).map(Host::Address)
            }
        }
    }
}

fn is_below(name: &HostName, above: &HostName) -> bool {
    let rest = name.as_str().strip_suffix(above.as_str());
    rest.is_some_and(|rest| rest.ends_with('.'))
}

/// Returns a name below `above` that no pattern matches. Each pattern excludes at most one label.
fn fresh_name(above: &HostName, others: &[&HostPattern]) -> Option<Host> {
    let labels = std::iter::once("x".to_owned()).chain((1..).map(|number| format!("x{number}")));
    let names = labels.take(others.len() + 1).filter_map(|label| {
        let name = HostName::parse(format!("{label}.{above}").as_bytes());
        name.ok().map(Host::Name)
    });
    let free = |host: &Host| !others.iter().any(|other| other.matches(host));
    { names }.find(free)
}

/// Returns an address of `network` that is in none of `others`: halves the network until a half is
/// free.
fn fresh_address(network: IpNet, others: &[IpNet]) -> Option<IpAddr> {
    let meet = |other: &&IpNet| other.contains(&network) || network.contains(*other);
    let others: Vec<IpNet> = others.iter().filter(meet).copied().collect();
    if others.iter().any(|other| other.contains(&network)) {
        return None;
    }
    if others.is_empty() {
        return Some(network.network());
    }
    let mut halves = network.subnets(network.prefix_len() + 1).ok()?;
    halves.find_map(|half| fresh_address(half, &others))
}

/// The canonical spelling.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Exact(name) => name.fmt(f),
            Self::Network(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Network(net) => net.fmt(f),
        }
    }
}

/// Parses an address or a network; `None` if the text is neither and may be a name.
pub(in crate::policy) fn parse_network(text: &str) -> Result<Option<IpNet>, BadPattern> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Some(IpNet::from(address)));
    }
    let Ok(network) = text.parse::<IpNet>() else {
        return Ok(None);
    };
    if network.trunc() == network {
        return Ok(Some(network));
    }
    Err(BadPattern {
        label: "bits are set behind the prefix".into(),
        help: format!("write `{}`", network.trunc()),
    })
}

/// Whether every address of a network is public.
pub(in crate::policy) fn is_public(network: &IpNet) -> bool {
    classify(network.network()) == AddressClass::Public
        && classify(network.broadcast()) == AddressClass::Public
}

/// Reports mistakes that have a better message than "not a name".
fn refuse_shape(text: &str) -> Result<(), BadPattern> {
    let bad = |label: &str, help: String| {
        Err(BadPattern {
            label: label.into(),
            help,
        })
    };
    let rest = text.strip_prefix("*.").unwrap_or(text);
    if text.contains("://") {
        let host = text
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split(['/', ':']).next());
        return bad(
            "a URL",
            format!("write the host alone: `{}`", host.unwrap_or_default()),
        );
    }
    if text.is_empty() {
        return bad(
            "an empty name",
            "write a name such as `docs.example.com`".into(),
        );
    }
    if text == "*" || text == "*." {
        let help = "set `default = \"allow\"` in a tier that may reach everything".into();
        return bad("every host there is", help);
    }
    if text.contains('/') {
        return bad(
            "neither a network nor a name",
            "paths go into `paths`".into(),
        );
    }
    if rest.contains(':') {
        let host = text.split(':').next().unwrap_or_default();
        return bad(
            "a port",
            format!("write `{host}` here and the port into `ports`"),
        );
    }
    if text.starts_with('.') {
        return bad(
            "empty label in front of the dot",
            format!("write `*{text}`"),
        );
    }
    if text.contains("..") {
        let mut better = text.to_owned();
        while better.contains("..") {
            better = better.replace("..", ".");
        }
        let help = match better.strip_prefix("*.") {
            Some(suffix) => format!("write `{better}` to match every host below {suffix}"),
            None => format!("write `{better}`"),
        };
        return bad("empty label between the dots", help);
    }
    if rest.ends_with('*') {
        let help =
            "name each host, e.g. `docs.example.com`, or the names below one: `*.example.com`";
        return bad("`*` at the end would be any top-level domain", help.into());
    }
    if rest.contains('*') {
        let suffix = rest.rsplit('*').next().unwrap_or_default();
        let suffix = suffix
            .split_once('.')
            .map_or("example.com", |(_, suffix)| suffix);
        let wide = HostPattern::parse(&format!("*.{suffix}"));
        let help = if wide.is_ok_and(|wide| wide.width().is_some()) {
            format!("name the exact hosts: anyone can have a host below {suffix}")
        } else {
            format!("write `*.{suffix}` to match every host below {suffix}")
        };
        return bad("`*` stands only in front, for whole labels", help);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (String, String) {
        let bad = HostPattern::parse(text).unwrap_err();
        (bad.label, bad.help)
    }

    #[test]
    fn names_addresses_and_networks_are_told_apart() {
        let name = |text: &str| HostName::from_unicode(text).unwrap();
        let parse = |text: &str| HostPattern::parse(text).unwrap();
        assert_eq!(parse("docs.rs"), HostPattern::Exact(name("docs.rs")));
        assert_eq!(
            parse("*.Example.COM"),
            HostPattern::Below(name("example.com"))
        );
        assert_eq!(
            parse("10.2.0.0/16"),
            HostPattern::Network("10.2.0.0/16".parse().unwrap())
        );
        assert_eq!(
            parse("192.0.2.7"),
            HostPattern::Network("192.0.2.7/32".parse().unwrap())
        );
        assert_eq!(
            parse("[2001:db8::1]"),
            HostPattern::Network("2001:db8::1/128".parse().unwrap())
        );
        assert_eq!(
            parse("2001:db8::/32"),
            HostPattern::Network("2001:db8::/32".parse().unwrap())
        );
    }

    #[test]
    fn names_of_other_alphabets_become_a_labels() {
        let HostPattern::Below(name) = HostPattern::parse("*.bücher.example").unwrap() else {
            panic!("not a suffix");
        };
        assert_eq!(name.as_str(), "xn--bcher-kva.example");
    }

    #[test]
    fn each_mistake_has_its_help() {
        assert_eq!(
            error("*.openai..com"),
            (
                "empty label between the dots".into(),
                "write `*.openai.com` to match every host below openai.com".into()
            )
        );
        assert_eq!(
            error("a*.b.com"),
            (
                "`*` stands only in front, for whole labels".into(),
                "write `*.b.com` to match every host below b.com".into()
            )
        );
        assert_eq!(
            error("*.*.x.com").1,
            "write `*.x.com` to match every host below x.com"
        );
        assert_eq!(error("*").0, "every host there is");
        assert_eq!(
            error("https://docs.rs/x").1,
            "write the host alone: `docs.rs`"
        );
        assert_eq!(
            error("docs.rs:443").1,
            "write `docs.rs` here and the port into `ports`"
        );
        assert_eq!(error(".docs.rs").1, "write `*.docs.rs`");
        assert_eq!(error("docs.rs/crate").1, "paths go into `paths`");
        assert_eq!(error("10.2.0.1/16").1, "write `10.2.0.0/16`");
        assert_eq!(error("").0, "an empty name");
    }

    #[test]
    fn what_a_resolver_would_take_for_an_address_is_no_name() {
        for text in ["127.1", "0x7f.0.0.1", "2130706433", "1.2.3"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn registries_and_hosters_are_wide() {
        let width = |text: &str| HostPattern::parse(text).unwrap().width();
        assert_eq!(width("*.com"), Some(Width::Registry));
        assert_eq!(width("*.co.uk"), Some(Width::Registry));
        assert_eq!(width("*.github.io"), Some(Width::Customers));
        assert_eq!(width("*.s3.amazonaws.com"), Some(Width::Customers));
        assert_eq!(width("com"), Some(Width::Registry));
        assert_eq!(width("*.example.com"), None);
        assert_eq!(width("gitea"), None);
        assert_eq!(width("*.internal"), None);
        assert_eq!(width("*.home.arpa"), None);
        assert_eq!(width("10.0.0.0/8"), None);
    }
}
