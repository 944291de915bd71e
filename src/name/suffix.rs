//! Registrable domains and public suffixes.

use super::HostName;

/// Whether anybody can get a name right below `name` (public suffix list, both sections).
pub fn is_public_suffix(_name: &HostName) -> bool {
    todo!()
}

/// The domain that somebody registered: one label below the public suffix (ICANN section).
pub fn registrable_domain(_name: &HostName) -> Option<&str> {
    todo!()
}
