//! Trust bundles for clients: the system's roots with the gate's authority, and the authority
//! alone.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Paths of the root bundle on common systems.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The bundle files of clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// The system's roots and the gate's certificates: for clients that trust this file alone.
    pub whole: PathBuf,
    /// The gate's certificates alone: for clients that add them to their own roots.
    pub own: PathBuf,
    /// The same as `whole` for Java, if it was made with `keytool`.
    pub java: PathBuf,
}

impl Bundle {
    /// Returns the paths of the files in the record folder of a gate.
    pub fn in_folder(folder: &Path) -> Self {
        // The parent of a bare file name is empty: it means the current folder.
        let here = Path::new(".").join(folder);
        let folder = std::path::absolute(&here).unwrap_or(here);
        // The authority itself may be in this folder too, under a name that the operator chose.
        Self {
            whole: folder.join("trust-bundle.pem"),
            own: folder.join("trust-tidegate.pem"),
            java: folder.join("trust-java.p12"),
        }
    }

    /// Writes the files whose content changes. `published` are the gate's certificates in DER;
    /// `usual` is the bundle that the user trusts instead of the system's roots, if any.
    pub fn write<'a>(
        &self,
        published: impl Iterator<Item = &'a [u8]> + Clone,
        usual: Option<&Path>,
    ) -> io::Result<()> {
        let usual = usual.filter(|usual| *usual != self.whole);
        replace(&self.own, &pem(published.clone()), 0o644)?;
        replace(&self.whole, &whole(published, usual)?, 0o644)
    }
}

/// Returns the system's roots, then the gate's certificates, as PEM.
pub fn whole<'a>(
    published: impl Iterator<Item = &'a [u8]>,
    usual: Option<&Path>,
) -> io::Result<String> {
    let roots = system(usual);
    if roots.is_empty() {
        let message = "no root certificate of the system is found: install `ca-certificates`";
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    }
    let mut seen: HashSet<&[u8]> = HashSet::new();
    let ours: Vec<_> = published.collect();
    let all = roots.iter().map(Vec::as_slice).chain(ours);
    let all: Vec<_> = all.filter(|der| seen.insert(der)).collect();
    Ok(pem(all.into_iter()))
}

/// Returns the roots of the system, in DER.
fn system(usual: Option<&Path>) -> Vec<Vec<u8>> {
    let known = SYSTEM.iter().map(Path::new);
    let file = usual.into_iter().chain(known).find(|file| file.is_file());
    let read = match file {
        Some(file) => rustls_native_certs::load_certs_from_paths(Some(file), None),
        None => rustls_native_certs::load_native_certs(),
    };
    read.certs.iter().map(|der| der.to_vec()).collect()
}

/// Encodes certificates as PEM (RFC 7468).
pub fn pem<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(der);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.extend([line, "\n"]);
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Replaces a file atomically, unless it has this content already. Errors name the path.
pub fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if crate::config::read(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let mut new = path.to_owned().into_os_string();
    new.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(new);
    let _ = fs::remove_file(&new);
    create(&new, text, mode)?;
    fs::rename(&new, path).map_err(|error| {
        let _ = fs::remove_file(&new);
        named(path, &error)
    })
}

/// Makes a file that must not exist yet. Errors name the path.
pub fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let opened = options.open(path);
    opened
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_has_the_roots_of_before_and_ours_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let one = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            made.cert.der().to_vec()
        };
        let (root, ours) = (one("root.example"), one("ours.example"));
        let usual = folder.path().join("usual.pem");
        replace(&usual, &pem([&*root, &*ours].into_iter()), 0o644).unwrap();
        let bundle = Bundle::in_folder(folder.path());
        let published = || [&*ours].into_iter();
        bundle.write(published(), Some(&usual)).unwrap();
        let whole = crate::config::read(&bundle.whole).unwrap();
        // The order of the roots does not matter.
        let orders = [[&*root, &*ours], [&*ours, &*root]].map(|order| pem(order.into_iter()));
        assert!(orders.contains(&whole), "{whole}");
        assert_eq!(crate::config::read(&bundle.own).unwrap(), pem(published()));
        // A former certificate of the gate does not stay because it was in the old bundle.
        let new = one("new.example");
        bundle
            .write([&*new].into_iter(), Some(&bundle.whole))
            .unwrap();
        let whole = crate::config::read(&bundle.whole).unwrap();
        assert!(!whole.contains(&pem(published())));
        assert!(whole.ends_with(&pem([&*new].into_iter())));
    }
}
