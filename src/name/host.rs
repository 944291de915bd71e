//! Names and addresses of hosts.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::TargetError;

/// A DNS name in canonical form: A-labels, lower case, no dot at the end, at most 253 bytes, each
/// label 1 to 63 of letters, digits, `-` and `_`, and never something that `inet_aton` would take
/// for an address.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Parses a name as it may stand on the wire: ASCII only; one dot at the end is taken off.
    pub fn parse(_text: &[u8]) -> Result<Self, TargetError> {
        todo!()
    }

    /// Parses a name as a person may write it in a policy: U-labels become A-labels (UTS 46, strict).
    pub fn from_unicode(_text: &str) -> Result<Self, TargetError> {
        todo!()
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name itself, then each shorter suffix: `a.b.c`, `b.c`, `c`.
    pub fn suffixes(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |name| name.split_once('.').map(|(_, rest)| rest))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name or an address.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    /// An address literal, kept as written (an embedded IPv4 address is unwrapped when judged).
    Address(IpAddr),
    /// A DNS name.
    Name(HostName),
}

impl Host {
    /// Parses `name`, `1.2.3.4` or `[v6]` as it stands in an authority.
    pub fn parse(_text: &[u8]) -> Result<Self, TargetError> {
        todo!()
    }
}

/// The name, the IPv4 address, or the IPv6 address without brackets (RFC 5952).
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
