//! The server side: the certificates that a listener presents, and the client certificates it
//! accepts.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError, CipherSuite, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::clock::Clock;
use crate::config::{ClientCertificates, Listen, Listener, ListenerTls};
use crate::diag::{Diagnostic, Severity};

use super::material;

/// The protocols of proxy listeners, and of the admin listener (RFC 7301).
const PROXY_PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
const ADMIN_PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// TLS with a caller.
pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

/// Every TLS listener of one generation.
#[derive(Clone, Debug, Default)]
pub struct Servers(HashMap<(SocketAddr, usize), Arc<Server>>);

/// One TLS listener, or one inspected destination.
pub struct Server {
    pub(super) config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    clock: Clock,
    /// The first expiry of its certificates and lists, by kind.
    ends: Vec<(&'static str, Timestamp)>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// A finished handshake.
#[derive(Debug)]
pub struct Accepted {
    /// The decrypted stream of the caller.
    pub stream: Box<ServerStream>,
    /// Whether the caller speaks HTTP/2.
    pub http2: bool,
    /// The caller's verified certificates, the leaf first; empty if the caller presented none.
    pub chain: Vec<Box<[u8]>>,
}

/// Why TLS with a caller failed: a label of `tidegate_tls_handshakes_total{result}`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HandshakeError(pub &'static str);

impl Servers {
    /// Builds the TLS listeners; `None` if one of them has an error.
    pub fn new(listen: &Listen, clock: &Clock) -> (Option<Self>, Vec<Diagnostic>) {
        let mut findings = Vec::new();
        let mut servers = HashMap::new();
        let proxies = listen.proxy.iter().filter_map(|it| it.tls.as_ref());
        let admin = listen.admin_tls.iter().map(|it| (&it.tls, ADMIN_PROTOCOLS));
        for (tls, protocols) in proxies.map(|tls| (tls, PROXY_PROTOCOLS)).chain(admin) {
            match Server::new(tls, protocols, clock, &mut findings) {
                Ok(server) => {
                    servers.insert(tls.written, Arc::new(server));
                }
                Err(finding) => findings.push(*finding),
            }
        }
        let wrong = |finding: &Diagnostic| finding.severity == Severity::Error;
        (
            (!findings.iter().any(wrong)).then_some(Self(servers)),
            findings,
        )
    }

    /// Adds the listeners of `before` that are no longer configured: they stay open until the next
    /// start.
    #[must_use]
    pub fn after(&self, before: &Self) -> Self {
        let mut servers = before.0.clone();
        servers.extend(self.0.iter().map(|(id, server)| (*id, server.clone())));
        Self(servers)
    }

    /// Returns the TLS configuration of a listener.
    pub fn of(&self, listener: &Listener) -> Option<&Arc<Server>> {
        self.with(listener.tls.as_ref()?)
    }

    /// Returns the listener that was built from `tls`.
    pub fn with(&self, tls: &ListenerTls) -> Option<&Arc<Server>> {
        self.0.get(&tls.written)
    }

    /// Whether the certificates that a caller of `listener` presented are valid now, in this
    /// generation.
    pub fn still_accepts(&self, listener: &Listener, chain: &[Box<[u8]>]) -> bool {
        self.of(listener)
            .is_some_and(|server| server.accepts(chain))
    }

    /// Returns the first expiry of certificates and lists, by kind.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, Timestamp)> {
        self.0
            .values()
            .flat_map(|server| server.ends.iter().copied())
    }
}

impl Server {
    fn new(
        tls: &ListenerTls,
        protocols: &[&[u8]],
        clock: &Clock,
        findings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Box<Diagnostic>> {
        let mut ends = Vec::new();
        let chain = material::certificates(&tls.cert)?;
        let key = material::key(&tls.key)?;
        if let Some(end) = chain.first().and_then(material::not_after) {
            ends.push(("listener", end));
            if end < clock.now() {
                let message = format!("{}: this certificate has expired", tls.cert.path.display());
                let place = tls.cert.place.clone();
                findings.push(Diagnostic::warning("certificate-expired", place, message));
            }
        }
        let verifier = match &tls.clients {
            Some(clients) => Some(verifier(clients, clock, &mut ends, findings)?),
            None => None,
        };
        let builder = ServerConfig::builder_with_details(provider(), Arc::new(Time(clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(|error| material::wrong(&tls.cert, &error.to_string()))?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| material::wrong(&tls.key, &error.to_string()))?;
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            verifier,
            clock: clock.clone(),
            ends,
        })
    }

    /// Builds a configuration with a certificate of the local authority. No session is resumed: a
    /// client that returns gets the current certificate, and names that no client asks for again
    /// take no memory.
    pub(super) fn minted(
        certified: CertifiedKey,
        protocols: &[&[u8]],
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        provider: &Arc<CryptoProvider>,
        clock: &Clock,
    ) -> Result<Self, rustls::Error> {
        let time = Arc::new(Time(clock.clone()));
        let mut config = ServerConfig::builder_with_details(provider.clone(), time)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(
                verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth),
            )
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // Callers are on this host or near it: the cipher order of `provider` costs less.
        config.ignore_client_order = true;
        Ok(Self {
            config: Arc::new(config),
            verifier: None,
            clock: clock.clone(),
            ends: Vec::new(),
        })
    }

