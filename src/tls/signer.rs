//! Whether a certificate may sign other certificates (RFC 5280 section 6.1.4).

use x509_parser::certificate::X509Certificate;

/// Whether the local authority, or one above it, may sign certificates; the error is the reason.
///
/// Stricter than RFC 5280 for an unreadable extension: the extension may forbid signing, so the
/// certificate counts as one that must not sign.
pub(super) fn may_sign(certificate: &X509Certificate<'_>) -> Result<(), &'static str> {
    let unread = |extension: &x509_parser::extensions::X509Extension<'_>| {
        let parsed = extension.parsed_extension();
        parsed.error().is_some() || (extension.critical && parsed.unsupported())
    };
    if certificate.extensions().iter().any(unread) || certificate.extensions_map().is_err() {
        return Err("it has an extension that cannot be read, or a critical one that is unknown");
    }
    is_authority(certificate)
}

/// Whether a certificate is of an authority that may sign certificates; the error is the reason.
/// Other extensions are ignored: some public authorities have extensions that deviate from RFC
/// 5280.
pub(super) fn is_authority(certificate: &X509Certificate<'_>) -> Result<(), &'static str> {
    if !certificate.is_ca() {
        return Err("this certificate is not of an authority");
    }
    match certificate.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => {
            Err("its key usage does not let it sign certificates")
        }
        Ok(_) => Ok(()),
        Err(_) => Err("its key usage cannot be read"),
    }
}

/// Whether an authority may sign server certificates; the error is the reason.
pub(super) fn may_sign_servers(certificate: &X509Certificate<'_>) -> Result<(), &'static str> {
    may_sign(certificate)?;
    let purposes = certificate.extended_key_usage();
    let purposes = purposes.map_err(|_| "its extended key usage cannot be read")?;
    match purposes {
        Some(it) if !it.value.server_auth && !it.value.any => {
            Err("its extended key usage does not let it sign certificates of servers")
        }
        _ => Ok(()),
    }
}

/// Whether a certificate requires a stapled OCSP response: its TLS feature extension has
/// `status_request` (RFC 7633), or cannot be read.
pub(super) fn must_staple(certificate: &X509Certificate<'_>) -> bool {
    /// `id-pe-tlsfeature`, 1.3.6.1.5.5.7.1.24.
    const TLS_FEATURE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 24];
    /// An `INTEGER` of 5: `status_request` (RFC 6066 section 8).
    const STATUS_REQUEST: &[u8] = &[2, 1, 5];
    /// An `INTEGER` of 17: `status_request_v2` (RFC 6961).
    const STATUS_REQUEST_V2: &[u8] = &[2, 1, 17];
    certificate.extensions().iter().any(|extension| {
        let is_feature = extension.oid.as_bytes() == TLS_FEATURE;
        let Some((&[0x30, _], features)) = extension.value.split_first_chunk() else {
            return is_feature;
        };
        let asks = |feature: &[u8]| feature == STATUS_REQUEST || feature == STATUS_REQUEST_V2;
        let plain = features.len().is_multiple_of(3);
        is_feature && (!plain || features.chunks(3).any(asks))
    })
}
