//! `[inspect]`: the authority for intercepted TLS, and the inspected destinations.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::source::{self, Placed};

use super::session::is_key;
use super::tls::PemFiles;
use super::value;
use super::{ClientCertificates, PemFile};

/// The settings of `[inspect]` besides the inspected destinations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inspect {
    /// `ca-cert`, `ca-key` and `previous`: the authority that signs for inspected destinations.
    pub authority: Option<Authority>,
    /// `leaf-lifetime`: the validity of each certificate that the authority signs.
    pub leaf_lifetime: Duration,
    /// `credential-key`: the key with which credentials are hashed before they are compared.
    pub credential_key: Option<CredentialKey>,
    /// `client-ca` and `client-cert`: the authority for client certificates inside inspected
    /// tunnels.
    pub clients: Option<ClientCertificates>,
}

/// The files of the local authority.
#[derive(Clone, Debug)]
pub struct Authority {
    /// The path of the certificate, which may not exist yet.
    pub cert: PathBuf,
    /// The path of the key, which may not exist yet.
    pub key: PathBuf,
    /// The paths of former certificates that callers shall still trust; they may not exist yet.
    pub previous: Vec<PathBuf>,
    /// The certificate and the key, or the errors of reading them. These are not yet findings,
    /// because `tidegate ca init` makes the files.
    pub files: Result<(PemFile, PemFile), Vec<Diagnostic>>,
    /// The former certificates that exist.
    pub former: Vec<PemFile>,
}

/// Compares the paths: the content may change.
impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        (&self.cert, &self.key, &self.previous) == (&other.cert, &other.key, &other.previous)
    }
}

impl Eq for Authority {}

/// A key for HMAC-SHA-256; never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct CredentialKey {
    /// The path of the key.
    pub path: PathBuf,
    bytes: Arc<[u8]>,
}

impl CredentialKey {
    /// Returns the key with this text, from a file at `path`.
    pub fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        Self {
            path: path.into(),
            bytes: text.as_bytes().into(),
        }
    }

    /// Returns the hash of a credential as rules contain it: `hmac-sha256:` and 64 hex digits.
    pub fn hash(&self, credential: &[u8]) -> Box<str> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.bytes);
        let tag = hmac::sign(&key, credential);
        format!("hmac-sha256:{}", HEXLOWER.encode(tag.as_ref())).into()
    }
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialKey")
    }
}

impl Default for Inspect {
    fn default() -> Self {
        Self {
            authority: None,
            leaf_lifetime: DAY,
            credential_key: None,
            clients: None,
        }
    }
}

/// The text of `[inspect]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    ca_cert: Option<Spanned<String>>,
    ca_key: Option<Spanned<String>>,
    #[serde(default)]
    previous: Vec<Spanned<String>>,
    leaf_lifetime: Option<Spanned<String>>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
    #[serde(default)]
    categories: Vec<Spanned<String>>,
    credential_key: Option<Spanned<String>>,
    client_ca: Option<Spanned<String>>,
    client_cert: Option<Spanned<String>>,
}

const DAY: Duration = Duration::from_hours(24);
const LIFETIMES: (Duration, Duration) = (DAY, Duration::from_hours(7 * 24));
/// Minimum length of a key: a shorter one could be guessed.
const LEAST_KEY: usize = 32;
const MAKE_ONE: &str = "make both with `tidegate ca init --config FILE`";

/// Reads the section over the defaults; `read` collects the files and their content.
pub(super) fn inspect(
    section: Option<&Placed<Section>>,
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Inspect {
    let mut inspect = Inspect::default();
    let Some(section) = section else {
        return inspect;
    };
    let mut reader = Reader(PemFiles {
        around: section,
        read,
        findings,
    });
    let written = &section.value;
    inspect.authority = reader.authority();
    let key = written.credential_key.as_ref();
    inspect.credential_key = key.and_then(|key| reader.credential_key(key));
    inspect.clients = reader.clients();
    if let Some(lifetime) = &written.leaf_lifetime {
        let place = section.at(lifetime);
        let checked = value::duration(lifetime.get_ref(), LIFETIMES, place, findings);
        inspect.leaf_lifetime = checked.unwrap_or(inspect.leaf_lifetime);
    }
    inspect
}

/// Returns the part that belongs to the policy.
pub(super) fn policy(section: &Placed<Section>) -> Placed<source::Inspect> {
    Placed {
        source: section.source.clone(),
        span: section.span.clone(),
        value: source::Inspect {
            hosts: section.value.hosts.clone(),
            categories: section.value.categories.clone(),
        },
    }
}

/// Reports rules with credentials if there is no key to hash the credentials of requests: every
/// request to their hosts would be refused, or worse, some would not.
pub(super) fn demand_credential_key(
    section: Option<&Placed<Section>>,
    rules: &[Placed<source::Rule>],
    findings: &mut Vec<Diagnostic>,
) {
    if section.is_some_and(|section| section.value.credential_key.is_some()) {
        return;
    }
    for rule in rules
        .iter()
        .filter(|it| !it.value.unless.credentials.is_empty())
    {
        let id = &rule.value.id;
        let message = format!(
            "rule `{}` names credentials, but there is no key to hash those of requests with",
            id.get_ref()
        );
        let finding = Diagnostic::error("missing-key", rule.at(id), message);
        findings.push(
            finding
                .label("has `unless.credentials`")
                .help("write `credential-key = \"credentials.key\"` in [inspect]"),
        );
    }
}

struct Reader<'a>(PemFiles<'a, Section>);

