//! TLS onward: with a certificate of our own, against servers of other people.

mod bench;
mod chains;
mod rotation;
mod through;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::date_time_ymd;
use rustls::HandshakeKind;
use tidegate::diag::Severity;
use tidegate::tls::{Alpn, TlsFailure, Upstreams};

use crate::kit::{Gate, Metrics, Origin, Pki, Program, TIERS, Visit, until};

use bench::{Bench, HOST, MTLS, Server, ask, enter, named, now, say};

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

#[test]
fn an_openssl_server_that_wants_a_certificate_gets_it() {
    let bench = Bench::new();
    let upstream = bench.upstream(MTLS);
    for version in VERSIONS {
        let server = Server::openssl(&bench, &format!("-Verify 1 {version}"));
        let answer = ask(&upstream, server.address).expect(version);
        assert!(answer.contains("200 ok"), "{version}: {answer}");
    }
}

#[test]
fn an_openssl_server_that_rejects_our_certificate_is_no_fault_of_the_network() {
    let bench = Bench::new();
    let usual = bench.upstream(MTLS);
    let without = bench.upstream("roots = [\"ca.pem\"]\n");
    bench.agent(8, |params| params.not_after = date_time_ymd(2021, 1, 1));
    let expired = bench.upstream(MTLS);
    bench.agent(66, |_| ());
    let revoked = bench.upstream(MTLS);
    let (cert, key) = Pki::new().issue(|_| ());
    bench.write("agent.pem", &cert);
    bench.write("agent.key", &key);
    let foreign = bench.upstream(MTLS);
    bench.write("revoked.crl", &bench.pki.crl(&[66], 2099));
    for version in VERSIONS {
        let words = format!("-Verify 1 {version} -crl_check -CRL revoked.crl");
        let server = Server::openssl(&bench, &words);
        let word = |upstream| ask(upstream, server.address).expect_err(version);
        assert_eq!(word(&revoked), "client_certificate_revoked", "{version}");
        assert_eq!(word(&expired), "client_certificate_expired", "{version}");
        assert_eq!(word(&foreign), "client_certificate_rejected", "{version}");
        // TLS 1.2 has no alert for it.
        let missing = match version {
            "-tls1_2" => "handshake_failure",
            _ => "client_certificate_required",
        };
        assert_eq!(word(&without), missing, "{version}");
        assert!(ask(&usual, server.address).is_ok(), "{version}");
    }
}

/// The server has hung up while the request is still being written.
#[test]
fn a_rejection_is_heard_in_the_middle_of_a_large_request() {
    let bench = Bench::new();
    bench.agent(66, |_| ());
    let upstream = bench.upstream(MTLS);
    bench.write("revoked.crl", &bench.pki.crl(&[66], 2099));
    // One reads to the end before it hangs up, the other one does not.
    let patient = Server::openssl(&bench, "-Verify 1 -tls1_3 -crl_check -CRL revoked.crl");
    let config = bench.pki.server_for_certificates(&[HOST], &[66]);
    let hasty = Origin::https_with(config, Visit::echo);
    for address in [patient.address, hasty.address()] {
        for _ in 0..8 {
            let word = now(async {
                let mut stream = enter(&upstream, address).await?;
                say(&mut stream, 4 << 20).await
            });
            assert_eq!(word, Err("client_certificate_revoked"));
        }
    }
}

/// HTTP/2 keeps only the text of what happened to its connection.
#[test]
fn a_rejection_is_heard_through_http2() {
    let bench = Bench::new();
    bench.agent(66, |_| ());
    let upstream = bench.upstream(MTLS);
    bench.write("revoked.crl", &bench.pki.crl(&[66], 2099));
    let words = "-Verify 1 -tls1_3 -alpn h2 -crl_check -CRL revoked.crl";
    let server = Server::openssl(&bench, words);
    let (asked, carried) = now(async {
        let entered = bench::entered(&upstream, Alpn::Http2, server.address).await;
        let entered = entered.expect("a handshake");
        assert!(entered.http2);
        let (mut sender, connection) = h2::client::handshake(entered.stream).await.expect("h2");
        let request = http::Request::get(format!("https://{HOST}/")).body(());
        let sent = sender.send_request(request.expect("a request"), true);
        let (carried, asked) = tokio::join!(connection, async { sent.expect("room").0.await });
        (
            asked.expect_err("no answer"),
            carried.expect_err("no connection"),
        )
    });
    for error in [asked, carried] {
        let word = TlsFailure::in_error(&error).map(|failure| failure.word);
        assert_eq!(word, Some("client_certificate_revoked"), "{error:?}");
    }
}

