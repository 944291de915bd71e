//! Pins: besides being vouched for, a server has to have a key that is known.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::config::Pin;

/// None of the keys in a verified chain is pinned.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no key of the verified chain is pinned")]
pub(super) struct NotPinned;

/// Verifies as always, and then holds the chain that was verified against the pins.
///
/// What a server sends beside that chain does not count: anybody can send a certificate that is
/// pinned along with their own.
#[derive(Debug)]
pub(super) struct Pinned {
    always: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    pins: Vec<Pin>,
}

impl Pinned {
    pub(super) fn new(
        always: Arc<WebPkiServerVerifier>,
        roots: Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
        pins: Vec<Pin>,
    ) -> Self {
        Self {
            always,
            roots,
            algorithms,
            pins,
        }
    }

    fn holds(&self, path: &VerifiedPath<'_>) -> bool {
        let mut between = path.intermediate_certificates();
        let root = sequence(&path.anchor().subject_public_key_info);
        self.has(&path.end_entity().subject_public_key_info())
            || between.any(|it| self.has(&it.subject_public_key_info()))
            || self.has(&root)
    }

    fn has(&self, key: &[u8]) -> bool {
        let found = digest(&SHA256, key);
        self.pins.iter().any(|pin| pin == found.as_ref())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .always
            .verify_server_cert(leaf, between, name, ocsp, now)?;
        let not_pinned = |_| {
            let why = OtherError(Arc::new(NotPinned));
            Error::InvalidCertificate(CertificateError::Other(why))
        };
        // There may be several chains to a root: any one that holds is enough.
        let pinned = |path: &VerifiedPath<'_>| {
            self.holds(path)
                .then_some(())
                .ok_or(webpki::Error::UnknownIssuer)
        };
        let leaf = EndEntityCert::try_from(leaf).map_err(not_pinned)?;
        leaf.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            between,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&pinned),
        )
        .map_err(not_pinned)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.always.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.always.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.always.supported_verify_schemes()
    }
}

/// A DER sequence of that content: a root's key is kept without its frame, and a pin is over both.
fn sequence(content: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut framed = vec![SEQUENCE];
    match length.as_slice() {
        [] => framed.push(0),
        [short] if *short < 0x80 => framed.push(*short),
        // Not more than eight bytes of a length.
        long => framed.extend(0x80_u8.checked_add(long.len().try_into().unwrap_or(0))),
    }
    if content.len() >= 0x80 {
        framed.extend(&length);
    }
    framed.extend(content);
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_length_of_what_it_holds() {
        let head = |length: usize| {
            let framed = sequence(&vec![7; length]);
            framed[..framed.len() - length].to_vec()
        };
        assert_eq!(head(0), [0x30, 0]);
        assert_eq!(head(0x7f), [0x30, 0x7f]);
        assert_eq!(head(0x80), [0x30, 0x81, 0x80]);
        assert_eq!(head(0x126), [0x30, 0x82, 0x01, 0x26]);
    }
}
