//! The local authority: signs certificates for inspected destinations, for callers that trust it.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::Semaphore;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Clock;
use crate::config::{self, PemFile};
use crate::diag::{Diagnostic, Severity};
use crate::metrics::Metrics;
use crate::name::Host;
use crate::policy::Names;

use super::cache::Cache;
use super::constraints::Constraints;
use super::leaf::{self, LeafKey, SKEW, Validity, saturating};
use super::signer::{may_sign, may_sign_servers};
use super::{Server, material, server};

/// Names whose certificates are cached, in one half of the cache; a certificate takes some
/// kilobytes.
const KEPT: usize = 2_048;
/// Maximum number of certificates that are made at the same time.
const MAX_MINTING: usize = 2;
/// How long before its expiry an authority is reported.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The local authority: kept over generations while its files have the same content.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, then the certificates between it and a root.
    chain: Vec<CertificateDer<'static>>,
    /// Former certificates that are still published.
    former: Vec<CertificateDer<'static>>,
    /// The name constraints of each certificate of `chain`.
    constraints: Vec<Constraints>,
    not_after: Timestamp,
    lifetime: SignedDuration,
    clock: Clock,
    provider: Arc<CryptoProvider>,
    /// Verifies client certificates; with the configured authorities for clients.
    clients: Option<(Arc<dyn ClientCertVerifier>, config::ClientCertificates)>,
    key: Mutex<Option<Arc<LeafKey>>>,
    minted: Cache<Host, Minted>,
    /// Permits to make a certificate on a blocking thread.
    turns: Arc<Semaphore>,
    metrics: OnceLock<Metrics>,
}

/// The TLS configuration for callers that ask for one name.
#[derive(Clone)]
struct Minted {
    http1: Arc<Server>,
    http2: Arc<Server>,
    from: Timestamp,
    until: Timestamp,
}

impl Minted {
    fn is_good(&self, now: Timestamp) -> bool {
        (self.from..self.until).contains(&now)
    }

    fn server(self, http2: bool) -> Arc<Server> {
        if http2 { self.http2 } else { self.http1 }
    }
}

/// The TLS configuration for clients of a name, or why no certificate was made.
type ServerResult = Result<Arc<Server>, MintError>;

