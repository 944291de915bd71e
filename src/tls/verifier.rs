//! Verifies server certificates: as RFC 5280 requires, and stricter where other clients are.
//!
//! Besides the path, the names and the times that `webpki` checks, the verifier requires: every
//! authority of the chain may sign certificates, the root is valid now, the leaf may sign a
//! handshake, no RSA key is short, a stapled OCSP response is present if the leaf requires one, one
//! key is pinned if pins are configured, and no certificate is revoked if revocation lists are
//! configured.

use std::cell::Cell;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::config::Pin;

use super::rejected::{self, Rejected};
use super::roots::Roots;
use super::server::provider;
use super::signer::{is_authority, must_staple};

/// Minimum length of an RSA key, in bits (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2048;

/// Verifies the certificate of a server.
#[derive(Debug)]
pub(super) struct Verifier {
    roots: Roots,
    algorithms: WebPkiSupportedAlgorithms,
    /// One of these keys has to be in the verified chain; empty: any key.
    pins: Vec<Pin>,
    /// Every certificate below the root has to be on a fresh list of its issuer, as not revoked;
    /// empty: revocation is not checked.
    crls: Vec<CertRevocationList<'static>>,
}

impl Verifier {
    pub(super) fn new(
        roots: Roots,
        pins: Vec<Pin>,
        crls: Vec<CertRevocationList<'static>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            roots,
            algorithms: provider().signature_verification_algorithms,
            pins,
            crls,
        })
    }

    /// Finds a chain to a root that passes every check.
    fn verify_path(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = EndEntityCert::try_from(leaf).map_err(|error| rejected::of(&error))?;
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        // A server may have several chains to a root: one valid chain is enough.
        let why = Cell::new(None);
        let holds = |path: &VerifiedPath<'_>| {
            self.judge(path, now).map_err(|rejected| {
                why.set(Some(rejected));
                webpki::Error::UnknownIssuer
            })
        };
        let found = parsed.verify_for_usage(
            self.algorithms.all,
            &self.roots.store.roots,
            between,
            now,
            KeyUsage::server_auth(),
            revocation,
            Some(&holds),
        );
        match (found, why.get()) {
            (Ok(_), _) => Ok(()),
            (Err(_), Some(rejected)) => Err(rejected.into()),
            (Err(error), None) if rejected::may_be_short_key(&error) => {
                let short = self.has_short_key(leaf, between);
                Err(short.map_or_else(|| rejected::of(&error), Into::into))
            }
            (Err(error), None) => Err(rejected::of(&error)),
        }
    }

    fn judge(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), Rejected> {
        if !self.roots.is_valid(path.anchor(), now) {
            return Err(rejected::ROOT_EXPIRED);
        }
        let leaf = path.end_entity().der();
        let leaf = parse(&leaf)?;
        has_long_key(leaf.public_key())?;
        match leaf.key_usage() {
            Ok(Some(usage)) if !usage.value.digital_signature() => {
                return Err(rejected::KEY_USAGE);
            }
            Ok(_) => {}
            Err(_) => return Err(rejected::MALFORMED),
        }
        for authority in path.intermediate_certificates() {
            let der = authority.der();
            let authority = parse(&der)?;
            is_authority(&authority).map_err(|_| rejected::NOT_AUTHORITY)?;
            has_long_key(authority.public_key())?;
        }
        if self.pins.is_empty() || self.is_pinned(path) {
            return Ok(());
        }
        Err(rejected::NOT_PINNED)
    }

    /// Whether one key of a verified chain is pinned. Certificates outside that chain do not count:
    /// a server can send the pinned certificate along with its own.
    fn is_pinned(&self, path: &VerifiedPath<'_>) -> bool {
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

    /// Searches the certificates of the server, and the roots that issued them, for a key that is
    /// too short: `webpki` reports such a key as a wrong signature.
    fn has_short_key(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
    ) -> Option<Rejected> {
        for certificate in [leaf].into_iter().chain(between) {
            let certificate = parse(certificate).ok()?;
            if let Err(short) = has_long_key(certificate.public_key()) {
                return Some(short);
            }
            let issuer = certificate.issuer().as_raw();
            let mut roots = self.roots.store.roots.iter();
            let root = roots.find(|root| sequence(&root.subject) == issuer);
            let Some(root) = root else { continue };
            let key = sequence(&root.subject_public_key_info);
            if let Ok((_, key)) = SubjectPublicKeyInfo::from_der(&key)
                && let Err(short) = has_long_key(&key)
            {
                return Some(short);
            }
        }
        None
    }
}

fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, Rejected> {
    let parsed = X509Certificate::from_der(certificate);
    parsed
        .map(|(_, parsed)| parsed)
        .map_err(|_| rejected::MALFORMED)
}

fn has_long_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), Rejected> {
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < MIN_RSA_BITS => Err(rejected::SHORT_KEY),
        _ => Ok(()),
    }
}

/// Whether an OCSP response is a successful one (RFC 6960 section 4.2.1).
fn is_successful(response: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    /// `responseStatus`: an `ENUMERATED` of 0.
    const SUCCESSFUL: &[u8] = &[0x0a, 1, 0];
    let Some((&[SEQUENCE, length], rest)) = response.split_first_chunk() else {
        return false;
    };
    let bytes_of_length = usize::from(if length < 0x80 { 0 } else { length & 0x7f });
    rest.get(bytes_of_length..)
        .is_some_and(|content| content.starts_with(SUCCESSFUL))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_path(leaf, between, now)?;
        rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        if must_staple(&parse(leaf)?) && !is_successful(ocsp) {
            return Err(rejected::NOT_STAPLED.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Encodes a DER sequence: a root's key is stored without its header, and a pin covers both.
fn sequence(content: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut framed = vec![SEQUENCE];
    match length.as_slice() {
        [] => framed.push(0),
        [short] if *short < 0x80 => framed.push(*short),
        // A length has at most eight bytes.
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
    fn an_ocsp_response_is_one_that_says_that_it_succeeded() {
        for good in [
            &[0x30, 3, 0x0a, 1, 0][..],
            &[0x30, 0x82, 1, 0, 0x0a, 1, 0, 0xa0],
        ] {
            assert!(is_successful(good), "{good:?}");
        }
        for bad in [
            &[][..],
            &[0x30],
            &[0x30, 3, 0x0a, 1, 3],
            &[0x30, 0x82, 1],
            &[0x31, 3, 0x0a, 1, 0],
            b"not DER",
        ] {
            assert!(!is_successful(bad), "{bad:?}");
        }
    }

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
