//! hudsucker as a proxy on loopback: `hudsucker-peer PORT pass|inspect CERTIFICATES`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Result, bail};
use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::hyper::Request;
use hudsucker::rcgen::{Issuer, KeyPair};
use hudsucker::rustls::crypto::aws_lc_rs::default_provider;
use hudsucker::rustls::pki_types::CertificateDer;
use hudsucker::rustls::pki_types::pem::PemObject as _;
use hudsucker::rustls::{ClientConfig, RootCertStore};
use hudsucker::{Body, HttpContext, HttpHandler, Proxy};
use hyper_rustls::HttpsConnectorBuilder;

/// Changes nothing.
#[derive(Clone)]
struct Untouched {
    inspects: bool,
}

impl HttpHandler for Untouched {
    async fn should_intercept(&mut self, _: &HttpContext, _: &Request<Body>) -> bool {
        self.inspects
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, mode, certificates] = arguments.as_slice() else {
        println!("hudsucker 0.24");
        return Ok(());
    };
    let inspects = match mode.as_str() {
        "pass" => false,
        "inspect" => true,
        _ => bail!("pass or inspect"),
    };
    let place = Path::new(certificates);
    let key = KeyPair::from_pem(&std::fs::read_to_string(place.join("ca.key"))?)?;
    let issuer = Issuer::from_ca_cert_pem(&std::fs::read_to_string(place.join("ca.pem"))?, key)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(place.join("ca.pem"))?)?;
    let tls = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let proxy = Proxy::builder()
        .with_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?)))
        .with_ca(RcgenAuthority::new(issuer, 1_000, default_provider()))
        .with_http_connector(
            HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
                .enable_http1()
                .build(),
        )
        .with_http_handler(Untouched { inspects })
        .build()?;
    Ok(proxy.start().await?)
}
