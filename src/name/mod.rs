//! Canonical destinations: the only way to hold one.
//!
//! A target is parsed once, strictly, at the door; what is decided is what is dialled and what is
//! written out. Any spelling that is not canonical and cannot be made so without guessing is
//! refused (RFC 9110 section 7.1, RFC 9112 section 3.2, RFC 5890, RFC 5952).

mod address;
mod host;
mod path;
mod readings;
mod special;
mod suffix;
mod target;

pub use address::{AddressClass, canonical, classify, closed_networks, special_networks};
pub use host::{Host, HostName};
pub use path::{Path, PathError};
pub use special::{SpecialName, special, special_suffixes};
pub use suffix::{
    is_of_shared_domain, is_public_suffix, is_relay, is_shared_domain, registrable_domain,
};
pub use target::{Target, TargetError, Url};
