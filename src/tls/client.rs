//! TLS with servers that the gate itself asks.

use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::ClientStream;

/// Why there is no TLS with anybody.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// Nobody is trusted to vouch for a server.
    #[error("no root certificate is known: install the system's, or name `roots`")]
    NoRoots,
    /// The provider of the ciphers has no version of TLS.
    #[error("TLS is not to be had: {0}")]
    Provider(String),
}

/// Speaks TLS with servers.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    /// Believes servers whose certificate one of these vouches for; none: one of the system's.
    pub fn trusting(roots: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        config(roots).map(Self)
    }

    /// Begins TLS with the server of that name.
    pub async fn enter<S>(&self, name: &str, stream: S) -> io::Result<ClientStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connecting = TlsConnector::from(self.0.clone()).connect(name, stream);
        connecting.await.map(ClientStream::new)
    }
}

/// How to speak TLS 1.2 and 1.3 with a server whose certificate one of these vouches for; none:
/// one of the system's.
fn config(roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut store = RootCertStore::empty();
    if roots.is_empty() {
        store.add_parsable_certificates(system_roots());
    } else {
        store.add_parsable_certificates(roots.iter().cloned());
    }
    if store.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Provider(error.to_string()))?;
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The root certificates of the system, as they are now.
pub(super) fn system_roots() -> Vec<CertificateDer<'static>> {
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors.iter().take(1) {
        tracing::warn!(%error, "some of the system's root certificates cannot be read");
    }
    system.certs
}