    /// Performs the handshake.
    pub async fn accept(&self, socket: TcpStream) -> Result<Accepted, HandshakeError> {
        let acceptor = TlsAcceptor::from(self.config.clone());
        let stream = acceptor.accept(socket).await.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            HandshakeError(inner.map_or("failed", word))
        })?;
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        Ok(Accepted {
            http2: session.alpn_protocol() == Some(b"h2"),
            chain: chain.iter().map(|it| it.as_ref().into()).collect(),
            stream: Box::new(stream),
        })
    }

    fn accepts(&self, chain: &[Box<[u8]>]) -> bool {
        let (Some(verifier), Some((leaf, rest))) = (&self.verifier, chain.split_first()) else {
            return false;
        };
        let leaf = CertificateDer::from_slice(leaf);
        let rest: Vec<_> = rest
            .iter()
            .map(|it| CertificateDer::from_slice(it))
            .collect();
        let Some(now) = Time(self.clock.clone()).current_time() else {
            return false;
        };
        verifier.verify_client_cert(&leaf, &rest, now).is_ok()
    }
}

pub(super) fn verifier(
    clients: &ClientCertificates,
    clock: &Clock,
    ends: &mut Vec<(&'static str, Timestamp)>,
    findings: &mut Vec<Diagnostic>,
) -> Result<Arc<dyn ClientCertVerifier>, Box<Diagnostic>> {
    let mut roots = RootCertStore::empty();
    for authority in material::certificates(&clients.ca)? {
        ends.extend(material::not_after(&authority).map(|end| ("client-ca", end)));
        roots
            .add(authority)
            .map_err(|error| material::wrong(&clients.ca, &error.to_string()))?;
    }
    let mut crls = Vec::new();
    for file in &clients.crls {
        for crl in material::crls(file)? {
            let until = material::next_update(&crl);
            ends.extend(until.map(|until| ("client-crl", until)));
            if until.is_none_or(|until| until < clock.now()) {
                findings.push(stale(file, clients.crl_required));
            }
            crls.push(crl);
        }
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).with_crls(crls);
    if clients.crl_required {
        builder = builder.enforce_revocation_expiration();
    } else {
        builder = builder.allow_unknown_revocation_status();
    }
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| {
        let file = clients.crls.first().unwrap_or(&clients.ca);
        material::wrong(file, &error.to_string())
    })
}

fn stale(file: &crate::config::PemFile, required: bool) -> Diagnostic {
    let message = format!("{}: this revocation list is stale", file.path.display());
    let place = file.place.clone();
    if required {
        Diagnostic::error("crl-stale", place, message)
            .label("its next update is over")
            .help("fetch a fresh one, or write `crl = \"if-present\"`")
    } else {
        Diagnostic::warning("crl-stale", place, message).label("its next update is over")
    }
}

/// Returns the metric label of an error.
pub(super) fn word(error: &rustls::Error) -> &'static str {
    use rustls::Error;
    match error {
        Error::NoCertificatesPresented => "no_certificate",
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "certificate_expired"
            }
            CertificateError::Revoked => "certificate_revoked",
            CertificateError::UnknownIssuer => "certificate_unknown_issuer",
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => "crl_missing",
            _ => "certificate_invalid",
        },
        Error::InvalidMessage(_) => "not_tls",
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown,
        ) => "authority_not_trusted",
        Error::NoApplicationProtocol => "no_application_protocol",
        _ => "failed",
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    // Most CPUs have instructions for SHA-256 and none for SHA-384, and a handshake hashes much.
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The gate's clock, for `rustls`.
#[derive(Debug)]
pub(super) struct Time(pub(super) Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            seconds,
        )))
    }
}
