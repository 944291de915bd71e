//! New authorities, and the content of a certificate.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::policy::Names;

use super::authority::MintError;
use super::constraints::{Constraints, permitting};
use super::leaf::{SKEW, date, saturating, serial};
use super::material;

/// The validity of a new authority.
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// A new authority, in PEM.
pub struct NewAuthority {
    /// The certificate.
    pub cert: String,
    /// The private key; a secret.
    pub key: String,
}

impl NewAuthority {
    /// Makes an authority that can sign only for `names`: P-256, path length 0, one year, critical
    /// name constraints, for servers only.
    pub fn make(names: &Names, now: Timestamp) -> Result<Self, MintError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let key = key.map_err(|_| MintError("no key can be made"))?;
        let number = serial()?;
        // Part of the number, so that a list of trusted authorities shows which one it is.
        let short = number.to_bytes().into_iter().skip(1).take(4);
        let short: String = short.map(two_digits).collect();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = format!("tidegate inspection {} {short}", now.strftime("%F"));
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(number);
        params.not_before = date(saturating(now, -SKEW))?.to_datetime();
        params.not_after = date(saturating(now, YEAR))?.to_datetime();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = permitting(names);
        let cert = params.self_signed(&key);
        let cert = cert.map_err(|_| MintError("the authority cannot be signed"))?;
        Ok(Self {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The content of a certificate, for a person.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The subject.
    pub subject: String,
    /// SHA-256 over the DER, in pairs of hex digits.
    pub fingerprint: String,
    /// When the certificate becomes valid.
    pub not_before: Timestamp,
    /// When the certificate expires.
    pub not_after: Timestamp,
    /// Names and networks that it can sign for; empty: all names that are not excluded.
    pub permitted: Vec<String>,
    /// Names and networks that it cannot sign for.
    pub excluded: Vec<String>,
    /// The name constraints, for comparisons.
    pub constraints: Constraints,
    /// The certificate in DER.
    pub der: Vec<u8>,
}

impl Facts {
    /// Reads each certificate of a PEM text; invalid ones are left out.
    pub fn of_pem(text: &str) -> Vec<Self> {
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes());
        certificates
            .flatten()
            .filter_map(|der| Self::of(&der))
            .collect()
    }

    pub(super) fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        // Every load refuses an authority with unreadable constraints; here a person inspects the
        // file.
        let read = Constraints::of(&certificate);
        let (permitted, excluded) = match &read {
            Ok(constraints) => constraints.texts(),
            Err(why) => (vec![format!("({why})")], Vec::new()),
        };
        let constraints = read.unwrap_or_default();
        let hash = digest(&SHA256, der);
        let pairs: Vec<_> = hash.as_ref().iter().copied().map(two_digits).collect();
        Some(Self {
            subject: certificate
                .subject()
                .to_string()
                .chars()
                .filter(|it| !it.is_control())
                .collect(),
            fingerprint: pairs.join(":"),
            not_before: material::timestamp(certificate.validity().not_before)?,
            not_after: material::timestamp(certificate.validity().not_after)?,
            permitted,
            excluded,
            constraints,
            der: der.to_vec(),
        })
    }
}

fn two_digits(byte: u8) -> String {
    format!("{byte:02X}")
}
