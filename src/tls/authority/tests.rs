use std::sync::Barrier;
use std::thread;

use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::diag::{Place, Source};
use crate::metrics::Metrics;

use super::super::{Facts, NewAuthority};
use super::*;

fn names(names: &[&str]) -> Names {
    Names {
        names: names.iter().map(ToString::to_string).collect(),
        ..Names::default()
    }
}

fn host(text: &str) -> Host {
    Host::parse(text.as_bytes()).unwrap()
}

fn file(name: &str, text: &str) -> PemFile {
    PemFile {
        path: name.into(),
        text: text.into(),
        place: Place::new(&Arc::new(Source::new("tidegate.toml", "")), 0..0),
    }
}

fn clock() -> Clock {
    Clock::by_hand("2026-11-26T12:00:00Z".parse().unwrap())
}

fn written(cert: &str, key: &str) -> config::Inspect {
    config::Inspect {
        authority: Some(config::Authority {
            cert: "ca.pem".into(),
            key: "ca.key".into(),
            previous: Vec::new(),
            files: Ok((file("ca.pem", cert), file("ca.key", key))),
            former: Vec::new(),
        }),
        ..config::Inspect::default()
    }
}

/// Returns an authority for these names, and its certificate.
fn authority(permitted: &[&str], clock: &Clock) -> (Authority, String) {
    let new = NewAuthority::make(&names(permitted), clock.now()).unwrap();
    let inspect = written(&new.cert, &new.key);
    let (authority, findings) = Authority::new(&inspect, &names(permitted), clock);
    assert!(findings.is_empty(), "{findings:?}");
    (authority.unwrap(), new.cert)
}

fn codes(inspect: &config::Inspect, inspected: &[&str], clock: &Clock) -> Vec<&'static str> {
    let (_, findings) = Authority::new(inspect, &names(inspected), clock);
    findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn many_that_ask_for_one_name_get_one_certificate() {
    let clock = clock();
    let (authority, _) = authority(&["example.com"], &clock);
    let metrics = Metrics::new(&[]);
    authority.count_in(&metrics);
    let (host, barrier) = (host("example.com"), Barrier::new(64));
    let first = authority
        .server(&host, true)
        .map(|it| Arc::as_ptr(&it) as usize);
    let ask = || {
        barrier.wait();
        authority
            .server(&host, true)
            .map(|it| Arc::as_ptr(&it) as usize)
    };
    let all: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(all.iter().all(|one| *one == first));
    assert!(
        metrics
            .render()
            .contains("tidegate_certificates_minted_total 1\n")
    );
}

#[test]
fn at_first_sight_too_many_that_ask_get_one_certificate() {
    let clock = clock();
    let (authority, _) = authority(&[".example.com"], &clock);
    let metrics = Metrics::new(&[]);
    authority.count_in(&metrics);
    let barrier = Barrier::new(64);
    let ask = || {
        barrier.wait();
        authority.server(&host("new.example.com"), false).unwrap();
    };
    thread::scope(|scope| (0..64).for_each(|_| drop(scope.spawn(ask))));
    assert!(
        metrics
            .render()
            .contains("tidegate_certificates_minted_total 1\n")
    );
}

