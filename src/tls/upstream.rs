//! TLS with upstreams: the gate's client certificate, and the trusted authorities.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use webpki::{CertRevocationList, OwnedCertRevocationList};

use crate::clock::Clock;
use crate::config::{self, PemFile, TlsVersion};
use crate::diag::Diagnostic;
use crate::name::{Host, Target};
use crate::policy::CallerKey;

use super::roots::{Material, Roots};
use super::server::{Time, provider};
use super::sessions::Sessions;
use super::verifier::Verifier;
use super::{ClientStream, TlsFailure, material};

/// The protocols that the gate offers inside TLS.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Alpn {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2, otherwise HTTP/1.1.
    Http2,
}

/// A finished handshake with an upstream.
#[derive(Debug)]
pub struct Entered<S> {
    /// TLS with the upstream.
    pub stream: Box<ClientStream<S>>,
    /// Whether the upstream speaks HTTP/2.
    pub http2: bool,
}

/// The TLS configuration for some upstreams.
#[derive(Clone)]
pub struct Upstream {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    /// `None` if revocation lists are configured: a resumed session is not verified again, and a
    /// list may have expired since.
    sessions: Option<Arc<Sessions>>,
    /// SHA-256 of all material of the configuration.
    material: [u8; 32],
    /// The name that is sent and verified, instead of the host's name.
    server_name: Option<Host>,
    port: u16,
    /// The gate's client certificate and the upstream's own roots.
    shown: Vec<Shown>,
}

/// The metric label of a revocation list.
const LIST: &str = "upstream-crl";

/// A certificate or revocation list of an upstream, as shown to the operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    /// The name of the upstream.
    pub upstream: Arc<str>,
    /// The metric label: `upstream`, the gate's client certificate; `upstream-root`, a root in
    /// `roots`; `upstream-crl`, a revocation list.
    pub kind: &'static str,
    /// The path of the file.
    pub file: PathBuf,
    /// The names in the certificate or list.
    pub names: String,
    /// When the certificate becomes valid.
    pub begin: Timestamp,
    /// When the certificate or list expires.
    pub end: Timestamp,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

impl Upstream {
    /// Builds the configuration for destinations without an `[upstream]`; `None` without root
    /// certificates.
    pub(super) fn system(roots: &Roots, clock: &Clock) -> Option<Self> {
        if roots.is_empty() {
            return None;
        }
        let versions = (TlsVersion::Tls12, TlsVersion::Tls13);
        let config = Building { roots, clock }
            .config(versions, Trust::default(), None)
            .ok()?;
        Some(Self {
            http1: offering(&config, &[b"http/1.1"]),
            http2: offering(&config, &[b"h2", b"http/1.1"]),
            sessions: Some(Arc::new(Sessions::new(clock))),
            material: roots.digest,
            server_name: None,
            port: 443,
            shown: Vec::new(),
        })
    }

    /// Builds an `[upstream.NAME]`; `system` are the roots if the upstream names none.
    pub(super) fn new(
        written: &config::Upstream,
        system: &Roots,
        clock: &Clock,
        findings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Box<Diagnostic>> {
        let mut making = Making {
            written,
            clock,
            findings,
            material: Material::new(),
            shown: Vec::new(),
        };
        making.names();
        let client = making.client()?;
        let own = making.roots()?;
        let roots = own.as_ref().unwrap_or(system);
        if roots.is_empty() {
            return Err(Box::new(no_roots(written)));
        }
        making.material.add(&roots.digest);
        let trust = Trust {
            pins: written.pins.clone(),
            crls: making.crls()?,
        };
        let may_resume = trust.crls.is_empty();
        let config = Building { roots, clock }
            .config((written.min, written.max), trust, client)
            .map_err(|why| Box::new(unusable(written, &why)))?;
        Ok(Self {
            http1: offering(&config, &[b"http/1.1"]),
            http2: offering(&config, &[b"h2", b"http/1.1"]),
            sessions: may_resume.then(|| Arc::new(Sessions::new(clock))),
            material: making.material.finish(),
            server_name: written.server_name.clone(),
            port: written.port,
            shown: making.shown,
        })
    }

    /// Returns the configuration with the sessions of `before`, if both have the same material.
    pub(super) fn after(&self, before: &Self) -> Self {
        let mut next = self.clone();
        if self.material == before.material {
            next.http1 = before.http1.clone();
            next.http2 = before.http2.clone();
            next.sessions.clone_from(&before.sessions);
        }
        next
    }

    /// Returns a number that differs if the name, certificate, roots, pins, versions or server name
    /// differ: connections of different numbers are not shared.
    pub fn identity(&self) -> u64 {
        let (first, _) = self.material.split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_be_bytes(*first)
    }

    /// Whether the gate presents a certificate to the origin.
    fn shows_certificate(&self) -> bool {
        self.http1.client_auth_cert_resolver.has_certs()
    }

    /// Returns the port of requests that the gate upgrades to TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the gate's client certificate and the upstream's own roots.
    pub(super) fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// Whether a tunnel may reuse a connection of another tunnel of the same caller. Not if a
    /// certificate can be revoked at any time: with revocation lists, or with a client certificate
    /// of the gate, each tunnel performs its own handshake.
    pub fn may_share(&self) -> bool {
        self.sessions.is_some() && !self.shows_certificate()
    }

    /// Starts TLS with an upstream at that target. The certificate is verified, unless the gate
    /// resumes a session of the same caller with that target; without a caller no session is
    /// resumed.
    pub async fn enter<S>(
        &self,
        target: &Target,
        caller: Option<&CallerKey>,
        alpn: Alpn,
        stream: S,
    ) -> Result<Entered<S>, TlsFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match alpn {
            Alpn::Http1 => &self.http1,
            Alpn::Http2 => &self.http2,
        };
        let config = match (&self.sessions, caller) {
            (Some(sessions), Some(caller)) => sessions.resuming((caller, target), alpn, config),
            _ => config.clone(),
        };
        let name = server_name(self.server_name.as_ref().unwrap_or(&target.host))?;
        let connecting = TlsConnector::from(config).connect(name, stream).await;
        let stream = connecting.map_err(|error| TlsFailure::of(&error))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Entered {
            stream: Box::new(ClientStream::new(stream)),
            http2,
        })
    }
}