/// nginx takes any certificate in the handshake, and says in HTTP what it thinks of it.
#[test]
fn what_nginx_says_of_our_certificate_is_passed_on() {
    let bench = Bench::new();
    let usual = bench.upstream(MTLS);
    let without = bench.upstream("roots = [\"ca.pem\"]\n");
    bench.agent(66, |_| ());
    let revoked = bench.upstream(MTLS);
    bench.write("revoked.crl", &bench.pki.crl(&[66], 2099));
    for version in ["TLSv1.2", "TLSv1.3"] {
        let lines = format!(
            "ssl_protocols {version}; ssl_client_certificate ca.pem; ssl_verify_client on;\n\
             ssl_crl revoked.crl;"
        );
        let server = Server::nginx(&bench, &lines);
        let said = |upstream| ask(upstream, server.address).expect(version);
        assert!(said(&usual).ends_with("hello\n"), "{version}");
        assert!(said(&revoked).contains("400 Bad Request"), "{version}");
        assert!(said(&without).contains("400 Bad Request"), "{version}");
    }
}

#[test]
fn a_rustls_server_that_wants_a_certificate_gets_it_or_says_why_not() {
    let bench = Bench::new();
    let config = bench.pki.server_for_certificates(&[HOST], &[66]);
    let origin = Origin::https_with(config, Visit::echo);
    let word = |lines: &str| ask(&bench.upstream(lines), origin.address()).expect_err(lines);
    assert!(ask(&bench.upstream(MTLS), origin.address()).is_ok());
    assert_eq!(
        word("roots = [\"ca.pem\"]\n"),
        "client_certificate_required"
    );
    bench.agent(66, |_| ());
    assert_eq!(word(MTLS), "client_certificate_revoked");
    bench.agent(8, |params| params.not_after = date_time_ymd(2021, 1, 1));
    assert_eq!(word(MTLS), "client_certificate_expired");
}

#[test]
fn the_upstream_is_verified_whatever_is_written() {
    let bench = Bench::new();
    let origin = Origin::https_with(bench.pki.server(&[HOST]), Visit::echo);
    let asked = |lines: &str| ask(&bench.upstream(lines), origin.address());
    assert!(asked("roots = [\"ca.pem\"]\n").is_ok());
    bench.openssl(
        "req -x509 -newkey ed25519 -nodes -keyout other.key -subj /CN=other -out other.pem",
    );
    let unknown = Err("certificate_unknown_issuer");
    assert_eq!(asked("roots = [\"other.pem\"]\n"), unknown);
    // Without roots, those of the system: they do not know it either.
    assert_eq!(asked("max-version = \"1.2\"\n"), unknown);
    let pin = pin_of(&bench, "server.pem");
    assert_eq!(
        asked(&format!("roots = [\"other.pem\"]\npins = [\"{pin}\"]\n")),
        unknown
    );
    // Another authority, whose name is the same.
    bench.write("same.pem", &Pki::new().pem());
    assert_eq!(
        asked("roots = [\"same.pem\"]\n"),
        Err("certificate_signature")
    );
    let named = "roots = [\"ca.pem\"]\nserver-name = \"other.example\"\n";
    assert_eq!(asked(named), Err("certificate_name"));
    let expired = bench.pki.server_until(&[HOST], 2021);
    let origin = Origin::https_with(expired, Visit::echo);
    let upstream = bench.upstream("roots = [\"ca.pem\"]\n");
    assert_eq!(ask(&upstream, origin.address()), Err("certificate_expired"));
}

#[test]
fn a_pin_is_a_key_of_the_verified_chain() {
    let bench = Bench::new();
    let server = Server::openssl(&bench, "-tls1_3");
    let asked = |pins: &str| {
        let lines = format!("roots = [\"ca.pem\"]\npins = [{pins}]\n");
        ask(&bench.upstream(&lines), server.address).map(drop)
    };
    let (leaf, root) = (pin_of(&bench, "server.pem"), pin_of(&bench, "ca.pem"));
    let (cert, _) = Pki::new().issue(bench::server);
    bench.write("other.pem", &cert);
    let other = pin_of(&bench, "other.pem");
    assert_eq!(asked(&format!("\"{leaf}\"")), Ok(()));
    assert_eq!(asked(&format!("\"{root}\"")), Ok(()));
    assert_eq!(asked(&format!("\"{other}\", \"{leaf}\"")), Ok(()));
    assert_eq!(
        asked(&format!("\"{other}\"")),
        Err("certificate_not_pinned")
    );
    // A certificate that is sent along does not count.
    let along = Server::openssl(&bench, "-tls1_3 -cert_chain other.pem");
    let lines = format!("roots = [\"ca.pem\"]\npins = [\"{other}\"]\n");
    let asked = ask(&bench.upstream(&lines), along.address);
    assert_eq!(asked, Err("certificate_not_pinned"));
}

