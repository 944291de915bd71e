//! TLS of the origin on loopback that stands in for every destination (`tidegate redteam run`).

use std::sync::{Arc, OnceLock};

use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::clock::Clock;
use crate::name::Host;
use crate::policy::Names;

use super::authority::MintError;
use super::leaf::{self, LeafKey, SKEW, Validity, saturating};
use super::roots::Roots;
use super::server::provider;
use super::upstreams::System;
use super::{NewAuthority, Server, Upstream, Upstreams};

/// The protocol of the origin (RFC 7301).
const PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// The certificate of the origin, signed by an authority that exists in memory only.
#[derive(Debug)]
pub struct StandIn {
    server: Arc<Server>,
    root: CertificateDer<'static>,
    clock: Clock,
}

impl StandIn {
    /// Makes the authority, and one certificate for all these hosts.
    pub fn new(hosts: &[Host], clock: &Clock) -> Result<Self, MintError> {
        let now = clock.now();
        let everything = Names {
            everything: true,
            ..Names::default()
        };
        let authority = NewAuthority::make(&everything, now)?;
        let unreadable = MintError("the new authority cannot be read");
        let pair = KeyPair::from_pem(&authority.key).map_err(|_| unreadable)?;
        let root = CertificateDer::from_pem_slice(authority.cert.as_bytes());
        let root = root.map_err(|_| unreadable)?;
        let issuer = Issuer::from_ca_cert_der(&root, pair).map_err(|_| unreadable)?;
        let provider = provider();
        let key = LeafKey::new(&provider, now)?;
        let validity = Validity {
            from: saturating(now, -SKEW),
            until: saturating(now, SKEW),
        };
        let chain = std::slice::from_ref(&root);
        let certified = leaf::mint(hosts, &key, &issuer, chain, validity)?;
        let server = Server::minted(certified, PROTOCOLS, None, &provider, clock);
        let server = server.map_err(|_| MintError("the certificate cannot be served"))?;
        Ok(Self {
            server: Arc::new(server),
            root,
            clock: clock.clone(),
        })
    }

    /// The TLS of the origin.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The certificate that clients have to trust, in DER.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// Upstreams with the names of `configured` that trust only the origin, and present no client
    /// certificate.
    pub fn upstreams(&self, configured: &Upstreams) -> Upstreams {
        let roots = Roots::new(vec![self.root.clone()]);
        let one = Upstream::system(&roots, &self.clock).map(Arc::new);
        let configured = configured.named.keys();
        let named = configured.filter_map(|name| Some((name.clone(), one.clone()?)));
        Upstreams {
            named: named.collect(),
            system: Some(System {
                clock: self.clock.clone(),
                made: Arc::new(OnceLock::from(one)),
            }),
        }
    }
}
