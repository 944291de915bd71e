//! Chains of certificates that an origin shows: what is wrong with each is told by a word of its own.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use crate::kit::{Gate, Origin, TIERS, Visit, names};

use super::bench::{self, Bench, HOST, Server, ask};
use super::through::{PLAIN, rule};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(100));
    change(&mut params);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn root(change: impl FnOnce(&mut CertificateParams)) -> Issuer {
    Issuer::self_signed(authority("root", change), key()).expect("a root")
}

fn below(root: &Issuer, change: impl FnOnce(&mut CertificateParams)) -> Issuer {
    Issuer::signed_by(authority("between", change), key(), root).expect("an authority")
}

/// An origin with a leaf of `issuer`, showing `between` and that OCSP response.
fn origin(
    issuer: &Issuer,
    between: &[&Issuer],
    ocsp: &[u8],
    change: impl FnOnce(&mut CertificateParams),
) -> Origin {
    let mut params = CertificateParams::default();
    bench::server(&mut params);
    params.serial_number = Some(SerialNumber::from(7));
    change(&mut params);
    let own = key();
    let leaf = params.signed_by(&own, issuer).expect("a certificate");
    let mut chain = vec![leaf.der().clone()];
    chain.extend(
        between
            .iter()
            .map(|it| CertificateDer::from(it.der().to_vec())),
    );
    let own = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(WebPkiClientVerifier::no_client_auth())
        .with_single_cert_with_ocsp(chain, own, ocsp.to_vec())
        .expect("a server");
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Origin::https_with(Arc::new(config), Visit::echo)
}

/// What comes of a handshake where `root` is trusted, with more lines.
fn word(root: &Issuer, origin: &Origin, lines: &str, files: &[(&str, String)]) -> &'static str {
    let bench = Bench::new();
    bench.write("root.pem", &root.pem());
    for (name, text) in files {
        bench.write(name, text);
    }
    let upstream = bench.upstream(&format!("roots = [\"root.pem\"]\n{lines}"));
    ask(&upstream, origin.address()).map_or_else(|word| word, |_| "ok")
}

#[test]
fn an_authority_between_that_may_not_sign_is_refused() {
    let root = root(|_| {});
    let asked = |change: &dyn Fn(&mut CertificateParams)| {
        let between = below(&root, change);
        word(&root, &origin(&between, &[&between], b"", |_| {}), "", &[])
    };
    assert_eq!(asked(&|_| {}), "ok");
    let usage = |usages: &'static [KeyUsagePurpose]| {
        asked(&move |params| params.key_usages = usages.to_vec())
    };
    assert_eq!(
        usage(&[KeyUsagePurpose::CrlSign]),
        "certificate_not_authority"
    );
    assert_eq!(
        usage(&[KeyUsagePurpose::DigitalSignature]),
        "certificate_not_authority"
    );
    // Without the extension every use is meant (RFC 5280 section 4.2.1.3).
    assert_eq!(usage(&[]), "ok");
    let no_authority = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    assert_eq!(asked(&no_authority), "certificate_not_authority");
    let no_basic_constraints = |params: &mut CertificateParams| params.is_ca = IsCa::NoCa;
    assert_eq!(asked(&no_basic_constraints), "certificate_not_authority");
    let ended = |params: &mut CertificateParams| params.not_after = date_time_ymd(2021, 1, 1);
    assert_eq!(asked(&ended), "certificate_expired");
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    assert_eq!(asked(&for_clients), "certificate_purpose");
    let unknown = |params: &mut CertificateParams| {
        let oid = [1, 3, 6, 1, 4, 1, 99999, 1];
        let mut extension = CustomExtension::from_oid_content(&oid, vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    };
    assert_eq!(asked(&unknown), "certificate_extension");
    let elsewhere = |params: &mut CertificateParams| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("elsewhere.example".into())],
            excluded_subtrees: Vec::new(),
        });
    };
    assert_eq!(asked(&elsewhere), "certificate_name_constraints");
}

#[test]
fn a_leaf_that_may_not_be_a_server_says_why() {
    let root = root(|_| {});
    let asked = |change: &dyn Fn(&mut CertificateParams)| {
        word(&root, &origin(&root, &[], b"", change), "", &[])
    };
    let usage = |usages: &'static [KeyUsagePurpose]| {
        asked(&move |params| params.key_usages = usages.to_vec())
    };
    assert_eq!(usage(&[KeyUsagePurpose::DigitalSignature]), "ok");
    assert_eq!(usage(&[]), "ok");
    assert_eq!(
        usage(&[KeyUsagePurpose::KeyEncipherment]),
        "certificate_key_usage"
    );
    assert_eq!(
        usage(&[KeyUsagePurpose::KeyAgreement]),
        "certificate_key_usage"
    );
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    assert_eq!(asked(&for_clients), "certificate_purpose");
    let authority = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    assert_eq!(asked(&authority), "certificate_is_authority");
    let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(2090, 1, 1);
    assert_eq!(asked(&early), "certificate_not_yet_valid");
}

