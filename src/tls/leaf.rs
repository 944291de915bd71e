//! Certificates for single names, and the key of the day that all of them are for.

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

/// How far the clock of a caller may be behind ours.
pub(super) const SKEW: SignedDuration = SignedDuration::from_hours(48);
/// For how long one key serves all names.
const KEY_AGE: SignedDuration = SignedDuration::from_hours(24);

/// The key that every certificate of a day is for.
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

    /// Whether it may serve at a time.
    pub(super) fn serves(&self, now: Timestamp) -> bool {
        (self.made..self.ends()).contains(&now)
    }

    pub(super) fn ends(&self) -> Timestamp {
        saturating(self.made, KEY_AGE)
    }
}

/// When a certificate holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// Makes a certificate for exactly that host. Nothing in it comes from the certificate of the
/// upstream.
pub(super) fn mint(
    host: &Host,
    key: &LeafKey,
    issuer: &Issuer<'_, KeyPair>,
    chain: &[CertificateDer<'static>],
    validity: Validity,
) -> Result<CertifiedKey, MintError> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![subject(host)?];
    params.distinguished_name = DistinguishedName::new();
    // No common name: it is limited to 64 bytes, and a name of ours would be checked as a host.
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
            .map_err(|_| MintError("the name cannot stand in a certificate")),
    }
}

/// 128 random bits behind a one: positive, and never the same twice.
pub(super) fn serial() -> Result<SerialNumber, MintError> {
    let mut bytes = [1; 17];
    let (_, random) = bytes.split_at_mut(1);
    rand::fill(random).map_err(|_| MintError("there are no random numbers"))?;
    Ok(SerialNumber::from_slice(&bytes))
}

/// The time as a certificate has it.
pub(super) fn date(at: Timestamp) -> Result<ASN1Time, MintError> {
    ASN1Time::from_timestamp(at.as_second()).map_err(|_| MintError("the clock is out of range"))
}

pub(super) fn saturating(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}