/// As the manual says that it is made.
fn pin_of(bench: &Bench, cert: &str) -> String {
    bench.openssl(&format!("x509 -in {cert} -noout -pubkey -out key.pub"));
    bench.openssl("pkey -pubin -in key.pub -outform der -out key.der");
    let key = std::fs::read(bench.path("key.der")).expect("a key");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key);
    format!("sha256/{}", STANDARD.encode(digest))
}

#[test]
fn versions_and_the_name_that_is_sent_are_as_written() {
    let bench = Bench::new();
    let old = Server::openssl(&bench, "-tls1_2");
    let new = Server::openssl(&bench, "-tls1_3");
    let asked = |server: &Server, lines: &str| {
        let lines = format!("roots = [\"ca.pem\"]\n{lines}");
        ask(&bench.upstream(&lines), server.address).map(drop)
    };
    assert_eq!(asked(&old, "min-version = \"1.3\"\n"), Err("version"));
    assert_eq!(asked(&new, "max-version = \"1.2\"\n"), Err("version"));
    assert_eq!(asked(&old, "min-version = \"1.2\"\n"), Ok(()));
    assert_eq!(asked(&new, "min-version = \"1.3\"\n"), Ok(()));
    // The server has this certificate for that name only, and none of another.
    let (cert, key) = bench.pki.issue(|params| {
        let name = "inside.example".try_into().expect("a name");
        params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
    });
    bench.write("inside.pem", &cert);
    bench.write("inside.key", &key);
    let words = "-servername inside.example -cert2 inside.pem -key2 inside.key -servername_fatal";
    let picky = Server::openssl(&bench, words);
    assert_eq!(asked(&picky, "server-name = \"inside.example\"\n"), Ok(()));
    assert_eq!(asked(&picky, ""), Err("unrecognized_name"));
}

#[test]
fn a_key_is_taken_in_every_form_that_openssl_writes() {
    let bench = Bench::new();
    bench.write("pass", "a phrase, with blanks\n");
    bench.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key");
    bench.openssl("rsa -in rsa.key -traditional -out rsa-pkcs1.key");
    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.key");
    bench.openssl("ec -in ec.key -out ec-sec1.key");
    bench.openssl("genpkey -algorithm ed25519 -out ed.key");
    for name in ["rsa", "ec", "ed"] {
        bench.openssl(&format!(
            "req -x509 -key {name}.key -subj /CN=agent -days 30 -out {name}.pem"
        ));
        let into = format!("pkcs8 -topk8 -in {name}.key -passout file:pass -out {name}");
        bench.openssl(&format!("{into}-cbc.key"));
        bench.openssl(&format!(
            "{into}-512.key -v2 aes-128-cbc -v2prf hmacWithSHA512"
        ));
        bench.openssl(&format!("{into}-scrypt.key -scrypt"));
    }
    // As `openssl ecparam -genkey` writes it, with the curve before the key.
    bench.openssl("ecparam -name prime256v1 -out curve.pem");
    let text = |name| std::fs::read_to_string(bench.path(name)).expect("a text");
    let with_curve = text("curve.pem") + &text("ec-sec1.key");
    bench.write("ec-curve.key", &with_curve);
    let plain = ["rsa", "rsa-pkcs1", "ec", "ec-sec1", "ec-curve", "ed"];
    for key in plain {
        assert_eq!(found(&bench, key, ""), [""; 0], "{key}");
    }
    let phrase = "client-key-passphrase = \"pass\"\n";
    for name in ["rsa", "ec", "ed"] {
        for form in ["cbc", "512", "scrypt"] {
            let key = format!("{name}-{form}");
            assert_eq!(found(&bench, &key, phrase), [""; 0], "{key}");
        }
    }
}

/// What is found about a key; its name begins with that of its certificate.
fn found(bench: &Bench, key: &str, more: &str) -> Vec<String> {
    bench.openssl_mode(key);
    let cert = key.split('-').next().expect("a name");
    let lines = format!(
        "client-cert = \"{cert}.pem\"\nclient-key = \"{key}.key\"\nroots = [\"ca.pem\"]\n{more}"
    );
    let (upstreams, findings) = bench.build(&lines);
    let errors = findings.iter().any(|it| it.severity == Severity::Error);
    assert_eq!(upstreams.is_none(), errors, "{findings:#?}");
    findings.into_iter().map(|it| it.message).collect()
}