#[tokio::test]
async fn the_reactor_gets_the_same_certificate_and_the_same_refusals() {
    let clock = clock();
    let (authority, _) = authority(&[".example.com"], &clock);
    let (authority, metrics) = (Arc::new(authority), Metrics::new(&[]));
    authority.count_in(&metrics);
    let name = host("new.example.com");
    let (one, two) = tokio::join!(
        authority.prepare(&name, true),
        authority.prepare(&name, true)
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    let kept = authority.server(&name, true).unwrap();
    assert!(Arc::ptr_eq(&one, &two) && Arc::ptr_eq(&one, &kept));
    let minted = metrics.render();
    assert!(
        minted.contains("tidegate_certificates_minted_total 1\n"),
        "{minted}"
    );
    assert!(authority.prepare(&host("example.org"), true).await.is_err());
    clock.advance(SignedDuration::from_hours(24 * 366));
    assert!(authority.prepare(&name, true).await.is_err());
}

#[test]
fn names_outside_of_its_constraints_are_refused() {
    let clock = clock();
    let (authority, _) = authority(&["example.com", ".suffix.example"], &clock);
    for good in ["example.com", "a.suffix.example", "a.b.suffix.example"] {
        assert!(authority.server(&host(good), true).is_ok(), "{good}");
    }
    for bad in [
        "example.org",
        "notexample.com",
        "10.0.0.7",
        "[fd00::7]",
        "com",
    ] {
        assert!(authority.server(&host(bad), true).is_err(), "{bad}");
    }
}

#[test]
fn addresses_are_signed_for_where_their_network_is_inspected() {
    let clock = clock();
    let inspected = Names {
        networks: vec![
            "10.1.0.0/16".parse().unwrap(),
            "fd00::7/128".parse().unwrap(),
        ],
        ..Names::default()
    };
    let new = NewAuthority::make(&inspected, clock.now()).unwrap();
    let (authority, findings) = Authority::new(&written(&new.cert, &new.key), &inspected, &clock);
    assert!(findings.is_empty(), "{findings:?}");
    let authority = authority.unwrap();
    for good in ["10.1.2.3", "[fd00::7]"] {
        assert!(authority.server(&host(good), true).is_ok(), "{good}");
    }
    for bad in ["10.2.0.1", "[fd00::8]", "example.com"] {
        assert!(authority.server(&host(bad), true).is_err(), "{bad}");
    }
}

#[test]
fn no_host_makes_it_panic() {
    let clock = clock();
    let new = NewAuthority::make(
        &Names {
            everything: true,
            ..Names::default()
        },
        clock.now(),
    );
    let new = new.unwrap();
    let inspect = written(&new.cert, &new.key);
    let authority = Authority::new(&inspect, &Names::default(), &clock)
        .0
        .unwrap();
    let long = ["a".repeat(63).as_str(); 3].join(".") + "." + &"b".repeat(61);
    for odd in [
        "_dmarc.example.com",
        "a--b.example",
        "xn--bcher-kva.example",
        &long,
        "a",
        "[::]",
    ] {
        assert!(authority.server(&host(odd), false).is_ok(), "{odd}");
    }
}

#[test]
fn a_certificate_is_made_anew_before_it_ends_and_with_the_key_of_the_day() {
    let clock = clock();
    let (authority, _) = authority(&["example.com"], &clock);
    let ask = || authority.server(&host("example.com"), true).unwrap();
    let first = ask();
    clock.advance(SignedDuration::from_hours(11));
    assert!(Arc::ptr_eq(&first, &ask()));
    clock.advance(SignedDuration::from_hours(2));
    assert!(!Arc::ptr_eq(&first, &ask()));
    clock.advance(SignedDuration::from_hours(24 * 366));
    assert!(authority.server(&host("example.com"), true).is_err());
}

#[test]
fn a_certificate_says_its_name_and_nothing_that_repeats() {
    let clock = clock();
    let (authority, pem) = authority(&["example.com"], &clock);
    let key = LeafKey::new(&authority.provider, clock.now()).unwrap();
    let (from, until) = (clock.now(), saturating(clock.now(), SKEW));
    let mint = || {
        let validity = Validity { from, until };
        let certified = leaf::mint(
            &[host("example.com")],
            &key,
            &authority.issuer,
            &[],
            validity,
        );
        certified.unwrap().cert[0].to_vec()
    };
    let (first, second) = (mint(), mint());
    let (_, first) = X509Certificate::from_der(&first).unwrap();
    let (_, second) = X509Certificate::from_der(&second).unwrap();
    assert_ne!(first.raw_serial(), second.raw_serial());
    assert_eq!(first.raw_serial().len(), 17);
    assert_eq!(first.public_key().raw, second.public_key().raw);
    let ours = &Facts::of_pem(&pem)[0].der;
    let (_, ours) = X509Certificate::from_der(ours).unwrap();
    assert_ne!(first.public_key().raw, ours.public_key().raw);
    let names = first.subject_alternative_name().unwrap().unwrap();
    let names: Vec<_> = names.value.general_names.iter().collect();
    assert_eq!(names, [&GeneralName::DNSName("example.com")]);
    assert!(!first.is_ca() && first.subject().iter_common_name().next().is_none());
    assert!(
        first
            .extended_key_usage()
            .unwrap()
            .unwrap()
            .value
            .server_auth
    );
    // The key id of the issuer, or of the authority itself.
    let parsed = |it: &X509Certificate<'_>| -> Vec<String> {
        let extensions = it.extensions().iter();
        let ids = extensions.filter_map(|it| match it.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                Some(format!("{:x}", id.key_identifier.as_ref()?))
            }
            ParsedExtension::SubjectKeyIdentifier(id) => Some(format!("{id:x}")),
            _ => None,
        });
        ids.collect()
    };
    assert_eq!(parsed(&first), parsed(&ours));
    assert_eq!(material::timestamp(first.validity().not_after), Some(until));
}