impl Shown {
    fn new(
        upstream: &config::Upstream,
        file: &PemFile,
        kind: &'static str,
        certificate: &CertificateDer<'_>,
    ) -> Option<Self> {
        Some(Self {
            upstream: upstream.name.clone(),
            kind,
            file: file.path.clone(),
            names: material::names(certificate),
            begin: material::not_before(certificate)?,
            end: material::not_after(certificate)?,
        })
    }

    fn of_list(upstream: &config::Upstream, file: &PemFile, until: Timestamp) -> Self {
        Self {
            upstream: upstream.name.clone(),
            kind: LIST,
            file: file.path.clone(),
            names: "revocation list".to_owned(),
            begin: Timestamp::MIN,
            end: until,
        }
    }

    /// Returns the fault at that time: a code, and a sentence.
    pub fn wrong(&self, now: Timestamp) -> Option<(&'static str, &'static str)> {
        if self.kind == LIST {
            let stale = self.end < now;
            return stale.then_some(("crl-stale", "this revocation list is stale"));
        }
        if self.end < now {
            return Some(("certificate-expired", "this certificate has expired"));
        }
        let early = now < self.begin;
        early.then_some((
            "certificate-not-yet-valid",
            "this certificate is not valid yet",
        ))
    }
}

/// Builds the configuration of one upstream.
struct Making<'a> {
    written: &'a config::Upstream,
    clock: &'a Clock,
    findings: &'a mut Vec<Diagnostic>,
    /// All material so far.
    material: Material,
    shown: Vec<Shown>,
}

