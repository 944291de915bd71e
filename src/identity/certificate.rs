//! What a verified client certificate says of its holder.

use std::sync::Arc;

/// A client certificate that a listener verified.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Certificate {
    /// Its subject alternative names, as `san:` members of groups are held against them.
    pub sans: Vec<Arc<str>>,
    /// Who its holder is: `user.id`.
    pub subject: Option<Arc<str>>,
    /// SHA-256 of the certificate, in hex: what a revocation may name.
    pub fingerprint: Arc<str>,
}
