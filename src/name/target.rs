//! Where a caller wants to go.

use std::fmt;

use super::{Host, Path, PathError};

/// A host and a port: canonical, so that equal targets are equal bytes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Target {
    /// The name or address.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
}

impl Target {
    /// Parses the authority-form of a CONNECT (RFC 9112 section 3.2.3): `host:port`, both required.
    pub fn from_connect(_authority: &[u8]) -> Result<Self, TargetError> {
        todo!()
    }

    /// Parses `host[:port]` as it stands in a `Host` header or a URL's authority.
    pub fn from_authority(_authority: &[u8], _default_port: u16) -> Result<Self, TargetError> {
        todo!()
    }
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for Target {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// An absolute-form request target or a URL that a person wrote: `http://…` or `https://…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// The destination; the port defaults by scheme.
    pub target: Target,
    /// The path, canonical; `/` where none was written.
    pub path: Path,
}

impl Url {
    /// Parses an absolute-form target (RFC 9112 section 3.2.2); no userinfo, no fragment.
    pub fn parse(_text: &[u8]) -> Result<Self, TargetError> {
        todo!()
    }
}

/// Why a destination could not be parsed. `Display` never repeats the hostile text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The path is not canonical.
    #[error(transparent)]
    Path(#[from] PathError),
    // … one variant per kind of mistake, each with a sentence
}
