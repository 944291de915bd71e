//! Parses PEM texts into certificates, keys and lists; errors name the file.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use crate::config::{OwnCertificate, PemFile};
use crate::diag::Diagnostic;

const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// Maximum number of names of a certificate that are shown.
const MAX_NAMES: usize = 4;

/// Returns the certificates of a file, at least one.
pub(super) fn certificates(
    file: &PemFile,
) -> Result<Vec<CertificateDer<'static>>, Box<Diagnostic>> {
    all(file, "certificate")
}

/// Returns the revocation lists of a file, at least one.
pub(super) fn crls(
    file: &PemFile,
) -> Result<Vec<CertificateRevocationListDer<'static>>, Box<Diagnostic>> {
    all(file, "revocation list")
}

/// Returns the first private key of a file: PKCS#8 (RFC 5958), also encrypted with a passphrase
/// (PBES2, RFC 8018), SEC1 (RFC 5915), PKCS#1 (RFC 8017).
pub(super) fn own_key(own: &OwnCertificate) -> Result<PrivateKeyDer<'static>, Box<Diagnostic>> {
    let text = &own.key.text;
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        let why = "it is encrypted in the old way of OpenSSL, which is weak";
        let help = "run `openssl pkcs8 -topk8 -in OLD -out NEW`, and name the new one";
        return Err(Box::new(wrong(&own.key, why).help(help)));
    }
    let encrypted = between(text, ENCRYPTED);
    match (encrypted, &own.passphrase) {
        (None, _) => key(&own.key),
        (Some(body), Some(passphrase)) => decrypted(&own.key, body, passphrase),
        (Some(_), None) => {
            let finding = wrong(&own.key, "it is encrypted, and nothing says with what");
            let help = "write `client-key-passphrase = \"FILE\"`, a file that holds the passphrase";
            Err(Box::new(finding.help(help)))
        }
    }
}

/// Whether a key is encrypted.
pub(super) fn is_encrypted(key: &PemFile) -> bool {
    key.text.contains(ENCRYPTED)
}

fn decrypted(
    file: &PemFile,
    body: &str,
    passphrase: &PemFile,
) -> Result<PrivateKeyDer<'static>, Box<Diagnostic>> {
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body);
    let der = der.map_err(|_| wrong(file, "it is not well-formed PEM"))?;
    let info = EncryptedPrivateKeyInfoRef::try_from(der.as_slice()).ok();
    let known = info.filter(|it| it.encryption_algorithm.pbes2().is_some());
    let info = known.ok_or_else(|| {
        let why = "it is encrypted in a way that is not known: PBES2 with AES and SHA-2 is";
        let help = "run `openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW`";
        Box::new(wrong(file, why).help(help))
    })?;
    // An editor adds a line end to the file, which is not part of the passphrase.
    let secret = passphrase
        .text
        .strip_suffix('\n')
        .unwrap_or(&passphrase.text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    let key = info.decrypt(secret).map_err(|_| {
        let shown = passphrase.path.display();
        wrong(file, &format!("{shown} does not hold its passphrase"))
    })?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// Returns the text between a line and the next line that begins with dashes.
fn between<'t>(text: &'t str, line: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(line)?;
    rest.split_once("-----").map(|(body, _)| body)
}

/// Returns the first private key of a file.
pub(super) fn key(file: &PemFile) -> Result<PrivateKeyDer<'static>, Box<Diagnostic>> {
    // The parser's error may quote a line, and so the key.
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

/// Builds a finding about a file.
pub(super) fn wrong(file: &PemFile, why: &str) -> Box<Diagnostic> {
    let message = format!("{}: {why}", file.path.display());
    let help = "name a PEM file with `-----BEGIN …-----` lines; it is read again when it changes";
    let finding = Diagnostic::error("bad-pem", file.place.clone(), message);
    Box::new(finding.help(help))
}

/// Returns when a certificate becomes valid.
pub(super) fn not_before(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    timestamp(parsed.validity().not_before)
}

/// Returns the names of a certificate for a person: the subject alternative names, otherwise the
/// subject field.
pub(super) fn names(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return String::new();
    };
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let names = alternative.map(|it| it.value.general_names.as_slice());
    let names = names
        .unwrap_or_default()
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                Some(*name)
            }
            _ => None,
        });
    let names: Vec<_> = names.take(MAX_NAMES).collect();
    match names.as_slice() {
        [] => parsed.subject().to_string(),
        names => names.join(", "),
    }
}

/// Returns when a certificate expires.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    timestamp(parsed.validity().not_after)
}

/// Returns the next update of a revocation list.
pub(super) fn next_update(crl: &CertificateRevocationListDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = CertificateRevocationList::from_der(crl).ok()?;
    timestamp(parsed.next_update()?)
}

pub(super) fn timestamp(time: ASN1Time) -> Option<Timestamp> {
    Timestamp::from_second(time.timestamp()).ok()
}