/// Why no certificate was made for a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct MintError(pub &'static str);

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Builds the authority that is configured, if any, for a policy that inspects `names`.
    pub fn new(
        inspect: &config::Inspect,
        names: &Names,
        clock: &Clock,
    ) -> (Option<Self>, Vec<Diagnostic>) {
        let mut findings = Vec::new();
        let Some(written) = &inspect.authority else {
            if !names.is_empty() {
                findings.push(unnamed());
            }
            return (None, findings);
        };
        let (cert, key) = match &written.files {
            Ok(files) => files,
            Err(wrong) => return (None, wrong.clone()),
        };
        let built = Self::build(cert, key, inspect.leaf_lifetime, clock);
        let authority = built.map_err(|wrong| findings.push(*wrong)).ok();
        let authority = authority.map(|mut authority| {
            if let Some(clients) = &inspect.clients {
                let mut ends = Vec::new();
                match server::verifier(clients, clock, &mut ends, &mut findings) {
                    Ok(verifier) => authority.clients = Some((verifier, clients.clone())),
                    Err(wrong) => findings.push(*wrong),
                }
            }
            for file in &written.former {
                match material::certificates(file) {
                    Ok(former) => authority.add_former(former),
                    Err(wrong) => findings.push(*wrong),
                }
            }
            findings.extend(authority.ending(cert));
            findings.extend(authority.too_narrow(cert, names));
            authority
        });
        let wrong = |finding: &Diagnostic| finding.severity == Severity::Error;
        (authority.filter(|_| !findings.iter().any(wrong)), findings)
    }

    fn build(
        cert: &PemFile,
        key: &PemFile,
        lifetime: Duration,
        clock: &Clock,
    ) -> Result<Self, Box<Diagnostic>> {
        let chain = material::certificates(cert)?;
        let pair = KeyPair::try_from(&material::key(key)?)
            .map_err(|_| material::wrong(key, "this kind of key cannot sign certificates"))?;
        let own = chain
            .first()
            .ok_or_else(|| material::wrong(cert, "it is empty"))?;
        let (_, parsed) = X509Certificate::from_der(own)
            .map_err(|_| material::wrong(cert, "its certificate is not well-formed"))?;
        belong(&parsed, &pair).map_err(|why| material::wrong(cert, why))?;
        // The first expiry in the chain: without each of its certificates no leaf is trusted.
        let ends = chain
            .iter()
            .map(material::not_after)
            .collect::<Option<Vec<_>>>();
        let not_after = ends
            .and_then(|ends| ends.into_iter().min())
            .ok_or_else(|| material::wrong(cert, "its end is out of range"))?;
        let issuer = Issuer::from_ca_cert_der(own, pair)
            .map_err(|_| material::wrong(cert, "its name has a form that cannot be repeated"))?;
        let subject = parsed.subject().as_raw().to_vec();
        let authority = Self {
            constraints: constraints_of(&chain).map_err(|why| material::wrong(cert, why))?,
            issuer,
            chain,
            former: Vec::new(),
            not_after,
            lifetime: SignedDuration::try_from(lifetime).unwrap_or(SKEW),
            clock: clock.clone(),
            provider: server::provider(),
            clients: None,
            key: Mutex::default(),
            minted: Cache::new(KEPT),
            turns: Arc::new(Semaphore::new(MAX_MINTING)),
            metrics: OnceLock::new(),
        };
        // A leaf with the issuer's name in another encoding would not chain to this authority.
        if authority
            .name_as_issuer()
            .is_none_or(|name| name != subject)
        {
            let why = "its name has a form that cannot be repeated";
            return Err(material::wrong(cert, why));
        }
        Ok(authority)
    }

    /// Returns the issuer name in a certificate that this authority signs.
    fn name_as_issuer(&self) -> Option<Vec<u8>> {
        let now = self.clock.now();
        let key = LeafKey::new(&self.provider, now).ok()?;
        let validity = Validity {
            from: now,
            until: now,
        };
        let host = Host::parse(b"tidegate.invalid").ok()?;
        let leaf = leaf::mint(&[host], &key, &self.issuer, &[], validity).ok()?;
        let (_, parsed) = X509Certificate::from_der(leaf.cert.first()?).ok()?;
        Some(parsed.issuer().as_raw().to_vec())
    }

    fn add_former(&mut self, former: Vec<CertificateDer<'static>>) {
        let now = self.clock.now();
        let ended = |it: &CertificateDer<'_>| material::not_after(it).is_none_or(|end| end <= now);
        for certificate in former {
            let known = self.former.contains(&certificate) || self.chain.contains(&certificate);
            if !known && !ended(&certificate) {
                self.former.push(certificate);
            }
        }
    }

    fn ending(&self, cert: &PemFile) -> Option<Diagnostic> {
        let now = self.clock.now();
        let path = cert.path.display();
        let finding = |code, message| {
            let finding = Diagnostic::warning(code, cert.place.clone(), message);
            Some(finding.help("run `tidegate ca rotate --config FILE`"))
        };
        if self.not_after <= now {
            let message = format!("{path}: this authority has expired: nothing can be inspected");
            return finding("certificate-expired", message);
        }
        if self.not_after <= saturating(now, SOON) {
            let message = format!("{path}: this authority ends at {}", self.not_after);
            return finding("certificate-ends-soon", message);
        }
        None
    }

    fn too_narrow(&self, cert: &PemFile, names: &Names) -> Option<Diagnostic> {
        const SHOWN: usize = 3;
        let mut missing: Vec<String> = Vec::new();
        for of_one in &self.constraints {
            let more = of_one.missing(names).into_iter();
            missing.extend(
                more.filter(|name| !missing.contains(name))
                    .collect::<Vec<_>>(),
            );
        }
        let shown: Vec<_> = missing.iter().take(SHOWN).map(String::as_str).collect();
        if shown.is_empty() {
            return None;
        }
        let more = match missing.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "the policy inspects what this authority cannot sign for: {}{more}",
            shown.join(", ")
        );
        let finding = Diagnostic::warning("ca-too-narrow", cert.place.clone(), message);
        Some(
            finding
                .label("made when the policy inspected less")
                .help("run `tidegate ca rotate --config FILE`: callers trust the new one only after `tidegate ca install`"),
        )
    }

    /// Counts certificates in `metrics` from now on.
    pub fn count_in(&self, metrics: &Metrics) {
        let _ = self.metrics.set(metrics.clone());
    }

    /// Whether another authority has the same content, so that its cached certificates are still
    /// valid.
    pub fn is_same(&self, other: &Self) -> bool {
        self.chain == other.chain
            && self.former == other.former
            && self.lifetime == other.lifetime
            && asked_of_clients(self) == asked_of_clients(other)
    }

    /// Returns when the authority expires.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Returns the certificates that callers have to trust, in DER: the current one, then former
    /// ones.
    pub fn published(&self) -> impl Iterator<Item = &[u8]> {
        let all = self.chain.iter().take(1).chain(&self.former);
        all.map(AsRef::as_ref)
    }

    /// Whether clients would trust a certificate for `host` now. Makes no certificate.
    pub fn check(&self, host: &Host) -> Result<(), MintError> {
        if self.clock.now() >= self.not_after {
            return Err(MintError("the local authority has expired"));
        }
        if !self.constraints.iter().all(|it| it.permits(host)) {
            return Err(MintError(
                "the name constraints of the local authority do not permit this host",
            ));
        }
        Ok(())
    }

    /// Like [`Self::server`], for async code: makes a missing certificate on a blocking thread, at
    /// most two at a time.
    pub async fn prepare(self: &Arc<Self>, host: &Host, http2: bool) -> ServerResult {
        self.check(host)?;
        let now = self.clock.now();
        if let Some(minted) = self.minted.find(host, |minted| minted.is_good(now)) {
            return Ok(minted.server(http2));
        }
        let failed = MintError("no certificate can be made while the gate ends");
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.map_err(|_| failed)?;
        let (authority, host) = (self.clone(), host.clone());
        let minting = tokio::task::spawn_blocking(move || {
            // Held until the certificate is made, even if the client has left.
            let _turn = turn;
            authority.server(&host, http2)
        });
        minting.await.map_err(|_| failed)?
    }

    /// Returns the TLS configuration for a caller that asked for `host`; `http2` if the origin
    /// speaks it. Makes a certificate if none is cached: about 0.1 ms of work.
    pub fn server(&self, host: &Host, http2: bool) -> ServerResult {
        self.check(host)?;
        let now = self.clock.now();
        let good = |minted: &Minted| minted.is_good(now);
        let minted = self.minted.get(host, good, || self.mint(host, now))?;
        Ok(minted.server(http2))
    }

    fn mint(&self, host: &Host, now: Timestamp) -> Result<Minted, MintError> {
        let key = self.leaf_key(now)?;
        let validity = Validity {
            from: saturating(now, -SKEW),
            until: saturating(now, self.lifetime).min(self.not_after),
        };
        let chain = self.chain_of_leaf();
        let certified = leaf::mint(
            std::slice::from_ref(host),
            &key,
            &self.issuer,
            chain,
            validity,
        )?;
        let server = |protocols: &[&[u8]]| {
            let verifier = self.clients.as_ref().map(|(verifier, _)| verifier.clone());
            let certified = certified.clone();
            Server::minted(certified, protocols, verifier, &self.provider, &self.clock)
                .map(Arc::new)
                .map_err(|_| MintError("cannot build the TLS configuration"))
        };
        let minted = Minted {
            http1: server(&[b"http/1.1"])?,
            http2: server(&[b"h2", b"http/1.1"])?,
            from: saturating(now, -SKEW),
            until: saturating(now, self.lifetime / 2)
                .min(key.ends())
                .min(self.not_after),
        };
        if let Some(metrics) = self.metrics.get() {
            metrics.minted();
        }
        Ok(minted)
    }

    /// The chain without its root: a client that trusts the root has it.
    fn chain_of_leaf(&self) -> &[CertificateDer<'static>] {
        if self.chain.len() > 1 {
            &self.chain
        } else {
            &[]
        }
    }

    /// Returns the key of the day.
    fn leaf_key(&self, now: Timestamp) -> Result<Arc<LeafKey>, MintError> {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = key.as_ref().filter(|key| key.serves(now)) {
            return Ok(key.clone());
        }
        let new = Arc::new(LeafKey::new(&self.provider, now)?);
        *key = Some(new.clone());
        Ok(new)
    }
}

