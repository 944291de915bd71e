//! A whole certificate authority in memory; only its certificate goes to disk, for real clients.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme, StreamOwned,
};

use super::Wire;

/// A certificate authority of one test.
pub(crate) struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// Makes an authority.
    pub(crate) fn new() -> Self {
        Self::made("tidegate test authority", BasicConstraints::Unconstrained)
    }

    /// Makes an authority of another name.
    pub(crate) fn stranger() -> Self {
        Self::made("another authority", BasicConstraints::Unconstrained)
    }

    /// Makes an authority that signs for servers and for no other authority.
    pub(crate) fn for_leaves() -> Self {
        Self::made("tidegate test leaves", BasicConstraints::Constrained(0))
    }

    fn made(name: &str, constraints: BasicConstraints) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(constraints);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("an authority"),
        }
    }

    /// Writes the authority's certificate as PEM and says where.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        std::fs::write(&path, self.issuer.pem()).expect("a file");
        path
    }

    /// What a server of these names speaks TLS with.
    pub(crate) fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.server_until(names, 2099)
    }

    /// As [`Self::server`], with a certificate that ends with that year.
    pub(crate) fn server_until(&self, names: &[&str], until: i32) -> Arc<ServerConfig> {
        let change = |params: &mut CertificateParams| {
            params.not_after = date_time_ymd(until, 12, 31);
        };
        Arc::new(self.serving(names, change))
    }

    /// As [`Self::server`], for clients with a certificate of this authority whose serial number is
    /// not one of these.
    pub(crate) fn server_for_certificates(
        &self,
        names: &[&str],
        revoked: &[u64],
    ) -> Arc<ServerConfig> {
        Arc::new(self.serving_with(names, |_| {}, self.all_but(revoked)))
    }

    /// As [`Self::server_for_certificates`], with a list that may change. It resumes no session:
    /// each connection is looked at.
    pub(crate) fn server_with_list(&self, names: &[&str], list: &RevocationList) -> ServerConfig {
        let mut config = self.serving_with(names, |_| {}, Arc::new(list.clone()));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config
    }

    /// A revocation list of these serial numbers, as servers use it.
    pub(crate) fn list(&self, revoked: &[u64]) -> RevocationList {
        RevocationList(Arc::new(Mutex::new(self.all_but(revoked))))
    }

    /// Puts these serial numbers on a list that is in use.
    pub(crate) fn revoke(&self, list: &RevocationList, revoked: &[u64]) {
        *list.0.lock().expect("a list") = self.all_but(revoked);
    }

    fn all_but(&self, revoked: &[u64]) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let crl = self.crl(revoked, 2099);
        let crl = CertificateRevocationListDer::from_pem_slice(crl.as_bytes()).expect("a list");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .with_crls([crl])
            .build();
        verifier.expect("a verifier")
    }

    /// As [`Self::server`], with a certificate that is changed before it is signed.
    pub(crate) fn serving(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> ServerConfig {
        self.serving_with(names, change, WebPkiClientVerifier::no_client_auth())
    }

    fn serving_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> ServerConfig {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("a server")
    }

    /// The authority's key as PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The authority's certificate as PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate and its key as PEM, changed before it is signed.
    pub(crate) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        (leaf.pem(), key.serialize_pem())
    }

    /// A revocation list of these serial numbers, fresh until the end of a year.
    pub(crate) fn crl(&self, serials: &[u64], until: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("a list");
        list.pem().expect("PEM")
    }

    /// What a client that trusts this authority speaks TLS with.
    pub(crate) fn trusting(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// Begins TLS on a plain connection, asking for `name`.
    pub(crate) fn enter(&self, wire: Wire, name: &str) -> Wire {
        self.enter_as(wire, name, &[])
    }

    /// As [`Self::enter`], offering these protocols.
    pub(crate) fn enter_as(&self, wire: Wire, name: &str, protocols: &[&str]) -> Wire {
        let Wire::Tcp(socket) = wire else {
            panic!("already TLS")
        };
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut config = self.trusting();
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        let config = Arc::new(config);
        let connection = ClientConnection::new(config, name).expect("a client");
        Wire::TlsClient(Box::new(StreamOwned::new(connection, socket)))
    }
}

/// Which clients a server takes; changes while it serves.
#[derive(Clone, Debug)]
pub(crate) struct RevocationList(Arc<Mutex<Arc<dyn ClientCertVerifier>>>);

impl RevocationList {
    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.lock().expect("a list").clone()
    }
}

impl ClientCertVerifier for RevocationList {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        time: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.now().verify_client_cert(leaf, others, time)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now().verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now().verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().supported_verify_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
