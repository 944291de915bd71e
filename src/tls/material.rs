//! PEM texts to certificates, keys and lists; what is wrong names the file.

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use crate::config::PemFile;
use crate::diag::Diagnostic;

/// The certificates of a file, at least one.
pub(super) fn certificates(
    file: &PemFile,
) -> Result<Vec<CertificateDer<'static>>, Box<Diagnostic>> {
    all(file, "certificate")
}

/// The revocation lists of a file, at least one.
pub(super) fn crls(
    file: &PemFile,
) -> Result<Vec<CertificateRevocationListDer<'static>>, Box<Diagnostic>> {
    all(file, "revocation list")
}

/// The first private key of a file.
pub(super) fn key(file: &PemFile) -> Result<PrivateKeyDer<'static>, Box<Diagnostic>> {
    // What the parser says may quote the line, and so the key.
    PrivateKeyDer::from_pem_slice(file.text.as_bytes())
        .map_err(|_| wrong(file, "there is no private key in it"))
}

fn all<T: PemObject>(file: &PemFile, what: &str) -> Result<Vec<T>, Box<Diagnostic>> {
    let found: Result<Vec<T>, _> = T::pem_slice_iter(file.text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(file, &format!("there is no {what} in it"))),
        Err(_) => Err(wrong(file, "it is not well-formed PEM")),
    }
}

/// A finding about a file.
pub(super) fn wrong(file: &PemFile, why: &str) -> Box<Diagnostic> {
    let message = format!("{}: {why}", file.path.display());
    let help = "name a PEM file with `-----BEGIN …-----` lines; it is read anew when it changes";
    let finding = Diagnostic::error("bad-pem", file.place.clone(), message);
    Box::new(finding.help(help))
}

/// When a certificate ends.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    timestamp(parsed.validity().not_after)
}

/// Until when a list is fresh.
pub(super) fn next_update(crl: &CertificateRevocationListDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = CertificateRevocationList::from_der(crl).ok()?;
    timestamp(parsed.next_update()?)
}

pub(super) fn timestamp(time: ASN1Time) -> Option<Timestamp> {
    Timestamp::from_second(time.timestamp()).ok()
}
