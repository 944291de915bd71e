//! How to speak TLS onward: certificates, roots, pins, by the name of an `[upstream.NAME]`.

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::name::Host;

use super::{Client, TlsFailure};

/// TLS with an upstream.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;

/// Which protocols are offered inside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Alpn {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2, else HTTP/1.1.
    Http2,
}

/// A handshake with an upstream that came to its end.
#[derive(Debug)]
pub struct Entered<S> {
    /// What is said from here on.
    pub stream: Box<ClientStream<S>>,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
}

/// How to speak TLS with some upstreams.
#[derive(Clone)]
pub struct Upstream {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

/// Every way to speak TLS onward, in one generation.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    system: Option<Arc<Upstream>>,
}

impl Upstreams {
    /// The system's way only.
    pub fn system() -> Self {
        let system = Client::trusting(&[])
            .ok()
            .map(|client| Arc::new(Upstream::of(&client)));
        Self { system }
    }

    /// The one of that name; without a name, the system's way. `None` where there is none.
    pub fn of(&self, name: Option<&str>) -> Option<&Arc<Upstream>> {
        match name {
            None => self.system.as_ref(),
            Some(_) => None,
        }
    }
}

impl Upstream {
    fn of(client: &Client) -> Self {
        let with = |alpn: &[&[u8]]| {
            let mut config = client.config().clone();
            config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
            Arc::new(config)
        };
        Self {
            http1: with(&[b"http/1.1"]),
            http2: with(&[b"h2", b"http/1.1"]),
        }
    }

    /// Where TLS is spoken with an origin that was asked for in plain HTTP at port 80.
    pub fn port(&self) -> u16 {
        443
    }

    /// Begins TLS with an upstream of that name; its certificate is always verified.
    pub async fn enter<S>(
        &self,
        host: &Host,
        alpn: Alpn,
        stream: S,
    ) -> Result<Entered<S>, TlsFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match alpn {
            Alpn::Http1 => self.http1.clone(),
            Alpn::Http2 => self.http2.clone(),
        };
        let name = server_name(host)?;
        let connecting = TlsConnector::from(config).connect(name, stream).await;
        let stream = connecting.map_err(|error| TlsFailure::of(&error))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Entered {
            stream: Box::new(stream),
            http2,
        })
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, TlsFailure> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned())
            .map_err(|_| TlsFailure::new("name", "the name cannot stand in a certificate")),
    }
}
