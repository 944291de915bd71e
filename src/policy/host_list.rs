//! A short list of hosts from a configuration, for lookups.

use crate::name::Host;

use super::floor;
use super::pattern::HostPattern;

/// Exact names, the names below a suffix, addresses and networks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostList(Vec<HostPattern>);

/// An invalid entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadHost {
    /// The label at the entry.
    pub label: String,
    /// The text to write instead.
    pub help: String,
}

impl HostList {
    /// Adds an entry: `a.example`, `*.a.example`, `10.0.0.0/8`.
    pub fn add(&mut self, text: &str) -> Result<(), BadHost> {
        let pattern = HostPattern::parse(text).map_err(|bad| BadHost {
            label: bad.label,
            help: bad.help,
        })?;
        self.0.push(pattern);
        Ok(())
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a host is listed. A network contains address literals, not the addresses that a name
    /// resolves to.
    pub fn contains(&self, host: &Host) -> bool {
        self.0.iter().any(|pattern| match (pattern, host) {
            (HostPattern::Exact(listed), Host::Name(name)) => listed == name,
            (HostPattern::Below(above), Host::Name(name)) => name
                .suffixes()
                .skip(1)
                .any(|suffix| suffix == above.as_str()),
            (HostPattern::Network(network), Host::Address(address)) => {
                floor::cover(std::slice::from_ref(network), *address)
            }
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_suffixes_and_networks_are_told_apart() {
        let mut list = HostList::default();
        for text in ["a.example", "*.acme.example", "10.0.0.0/8"] {
            list.add(text).unwrap();
        }
        let has = |text: &str| list.contains(&Host::parse(text.as_bytes()).unwrap());
        for listed in [
            "a.example",
            "x.acme.example",
            "x.y.acme.example",
            "10.1.2.3",
        ] {
            assert!(has(listed), "{listed}");
        }
        for other in ["b.a.example", "acme.example", "xacme.example", "11.1.2.3"] {
            assert!(!has(other), "{other}");
        }
        assert!(list.add("10.0.0.1/8").is_err());
    }
}
