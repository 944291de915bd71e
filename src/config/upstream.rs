//! `[upstream.NAME]`: TLS with some destinations: the gate's client certificate, and the trusted
//! authorities. No key disables the verification of a destination.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::name::{Host, HostName};
use crate::policy::source::{self, Placed};

use super::session::is_key;
use super::tls::{PemFile, PemFiles};
use super::value;

/// The TLS settings for some destinations.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The name, as in rules and records.
    pub name: Arc<str>,
    /// `client-cert`, `client-key`: the gate's client certificate.
    pub client: Option<OwnCertificate>,
    /// `roots`: the trusted certificate authorities; empty: the system's.
    pub roots: Vec<PemFile>,
    /// `crl`: revocation lists; each certificate of the chain has to be on one, as not revoked.
    /// Empty: revocation is not checked.
    pub crls: Vec<PemFile>,
    /// `pins`: one of these keys has to be in the verified chain; empty: any key.
    pub pins: Vec<Pin>,
    /// `min-version`.
    pub min: TlsVersion,
    /// `max-version`.
    pub max: TlsVersion,
    /// `server-name`: the name that is sent and verified, instead of the host's.
    pub server_name: Option<Host>,
    /// `port`: the port for a plain request that the gate upgrades to TLS.
    pub port: u16,
    /// The position in the configuration.
    pub place: Place,
}

/// A client certificate of the gate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnCertificate {
    /// The chain, the leaf first.
    pub cert: PemFile,
    /// The key of the leaf.
    pub key: PemFile,
    /// The file with the passphrase of the key.
    pub passphrase: Option<PemFile>,
}

/// SHA-256 of a public key with its algorithm (`SubjectPublicKeyInfo`), as in RFC 7469.
pub type Pin = [u8; 32];

/// A version of TLS.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// The text of `[upstream.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    client_cert: Option<Spanned<String>>,
    client_key: Option<Spanned<String>>,
    client_key_passphrase: Option<Spanned<String>>,
    roots: Option<Vec<Spanned<String>>>,
    crl: Option<Vec<Spanned<String>>>,
    pins: Option<Vec<Spanned<String>>>,
    min_version: Option<Spanned<String>>,
    max_version: Option<Spanned<String>>,
    server_name: Option<Spanned<String>>,
    port: Option<Spanned<i64>>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
    #[serde(default)]
    categories: Vec<Spanned<String>>,
}

