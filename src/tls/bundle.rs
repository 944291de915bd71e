//! What clients are given to trust: the system's roots and ours in one file, and ours alone.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Authority;

/// Where systems keep their roots in one file.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Two files that clients are pointed to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// The system's roots and ours: for clients that trust this file alone.
    pub whole: PathBuf,
    /// Ours alone: for clients that add it to their own roots.
    pub own: PathBuf,
}

impl Bundle {
    /// Where they are for a gate that keeps its records in that folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            whole: folder.join("ca-bundle.pem"),
            own: folder.join("ca.pem"),
        }
    }

    /// Writes them anew where they say something else. `usual` is what the user trusts instead of
    /// the system's roots, where that is so.
    pub fn write(&self, authority: &Authority, usual: Option<&Path>) -> io::Result<()> {
        let usual = usual.filter(|usual| *usual != self.whole);
        replace(&self.own, &pem(authority.published()))?;
        replace(&self.whole, &whole(authority, usual)?)
    }
}

/// The system's roots, then what the authority publishes, as PEM.
pub(super) fn whole(authority: &Authority, usual: Option<&Path>) -> io::Result<String> {
    let mut seen: HashSet<&[u8]> = HashSet::new();
    let roots = system(usual);
    if roots.is_empty() {
        let message = "no root certificate of the system is found: install `ca-certificates`";
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    }
    let all = roots.iter().map(Vec::as_slice).chain(authority.published());
    let all: Vec<_> = all.filter(|der| seen.insert(der)).collect();
    Ok(pem(all.into_iter()))
}

/// The roots of the system, in DER.
fn system(usual: Option<&Path>) -> Vec<Vec<u8>> {
    let known = SYSTEM.iter().map(Path::new);
    let file = usual.into_iter().chain(known).find(|file| file.is_file());
    let read = match file {
        Some(file) => rustls_native_certs::load_certs_from_paths(Some(file), None),
        None => rustls_native_certs::load_native_certs(),
    };
    read.certs.iter().map(|der| der.to_vec()).collect()
}

/// Certificates as PEM (RFC 7468).
pub fn pem<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let base64 = STANDARD.encode(der);
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Puts a file in place in one step, readable by everybody, unless it says the same already.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;

    if crate::config::read(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let of =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&new);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(of)
}