/// Returns the settings that the verification of client certificates depends on.
fn asked_of_clients(authority: &Authority) -> Option<(&str, bool)> {
    let (_, clients) = authority.clients.as_ref()?;
    Some((&clients.ca.text, clients.required))
}

/// The finding for a policy that inspects without a local authority.
fn unnamed() -> Diagnostic {
    let message = "the policy inspects destinations, and `[inspect]` names no authority";
    Diagnostic::unplaced("no-authority", message).help(
        "write `[inspect]` with `ca-cert = \"ca.pem\"` and `ca-key = \"ca.key\"`, and run \
         `tidegate ca init --config FILE`",
    )
}

/// Whether a certificate and a key belong to the same authority; the error is the reason.
fn belong(certificate: &X509Certificate<'_>, pair: &KeyPair) -> Result<(), &'static str> {
    may_sign_servers(certificate)?;
    if certificate.public_key().raw != pair.subject_public_key_info() {
        return Err("the key does not belong to this certificate");
    }
    Ok(())
}

/// Returns the name constraints of a whole chain: a client checks each certificate above the leaf.
fn constraints_of(chain: &[CertificateDer<'_>]) -> Result<Vec<Constraints>, &'static str> {
    let of = |certificate: &CertificateDer<'_>| {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| "one of its certificates is not well-formed")?;
        may_sign(&parsed)?;
        Constraints::of(&parsed)
    };
    chain.iter().map(of).collect()
}

#[cfg(test)]
mod tests;
