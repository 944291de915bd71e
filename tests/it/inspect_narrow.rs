//! Tunnels that are to be inspected, and no certificate for them: the client is told on its CONNECT.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose,
    NameConstraints, date_time_ymd,
};

use crate::kit::{Gate, Origin, Pki, TIERS, inspected, names};

const HOST: &str = "files.example.net";
const PERMITTED: &str = "docs.example.net";

/// The PEM texts of an authority for `docs.example.net` and what is below it, and of its key.
fn narrow(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "narrow");
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(PERMITTED.to_owned())],
        excluded_subtrees: Vec::new(),
    });
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let cert = params.self_signed(&key).expect("an authority");
    (cert.pem(), key.serialize_pem())
}

/// Asks for a tunnel to `host`, and expects that it is refused before anything is dialled.
#[track_caller]
fn refused(host: &str, authority: &(String, String), why: &str) {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[host]);
    let rules = inspected("files", host, origin.port(), "");
    let named: &[&str] = if host == "127.0.0.1" { &[] } else { &[host] };
    let text = format!(
        "{TIERS}{rules}{}\n[inspect]\nca-cert = \"ca.pem\"\nca-key = \"ca.key\"\n\
         [upstream.test]\nroots = [\"origins.pem\"]\n",
        names(named)
    );
    let gate = Gate::plan(&text)
        .file("ca.pem", &authority.0)
        .file("ca.key", &authority.1)
        .file("origins.pem", &pki.pem())
        .start();
    let answer = gate.client().connect(&format!("{host}:{}", origin.port()));
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert_eq!(answer.refusal(), "inspect_unavailable");
    assert!(
        answer
            .phrase()
            .contains(&format!("{host}:{}", origin.port())),
        "{answer:?}"
    );
    let detail = answer.json()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(detail.contains(why), "{detail}");
    let flow = answer
        .field("x-tidegate-flow")
        .unwrap_or_default()
        .to_owned();
    let line = gate.line("the refusal", |line| line.flow() == flow);
    assert!(line.is_decision(), "{line:?}");
    assert_eq!(line.reason(), "inspect_unavailable", "{line:?}");
    assert_eq!(line.verdict(), "error", "{line:?}");
    assert!(
        !line.has("network.peer.address"),
        "nothing was dialled: {line:?}"
    );
    assert!(!line.has("dns.answers"), "nothing was resolved: {line:?}");
    let labels = [("side", "inside"), ("result", "not_minted")];
    let counted = gate.metrics().sum("tidegate_tls_handshakes_total", &labels);
    assert!((counted - 1.0).abs() < 0.1, "counted {counted} times");
    assert!(origin.requests().is_empty());
}

#[test]
fn an_authority_that_is_too_narrow_is_told_before_the_200() {
    refused(HOST, &narrow(|_| {}), "name constraints");
}

#[test]
fn an_address_outside_of_the_authoritys_names_is_refused_before_the_200() {
    let no_addresses = |params: &mut CertificateParams| {
        let all = rcgen::CidrSubnet::from_addr_prefix([0, 0, 0, 0].into(), 0);
        let constraints = params.name_constraints.as_mut().expect("constraints");
        constraints.excluded_subtrees = vec![GeneralSubtree::IpAddress(all)];
    };
    refused("127.0.0.1", &narrow(no_addresses), "name constraints");
}

#[test]
fn an_excluded_name_is_told_before_the_200() {
    let excluding = |params: &mut CertificateParams| {
        let constraints = params.name_constraints.as_mut().expect("constraints");
        constraints.excluded_subtrees = vec![GeneralSubtree::DnsName("a.docs.example.net".into())];
    };
    refused(
        "x.a.docs.example.net",
        &narrow(excluding),
        "name constraints",
    );
}

#[test]
fn an_authority_that_has_expired_is_told_before_the_200() {
    let ended = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    refused(PERMITTED, &narrow(ended), "expired");
}

#[test]
fn what_a_narrow_authority_permits_is_inspected() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[PERMITTED]);
    let (cert, key) = narrow(|_| {});
    let rules = inspected("docs", PERMITTED, origin.port(), "");
    let text = format!(
        "{TIERS}{rules}{}\n[inspect]\nca-cert = \"ca.pem\"\nca-key = \"ca.key\"\n\
         [upstream.test]\nroots = [\"origins.pem\"]\n",
        names(&[PERMITTED])
    );
    let gate = Gate::plan(&text)
        .file("ca.pem", &cert)
        .file("ca.key", &key)
        .file("origins.pem", &pki.pem())
        .start();
    let mut client = gate.client();
    client.tunnel(&format!("{PERMITTED}:{}", origin.port()));
}
