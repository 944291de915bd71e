//! TLS for the client and for the relay that ends it on both sides.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::certificates;

/// A client that takes any certificate and resumes nothing: the cost of the proxy is measured, not
/// what a client checks.
pub fn connector() -> TlsConnector {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the versions are those of the provider")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// Port `port` of loopback: CONNECT, then TLS on both sides and bytes between them, no HTTP.
pub async fn relay(port: u16, place: &Path) -> Result<()> {
    let acceptor = TlsAcceptor::from(certificates::server(place)?);
    let connector = connector();
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (client, _) = listener.accept().await?;
        let (acceptor, connector) = (acceptor.clone(), connector.clone());
        tokio::task::spawn_local(async move {
            let _ = carry(client, acceptor, connector).await;
        });
    }
}

async fn carry(
    mut client: TcpStream,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
) -> Result<()> {
    client.set_nodelay(true)?;
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(
            client.read_buf(&mut head).await? > 0 && head.len() < 8192,
            "no head"
        );
    }
    let upstream = TcpStream::connect(crate::origin::TLS).await?;
    upstream.set_nodelay(true)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut upstream = connector.connect(localhost(), upstream).await?;
    let mut client = acceptor.accept(client).await?;
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, 16 << 10, 16 << 10)
        .await?;
    Ok(())
}

/// The name that the client asks for.
pub fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name of DNS")
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