#[test]
fn names_that_are_no_longer_asked_for_are_forgotten() {
    let cache = Cache::new(8);
    let made = std::cell::Cell::new(0);
    let ask = |name: &str| {
        let count = || {
            made.set(made.get() + 1);
            Ok::<(), MintError>(())
        };
        cache.get(&host(name), |()| true, count).unwrap();
    };
    for number in 0..100 {
        ask("kept.example");
        ask(&format!("n{number}.example"));
    }
    assert_eq!(made.get(), 101);
    ask("n0.example");
    assert_eq!(made.get(), 102);
}

#[test]
fn what_is_no_authority_is_said_to_be_none() {
    let clock = clock();
    let good = NewAuthority::make(&names(&["example.com"]), clock.now()).unwrap();
    let other = NewAuthority::make(&names(&["example.com"]), clock.now()).unwrap();
    let leaf = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).unwrap();
    let inspected = ["example.com"];
    for (cert, key) in [
        (good.cert.as_str(), other.key.as_str()),
        (&leaf.cert.pem(), &leaf.signing_key.serialize_pem()),
        ("nothing", &good.key),
        (&good.cert, "nothing"),
    ] {
        assert_eq!(codes(&written(cert, key), &inspected, &clock), ["bad-pem"]);
    }
    assert_eq!(
        codes(
            &written(&good.cert, &good.key),
            &["example.com", "example.org"],
            &clock
        ),
        ["ca-too-narrow"]
    );
    assert_eq!(
        codes(&config::Inspect::default(), &inspected, &clock),
        ["no-authority"]
    );
    assert!(codes(&config::Inspect::default(), &[], &clock).is_empty());
    clock.advance(SignedDuration::from_hours(24 * 350));
    assert_eq!(
        codes(&written(&good.cert, &good.key), &inspected, &clock),
        ["certificate-ends-soon"]
    );
    clock.advance(SignedDuration::from_hours(24 * 350));
    assert_eq!(
        codes(&written(&good.cert, &good.key), &inspected, &clock),
        ["certificate-expired"]
    );
}

#[test]
fn former_authorities_are_published_until_they_end() {
    let clock = clock();
    let old = NewAuthority::make(&names(&["example.com"]), clock.now()).unwrap();
    clock.advance(SignedDuration::from_hours(24 * 300));
    let new = NewAuthority::make(&names(&["example.com"]), clock.now()).unwrap();
    let mut inspect = written(&new.cert, &new.key);
    if let Some(authority) = &mut inspect.authority {
        // The current certificate is published only once.
        authority.former = vec![file("former.pem", &(old.cert.clone() + &new.cert))];
    }
    let published = |clock| {
        let authority = Authority::new(&inspect, &Names::default(), clock)
            .0
            .unwrap();
        super::super::pem(authority.published())
    };
    let facts = Facts::of_pem(&published(&clock));
    let prints = |pem: &str| Facts::of_pem(pem)[0].fingerprint.clone();
    assert_eq!(
        facts
            .iter()
            .map(|it| it.fingerprint.clone())
            .collect::<Vec<_>>(),
        [prints(&new.cert), prints(&old.cert)]
    );
    clock.advance(SignedDuration::from_hours(24 * 100));
    assert_eq!(Facts::of_pem(&published(&clock)).len(), 1);
}

#[test]
fn constraints_are_the_least_that_can_be_said() {
    let inspected = names(&[
        "example.com",
        ".example.com",
        "a.example.com",
        "b.example.org",
    ]);
    let new = NewAuthority::make(&inspected, clock().now()).unwrap();
    let facts = &Facts::of_pem(&new.cert)[0];
    assert_eq!(facts.permitted, ["b.example.org", "example.com"]);
    assert_eq!(facts.excluded, ["0.0.0.0/0", "::/0"]);
    assert!(facts.constraints.missing(&inspected).is_empty());
    let more = names(&[".example.org"]);
    assert_eq!(facts.constraints.missing(&more), ["*.example.org"]);
}

/// Returns the PEM texts of an operator's own authority, and of its key.
fn own(change: impl FnOnce(&mut rcgen::CertificateParams)) -> (String, String) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "own");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn extension(oid: &[u64], content: &[u8], critical: bool) -> rcgen::CustomExtension {
    let mut extension = rcgen::CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// Returns the load errors of such an authority.
fn said(change: impl FnOnce(&mut rcgen::CertificateParams)) -> String {
    let (cert, key) = own(change);
    let (authority, findings) = Authority::new(&written(&cert, &key), &Names::default(), &clock());
    assert_eq!(authority.is_some(), findings.is_empty(), "{findings:?}");
    findings
        .first()
        .map_or_else(String::new, |it| it.message.clone())
}

const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

/// Encodes a DER value with this tag.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[tag, u8::try_from(content.len()).unwrap()][..], &content].concat()
}

