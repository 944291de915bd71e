//! `proxy-tls` and `tls`: the certificates of a listener, and the client certificates that it
//! accepts.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::policy::source::Placed;

use super::files::{ReadError, read_text};
use super::value;

/// The TLS settings of a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerTls {
    /// The configured address, and the number of earlier TLS listeners with the same address: port
    /// 0 is any free port, so addresses may be equal.
    pub written: (SocketAddr, usize),
    /// Its certificates, the leaf first.
    pub cert: PemFile,
    /// The key of the leaf.
    pub key: PemFile,
    /// The client certificates that the listener requests, if any.
    pub clients: Option<ClientCertificates>,
}

/// The client certificates that a listener accepts, and the names it reads from them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificates {
    /// The certificate authorities of clients.
    pub ca: PemFile,
    /// Whether a caller without a certificate is refused.
    pub required: bool,
    /// The revocation lists.
    pub crls: Vec<PemFile>,
    /// Whether a certificate is accepted only if a fresh list shows that it is not revoked.
    pub crl_required: bool,
    /// The kinds of names that identify the caller, in order of preference.
    pub identity: Vec<NameKind>,
}

/// A kind of name in a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameKind {
    /// The common name of the subject.
    CommonName,
    /// A DNS name.
    Dns,
    /// An e-mail address.
    Email,
    /// A URI, e.g. `spiffe://acme/ci/web`.
    Uri,
}

/// A PEM file that was read. Equal to another if the paths are equal: the content may change.
#[derive(Clone)]
pub struct PemFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The content, which may be a private key.
    pub text: Arc<str>,
    /// The position in the configuration that names the file.
    pub place: Place,
}

impl fmt::Debug for PemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PemFile").field(&self.path).finish()
    }
}

impl PartialEq for PemFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for PemFile {}

/// The words of `client-cert`.
pub(super) const CLIENT_CERT: [(&str, Demand); 3] = [
    ("require", Demand::Require),
    ("optional", Demand::Optional),
    ("none", Demand::None),
];
/// The words of `crl`.
pub(super) const CRL: [(&str, bool); 2] = [("require", true), ("if-present", false)];
/// The words of `client-identity`.
pub(super) const CLIENT_IDENTITY: [(&str, NameKind); 4] = [
    ("uri", NameKind::Uri),
    ("dns", NameKind::Dns),
    ("email", NameKind::Email),
    ("cn", NameKind::CommonName),
];

/// The text of the table in a `[[listener]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TlsSection {
    pub(super) cert: Spanned<String>,
    pub(super) key: Spanned<String>,
    pub(super) client_ca: Option<Spanned<String>>,
    pub(super) client_cert: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) crls: Vec<Spanned<String>>,
    pub(super) crl: Option<Spanned<String>>,
    pub(super) client_identity: Option<Vec<Spanned<String>>>,
}

/// The text of the table in `[listen]`, with its address.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ProxyTlsSection {
    pub(super) address: Spanned<String>,
    cert: Spanned<String>,
    key: Spanned<String>,
    client_ca: Option<Spanned<String>>,
    client_cert: Option<Spanned<String>>,
    #[serde(default)]
    crls: Vec<Spanned<String>>,
    crl: Option<Spanned<String>>,
    client_identity: Option<Vec<Spanned<String>>>,
}

impl ProxyTlsSection {
    /// Returns the settings without the address.
    pub(super) fn tls(&self) -> TlsSection {
        TlsSection {
            cert: self.cert.clone(),
            key: self.key.clone(),
            client_ca: self.client_ca.clone(),
            client_cert: self.client_cert.clone(),
            crls: self.crls.clone(),
            crl: self.crl.clone(),
            client_identity: self.client_identity.clone(),
        }
    }
}

/// Whether a caller needs a certificate.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Demand {
    None,
    Optional,
    Require,
}

/// Reads the TLS settings of a listener; `read` collects the files and their content.
pub(super) fn tls<T>(
    around: &Placed<T>,
    section: &TlsSection,
    written: (SocketAddr, usize),
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Option<ListenerTls> {
    let mut files = PemFiles {
        around,
        read,
        findings,
    };
    let cert = files.pem(&section.cert);
    let key = files.pem(&section.key);
    if let Some(key) = &key {
        files.keep_secret(&key.path, &section.key);
    }
    let clients = files.clients(section);
    Some(ListenerTls {
        written,
        cert: cert?,
        key: key?,
        clients: clients?,
    })
}

/// Reads the files that a section names.
pub(super) struct PemFiles<'a, T> {
    /// The section that names the files.
    pub(super) around: &'a Placed<T>,
    /// Collects the files and their content.
    pub(super) read: &'a mut Vec<(PathBuf, String)>,
    /// Collects the findings.
    pub(super) findings: &'a mut Vec<Diagnostic>,
}

