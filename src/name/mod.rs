//! Canonical destinations: hosts, targets and paths that exist only in parsed form.
//!
//! The gate parses a target once, strictly. It judges, dials and forwards the same parsed target. A
//! spelling that is not canonical and has no unambiguous canonical form is refused (RFC 9110
//! section 7.1, RFC 9112 section 3.2, RFC 5890, RFC 5952).

mod address;
mod host;
mod path;
mod readings;
mod special;
mod suffix;
mod target;

pub use address::{AddressClass, canonical, classify, closed_networks, special_networks};
pub(crate) use host::hash_address;
pub use host::{Host, HostName};
pub use path::{Path, PathError};
pub use special::{SpecialName, special, special_suffixes};
pub use suffix::{
    is_of_shared_domain, is_public_suffix, is_relay, is_shared_domain, registrable_domain,
    relay_within,
};
pub use target::{Target, TargetError, Url};