impl Making<'_> {
    /// Adds all material that is not a file.
    fn names(&mut self) {
        let written = self.written;
        let material = &mut self.material;
        material.add(written.name.as_bytes());
        written.pins.iter().for_each(|pin| material.add(pin));
        material.add(format!("{:?} {:?}", written.min, written.max).as_bytes());
        let name = written.server_name.as_ref().map(ToString::to_string);
        material.add(name.unwrap_or_default().as_bytes());
    }

    fn client(&mut self) -> Result<Option<OwnMaterial>, Box<Diagnostic>> {
        let Some(own) = &self.written.client else {
            return Ok(None);
        };
        let chain = material::certificates(&own.cert)?;
        for certificate in &chain {
            self.material.add(certificate);
        }
        if let Some(leaf) = chain.first() {
            self.show(&own.cert, "upstream", leaf);
        }
        let key = material::own_key(own)?;
        if let (Some(passphrase), false) = (&own.passphrase, material::is_encrypted(&own.key)) {
            let message = "the key is not encrypted: its passphrase has no effect";
            let finding = Diagnostic::warning("unused-key", passphrase.place.clone(), message);
            self.findings.push(finding);
        }
        Ok(Some((chain, key)))
    }

    /// Returns the upstream's roots; `None` if it names none.
    fn roots(&mut self) -> Result<Option<Roots>, Box<Diagnostic>> {
        let mut all = Vec::new();
        for file in &self.written.roots {
            for root in material::certificates(file)? {
                RootCertStore::empty()
                    .add(root.clone())
                    .map_err(|error| material::wrong(file, &error.to_string()))?;
                self.show(file, "upstream-root", &root);
                all.push(root);
            }
        }
        Ok((!all.is_empty()).then(|| Roots::new(all)))
    }

    /// Reads the revocation lists. A stale list gives a warning: every handshake that needs the
    /// list is refused until a fresh one is installed.
    fn crls(&mut self) -> Result<Vec<CertRevocationList<'static>>, Box<Diagnostic>> {
        let mut all = Vec::new();
        for file in &self.written.crls {
            for crl in material::crls(file)? {
                self.material.add(&crl);
                let read = OwnedCertRevocationList::from_der(&crl).map_err(|error| {
                    material::wrong(
                        file,
                        &format!("this revocation list cannot be used: {error}"),
                    )
                })?;
                let until = material::next_update(&crl).ok_or_else(|| {
                    material::wrong(file, "this revocation list has no next update")
                })?;
                let shown = Shown::of_list(self.written, file, until);
                if let Some((code, why)) = shown.wrong(self.clock.now()) {
                    let message = format!("{}: {why}", file.path.display());
                    let finding = Diagnostic::warning(code, file.place.clone(), message);
                    self.findings
                        .push(finding.help(
                            "fetch a fresh one: until then no TLS with this upstream begins",
                        ));
                }
                self.shown.push(shown);
                all.push(read.into());
            }
        }
        Ok(all)
    }

    /// Adds a certificate. One that is not valid now gives a warning: the gate still starts, and an
    /// upstream that does not accept the certificate refuses it.
    fn show(&mut self, file: &PemFile, kind: &'static str, certificate: &CertificateDer<'_>) {
        let Some(shown) = Shown::new(self.written, file, kind, certificate) else {
            return;
        };
        if let Some((code, why)) = shown.wrong(self.clock.now()) {
            let message = format!("{}: {why}", file.path.display());
            self.findings
                .push(Diagnostic::warning(code, file.place.clone(), message));
        }
        self.shown.push(shown);
    }
}

/// The inputs of every upstream configuration.
struct Building<'a> {
    roots: &'a Roots,
    clock: &'a Clock,
}

/// The requirements on a chain besides a root.
#[derive(Default)]
struct Trust {
    pins: Vec<config::Pin>,
    crls: Vec<CertRevocationList<'static>>,
}

impl Building<'_> {
    fn config(
        &self,
        versions: (TlsVersion, TlsVersion),
        trust: Trust,
        client: Option<OwnMaterial>,
    ) -> Result<ClientConfig, rustls::Error> {
        let time = Arc::new(Time(self.clock.clone()));
        let verifier = Verifier::new(self.roots.clone(), trust.pins, trust.crls);
        let builder = ClientConfig::builder_with_details(provider(), time)
            .with_protocol_versions(&allowed(versions))?
            .dangerous()
            // Verifies as the built-in verifier does, with further checks.
            .with_custom_certificate_verifier(verifier);
        let mut config = match client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        // Sessions are resumed by caller and target: see `Sessions`.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

type OwnMaterial = (
    Vec<CertificateDer<'static>>,
    rustls::pki_types::PrivateKeyDer<'static>,
);

fn allowed((min, max): (TlsVersion, TlsVersion)) -> Vec<&'static SupportedProtocolVersion> {
    let all = [
        (TlsVersion::Tls12, &rustls::version::TLS12),
        (TlsVersion::Tls13, &rustls::version::TLS13),
    ];
    let within = all.into_iter().filter(|(it, _)| (min..=max).contains(it));
    within.map(|(_, version)| version).collect()
}

fn offering(config: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    Arc::new(config)
}

fn unusable(written: &config::Upstream, why: &rustls::Error) -> Diagnostic {
    let Some(own) = &written.client else {
        return Diagnostic::error("bad-upstream", written.place.clone(), why.to_string());
    };
    if let rustls::Error::InconsistentKeys(_) = why {
        let message = format!(
            "{}: this is not the key of {}",
            own.key.path.display(),
            own.cert.path.display()
        );
        return Diagnostic::error("bad-pem", own.key.place.clone(), message)
            .help("write both files anew: a certificate is only good with its key");
    }
    *material::wrong(&own.key, &why.to_string())
}

fn no_roots(written: &config::Upstream) -> Diagnostic {
    let message = "this upstream has no root certificates";
    Diagnostic::error("no-roots", written.place.clone(), message)
        .help("name `roots`, or install the certificates of the system")
}

fn server_name(host: &Host) -> Result<ServerName<'static>, TlsFailure> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned())
            .map_err(|_| TlsFailure::new("name", "a certificate cannot contain the name")),
    }
}
