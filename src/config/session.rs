//! `[identity.session]`: the accepted session tokens, and whether this gate issues any.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::policy::source::Placed;

use super::files::read_text;
use super::value;

/// The accepted session tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Session {
    /// `keys`: Ed25519 public keys, including that of `key`. If there are none and no `key`, the
    /// gate makes a new key at each start.
    pub keys: Vec<[u8; 32]>,
    /// `key`: the private key with which this gate signs.
    pub key: Option<PrivateKey>,
    /// `audience`: the audience of the tokens.
    pub audience: Arc<str>,
    /// `longest`: the maximum lifetime of a token.
    pub longest: Duration,
    /// `local`: the trust in a session that was started at the control socket without evidence.
    pub local: Local,
    /// `header-mismatch`: the treatment of a request that names another session than its evidence.
    pub header_mismatch: HeaderMismatch,
    /// `revocations`: the file in which revocations outlive this process.
    pub revocations: Option<PathBuf>,
    /// The content of that file when it was read: names, and until when each is revoked.
    pub revoked: Vec<(Arc<str>, Timestamp)>,
}

/// The trust in a session that was started at the control socket without evidence.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Local {
    /// Its repository can make its tier stricter, never looser.
    #[default]
    Narrow,
    /// The session is trusted, like every client that can connect to the control socket.
    Trust,
}

/// The treatment of an inspected request whose headers name another session than its evidence.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HeaderMismatch {
    /// The mismatch is recorded.
    #[default]
    Record,
    /// The request is refused.
    Deny,
}

/// An Ed25519 private key; never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct PrivateKey(Arc<[u8]>);

impl PrivateKey {
    /// Returns the key as PKCS#8.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl Default for Session {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            key: None,
            audience: "tidegate".into(),
            longest: Duration::from_hours(12),
            local: Local::default(),
            header_mismatch: HeaderMismatch::default(),
            revocations: None,
            revoked: Vec::new(),
        }
    }
}

/// The text of `[identity.session]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    #[serde(default)]
    keys: Vec<Spanned<String>>,
    key: Option<Spanned<String>>,
    audience: Option<Spanned<String>>,
    longest: Option<Spanned<String>>,
    local: Option<Spanned<String>>,
    header_mismatch: Option<Spanned<String>>,
    revocations: Option<Spanned<String>>,
}

const LIFETIME_RANGE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(24 * 7));
/// The words of `local`.
pub(super) const LOCAL: [(&str, Local); 2] = [("narrow", Local::Narrow), ("trust", Local::Trust)];
/// The words of `header-mismatch`.
pub(super) const HEADER_MISMATCH: [(&str, HeaderMismatch); 2] = [
    ("record", HeaderMismatch::Record),
    ("deny", HeaderMismatch::Deny),
];
const MAKE_ONE: &str = "make a pair with `tidegate session keygen FILE`";
/// Prefix of an Ed25519 public key in SPKI (RFC 8410), before its 32 bytes.
const SPKI: [u8; 12] = [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0];

/// Reads the section over the defaults; `secrets` collects the files and their content.
pub(super) fn session(
    section: Option<&Placed<Section>>,
    secrets: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Session {
    let mut session = Session::default();
    let Some(section) = section else {
        return session;
    };
    let mut reader = Reader {
        section,
        secrets,
        findings,
    };
    let written = &section.value;
    session.key = written.key.as_ref().and_then(|key| reader.private(key));
    let own = session.key.as_ref().and_then(public_of);
    let named = written.keys.iter().filter_map(|key| reader.public(key));
    session.keys = named.chain(own).collect();
    session.keys.sort_unstable();
    session.keys.dedup();
    if let Some(audience) = &written.audience {
        session.audience = reader.audience(audience).unwrap_or(session.audience);
    }
    if let Some(longest) = &written.longest {
        let place = section.at(longest);
        let checked = value::duration(longest.get_ref(), LIFETIME_RANGE, place, reader.findings);
        session.longest = checked.unwrap_or(session.longest);
    }
    if let Some(local) = &written.local {
        let read = value::word(local.get_ref(), &LOCAL, section.at(local), reader.findings);
        session.local = read.unwrap_or_default();
    }
    if let Some(mismatch) = &written.header_mismatch {
        let place = section.at(mismatch);
        let read = value::word(mismatch.get_ref(), &HEADER_MISMATCH, place, reader.findings);
        session.header_mismatch = read.unwrap_or_default();
    }
    if let Some(file) = &written.revocations {
        let path = reader.path(file);
        session.revoked = reader.revoked(file, &path);
        session.revocations = Some(path);
    }
    session
}

/// Reads a private key that is named on a command line; the error is the reason.
pub fn private_key(path: &Path) -> Result<PrivateKey, String> {
    let text = super::read(path).map_err(|error| error.to_string())?;
    if let Some(mode) = open_to_others(path) {
        return Err(format!(
            "{}: others can read this key: its mode is {mode:o}",
            path.display()
        ));
    }
    private_of(&text).ok_or_else(|| {
        format!(
            "{}: this file holds no Ed25519 private key in PEM (PKCS#8)",
            path.display()
        )
    })
}

fn private_of(text: &str) -> Option<PrivateKey> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()?;
    let key = PrivateKey(der.secret_pkcs8_der().into());
    public_of(&key).is_some().then_some(key)
}