impl Reader<'_> {
    fn authority(&mut self) -> Option<Authority> {
        let written = &self.0.around.value;
        let (Some(cert), Some(key)) = (&written.ca_cert, &written.ca_key) else {
            self.refuse_half(written);
            return None;
        };
        let named = [cert, key].into_iter().chain(&written.previous);
        if named.filter(|name| !self.is_path(name)).count() == 0 {
            let files = self.pair(cert, key);
            let former = written.previous.iter();
            return Some(Authority {
                cert: self.0.path(cert),
                key: self.0.path(key),
                previous: former.clone().map(|name| self.0.path(name)).collect(),
                files,
                former: former.filter_map(|name| self.former(name)).collect(),
            });
        }
        None
    }

    /// Reports a certificate without a key, a key without a certificate, and inspected destinations
    /// without an authority.
    fn refuse_half(&mut self, written: &Section) {
        let (missing, besides) = match (&written.ca_cert, &written.ca_key) {
            (Some(cert), None) => ("ca-key", Some(cert)),
            (None, Some(key)) => ("ca-cert", Some(key)),
            _ => {
                let named = written.hosts.first().or(written.categories.first());
                ("ca-cert", named.or(written.previous.first()))
            }
        };
        let Some(besides) = besides else { return };
        let message = format!("`[inspect]` needs `{missing}`");
        let finding = Diagnostic::error("missing-key", self.0.around.at(besides), message);
        let help = "write `ca-cert = \"ca.pem\"` and `ca-key = \"ca.key\"`, and run \
                    `tidegate ca init --config FILE`";
        self.0.findings.push(finding.help(help));
    }

    /// A key given in place of its path must not be opened as a file and then shown in an error.
    fn is_path(&mut self, name: &Spanned<String>) -> bool {
        if !is_key(name.get_ref()) {
            return true;
        }
        let message = "this is what the file says, not the path of a file";
        let finding = Diagnostic::error("bad-key", self.0.around.at(name), message);
        let finding = finding.help("write it to a file of mode 600, and name that file");
        self.0.findings.push(finding);
        false
    }

    fn pair(
        &mut self,
        cert: &Spanned<String>,
        key: &Spanned<String>,
    ) -> Result<(PemFile, PemFile), Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let mut pem = |name| match self.0.try_pem(name) {
            Ok(file) => Some(file),
            Err(why) => {
                // Read again at each check: its creation is a change.
                self.0.read.push((self.0.path(name), String::new()));
                let (code, message) = (why.code(), why.to_string());
                let finding = Diagnostic::error(code, self.0.around.at(name), message);
                wrong.push(finding.help(MAKE_ONE));
                None
            }
        };
        let (certificate, private) = (pem(cert), pem(key));
        if let Some(private) = &private {
            self.0.keep_secret(&private.path, key);
        }
        certificate.zip(private).ok_or(wrong)
    }

    /// Reads a former certificate, whose file may not exist yet.
    fn former(&mut self, name: &Spanned<String>) -> Option<PemFile> {
        match self.0.try_pem(name) {
            Ok(file) if file.text.trim().is_empty() => None,
            Ok(file) => Some(file),
            Err(why) => {
                let path = self.0.path(name);
                self.0.read.push((path, String::new()));
                if why.code() != "no-such-file" {
                    let (code, message) = (why.code(), why.to_string());
                    let finding = Diagnostic::error(code, self.0.around.at(name), message);
                    self.0
                        .findings
                        .push(finding.help("name a PEM file of certificates"));
                }
                None
            }
        }
    }

    /// Reads the settings for client certificates inside inspected tunnels.
    fn clients(&mut self) -> Option<ClientCertificates> {
        let written = &self.0.around.value;
        let Some(ca) = &written.client_ca else {
            if let Some(demand) = &written.client_cert {
                let message = "`client-cert` needs a `client-ca` that signs the certificates";
                let finding = Diagnostic::error("missing-key", self.0.around.at(demand), message);
                self.0
                    .findings
                    .push(finding.help("name the authority of the clients' certificates"));
            }
            return None;
        };
        let required = match written
            .client_cert
            .as_ref()
            .map(|it| (it, it.get_ref().as_str()))
        {
            None | Some((_, "optional")) => false,
            Some((_, "require")) => true,
            Some((demand, _)) => {
                let message = "`client-cert` is `optional` or `require`";
                let finding = Diagnostic::error("bad-value", self.0.around.at(demand), message);
                self.0.findings.push(finding);
                true
            }
        };
        Some(ClientCertificates {
            ca: self.0.pem(ca)?,
            required,
            crls: Vec::new(),
            crl_required: false,
            identity: Vec::new(),
        })
    }

    fn credential_key(&mut self, name: &Spanned<String>) -> Option<CredentialKey> {
        const HELP: &str = "make one with `(umask 077; openssl rand -base64 48 > credentials.key)`";
        if !self.is_path(name) {
            return None;
        }
        let at = self.0.around.at(name);
        match self.0.try_pem(name) {
            Ok(file) => {
                self.0.keep_secret(&file.path, name);
                let text = file.text.trim();
                if text.len() >= LEAST_KEY {
                    return Some(CredentialKey::new(file.path, text));
                }
                let message = format!("a key has at least {LEAST_KEY} characters");
                let finding = Diagnostic::error("bad-key", at, message);
                self.0.findings.push(finding.help(HELP));
            }
            Err(why) => {
                let finding = Diagnostic::error(why.code(), at, why.to_string());
                self.0.findings.push(finding.help(HELP));
            }
        }
        None
    }
}