/// Name constraints that permit one subtree of this kind of name.
fn permitting(kind: u8, name: &[u8]) -> Vec<u8> {
    der(0x30, &[&der(0xa0, &[&der(0x30, &[&der(kind, &[name])])])])
}

#[test]
fn an_authority_that_two_readers_could_read_differently_is_refused() {
    assert_eq!(said(|_| {}), "", "an authority of one's own does");
    let constrained = |content: Vec<u8>| {
        let critical = extension(NAME_CONSTRAINTS, &content, true);
        said(|params| params.custom_extensions = vec![critical])
    };
    let dns = permitting(0x82, b"example.com");
    assert_eq!(constrained(dns.clone()), "");
    assert_eq!(
        constrained(permitting(0x81, b"example.com")),
        "",
        "e-mail: it makes none"
    );
    let cut = dns[..dns.len() - 1].to_vec();
    for (what, message) in [
        ("cut short", constrained(cut)),
        ("no sequence", constrained(vec![4, 1, 0])),
        ("nothing", constrained(Vec::new())),
        (
            "a mask that is no prefix",
            constrained(permitting(0x87, &[10, 0, 0, 0, 255, 0, 255, 0])),
        ),
        (
            "an address of five bytes",
            constrained(permitting(0x87, &[10, 0, 0, 0, 0])),
        ),
        (
            "directory names",
            constrained(permitting(0xa4, &der(0x30, &[]))),
        ),
        (
            "other names",
            constrained(permitting(0xa0, &der(0x06, &[&[0x2a]]))),
        ),
    ] {
        assert!(
            message.starts_with("ca.pem: its name constraints")
                || message.starts_with("ca.pem: it has an extension"),
            "{what}: {message}"
        );
    }
    let mut twice = vec![extension(NAME_CONSTRAINTS, &dns, true)];
    twice.push(extension(
        NAME_CONSTRAINTS,
        &permitting(0x82, b"example.org"),
        true,
    ));
    let unknown = |critical| vec![extension(&[1, 3, 6, 1, 4, 1, 99999, 1], &[5, 0], critical)];
    assert_eq!(said(|params| params.custom_extensions = unknown(false)), "");
    let usage = vec![extension(&[2, 5, 29, 15], &[4, 1, 0], true)];
    let sign_only = |params: &mut rcgen::CertificateParams| {
        params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    };
    let for_clients = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    };
    let basic = vec![extension(&[2, 5, 29, 19], &[5, 0], true)];
    for (what, message) in [
        (
            "constraints twice",
            said(|params| params.custom_extensions = twice),
        ),
        (
            "an unknown critical extension",
            said(|params| params.custom_extensions = unknown(true)),
        ),
        (
            "a key usage that is none",
            said(|params| {
                params.key_usages.clear();
                params.custom_extensions = usage;
            }),
        ),
        (
            "basic constraints that are none",
            said(|params| {
                params.is_ca = rcgen::IsCa::NoCa;
                params.custom_extensions = basic;
            }),
        ),
        ("a key usage without certificates", said(sign_only)),
        ("for clients only", said(for_clients)),
    ] {
        assert!(message.starts_with("ca.pem: "), "{what}: {message}");
    }
}

#[test]
fn the_constraints_of_the_whole_chain_are_heeded() {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "root");
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.com".into())],
        excluded_subtrees: Vec::new(),
    });
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    let root = rcgen::CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "issuing");
    let key = KeyPair::generate().unwrap();
    let issuing = params.signed_by(&key, &root).unwrap();
    let inspect = written(&(issuing.pem() + &root.pem()), &key.serialize_pem());
    let (authority, findings) = Authority::new(&inspect, &names(&["example.org"]), &clock());
    let authority = authority.unwrap();
    assert_eq!(findings[0].code, "ca-too-narrow");
    assert!(authority.check(&host("example.com")).is_ok());
    assert!(authority.check(&host("example.org")).is_err());
    // Without the root, no certificate of the issuing authority chains to a trusted one.
    assert_eq!(
        authority.not_after(),
        "2027-01-01T00:00:00Z".parse().unwrap()
    );
}
