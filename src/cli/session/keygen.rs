//! `tidegate session keygen`: makes the key pair that signs and verifies session tokens.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::identity::{Signer, new_pkcs8};

use super::super::{Answer, print};

/// Prefix of an Ed25519 public key in SPKI (RFC 8410), before its 32 bytes.
const SPKI: [u8; 12] = [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0];

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Keygen {
    /// The file of the private key; the public key is written beside it, as FILE.pub.
    file: PathBuf,
}

impl Keygen {
    pub(super) fn perform(&self) -> Answer {
        let Some((private, public)) = pair() else {
            print::err("tidegate: this machine has no randomness\n");
            return Answer::Failed;
        };
        let mut beside = self.file.clone().into_os_string();
        beside.push(".pub");
        let beside = PathBuf::from(beside);
        let written =
            create(&self.file, 0o600, &private).and_then(|()| create(&beside, 0o644, &public));
        if let Err(error) = written {
            print::err(&format!("tidegate: {error}\n"));
            return Answer::Failed;
        }
        print::err(&format!(
            "tidegate: {} signs (`identity.session.key`), {} verifies (`identity.session.keys`)\n",
            self.file.display(),
            beside.display()
        ));
        Answer::Yes
    }
}

/// Returns both keys in PEM.
fn pair() -> Option<(String, String)> {
    let private = new_pkcs8()?;
    let public = Signer::from_pkcs8(&private)?.public().bytes;
    let spki: Vec<u8> = SPKI.into_iter().chain(public).collect();
    Some((pem("PRIVATE KEY", &private), pem("PUBLIC KEY", &spki)))
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let encoded = STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while let Some((line, more)) = rest.split_at_checked(64) {
        text.extend([line, "\n"]);
        rest = more;
    }
    if !rest.is_empty() {
        text.extend([rest, "\n"]);
    }
    text + &format!("-----END {label}-----\n")
}

/// Creates the file; never overwrites an existing key.
fn create(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
