//! The certificates of one suite: made anew, never kept in the repository.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::ServerConfig;

/// Writes `ca.pem` and `ca.key`, an authority that proxies may sign with and trust, `ca-and-key.pem`, and
/// `origin.pem` and `origin.key`, its certificate for `localhost`.
pub fn make(place: &Path) -> Result<()> {
    fs::create_dir_all(place)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "compare test authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?
        .signed_by(&key, &authority)?;
    let authority_key = authority.key().serialize_pem();
    write(place, "ca.pem", &authority.pem())?;
    write(place, "ca.key", &authority_key)?;
    write(place, "ca-and-key.pem", &(authority_key + &authority.pem()))?;
    write(place, "origin.pem", &leaf.pem())?;
    write(place, "origin.key", &key.serialize_pem())
}

fn write(place: &Path, name: &str, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = place.join(name);
    fs::write(&path, text)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o600),
    )?)
}

/// Speaks TLS as `localhost`.
pub fn server(place: &Path) -> Result<Arc<ServerConfig>> {
    let certificate = CertificateDer::from_pem_file(place.join("origin.pem"))?;
    let key = PrivateKeyDer::from_pem_file(place.join("origin.key"))?;
    Ok(Arc::new(
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?,
    ))
}
