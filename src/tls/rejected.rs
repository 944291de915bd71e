//! Why a server certificate is rejected, for reasons without a `rustls` error of their own.

use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};

/// Why a certificate is rejected: a value of `error.type`, and a sentence for a person.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{sentence}")]
pub(super) struct Rejected {
    pub(super) word: &'static str,
    pub(super) sentence: &'static str,
}

macro_rules! rejected {
    ($($name:ident $word:literal $sentence:literal;)*) => {
        $(pub(super) const $name: Rejected = Rejected { word: $word, sentence: $sentence };)*
    };
}

rejected! {
    ALGORITHM "certificate_algorithm"
        "a signature in the upstream's chain is of a kind that is not allowed, e.g. SHA-1";
    CHAIN "certificate_chain"
        "the upstream's chain is too long, or has too many ways to a root";
    CRITICAL_EXTENSION "certificate_extension"
        "a certificate of the upstream's chain has a critical extension that is unknown";
    CRL_EXPIRED "crl_expired"
        "a revocation list in `crl` is no longer fresh: fetch a new one";
    CRL_INVALID "crl_invalid"
        "a revocation list in `crl` is not signed by the authority that it is for";
    CRL_MISSING "crl_missing"
        "no revocation list in `crl` is for an issuer of the upstream's chain";
    IS_AUTHORITY "certificate_is_authority"
        "the upstream's own certificate is one of an authority";
    KEY_USAGE "certificate_key_usage"
        "the key usage of the upstream's certificate does not let it sign a handshake";
    MALFORMED "certificate_malformed"
        "a certificate of the upstream's chain is not well-formed";
    NAME_CONSTRAINTS "certificate_name_constraints"
        "an authority of the upstream's chain may not sign for its name";
    NOT_AUTHORITY "certificate_not_authority"
        "a certificate of the upstream's chain signs another, and may not";
    NOT_PINNED "certificate_not_pinned"
        "no key in the upstream's verified chain is one of `pins`";
    NOT_STAPLED "certificate_not_stapled"
        "the upstream's certificate asks for a stapled OCSP response, and there is none";
    PATH_LENGTH "certificate_path_length"
        "there are more authorities in the upstream's chain than one of them permits";
    PURPOSE "certificate_purpose"
        "the upstream's certificate is not for servers (extended key usage)";
    ROOT_EXPIRED "certificate_root_expired"
        "the root of the upstream's chain has expired, or is not valid yet";
    SHORT_KEY "certificate_weak_key"
        "an RSA key in the upstream's chain has less than 2048 bits";
    VERSION "certificate_version"
        "a certificate of the upstream's chain is not of X.509 version 3";
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        let why = OtherError(Arc::new(rejected));
        Self::InvalidCertificate(CertificateError::Other(why))
    }
}

/// Whether an error may be caused by a key that is too short.
pub(super) fn may_be_short_key(error: &webpki::Error) -> bool {
    use webpki::Error as E;
    matches!(
        error,
        E::InvalidSignatureForPublicKey | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
    )
}

/// Converts an error of the verification.
pub(super) fn of(error: &webpki::Error) -> Error {
    use webpki::Error as E;
    let rejected = match error {
        E::CertExpired { .. } => return CertificateError::Expired.into(),
        E::CertNotValidYet { .. } => return CertificateError::NotValidYet.into(),
        E::CertNotValidForName(_) => return CertificateError::NotValidForName.into(),
        E::UnknownIssuer => return CertificateError::UnknownIssuer.into(),
        E::CertRevoked => return CertificateError::Revoked.into(),
        E::InvalidSignatureForPublicKey => return CertificateError::BadSignature.into(),
        E::CrlExpired { .. } => CRL_EXPIRED,
        E::UnknownRevocationStatus => CRL_MISSING,
        E::InvalidCrlSignatureForPublicKey | E::IssuerNotCrlSigner => CRL_INVALID,
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | E::SignatureAlgorithmMismatch => ALGORITHM,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => PURPOSE,
        E::NameConstraintViolation => NAME_CONSTRAINTS,
        E::PathLenConstraintViolated => PATH_LENGTH,
        E::EndEntityUsedAsCa => NOT_AUTHORITY,
        E::CaUsedAsEndEntity => IS_AUTHORITY,
        E::UnsupportedCriticalExtension => CRITICAL_EXTENSION,
        E::UnsupportedCertVersion => VERSION,
        E::MaximumPathDepthExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumSignatureChecksExceeded
        | E::MaximumNameConstraintComparisonsExceeded => CHAIN,
        E::BadDer
        | E::BadDerTime
        | E::TrailingData(_)
        | E::MalformedExtensions
        | E::MalformedDnsIdentifier
        | E::MalformedNameConstraint
        | E::InvalidNetworkMaskConstraint
        | E::ExtensionValueInvalid
        | E::InvalidCertValidity
        | E::InvalidSerialNumber => MALFORMED,
        _ => {
            let why = OtherError(Arc::new(error.clone()));
            return CertificateError::Other(why).into();
        }
    };
    rejected.into()
}