#[test]
fn a_root_that_has_expired_is_not_trusted() {
    let ended = root(|params| params.not_after = date_time_ymd(2021, 1, 1));
    let server = origin(&ended, &[], b"", |_| {});
    assert_eq!(word(&ended, &server, "", &[]), "certificate_root_expired");
    let early = root(|params| params.not_before = date_time_ymd(2090, 1, 1));
    let server = origin(&early, &[], b"", |_| {});
    assert_eq!(word(&early, &server, "", &[]), "certificate_root_expired");
    let between = below(&ended, |_| {});
    let server = origin(&between, &[&between], b"", |_| {});
    assert_eq!(word(&ended, &server, "", &[]), "certificate_root_expired");
    // A certificate of the same key that is still valid is a root of its own.
    assert_eq!(word(&between, &server, "", &[]), "ok");
}

#[test]
fn a_short_key_and_an_old_hash_are_no_new_key_of_an_authority() {
    let sign = "-days 30 -extfile leaf.ext -CA weak.pem -CAkey weak.key -CAcreateserial";
    let cases = [
        (
            "rsa:1024",
            "-sha256",
            "rsa:2048",
            "-sha256",
            "certificate_weak_key",
        ),
        (
            "rsa:2048",
            "-sha256",
            "rsa:1024",
            "-sha256",
            "certificate_weak_key",
        ),
        (
            "rsa:2048",
            "-sha256",
            "rsa:2048",
            "-sha1",
            "certificate_algorithm",
        ),
        ("rsa:2048", "-sha256", "rsa:2048", "-sha256", "ok"),
    ];
    for (authority, hash, leaf, signature, expected) in cases {
        let bench = Bench::new();
        bench.write("leaf.ext", &format!("subjectAltName=DNS:{HOST}\n"));
        bench.openssl(&format!(
            "req -x509 {hash} -newkey {authority} -nodes -keyout weak.key -subj /CN=weak -days 30 -out weak.pem"
        ));
        bench.openssl(&format!(
            "req -newkey {leaf} -nodes -keyout server.key -subj /CN=leaf -out leaf.csr"
        ));
        bench.openssl(&format!(
            "x509 -req {signature} -in leaf.csr {sign} -out server.pem"
        ));
        let server = Server::openssl(&bench, "-cipher DEFAULT@SECLEVEL=0");
        let upstream = bench.upstream("roots = [\"weak.pem\"]\n");
        let asked = ask(&upstream, server.address).map_or_else(|word| word, |_| "ok");
        assert_eq!(asked, expected, "{authority} {leaf} {signature}");
    }
}

/// A revocation list of `issuer` with these serial numbers, fresh until the end of a year.
fn list(issuer: &Issuer, serials: &[u64], until: i32) -> String {
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
    let list = params.signed_by(issuer).expect("a list");
    list.pem().expect("PEM")
}