#[test]
fn a_key_that_cannot_be_used_says_why_and_shows_nothing() {
    let bench = Bench::new();
    bench.write("pass", "right\n");
    bench.write("wrong", "wrong\n");
    bench.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key");
    bench.openssl("req -x509 -key rsa.key -subj /CN=agent -days 30 -out rsa.pem");
    bench.openssl("rsa -in rsa.key -traditional -aes128 -passout file:pass -out rsa-old.key");
    let into = "pkcs8 -topk8 -in rsa.key -passout file:pass -out";
    bench.openssl(&format!("{into} rsa-cbc.key"));
    bench.openssl(&format!("{into} rsa-des.key -v2 des3"));
    bench.openssl(&format!(
        "{into} rsa-md5.key -v1 PBE-MD5-DES -provider legacy -provider default"
    ));
    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out rsa-other.key");
    bench.write("rsa-none.key", "nothing\n");
    let begin = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
    bench.write("rsa-half.key", begin);
    let end = "-----END ENCRYPTED PRIVATE KEY-----\n";
    bench.write("rsa-odd.key", &format!("{begin}*\n{end}"));
    for (key, phrase, why) in [
        ("rsa-cbc", "", "nothing says with what"),
        ("rsa-cbc", "wrong", "does not hold its passphrase"),
        ("rsa-old", "pass", "the old way of OpenSSL"),
        ("rsa-des", "pass", "not known"),
        ("rsa-md5", "pass", "not known"),
        ("rsa-other", "", "this is not the key of"),
        ("rsa-none", "", "there is no private key in it"),
        ("rsa-half", "pass", "there is no private key in it"),
        ("rsa-odd", "pass", "not well-formed"),
        ("rsa", "pass", "the key is not encrypted"),
    ] {
        let more = format!("client-key-passphrase = \"{phrase}\"\n");
        let more = if phrase.is_empty() { "" } else { &more };
        let found = found(&bench, key, more);
        assert!(
            found.len() == 1 && found[0].contains(why),
            "{key}: {found:?}"
        );
        assert!(!found[0].contains("right"), "{found:?}");
    }
}

#[test]
fn a_new_certificate_is_shown_by_new_connections_and_old_ones_go_on() {
    let bench = Bench::new();
    let shown = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = shown.clone();
    let config = bench.pki.server_for_certificates(&[HOST], &[]);
    let origin = Origin::https_with(config, move |visit, request| {
        let serial = bench::serial_shown(visit);
        seen.lock().expect("serials").push(serial);
        visit.echo(request)
    });
    let first = bench.built(MTLS);
    now(async {
        let mut old = enter(&named(&first), origin.address()).await.expect("TLS");
        bench.agent(8, |_| ());
        let second = bench.built(MTLS).after(&first);
        assert_ne!(named(&first).identity(), named(&second).identity());
        let mut new = enter(&named(&second), origin.address()).await.expect("TLS");
        assert_eq!(
            kind(&new),
            HandshakeKind::Full,
            "nothing is resumed across a change"
        );
        say(&mut new, 1).await.expect("an answer");
        say(&mut old, 1).await.expect("an answer");
    });
    assert_eq!(*shown.lock().expect("serials"), [8, 7]);
}

fn kind(stream: &bench::Stream) -> HandshakeKind {
    stream.get_ref().1.handshake_kind().expect("a handshake")
}

#[test]
fn sessions_are_resumed_while_nothing_of_an_upstream_changes() {
    let bench = Bench::new();
    let config = bench.pki.server_for_certificates(&[HOST], &[]);
    let origin = Origin::https_with(config, Visit::echo);
    let kind_of = |upstreams: &Upstreams| {
        now(async {
            let mut stream = enter(&named(upstreams), origin.address())
                .await
                .expect("TLS");
            say(&mut stream, 0).await.expect("an answer");
            kind(&stream)
        })
    };
    let first = bench.built(MTLS);
    assert_eq!(kind_of(&first), HandshakeKind::Full);
    assert_eq!(kind_of(&first), HandshakeKind::Resumed);
    let same = bench.built(&format!("{MTLS}port = 8443\n")).after(&first);
    assert_eq!(named(&same).identity(), named(&first).identity());
    assert_eq!(named(&same).port(), 8443);
    assert_eq!(kind_of(&same), HandshakeKind::Resumed);
    let pin = pin_of(&bench, "ca.pem");
    for change in [
        "min-version = \"1.3\"\n".to_owned(),
        format!("pins = [\"{pin}\"]\n"),
        format!("server-name = \"{HOST}\"\n"),
    ] {
        let changed = bench.built(&format!("{MTLS}{change}")).after(&same);
        assert_ne!(
            named(&changed).identity(),
            named(&same).identity(),
            "{change}"
        );
        assert_eq!(kind_of(&changed), HandshakeKind::Full, "{change}");
    }
}

