//! Certificates for single names, and the key of the day that they share.

use std::sync::Arc;

use aws_lc_rs::rand;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::time::ASN1Time;

use crate::name::Host;

use super::authority::MintError;

/// How far the clock of a caller may be behind the gate's clock.
pub(super) const SKEW: SignedDuration = SignedDuration::from_hours(48);
/// How long one key serves all names.
const KEY_AGE: SignedDuration = SignedDuration::from_hours(24);

/// The key of all certificates of one day.
pub(super) struct LeafKey {
    pair: KeyPair,
    signing: Arc<dyn SigningKey>,
    made: Timestamp,
}

impl LeafKey {
    pub(super) fn new(provider: &CryptoProvider, now: Timestamp) -> Result<Self, MintError> {
        let failed = MintError("no key can be made");
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| failed)?;
        let der = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
        let signing = provider.key_provider.load_private_key(der);
        Ok(Self {
            signing: signing.map_err(|_| failed)?,
            pair,
            made: now,
        })
    }

    /// Whether the key may be used at this time.
    pub(super) fn serves(&self, now: Timestamp) -> bool {
        (self.made..self.ends()).contains(&now)
    }

    pub(super) fn ends(&self) -> Timestamp {
        saturating(self.made, KEY_AGE)
    }
}

/// The validity of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// Makes a certificate for exactly these hosts. No part of it comes from the upstream's certificate.
pub(super) fn mint(
    hosts: &[Host],
    key: &LeafKey,
    issuer: &Issuer<'_, KeyPair>,
    chain: &[CertificateDer<'static>],
    validity: Validity,
) -> Result<CertifiedKey, MintError> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = hosts.iter().map(subject).collect::<Result<_, _>>()?;
    params.distinguished_name = DistinguishedName::new();
    // No common name: its limit is 64 bytes, and clients would check a name of the gate's as a
    // host.
    let organization = DnType::OrganizationName;
    params.distinguished_name.push(organization, "tidegate");
    params.serial_number = Some(serial()?);
    params.not_before = date(validity.from)?.to_datetime();
    params.not_after = date(validity.until)?.to_datetime();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let signed = params.signed_by(&key.pair, issuer);
    let leaf = signed.map_err(|_| MintError("the authority cannot sign for this name"))?;
    let chain = [leaf.der().clone()]
        .into_iter()
        .chain(chain.iter().cloned());
    Ok(CertifiedKey::new(chain.collect(), key.signing.clone()))
}

fn subject(host: &Host) -> Result<SanType, MintError> {
    match host {
        Host::Address(address) => Ok(SanType::IpAddress(*address)),
        Host::Name(name) => name
            .as_str()
            .try_into()
            .map(SanType::DnsName)
            .map_err(|_| MintError("a certificate cannot contain the name")),
    }
}

/// Makes a serial number: 128 random bits after a one, so positive and never repeated.
pub(super) fn serial() -> Result<SerialNumber, MintError> {
    let mut bytes = [1; 17];
    let (_, random) = bytes.split_at_mut(1);
    rand::fill(random).map_err(|_| MintError("there are no random numbers"))?;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Converts a time for a certificate.
pub(super) fn date(at: Timestamp) -> Result<ASN1Time, MintError> {
    ASN1Time::from_timestamp(at.as_second()).map_err(|_| MintError("the clock is out of range"))
}

pub(super) fn saturating(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}