#[test]
fn revocation_lists_are_heeded_and_fail_closed() {
    let root = root(|_| {});
    let between = below(&root, |_| {});
    let deep = origin(&between, &[&between], b"", |_| {});
    let flat = origin(&root, &[], b"", |_| {});
    let asked = |origin: &Origin, lists: &[String]| {
        word(
            &root,
            origin,
            "crl = [\"all.crl\"]\n",
            &[("all.crl", lists.concat())],
        )
    };
    assert_eq!(asked(&flat, &[list(&root, &[], 2099)]), "ok");
    assert_eq!(asked(&flat, &[list(&root, &[8], 2099)]), "ok");
    assert_eq!(
        asked(&flat, &[list(&root, &[7], 2099)]),
        "certificate_revoked"
    );
    assert_eq!(asked(&flat, &[list(&root, &[], 2021)]), "crl_expired");
    // One that is stale and revokes: refused either way.
    assert_ne!(asked(&flat, &[list(&root, &[7], 2021)]), "ok");
    assert_eq!(asked(&flat, &[list(&between, &[], 2099)]), "crl_missing");
    // Another key of the same name.
    let other = self::root(|_| {});
    assert_eq!(asked(&flat, &[list(&other, &[], 2099)]), "crl_invalid");
    // Each authority of the chain has to have a list.
    assert_eq!(asked(&deep, &[list(&between, &[], 2099)]), "crl_missing");
    assert_eq!(asked(&deep, &[list(&root, &[], 2099)]), "crl_missing");
    let both = [list(&root, &[], 2099), list(&between, &[], 2099)];
    assert_eq!(asked(&deep, &both), "ok");
    let no_authority = [list(&root, &[100], 2099), list(&between, &[], 2099)];
    assert_eq!(asked(&deep, &no_authority), "certificate_revoked");
    let cannot_sign = below(&root, |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let origin = origin(&cannot_sign, &[&cannot_sign], b"", |_| {});
    let lists = [list(&root, &[], 2099), list(&between, &[], 2099)];
    assert_ne!(asked(&origin, &lists), "ok");
}

#[test]
fn a_changed_revocation_list_holds_from_the_reload_on() {
    let root = root(|_| {});
    let server = origin(&root, &[], b"", |_| {});
    let policy = format!(
        "{TIERS}{}{}
[upstream.internal]
roots = [\"root.pem\"]
crl = [\"all.crl\"]
port = {}
",
        names(&[HOST]),
        rule("plain", PLAIN, ""),
        server.port(),
    );
    let gate = Gate::plan(&policy)
        .file("root.pem", &root.pem())
        .file("all.crl", &list(&root, &[], 2099))
        .start();
    let ask = || gate.client().get(&format!("http://{HOST}/"));
    assert_eq!(ask().status(), 200);
    let refused = || {
        let answer = ask();
        assert_eq!(answer.refusal(), "tls_failed", "{answer:?}");
        let line = gate.close(answer.field("x-tidegate-flow").expect("a flow"));
        assert_eq!(line.text("error.type"), "certificate_revoked", "{line:?}");
    };
    // Not even over the connection that is open from before.
    gate.replace("all.crl", &list(&root, &[7], 2099));
    refused();
    // A list that cannot be read changes nothing.
    gate.replace("all.crl", "not a list");
    assert!(gate.metrics().sum("tidegate_policy_stale", &[]) > 0.0);
    refused();
    gate.replace("all.crl", &list(&root, &[8], 2099));
    assert_eq!(ask().status(), 200);
}

#[test]
fn a_revocation_list_that_cannot_be_read_does_not_load() {
    let bench = Bench::new();
    let root = root(|_| {});
    let cut: Vec<String> = list(&root, &[], 2099).lines().map(str::to_owned).collect();
    let cut = [&cut[..2], &cut[cut.len() - 1..]].concat().join("\n");
    for (text, code) in [
        ("not PEM".to_owned(), "bad-pem"),
        (bench.pki.pem(), "bad-pem"),
        (cut, "bad-pem"),
        (String::new(), "bad-pem"),
    ] {
        bench.write("all.crl", &text);
        let (upstreams, findings) = bench.build("roots = [\"ca.pem\"]\ncrl = [\"all.crl\"]\n");
        assert!(upstreams.is_none(), "{text}: {findings:?}");
        assert!(findings.iter().any(|it| it.code == code), "{findings:?}");
    }
    let (upstreams, _) = bench.build("roots = [\"ca.pem\"]\ncrl = [\"missing.crl\"]\n");
    assert!(upstreams.is_none());
    let (upstreams, findings) = bench.build("roots = [\"ca.pem\"]\ncrl = []\n");
    assert!(
        upstreams.is_none() && findings[0].code == "empty",
        "{findings:?}"
    );
    bench.write("all.crl", &list(&root, &[], 2021));
    let (upstreams, findings) = bench.build("roots = [\"ca.pem\"]\ncrl = [\"all.crl\"]\n");
    assert!(
        upstreams.is_some(),
        "a stale list is no reason not to start"
    );
    assert_eq!(findings[0].code, "crl-stale", "{findings:?}");
}

#[test]
fn a_certificate_that_must_be_stapled_is_refused_without_a_response() {
    let root = root(|_| {});
    let feature = |content: &[u8]| {
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], content.to_vec())
    };
    let asked = |content: &[u8], ocsp: &[u8]| {
        let change =
            |params: &mut CertificateParams| params.custom_extensions = vec![feature(content)];
        word(&root, &origin(&root, &[], ocsp, change), "", &[])
    };
    let (must, both, v2) = (
        &[0x30, 3, 2, 1, 5][..],
        &[0x30, 6, 2, 1, 5, 2, 1, 17][..],
        &[0x30, 3, 2, 1, 17][..],
    );
    let (good, bad) = (&[0x30, 3, 0x0a, 1, 0][..], &[0x30, 3, 0x0a, 1, 6][..]);
    for feature in [must, both, v2, &[4, 1, 0]] {
        assert_eq!(
            asked(feature, b""),
            "certificate_not_stapled",
            "{feature:?}"
        );
        assert_eq!(
            asked(feature, bad),
            "certificate_not_stapled",
            "{feature:?}"
        );
        assert_eq!(asked(feature, good), "ok", "{feature:?}");
    }
    // Another feature asks for nothing.
    assert_eq!(asked(&[0x30, 3, 2, 1, 23], b""), "ok");
}