impl<T> PemFiles<'_, T> {
    pub(super) fn path(&self, name: &Spanned<String>) -> PathBuf {
        super::folder_of(&self.around.source.path).join(name.get_ref())
    }

    /// Reads a file that must exist.
    pub(super) fn pem(&mut self, name: &Spanned<String>) -> Option<PemFile> {
        self.try_pem(name)
            .map_err(|why| {
                let (code, message) = (why.code(), why.to_string());
                let finding = Diagnostic::error(code, self.around.at(name), message);
                self.findings
                    .push(finding.help("name a PEM file that the gate may read"));
            })
            .ok()
    }

    /// Reads a file; the error is the reason.
    pub(super) fn try_pem(&mut self, name: &Spanned<String>) -> Result<PemFile, ReadError> {
        let path = self.path(name);
        let text = read_text(&path)?;
        self.read.push((path.clone(), text.clone()));
        Ok(PemFile {
            path,
            text: text.into(),
            place: self.around.at(name),
        })
    }

    /// Reports a key that others can read.
    pub(super) fn keep_secret(&mut self, path: &Path, name: &Spanned<String>) {
        self.keep_private(path, name, "key");
    }

    /// Reports a secret file that others can read; `what` names its content.
    pub(super) fn keep_private(&mut self, path: &Path, name: &Spanned<String>, what: &str) {
        let mode = std::fs::metadata(path).map_or(0, |meta| meta.mode());
        if mode.trailing_zeros() >= 6 {
            // No permission for its group and others.
            return;
        }
        let message = format!(
            "{}: others than its owner can read this {what}",
            path.display()
        );
        self.findings.push(
            Diagnostic::error("key-exposed", self.around.at(name), message)
                .label(format!("its mode is {:04o}", mode & 0o7777))
                .help(format!("run `chmod 600 {}`", path.display())),
        );
    }

    /// `None` if there is an error; `Some(None)` if no client certificate is requested.
    #[expect(clippy::option_option, reason = "wrong, and absent, are not the same")]
    fn clients(&mut self, section: &TlsSection) -> Option<Option<ClientCertificates>> {
        let demand = match &section.client_cert {
            Some(word) => self.word(word, &CLIENT_CERT)?,
            None if section.client_ca.is_some() => Demand::Require,
            None => Demand::None,
        };
        if demand == Demand::None {
            return self.nothing_unused(section).then_some(None);
        }
        let Some(ca) = &section.client_ca else {
            let asked = section.client_cert.as_ref();
            let place = asked.map_or_else(|| self.around.place(), |word| self.around.at(word));
            let message = "no `client-ca` says whose certificates are good";
            let finding = Diagnostic::error("missing-key", place, message)
                .label("`client-ca` is missing")
                .help("write `client-ca = \"certs/callers-ca.pem\"`, or `client-cert = \"none\"`");
            self.findings.push(finding);
            return None;
        };
        let ca = self.pem(ca);
        let crl_required = self.crl_required(section)?;
        let crls = self.crls(section, crl_required);
        let identity = self.identity(section)?;
        Some(Some(ClientCertificates {
            ca: ca?,
            required: demand == Demand::Require,
            crls: crls?,
            crl_required,
            identity,
        }))
    }

    /// Reports keys that have no effect if no client certificate is requested.
    fn nothing_unused(&mut self, section: &TlsSection) -> bool {
        let unused = [
            ("client-ca", section.client_ca.as_ref()),
            ("crl", section.crl.as_ref()),
            ("crls", section.crls.first()),
        ];
        for (key, value) in unused {
            let Some(value) = value else { continue };
            let message = format!("`{key}` means nothing: no certificate is asked for");
            let finding = Diagnostic::error("unused-key", self.around.at(value), message)
                .help("write `client-ca` and `client-cert = \"require\"`, or leave it out");
            self.findings.push(finding);
        }
        unused.iter().all(|(_, value)| value.is_none())
    }

    /// Whether a list is required: by default if one is configured.
    fn crl_required(&mut self, section: &TlsSection) -> Option<bool> {
        let Some(word) = &section.crl else {
            return Some(!section.crls.is_empty());
        };
        let required = self.word(word, &CRL)?;
        if required && section.crls.is_empty() {
            let message =
                "`crl = \"require\"`, and no `crls` are named: every client would be refused";
            let finding = Diagnostic::error("missing-key", self.around.at(word), message)
                .label("`crls` is missing")
                .help("write `crls = [\"certs/callers.crl.pem\"]`");
            self.findings.push(finding);
            return None;
        }
        Some(required)
    }

    fn crls(&mut self, section: &TlsSection, required: bool) -> Option<Vec<PemFile>> {
        let mut crls = Some(Vec::new());
        for name in &section.crls {
            match self.try_pem(name) {
                Ok(crl) => crls = crls.map(|crls| [crls, vec![crl]].concat()),
                Err(why) if !required && why.code() == "no-such-file" => {
                    self.read.push((self.path(name), String::new()));
                    let message = format!("{why}: no certificate counts as revoked");
                    let place = self.around.at(name);
                    self.findings
                        .push(Diagnostic::warning("no-such-file", place, message));
                }
                Err(why) => {
                    let (code, message) = (why.code(), why.to_string());
                    let finding = Diagnostic::error(code, self.around.at(name), message)
                        .help("fetch the list, or write `crl = \"if-present\"`");
                    self.findings.push(finding);
                    crls = None;
                }
            }
        }
        crls
    }

    fn identity(&mut self, section: &TlsSection) -> Option<Vec<NameKind>> {
        let Some(written) = &section.client_identity else {
            return Some(vec![NameKind::Uri, NameKind::Dns, NameKind::Email]);
        };
        let kinds: Vec<_> = written
            .iter()
            .map(|word| self.word(word, &CLIENT_IDENTITY))
            .collect();
        kinds.into_iter().collect()
    }

    /// Reads one of a few words.
    pub(super) fn word<W: Copy>(
        &mut self,
        word: &Spanned<String>,
        words: &[(&str, W)],
    ) -> Option<W> {
        value::word(word.get_ref(), words, self.around.at(word), self.findings)
    }
}