const HTTPS: u16 = 443;
pub(super) const VERSIONS: [(&str, TlsVersion); 2] =
    [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

/// Reads the TLS settings; `read` collects the files and their content.
pub(super) fn upstreams(
    written: &[(Spanned<String>, Placed<Section>)],
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Upstream> {
    let one = |(name, section): &(Spanned<String>, Placed<Section>)| {
        let files = PemFiles {
            around: section,
            read,
            findings,
        };
        Reader(files).upstream(name)
    };
    written.iter().filter_map(one).collect()
}

/// Returns the destinations: a part of the policy.
pub(super) fn destinations(
    written: &[(Spanned<String>, Placed<Section>)],
) -> Vec<(Spanned<String>, Placed<source::Upstream>)> {
    let of = |section: &Placed<Section>| Placed {
        source: section.source.clone(),
        span: section.span.clone(),
        value: source::Upstream {
            hosts: section.value.hosts.clone(),
            categories: section.value.categories.clone(),
        },
    };
    written
        .iter()
        .map(|(name, section)| (name.clone(), of(section)))
        .collect()
}

struct Reader<'a>(PemFiles<'a, Section>);

impl Reader<'_> {
    fn upstream(mut self, name: &Spanned<String>) -> Option<Upstream> {
        let section = self.0.around;
        let written = &section.value;
        let client = self.client(written);
        let roots = self.list(written.roots.as_deref(), "roots", Self::file);
        let crls = self.list(written.crl.as_deref(), "crl", Self::file);
        let pins = self.list(written.pins.as_deref(), "pins", Self::pin);
        let versions = self.versions(written);
        let server_name = written.server_name.as_ref().map(|it| self.server_name(it));
        let port = written.port.as_ref().map(|port| {
            let (bounds, place) = ((1, u16::MAX), section.at(port));
            value::number(*port.get_ref(), bounds, place, self.0.findings)
        });
        let (min, max) = versions?;
        Some(Upstream {
            name: name.get_ref().as_str().into(),
            client: client?,
            roots: roots?,
            crls: crls?,
            pins: pins?,
            min,
            max,
            server_name: server_name.map_or(Some(None), |it| it.map(Some))?,
            port: port.unwrap_or(Some(HTTPS))?,
            place: section.place(),
        })
    }

    /// `None` if there is an error; `Some(None)` if no certificate is configured.
    #[expect(clippy::option_option, reason = "wrong, and absent, are not the same")]
    fn client(&mut self, written: &Section) -> Option<Option<OwnCertificate>> {
        let keys = [
            ("client-cert", written.client_cert.as_ref()),
            ("client-key", written.client_key.as_ref()),
        ];
        let (cert, key) = match (&written.client_cert, &written.client_key) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) => return self.no_passphrase(written).then_some(None),
            _ => {
                let missing = keys.iter().find(|(_, value)| value.is_none());
                let there = keys.iter().find_map(|(_, value)| *value)?;
                self.missing(there, missing?.0);
                return None;
            }
        };
        let cert = self.file(cert);
        let key = self.secret(key, "a key");
        let passphrase = written.client_key_passphrase.as_ref();
        let passphrase = passphrase.map(|file| self.secret(file, "a passphrase"));
        Some(Some(OwnCertificate {
            cert: cert?,
            key: key?,
            passphrase: passphrase.map_or(Some(None), |it| it.map(Some))?,
        }))
    }

    /// Reports a passphrase without a key.
    fn no_passphrase(&mut self, written: &Section) -> bool {
        if let Some(passphrase) = &written.client_key_passphrase {
            self.missing(passphrase, "client-key");
        }
        written.client_key_passphrase.is_none()
    }

    fn missing(&mut self, beside: &Spanned<String>, key: &str) {
        let message = "a certificate and its key go together";
        let finding = Diagnostic::error("missing-key", self.0.around.at(beside), message);
        let finding = finding.label(format!("`{key}` is missing"));
        self.0.findings.push(
            finding.help("write both: `client-cert = \"agent.pem\"`, `client-key = \"agent.key\"`"),
        );
    }

    fn file(&mut self, name: &Spanned<String>) -> Option<PemFile> {
        self.0.pem(name)
    }

    /// Reads a file that only its owner may read. The text may be the secret itself, so it is not
    /// shown.
    fn secret(&mut self, name: &Spanned<String>, what: &str) -> Option<PemFile> {
        let read = if is_key(name.get_ref()) {
            let message = format!("this is {what}, not the path of a file that holds it");
            Err(("bad-key", message))
        } else {
            let message = format!("the file of {what} cannot be read");
            self.0.try_pem(name).map_err(|why| (why.code(), message))
        };
        match read {
            Ok(file) => {
                self.0.keep_secret(&file.path, name);
                Some(file)
            }
            Err((code, message)) => {
                let finding = Diagnostic::error(code, self.0.around.at(name), message);
                let help = format!("name a file that holds {what}, mode 600");
                self.0.findings.push(finding.help(help));
                None
            }
        }
    }

    /// Reads a list; reports one that is empty.
    fn list<T>(
        &mut self,
        written: Option<&[Spanned<String>]>,
        key: &str,
        mut one: impl FnMut(&mut Self, &Spanned<String>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if written.is_some_and(<[_]>::is_empty) {
            let message = format!("`{key}` is empty");
            let finding = Diagnostic::error("empty", self.0.around.place(), message);
            let help = format!("leave `{key}` out where it is not to say anything");
            self.0.findings.push(finding.help(help));
            return None;
        }
        let all = written.unwrap_or_default().iter();
        let read: Vec<_> = all.map(|it| one(self, it)).collect();
        read.into_iter().collect()
    }

    fn pin(&mut self, written: &Spanned<String>) -> Option<Pin> {
        let digest = written.get_ref().strip_prefix("sha256/");
        let bytes = digest.and_then(|text| STANDARD.decode(text).ok());
        let pin = bytes.and_then(|bytes| bytes.try_into().ok());
        if pin.is_none() {
            let message = format!("`{}` is no pin", value::shortened(written.get_ref()));
            let finding = Diagnostic::error("bad-pin", self.0.around.at(written), message);
            self.0.findings.push(finding.help(
                "write `sha256/` and what this prints: `openssl x509 -in cert.pem -noout -pubkey \
                 | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64`",
            ));
        }
        pin
    }

    fn versions(&mut self, written: &Section) -> Option<(TlsVersion, TlsVersion)> {
        let mut read = |word: &Option<Spanned<String>>, otherwise| match word {
            Some(word) => self.0.word(word, &VERSIONS),
            None => Some(otherwise),
        };
        let min = read(&written.min_version, TlsVersion::Tls12);
        let max = read(&written.max_version, TlsVersion::Tls13);
        let (min, max) = (min?, max?);
        if min <= max {
            return Some((min, max));
        }
        let written = written
            .max_version
            .as_ref()
            .or(written.min_version.as_ref())?;
        let message = "no version of TLS is left: `max-version` is below `min-version`";
        let finding = Diagnostic::error("out-of-range", self.0.around.at(written), message);
        self.0
            .findings
            .push(finding.help("leave one of them out, or write \"1.3\" for both"));
        None
    }

    fn server_name(&mut self, written: &Spanned<String>) -> Option<Host> {
        let text = written.get_ref();
        let name = HostName::from_unicode(text).map(Host::Name);
        let host = name.or_else(|_| Host::parse(text.as_bytes()));
        host.map_err(|why| {
            let message = format!("`{}` is no name of a server: {why}", value::shortened(text));
            let finding = Diagnostic::error("bad-name", self.0.around.at(written), message);
            self.0
                .findings
                .push(finding.help("write a name alone, e.g. `internal.example`"));
        })
        .ok()
    }
}
