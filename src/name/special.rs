//! Names with a meaning of their own (RFC 6761, RFC 6762, RFC 8375, RFC 9476 and what clouds add).

use super::HostName;

/// A name that does not mean a host on the internet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SpecialName {
    /// Instance metadata of a cloud: never reachable.
    Metadata,
    /// `localhost`, single labels, `.local`, `.internal`, `.home.arpa` …: only where a rule names
    /// private addresses for it.
    Private,
    /// `.onion`, `.invalid`, `.alt` …: never a DNS name.
    Never,
}

/// Says whether `name` is special.
pub fn special(_name: &HostName) -> Option<SpecialName> {
    todo!()
}
