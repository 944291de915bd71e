//! Root certificates for the chains of servers, and the validity of each.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};

use super::material;

/// Root certificates.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    pub(super) store: Arc<RootCertStore>,
    /// The validity of each root in `store`, in the same order.
    valid: Arc<[(Timestamp, Timestamp)]>,
    /// SHA-256 of all certificates.
    pub(super) digest: [u8; 32],
}

impl Roots {
    /// Builds the store; certificates that cannot be parsed are left out.
    pub(super) fn new(mut certificates: Vec<CertificateDer<'static>>) -> Self {
        certificates.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
        let mut digest = Material::new();
        let mut store = RootCertStore::empty();
        let mut valid = Vec::new();
        for root in certificates {
            digest.add(&root);
            let dates = material::not_before(&root).zip(material::not_after(&root));
            if let (Some(dates), Ok(())) = (dates, store.add(root)) {
                valid.push(dates);
            }
        }
        Self {
            store: Arc::new(store),
            valid: valid.into(),
            digest: digest.finish(),
        }
    }

    /// Whether there is no root at all.
    pub(super) fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    /// Whether a root of the store is valid now: `webpki` does not check the root's dates.
    pub(super) fn is_valid(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut roots = self.store.roots.iter().zip(self.valid.iter());
        let is_valid = |(begin, end): &(Timestamp, Timestamp)| {
            (begin.as_second()..=end.as_second()).contains(&now)
        };
        // The same key may have a certificate that is still valid.
        roots.any(|(root, dates)| root == anchor && is_valid(dates))
    }
}

/// SHA-256 over parts, each with its length.
pub(super) struct Material(Context);

impl Material {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finish().as_ref().try_into().unwrap_or_default()
    }
}