#[test]
fn a_session_is_resumed_only_by_its_caller_at_its_port() {
    let bench = Bench::new();
    let config = bench.pki.server_for_certificates(&[HOST], &[]);
    let (one, two) = (
        Origin::https_with(config.clone(), Visit::echo),
        Origin::https_with(config, Visit::echo),
    );
    let upstream = bench.upstream(MTLS);
    let kind_for = |caller, alpn, address| {
        now(async {
            let entered = bench::entered_as(&upstream, alpn, address, caller).await;
            let mut stream = entered.expect("TLS").stream;
            say(&mut stream, 0).await.expect("an answer");
            kind(&stream)
        })
    };
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    let (a, b, at) = (Some("a"), Some("b"), one.address());
    assert_eq!(kind_for(a, Alpn::Http1, at), full);
    assert_eq!(kind_for(a, Alpn::Http1, at), resumed);
    assert_eq!(kind_for(b, Alpn::Http1, at), full, "another caller");
    assert_eq!(kind_for(b, Alpn::Http1, at), resumed);
    assert_eq!(kind_for(a, Alpn::Http2, at), full, "another offer");
    assert_eq!(
        kind_for(a, Alpn::Http1, two.address()),
        full,
        "another port"
    );
    assert_eq!(kind_for(None, Alpn::Http1, at), full, "no caller");
    assert_eq!(kind_for(None, Alpn::Http1, at), full, "no caller");
    assert_eq!(
        kind_for(a, Alpn::Http1, at),
        resumed,
        "others took none of it"
    );
}

#[test]
fn the_ends_of_certificates_are_seen_by_those_who_look_after_them() {
    let bench = Bench::new();
    let (cert, key) = bench
        .pki
        .issue(|params| params.not_after = date_time_ymd(2021, 1, 1));
    let policy = format!("{TIERS}[upstream.internal]\n{MTLS}");
    let gate = Gate::plan(&policy)
        .file("ca.pem", &bench.pki.pem())
        .file("agent.pem", &cert)
        .file("agent.key", &key)
        .start();
    let end = |metrics: &Metrics, kind| {
        let name = "tidegate_certificate_not_after_timestamp_seconds";
        metrics.sum(name, &[("kind", kind)])
    };
    assert!((end(&gate.metrics(), "upstream") - 1_609_459_200.0).abs() < 1.0);
    assert!(end(&gate.metrics(), "upstream-root") > 4e9);
    assert!(
        gate.said().contains("this certificate has expired"),
        "{}",
        gate.said()
    );

    let doctor = Program::at(
        std::path::Path::new(env!("CARGO_BIN_EXE_tidegate")),
        bench.folder(),
    )
    .args(["doctor", "--json", "--config"])
    .args([gate.config().as_os_str()])
    .env("PATH", bench.folder())
    .run();
    let report: serde_json::Value = serde_json::from_str(&doctor.stdout).expect("JSON");
    let items = report["items"].as_array().expect("items");
    let about = |what: &str| {
        let mut fits = items.iter().filter(|item| item["check"] == "upstreams");
        let subject = format!("internal {what}");
        let fits = fits.find(|it| {
            it["subject"]
                .as_str()
                .is_some_and(|it| it.starts_with(&subject))
        });
        fits.unwrap_or_else(|| panic!("{report:#}")).clone()
    };
    assert_eq!(about("client certificate")["state"], "finding");
    let text = about("client certificate")["text"].to_string();
    assert!(text.contains("expired on 2021-01-01"), "{text}");
    assert_eq!(about("root")["state"], "fine");

    // A half rotation changes nothing; the whole one is taken by itself.
    let (cert, key) = bench
        .pki
        .issue(|params| params.not_after = date_time_ymd(2090, 1, 1));
    gate.replace("agent.pem", &cert);
    assert!(gate.metrics().sum("tidegate_policy_stale", &[]) > 0.5);
    gate.replace("agent.key", &key);
    until("the new certificate", || {
        end(&gate.metrics(), "upstream") > 3.7e9
    });
    gate.reload(TIERS);
    assert!(
        end(&gate.metrics(), "upstream").abs() < 1.0,
        "it is no longer written"
    );
}
