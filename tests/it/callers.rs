//! Callers over TLS: certificates, HTTP/2, and balancers that say who calls.

use std::io::Write as _;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType, SerialNumber, date_time_ymd};

use crate::kit::{
    Client, Gate, Line, Origin, Outcome, Pki, Program, TIERS, allow, allow_more, eventually, names,
    need, until,
};

const HOST: &str = "files.example.net";
const ONLY_CI: &str = "ci.example.net";

/// A gate whose second listener speaks TLS, and the authority of both sides.
struct Bench {
    pki: Pki,
    origin: Origin,
    gate: Gate,
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

/// A caller's certificate with that serial number.
fn caller(params: &mut CertificateParams, name: &str, serial: u64) {
    params.subject_alt_names = vec![uri(name)];
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

fn server(pki: &Pki) -> (String, String) {
    pki.issue(|params| {
        let local = SanType::IpAddress("127.0.0.1".parse().expect("an address"));
        params.subject_alt_names = vec![local];
    })
}

impl Bench {
    fn start(tls: &str) -> Self {
        let (pki, origin) = (Pki::new(), Origin::echo());
        let (cert, key) = server(&pki);
        let port = origin.port();
        let only_ci = allow_more("ci", ONLY_CI, port, "from.groups = [\"ci\"]\n");
        let policy = format!(
            "{TIERS}{}{}{only_ci}
[group.ci]
members = [\"san:spiffe://acme/ci/*\"]

[[listener]]
address = \"127.0.0.1:0\"
proxy-protocol = [\"127.0.0.2\"]
tls = {{ cert = \"proxy.pem\", key = \"proxy.key\"{tls} }}

[[listener]]
address = \"127.0.0.1:0\"
proxy-protocol = [\"127.0.0.1/32\"]

[limits]
header-timeout = \"2 s\"
",
            names(&[HOST, ONLY_CI]),
            allow("files", HOST, port)
        );
        let gate = Gate::plan(&policy)
            .file("proxy.pem", &cert)
            .file("proxy.key", &key)
            .file("callers.pem", &pki.pem())
            .file("callers.crl", &pki.crl(&[66], 2099))
            .start();
        let bench = Self { pki, origin, gate };
        bench.pki.write(bench.gate.folder());
        bench
    }

    /// One whose callers need a certificate that a list does not name.
    fn strict() -> Self {
        Self::start(", client-ca = \"callers.pem\", crls = [\"callers.crl\"]")
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hello", self.origin.port())
    }

    fn curl(&self, words: &[&str], certificate: Option<&(String, String)>) -> Outcome {
        let folder = self.gate.folder();
        let mut curl = Program::at(&need("curl"), folder)
            .args(["-sS", "--max-time", "20", "--proxy-cacert"])
            .args([folder.join("ca.pem")])
            .args(["--proxy", &format!("https://{}", self.gate.listener(1))]);
        if let Some((cert, key)) = certificate {
            std::fs::write(folder.join("caller.pem"), format!("{cert}{key}")).expect("a file");
            curl = curl
                .args(["--proxy-cert"])
                .args([folder.join("caller.pem")]);
        }
        curl.args(words).run()
    }

    fn shaken(&self, result: &str) -> f64 {
        let labels = [("side", "client"), ("result", result)];
        self.gate
            .metrics()
            .sum("tidegate_tls_handshakes_total", &labels)
    }
}

#[test]
fn an_https_proxy_forwards_and_tunnels() {
    let bench = Bench::start("");
    bench
        .curl(&[&bench.url(HOST)], None)
        .succeeded()
        .showed("/hello");
    let tunnelled = bench.curl(&["-p", &bench.url(HOST)], None);
    // A tunnel to something that is not TLS, by a rule that does not let raw bytes pass.
    tunnelled.failed();
    let refused = bench
        .curl(&["-i", "http://evil.example.org/"], None)
        .succeeded();
    assert!(
        refused.shows("403") && refused.shows("not_allowed"),
        "{refused:?}"
    );
    assert!(bench.shaken("ok") >= 3.0);
    let listener = bench.gate.metrics();
    let end = listener.sum(
        "tidegate_certificate_not_after_timestamp_seconds",
        &[("kind", "listener")],
    );
    assert!(end > 1e9, "{end}");
}

#[test]
fn a_certificate_says_who_calls_and_opens_what_its_group_may() {
    let bench = Bench::strict();
    let good = bench
        .pki
        .issue(|params| caller(params, "spiffe://acme/ci/web", 7));
    bench
        .curl(&[&bench.url(ONLY_CI)], Some(&good))
        .succeeded()
        .showed("/hello");
    let line = bench.gate.line("a decision", Line::is_decision);
    assert_eq!(line.text("user.id"), "spiffe://acme/ci/web");
    assert_eq!(line.text("tidegate.session.evidence"), "certificate");
    assert_eq!(line.text("tidegate.session.trust"), "verified");
    let other = bench
        .pki
        .issue(|params| caller(params, "spiffe://acme/dev/web", 8));
    let refused = bench
        .curl(&["-i", &bench.url(ONLY_CI)], Some(&other))
        .succeeded();
    assert!(refused.shows("403"), "{refused:?}");
}

#[test]
fn certificates_that_are_not_good_never_ask_for_anything() {
    let bench = Bench::strict();
    let (stranger, name) = (Pki::new(), "spiffe://acme/ci/web");
    let wrong = [
        (
            "certificate_revoked",
            bench.pki.issue(|params| caller(params, name, 66)),
        ),
        (
            "certificate_expired",
            bench.pki.issue(|params| {
                caller(params, name, 9);
                params.not_before = date_time_ymd(2019, 1, 1);
                params.not_after = date_time_ymd(2020, 1, 1);
            }),
        ),
        (
            "certificate_invalid",
            bench.pki.issue(|params| {
                caller(params, name, 10);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
        ),
        (
            "certificate_nameless",
            bench.pki.issue(|params| {
                caller(params, name, 11);
                params.subject_alt_names = vec![uri("spiffe://acme/a"), uri("spiffe://acme/b")];
            }),
        ),
        (
            "certificate_unknown_issuer",
            stranger.issue(|params| caller(params, name, 7)),
        ),
    ];
    for (result, certificate) in &wrong {
        bench.curl(&[&bench.url(HOST)], Some(certificate)).failed();
        until(result, || {
            bench.shaken(result) >= 1.0 || {
                *result == "certificate_unknown_issuer"
                    && bench.shaken("certificate_invalid") >= 2.0
            }
        });
    }
    bench.curl(&[&bench.url(HOST)], None).failed();
    until("no certificate", || bench.shaken("no_certificate") >= 1.0);
    bench.origin.saw_nothing();
    assert!(bench.gate.records().iter().all(|line| !line.is_decision()));
}

#[test]
fn an_optional_certificate_may_be_left_out() {
    let bench = Bench::start(", client-ca = \"callers.pem\", client-cert = \"optional\"");
    bench
        .curl(&[&bench.url(HOST)], None)
        .succeeded()
        .showed("/hello");
    let refused = bench.curl(&["-i", &bench.url(ONLY_CI)], None).succeeded();
    assert!(refused.shows("403"), "{refused:?}");
}

#[test]
fn a_revocation_ends_what_is_open_and_a_bad_file_changes_nothing() {
    let bench = Bench::strict();
    let good = bench
        .pki
        .issue(|params| caller(params, "spiffe://acme/ci/web", 7));
    let ask = || bench.curl(&[&bench.url(HOST)], Some(&good));
    ask().succeeded();
    bench.gate.replace("callers.crl", "not a list");
    let stale = bench.gate.metrics().sum("tidegate_policy_stale", &[]);
    assert!(stale > 0.0);
    ask().succeeded();
    bench
        .gate
        .replace("callers.crl", &bench.pki.crl(&[7], 2020));
    assert!(bench.gate.said().contains("stale"), "{}", bench.gate.said());
    ask().succeeded();
    bench
        .gate
        .replace("callers.crl", &bench.pki.crl(&[7], 2099));
    ask().failed();
    until("revoked", || bench.shaken("certificate_revoked") >= 1.0);
}

#[test]
fn an_open_flow_of_a_revoked_certificate_ends() {
    let bench = Bench::strict();
    let good = bench
        .pki
        .issue(|params| caller(params, "spiffe://acme/ci/web", 7));
    let folder = bench.gate.folder();
    std::fs::write(folder.join("caller.pem"), format!("{}{}", good.0, good.1)).expect("a file");
    let url = bench.url(HOST);
    let (proxy, ca) = (bench.gate.listener(1), folder.join("ca.pem"));
    // An upload that begins, since its first bytes are read for the decision, and never ends: only
    // the gate can end it.
    let mut curl = std::process::Command::new(need("curl"));
    curl.args(["-sS", "--max-time", "60", "-T", "-", "--proxy-cacert"])
        .arg(ca);
    curl.args(["--proxy", &format!("https://{proxy}"), "--proxy-cert"]);
    curl.arg(folder.join("caller.pem")).arg(&url);
    curl.stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null());
    let mut curl = curl
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("curl");
    let upload = curl.stdin.as_mut().expect("a pipe");
    upload.write_all(b"an upload\n").expect("a pipe");
    let line = bench.gate.line("a decision", Line::is_decision);
    bench
        .gate
        .replace("callers.crl", &bench.pki.crl(&[7], 2099));
    let close = bench.gate.close(line.flow());
    assert_eq!(close.text("error.type"), "revoked");
    curl.kill().expect("a child");
    curl.wait().expect("a child");
}

#[test]
fn a_new_certificate_is_shown_from_the_reload_on() {
    let bench = Bench::start("");
    bench.curl(&[&bench.url(HOST)], None).succeeded();
    let other = Pki::new();
    let (cert, key) = server(&other);
    std::fs::write(bench.gate.folder().join("proxy.key"), key).expect("a file");
    bench.gate.replace("proxy.pem", &cert);
    bench.curl(&[&bench.url(HOST)], None).failed();
    other.write(bench.gate.folder());
    bench.curl(&[&bench.url(HOST)], None).succeeded();
}

#[test]
fn plain_http_at_the_tls_port_is_told_so() {
    let bench = Bench::start("");
    let mut client = Client::dial(bench.gate.listener(1));
    let answer = client.get(&bench.url(HOST));
    assert_eq!(answer.status(), 400);
    assert!(answer.text().contains("https:// proxy"), "{answer:?}");
}

#[test]
fn a_client_that_never_shakes_hands_is_not_waited_for() {
    let bench = Bench::start("");
    let mut client = Client::dial(bench.gate.listener(1));
    client.send(b"\x16\x03\x01");
    client.is_closed();
    until("a timeout", || bench.shaken("timeout") >= 1.0);
}

#[test]
fn only_a_named_balancer_says_who_calls() {
    let bench = Bench::start("");
    // The third listener believes this machine, and demands the header.
    let mut client = Client::dial(bench.gate.listener(2));
    client.send("PROXY TCP4 192.0.2.7 127.0.0.1 4000 3128\r\n");
    assert_eq!(client.get(&bench.url(HOST)).status(), 200);
    let line = bench.gate.line("a decision", Line::is_decision);
    assert_eq!(line.text("client.address"), "192.0.2.7");
    let mut without = Client::dial(bench.gate.listener(2));
    without.send("GET http://files.example.net/ HTTP/1.1\r\nHost: files.example.net\r\n\r\n");
    without.is_closed();
    // The first one believes nobody.
    let mut liar = Client::dial(bench.gate.listener(0));
    liar.send("PROXY TCP4 192.0.2.7 127.0.0.1 4000 3128\r\n\r\n");
    assert_eq!(liar.answer("GET").status(), 400);
    let _ = eventually("the refusal", || {
        bench
            .gate
            .records()
            .into_iter()
            .find(|line| line.reason() == "bad_request")
    });
}
