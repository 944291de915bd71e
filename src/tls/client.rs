//! TLS with servers that the gate itself calls.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::config::{Database, DatabaseServer, Delivery, Notifier, Parent, PemFile, Webhook};
use crate::diag::Diagnostic;
use crate::name::Host;

use super::roots::Roots;
use super::server::provider;
use super::verifier::Verifier;
use super::{ClientStream, TlsFailure, material};

/// The protocols that are spoken inside (ALPN, RFC 7301).
const HTTP: &[u8] = b"http/1.1";
const POSTGRES: &[u8] = b"postgresql";

/// Why TLS cannot be configured for any server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// The client certificate of the gate and its key do not match.
    #[error("the client certificate cannot be used with its key: {0}")]
    Identity(String),
    /// No root certificate is available.
    #[error("no root certificate is known: install the system's, or name `roots`")]
    NoRoots,
    /// The crypto provider supports none of the TLS versions.
    #[error("cannot build the TLS configuration: {0}")]
    Provider(String),
}

/// A TLS client of the gate.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    /// Trusts servers with a certificate that one of `roots` signed; if empty, one of the system's
    /// roots.
    pub fn trusting(roots: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        config(roots, None, HTTP).map(Self)
    }

    /// Builds the client for a parent proxy: trusts its roots, and presents the gate's certificate
    /// if one is configured.
    pub fn of_parent(parent: &Parent) -> Result<Self, Box<Diagnostic>> {
        let roots = certificates(&parent.roots)?;
        let client = parent.client.as_ref();
        let identity = client.map(|(cert, key)| identity(cert, key)).transpose()?;
        let built = config(&roots, identity, HTTP).map(Self);
        built.map_err(|error| {
            let message = format!("{}: {error}", parent.target);
            Box::new(Diagnostic::unplaced("bad-parent", message))
        })
    }

    /// Builds the client for a database: trusts its roots. `None`: it is at a Unix socket.
    pub fn of_database(database: &Database) -> Result<Option<Self>, Box<Diagnostic>> {
        if matches!(database.server, DatabaseServer::Socket(_)) {
            return Ok(None);
        }
        let roots = certificates(&database.roots)?;
        let built = config(&roots, None, POSTGRES).map(|config| Some(Self(config)));
        built.map_err(|error| {
            let message = format!("[ledger]: {error}");
            Box::new(Diagnostic::unplaced("bad-ledger", message))
        })
    }

    /// Builds the client for a webhook: trusts its roots.
    pub fn of_webhook(webhook: &Webhook) -> Result<Self, Box<Diagnostic>> {
        let built = config(&certificates(&webhook.roots)?, None, HTTP).map(Self);
        built.map_err(|error| {
            let message = format!("[notify.NAME]: {error}");
            Box::new(Diagnostic::unplaced("bad-notify", message))
        })
    }

    /// Returns the findings about the certificate authorities of webhooks.
    pub fn wrong_with_webhooks(notifiers: &[Notifier]) -> impl Iterator<Item = Diagnostic> {
        let webhooks = notifiers.iter().filter_map(|it| match &it.delivery {
            Delivery::Webhook(webhook) if !webhook.roots.is_empty() => Some(webhook),
            _ => None,
        });
        webhooks.filter_map(|webhook| Some(*Self::of_webhook(webhook).err()?))
    }

    /// Returns the findings about the certificates of parents.
    pub fn wrong_with(parents: &[Parent]) -> impl Iterator<Item = Diagnostic> {
        let with_tls = parents.iter().filter(|parent| parent.tls);
        with_tls.filter_map(|parent| Some(*Self::of_parent(parent).err()?))
    }

    /// Returns when the client certificates for parents expire, by kind.
    pub fn ends(parents: &[Parent]) -> impl Iterator<Item = (&'static str, Timestamp)> {
        let shown = parents.iter().filter_map(|parent| parent.client.as_ref());
        shown.filter_map(|(cert, _)| {
            let chain = material::certificates(cert).ok()?;
            Some(("parent", material::not_after(chain.first()?)?))
        })
    }

    /// Starts TLS with a host; the error is the kind of failure.
    pub async fn enter_host<S>(&self, host: &Host, stream: S) -> Result<ClientStream<S>, TlsFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.as_str().to_owned(),
        };
        let entered = self.enter(&name, stream).await;
        entered.map_err(|error| TlsFailure::of(&error))
    }

    /// Starts TLS with the server of that name.
    pub async fn enter<S>(&self, name: &str, stream: S) -> io::Result<ClientStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connecting = TlsConnector::from(self.0.clone()).connect(name, stream);
        connecting.await.map(ClientStream::new)
    }
}

/// The client certificate of the gate: the chain, the leaf first, and the key of the leaf.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn certificates(files: &[PemFile]) -> Result<Vec<CertificateDer<'static>>, Box<Diagnostic>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(material::certificates(file)?);
    }
    Ok(all)
}

fn identity(cert: &PemFile, key: &PemFile) -> Result<Identity, Box<Diagnostic>> {
    Ok((material::certificates(cert)?, material::key(key)?))
}

/// Builds the configuration for TLS 1.2 and 1.3 with a server whose certificate one of `roots`
/// signed; if empty, one of the system's roots. `protocol` is spoken inside.
fn config(
    roots: &[CertificateDer<'static>],
    identity: Option<Identity>,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = Roots::new(if roots.is_empty() {
        system_roots()
    } else {
        roots.to_vec()
    });
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Provider(error.to_string()))?;
    let builder = builder
        .dangerous()
        // Verifies as the built-in verifier does, with further checks.
        .with_custom_certificate_verifier(Verifier::new(roots, Vec::new(), Vec::new()));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| TlsError::Identity(error.to_string()))?,
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// Reads the current root certificates of the system.
pub(super) fn system_roots() -> Vec<CertificateDer<'static>> {
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors.iter().take(1) {
        tracing::warn!(%error, "some of the system's root certificates cannot be read");
    }
    system.certs
}
