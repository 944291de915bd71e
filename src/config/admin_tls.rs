//! `[listen.admin-tls]`: the admin listener for other hosts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::name::HostName;
use crate::policy::source::Placed;

use super::tls::{self, ListenerTls, PemFile, PemFiles, TlsSection};
use super::value;

/// Minimum length of the metrics token, in characters.
const MIN_TOKEN: usize = 32;

/// The TLS admin listener for other hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminTls {
    /// The address to bind.
    pub address: SocketAddr,
    /// The certificates of the listener, and the client certificates it accepts.
    pub tls: Arc<ListenerTls>,
    /// The token with which a client without a certificate reads metrics and the policy's state.
    pub token: Option<PemFile>,
}

/// The text of `[listen.admin-tls]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AdminTlsSection {
    pub(super) address: Spanned<String>,
    cert: Spanned<String>,
    key: Spanned<String>,
    client_ca: Option<Spanned<String>>,
    client_cert: Option<Spanned<String>>,
    #[serde(default)]
    crls: Vec<Spanned<String>>,
    crl: Option<Spanned<String>>,
    client_identity: Option<Vec<Spanned<String>>>,
    token_file: Option<Spanned<String>>,
}

impl AdminTlsSection {
    /// Returns its TLS settings.
    fn tls(&self) -> TlsSection {
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

/// Reads the section; `read` collects the files and their content.
pub(super) fn admin_tls<T>(
    section: &Placed<T>,
    written: &AdminTlsSection,
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Option<(AdminTls, Place)> {
    let place = section.at(&written.address);
    let address = value::socket_address(written.address.get_ref(), place.clone(), findings);
    let with = written.tls();
    // No proxy listener has this number of equal listeners before it.
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let id = (address.unwrap_or(nowhere), usize::MAX);
    let tls = tls::tls(section, &with, id, read, findings);
    let token = match &written.token_file {
        Some(file) => Some(token(section, file, read, findings)?),
        None => None,
    };
    let admin = AdminTls {
        address: address?,
        tls: Arc::new(tls?),
        token,
    };
    Some((admin, place))
}

fn token<T>(
    section: &Placed<T>,
    file: &Spanned<String>,
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Option<PemFile> {
    let mut files = PemFiles {
        around: section,
        read,
        findings,
    };
    let mut token = files.pem(file)?;
    files.keep_private(&token.path, file, "token");
    let text = token.text.trim();
    if text.len() < MIN_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("{}: this is no token", token.path.display());
        findings.push(
            Diagnostic::error("bad-token", section.at(file), message)
                .label("one line of at least 32 printable characters")
                .help("make one with `openssl rand -hex 32`"),
        );
        return None;
    }
    token.text = text.into();
    Some(token)
}

/// `listen.admin-names`: the host names by which clients reach an admin listener.
pub(super) fn names<T>(
    section: &Placed<T>,
    written: &[Spanned<String>],
    findings: &mut Vec<Diagnostic>,
) -> Vec<Arc<str>> {
    let name = |text: &Spanned<String>| {
        let parsed = HostName::parse(text.get_ref().as_bytes());
        if parsed.is_err() {
            let message = format!("`{}` is not a host name", value::shortened(text.get_ref()));
            findings.push(
                Diagnostic::error("bad-name", section.at(text), message)
                    .help("write e.g. `tidegate.acme.example`"),
            );
        }
        parsed.ok().map(|name| Arc::from(name.as_str()))
    };
    written.iter().filter_map(name).collect()
}
