//! The admin listener for other hosts: who gets in, and what it does not do.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;

use rcgen::{ExtendedKeyUsagePurpose, SanType};

use crate::kit::{Gate, Lines, Pki, Program, eventually, loopback, need, until};

const NAME: &str = "tidegate.acme.example";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

struct Bench {
    pki: Pki,
    gate: Gate,
}

fn server(pki: &Pki) -> (String, String) {
    pki.issue(|params| {
        params.subject_alt_names = vec![SanType::DnsName(NAME.try_into().expect("ASCII"))];
    })
}

impl Bench {
    fn start(tls: &str) -> Self {
        need("curl");
        let pki = Pki::new();
        let (cert, key) = server(&pki);
        let policy = format!(
            "{}\n[listen.admin-tls]\naddress = \"127.0.0.1:0\"\ncert = \"admin.pem\"\n\
             key = \"admin.key\"\n{tls}\n",
            loopback(1)
        );
        let gate = Gate::plan(&policy)
            .listen(&format!("admin-names = [\"{NAME}\"]\n"))
            .file("admin.pem", &cert)
            .file("admin.key", &key)
            .file("token.key", TOKEN)
            .file("callers.pem", &pki.pem())
            .start();
        pki.write(gate.folder());
        Self { pki, gate }
    }

    fn address(&self) -> SocketAddr {
        let said = self.gate.said();
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("tidegate: admin-tls on "));
        line.expect("an address").parse().expect("an address")
    }

    /// The status that curl is answered with; `000` where there is no TLS.
    fn status(&self, path: &str, more: &[&str]) -> String {
        let port = self.address().port();
        let ca = self.pki.write(self.gate.folder());
        let out = Program::new("curl", self.gate.folder())
            .args([
                "-sS",
                "--noproxy",
                "*",
                "-m",
                "20",
                "-o",
                "body",
                "-w",
                "%{http_code}",
            ])
            .args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")])
            .args(["--cacert".as_ref(), ca.as_os_str()])
            .args(more)
            .args([&format!("https://{NAME}:{port}{path}")])
            .run();
        out.stdout.trim().to_owned()
    }

    fn body(&self) -> serde_json::Value {
        let body = std::fs::read_to_string(self.gate.folder().join("body")).expect("a body");
        serde_json::from_str(&body).expect("JSON")
    }
}

#[test]
fn other_hosts_see_health_and_with_the_token_metrics_and_change_nothing() {
    let bench = Bench::start("token-file = \"token.key\"");
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(bench.status(path, &[]), "200", "{path}");
    }
    for path in ["/metrics", "/v1/policy"] {
        assert_eq!(bench.status(path, &[]), "401", "{path}");
        let wrong = format!("{bearer}0");
        assert_eq!(bench.status(path, &["-H", &wrong]), "401", "{path}");
        assert_eq!(bench.status(path, &["-H", &bearer]), "200", "{path}");
    }
    let json = [
        "-H",
        "Content-Type: application/json",
        "-d",
        "{}",
        "-H",
        &bearer,
    ];
    for path in [
        "/v1/sessions",
        "/v1/sessions/end",
        "/v1/sessions/revoke",
        "/v1/contained",
        "/v1/contained/token",
        "/v1/hooks/claude-code",
    ] {
        assert_eq!(bench.status(path, &json), "404", "{path}");
    }
    assert_eq!(
        bench.status("/healthz", &["-H", "Host: evil.example"]),
        "421"
    );
    // The name holds at the listener of this host as well.
    let plain = format!("http://{}/healthz", bench.gate.admin());
    for (host, status) in [(NAME, "200"), ("evil.example", "421")] {
        let out = Program::new("curl", bench.gate.folder())
            .args(["-sS", "--noproxy", "*", "-o", "body", "-w", "%{http_code}"])
            .args(["-H", &format!("Host: {host}"), &plain])
            .run();
        assert_eq!(out.stdout.trim(), status, "{host}");
    }
}

#[test]
fn a_token_is_exchanged_from_another_host_and_who_asked_is_on_record() {
    let bench = Bench::start("");
    let parent = bench.gate.session(&serde_json::json!({}));
    let form = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={}&\
         subject_token_type=urn:ietf:params:oauth:token-type:access_token",
        parent.token
    );
    assert_eq!(bench.status("/v1/sessions/exchange", &["-d", &form]), "200");
    assert_eq!(bench.body()["session"], parent.id);
    let line = eventually("a line", || {
        let lines = bench.gate.records().named("session_started");
        lines
            .into_iter()
            .find(|line| line.text("tidegate.asker.door") == "admin-tls")
    });
    assert_eq!(line.text("tidegate.asker.address"), "127.0.0.1");
    let wrong = form.replace("subject_token=", "subject_token=x");
    assert_eq!(
        bench.status("/v1/sessions/exchange", &["-d", &wrong]),
        "400"
    );
}

#[test]
fn a_client_certificate_opens_metrics_and_can_be_required() {
    let bench = Bench::start("client-ca = \"callers.pem\"\nclient-cert = \"optional\"");
    let (cert, key) = bench.pki.issue(|params| {
        let name = "spiffe://acme/monitoring".try_into().expect("ASCII");
        params.subject_alt_names = vec![SanType::URI(name)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let pair = |bench: &Bench| {
        let file = bench.gate.folder().join("monitoring.pem");
        std::fs::write(&file, format!("{cert}{key}")).expect("a file");
        file.display().to_string()
    };
    let shown = pair(&bench);
    assert_eq!(bench.status("/metrics", &[]), "401");
    assert_eq!(bench.status("/metrics", &["--cert", &shown]), "200");

    let strict = Bench::start("client-ca = \"callers.pem\"");
    assert_eq!(strict.status("/healthz", &[]), "000");
    let stranger = pair(&strict);
    assert_eq!(
        strict.status("/healthz", &["--cert", &stranger]),
        "000",
        "of another authority"
    );
}

#[test]
fn a_certificate_that_changed_is_shown_without_a_restart() {
    let mut bench = Bench::start("");
    assert_eq!(bench.status("/healthz", &[]), "200");
    let next = Pki::stranger();
    let (cert, key) = server(&next);
    let folder = bench.gate.folder().to_owned();
    for (name, text) in [("admin.pem", cert), ("admin.key", key)] {
        std::fs::write(folder.join(name), text).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(folder.join(name), mode).expect("a mode");
    }
    bench.pki = next;
    until("the new certificate", || {
        bench.status("/healthz", &[]) == "200"
    });
}

#[test]
fn clients_that_never_shake_hands_keep_nobody_out() {
    let bench = Bench::start("");
    let silent: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(bench.address()).expect("a connection"))
        .collect();
    assert_eq!(bench.status("/healthz", &[]), "200");
    drop(silent);
}

#[test]
fn the_files_of_the_listener_are_secrets_of_the_configuration() {
    let bench = Bench::start("token-file = \"token.key\"");
    let (config, findings) = tidegate::config::load(&bench.gate.config());
    let files = config.unwrap_or_else(|| panic!("{findings:?}")).files;
    let text = format!("{files:?}");
    for name in ["admin.key", "token.key"] {
        assert!(text.contains(name), "{text}");
    }
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(bench.gate.folder().join("token.key"), mode).expect("a mode");
    let (config, _) = tidegate::config::load(&bench.gate.config());
    assert!(config.is_none(), "others can read the token");
}