/// Whether a text is a PEM key instead of the path of a file.
pub(super) fn is_key(text: &str) -> bool {
    text.contains("-----BEGIN")
}

fn public_of(key: &PrivateKey) -> Option<[u8; 32]> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.der()).ok()?;
    pair.public_key().as_ref().try_into().ok()
}

struct Reader<'a> {
    section: &'a Placed<Section>,
    secrets: &'a mut Vec<(PathBuf, String)>,
    findings: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn path(&self, file: &Spanned<String>) -> PathBuf {
        super::folder_of(&self.section.source.path).join(file.get_ref())
    }

    fn text(&mut self, file: &Spanned<String>) -> Option<(PathBuf, String)> {
        if is_key(file.get_ref()) {
            let message = "this is a key, not the path of a file that holds one";
            self.bad_key(self.section.at(file), message);
            return None;
        }
        let path = self.path(file);
        match read_text(&path) {
            Ok(text) => {
                self.secrets.push((path.clone(), text.clone()));
                Some((path, text))
            }
            Err(unreadable) => {
                let (code, message) = (unreadable.code(), unreadable.to_string());
                let finding = Diagnostic::error(code, self.section.at(file), message);
                self.findings.push(finding.help(MAKE_ONE));
                None
            }
        }
    }

    fn public(&mut self, file: &Spanned<String>) -> Option<[u8; 32]> {
        let (_, text) = self.text(file)?;
        let parsed = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).ok();
        let key = parsed.and_then(|spki| spki.strip_prefix(&SPKI)?.try_into().ok());
        if key.is_none() {
            let message = "this file holds no Ed25519 public key in PEM";
            self.bad_key(self.section.at(file), message);
        }
        key
    }

    fn private(&mut self, file: &Spanned<String>) -> Option<PrivateKey> {
        let (path, text) = self.text(file)?;
        if let Some(mode) = open_to_others(&path) {
            let message = format!("others can read this key: its mode is {mode:o}");
            let finding = Diagnostic::error("key-exposed", self.section.at(file), message);
            self.findings.push(finding.help(format!(
                "`chmod 600 {}`, and make a new key if another user may have read it",
                path.display()
            )));
            return None;
        }
        let key = private_of(&text);
        if key.is_none() {
            let message = "this file holds no Ed25519 private key in PEM (PKCS#8)";
            self.bad_key(self.section.at(file), message);
        }
        key
    }

    fn bad_key(&mut self, place: Place, message: &str) {
        let finding = Diagnostic::error("bad-key", place, message);
        self.findings.push(finding.help(MAKE_ONE));
    }

    fn audience(&mut self, written: &Spanned<String>) -> Option<Arc<str>> {
        let text = written.get_ref().as_str();
        let sound = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !text.is_empty() && text.len() <= 253 && sound {
            return Some(text.into());
        }
        let message = "an audience is a printable word without blanks";
        let finding = Diagnostic::error("bad-name", self.section.at(written), message);
        self.findings
            .push(finding.help("write e.g. `tidegate` or `tidegate.acme.example`"));
        None
    }

    /// Reads the file of revocations, which may not exist yet.
    fn revoked(&mut self, file: &Spanned<String>, path: &Path) -> Vec<(Arc<str>, Timestamp)> {
        if !path.exists() {
            self.secrets.push((path.to_owned(), String::new()));
            return Vec::new();
        }
        let Some((_, text)) = self.text(file) else {
            return Vec::new();
        };
        let mut revoked = Vec::new();
        let lines = text.lines().count();
        for (at, line) in text.lines().enumerate() {
            let parts = line.split_once(' ');
            match parts.and_then(|(until, name)| Some((name.into(), until.parse().ok()?))) {
                Some(revocation) => revoked.push(revocation),
                // The last line of a file that is being written may be incomplete.
                None if at + 1 == lines && !text.ends_with('\n') => {}
                None => {
                    let message = format!("line {} of this file is no revocation", at + 1);
                    let finding = Diagnostic::error("bad-line", self.section.at(file), message);
                    self.findings
                        .push(finding.help("each line is `UNTIL NAME`, as the gate writes it"));
                }
            }
        }
        revoked
    }
}

/// Returns the mode of a file if another user can read it.
fn open_to_others(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}
