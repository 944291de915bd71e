//! The local authority: who may read its key, what it can sign for, where clients find it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustix::process::Signal;
use tempfile::TempDir;
use tidegate::clock::Clock;
use tidegate::config;
use tidegate::name::Host;
use tidegate::policy::Names;
use tidegate::tls::{Authority, NewAuthority, Server};

use crate::kit::{Gate, Line, Outcome, Program, TIERS, eventually, need, until};

const INSPECT: &str = "[inspect]\nca-cert = \"ca.pem\"\nca-key = \"ca.key\"\n\
    previous = [\"former.pem\"]\nhosts = [\"example.com\", \"*.docs.example.org\"]\n";

/// A folder with a configuration, and the program run in it.
struct Bench(TempDir);

impl Bench {
    fn new(config: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("tidegate.toml"), config).expect("a file");
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        config::read(&self.path(name)).expect("a file")
    }

    fn run(&self, line: &str) -> Outcome {
        Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), self.0.path())
            .args(line.split(' '))
            .run()
    }

    fn openssl(&self, words: &[&str]) -> Outcome {
        Program::at(&need("openssl"), self.0.path())
            .args(words)
            .run()
    }

    /// The fingerprint that `show` says.
    fn fingerprint(&self) -> String {
        let shown = self
            .run("ca show --json --config tidegate.toml")
            .succeeded();
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
        shown["authority"]["fingerprint"]
            .as_str()
            .expect("a text")
            .to_owned()
    }
}

/// How many certificates a text has.
fn count(pem: &str) -> usize {
    pem.matches("-----BEGIN CERTIFICATE-----").count()
}

fn inspecting() -> Names {
    Names {
        names: vec!["example.com".to_owned(), ".docs.example.org".to_owned()],
        ..Names::default()
    }
}

/// A gate that inspects, with an authority of its own.
fn gate() -> Gate {
    let new = NewAuthority::make(&inspecting(), Clock::system().now()).expect("an authority");
    Gate::plan(&format!("{TIERS}{INSPECT}"))
        .file("ca.pem", &new.cert)
        .file("ca.key", &new.key)
        .start()
}

#[test]
fn a_command_that_joins_a_gate_trusts_its_authority() {
    let (gate, home) = (gate(), TempDir::new().expect("a home"));
    let control = format!("unix:{}", gate.folder().join("control.sock").display());
    let script = "cat \"$NODE_EXTRA_CA_CERTS\"; grep -c BEGIN \"$SSL_CERT_FILE\"";
    let joined = Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), home.path())
        .args(["exec", "--join", &gate.url(), "--control", &control, "--"])
        .args(["sh", "-c", script])
        .run()
        .succeeded();
    let authority = config::read(&gate.folder().join("ca.pem")).expect("a file");
    let line = authority.lines().nth(1).expect("a certificate");
    assert_eq!(count(&joined.stdout), 1, "{joined:#?}");
    assert!(joined.stdout.contains(line), "{joined:#?}");
    let whole: usize = joined
        .stdout
        .lines()
        .last()
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    assert!(
        whole > 1,
        "the system's roots are trusted as well: {joined:#?}"
    );
}

#[test]
fn an_authority_for_many_names_is_summed_up() {
    let text = "[inspect]\nca-cert = \"ca.pem\"\nca-key = \"ca.key\"\n\
                categories = [\"model-api\", \"package-registry\"]\n";
    let bench = Bench::new(text);
    let made = bench.run("ca init --config tidegate.toml").succeeded();
    assert!(made.stdout.lines().count() < 12, "{made:#?}");
    made.showed("in all: `tidegate ca show` lists them");
    let shown = bench.run("ca show --config tidegate.toml").succeeded();
    assert!(shown.stdout.contains("api.anthropic.com"), "{shown:#?}");
}

fn curl(gate: &Gate, path: &str) -> Outcome {
    Program::at(&need("curl"), gate.folder())
        .args([
            "-sS",
            "--max-time",
            "20",
            "--fail-with-body",
            "-x",
            &gate.url(),
        ])
        .args([format!("http://tidegate.internal{path}")])
        .run()
}

#[test]
fn a_new_authority_signs_for_what_is_inspected_and_for_nothing_else() {
    let bench = Bench::new(INSPECT);
    bench.run("ca init --config tidegate.toml").succeeded();
    let mode = std::fs::metadata(bench.path("ca.key"))
        .expect("a key")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = KeyPair::from_pem(&bench.read("ca.key")).expect("a key");
    let issuer = Issuer::from_ca_cert_pem(&bench.read("ca.pem"), key).expect("an authority");
    let verify = |san: SanType| {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.subject_alt_names = vec![san];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&KeyPair::generate().expect("a key"), &issuer);
        std::fs::write(bench.path("leaf.pem"), leaf.expect("a leaf").pem()).expect("a file");
        bench.openssl(&[
            "verify",
            "-purpose",
            "sslserver",
            "-CAfile",
            "ca.pem",
            "leaf.pem",
        ])
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    for good in ["example.com", "a.docs.example.org"] {
        verify(dns(good)).succeeded();
    }
    for bad in ["example.org", "docs.example.com.example.net"] {
        verify(dns(bad))
            .failed()
            .showed("permitted subtree violation");
    }
    for address in ["127.0.0.1", "fd00::7"] {
        let address = SanType::IpAddress(address.parse().expect("an address"));
        verify(address)
            .failed()
            .showed("excluded subtree violation");
    }
    let text = bench
        .openssl(&["x509", "-in", "ca.pem", "-noout", "-text"])
        .succeeded();
    for part in [
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "X509v3 Name Constraints: critical",
        "prime256v1",
    ] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
}

#[test]
fn an_authority_is_never_written_over_unasked() {
    let bench = Bench::new(INSPECT);
    let init = "ca init --config tidegate.toml";
    bench.run(init).succeeded();
    let before = (bench.read("ca.pem"), bench.read("ca.key"));
    let again = bench.run(init).failed();
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("ca rotate"), "{again:?}");
    std::fs::remove_file(bench.path("ca.pem")).expect("a file");
    assert_eq!(bench.run(init).code, Some(2), "a key alone is one, too");
    assert_eq!(bench.read("ca.key"), before.1);
    bench.run(&format!("{init} --force")).succeeded();
    assert_ne!((bench.read("ca.pem"), bench.read("ca.key")), before);
}

#[test]
fn without_inspection_no_authority_is_made() {
    let bench = Bench::new("[inspect]\nca-cert = \"ca.pem\"\nca-key = \"ca.key\"\n");
    let refused = bench.run("ca init --config tidegate.toml").failed();
    assert_eq!(refused.code, Some(2));
    refused.showed("inspects nothing");
    assert!(!bench.path("ca.key").exists());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let bench = Bench::new(INSPECT);
    bench.run("check tidegate.toml").failed().showed("ca init");
    bench.run("ca init --config tidegate.toml").succeeded();
    bench.run("check tidegate.toml").succeeded();
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(bench.path("ca.key"), mode).expect("a mode");
    bench
        .run("check tidegate.toml")
        .failed()
        .showed("key-exposed");
}

#[test]
fn a_policy_that_grew_asks_for_a_new_authority_and_gets_one_beside_the_old_one() {
    let bench = Bench::new(INSPECT);
    bench.run("ca init --config tidegate.toml").succeeded();
    let first = bench.fingerprint();
    let grown = INSPECT.replace("[\"example.com\"", "[\"new.example.net\", \"example.com\"");
    std::fs::write(bench.path("tidegate.toml"), grown).expect("a file");
    bench
        .run("check tidegate.toml")
        .succeeded()
        .showed("ca-too-narrow");
    let shown = bench.run("ca show --config tidegate.toml");
    assert_eq!(shown.code, Some(1), "{shown:?}");
    shown.showed("new.example.net").showed("ca rotate");
    bench.run("ca rotate --config tidegate.toml").succeeded();
    let quiet = bench.run("check tidegate.toml").succeeded();
    assert!(!quiet.shows("ca-too-narrow"), "{quiet:?}");
    assert_ne!(bench.fingerprint(), first);
    assert_eq!(count(&bench.read("former.pem")), 1);
    bench
        .run("ca show --config tidegate.toml")
        .succeeded()
        .showed(&first);
    bench.run("ca rotate --config tidegate.toml").succeeded();
    assert_eq!(count(&bench.read("former.pem")), 2);
    bench
        .run("ca install --bundle all.pem --config tidegate.toml")
        .succeeded();
    let all = bench.read("all.pem");
    assert!(count(&all) > 3, "the system's roots are there as well");
    assert!(all.contains(bench.read("ca.pem").trim()));
}

#[test]
fn the_environment_names_a_whole_bundle_where_roots_are_replaced() {
    let bench = Bench::new(INSPECT);
    let silent = bench.run("env --config tidegate.toml").succeeded();
    assert!(!silent.shows("SSL_CERT_FILE"), "nothing is made yet");
    bench.run("ca init --config tidegate.toml").succeeded();
    let env = bench.run("env --json --config tidegate.toml").succeeded();
    let env: serde_json::Value = serde_json::from_str(&env.stdout).expect("JSON");
    let file = |name: &str| {
        let path = env[name].as_str().unwrap_or_else(|| panic!("{name}"));
        assert!(Path::new(path).is_absolute(), "{path}");
        config::read(Path::new(path)).expect("a file")
    };
    for whole in [
        "SSL_CERT_FILE",
        "GIT_SSL_CAINFO",
        "REQUESTS_CA_BUNDLE",
        "CARGO_HTTP_CAINFO",
    ] {
        assert!(count(&file(whole)) > 1, "{whole}");
        assert!(file(whole).contains(bench.read("ca.pem").trim()), "{whole}");
    }
    assert_eq!(count(&file("NODE_EXTRA_CA_CERTS")), 1);
    assert!(env.get("npm_config_cafile").is_none());
}

#[test]
fn a_command_is_pointed_to_what_it_has_to_trust() {
    let bench = Bench::new(&format!("{TIERS}{INSPECT}"));
    bench.run("ca init --config tidegate.toml").succeeded();
    let script = "cat $NODE_EXTRA_CA_CERTS; grep -c BEGIN $CURL_CA_BUNDLE; \
                  curl -s http://tidegate.internal/ca.pem";
    let ran = Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), bench.0.path())
        .args([
            "exec",
            "--config",
            "tidegate.toml",
            "--",
            "bash",
            "-c",
            script,
        ])
        .run()
        .succeeded();
    let ours = bench.read("ca.pem");
    assert_eq!(ran.stdout.matches(ours.trim()).count(), 2, "{ran:?}");
}

#[test]
fn callers_fetch_what_they_have_to_trust_through_the_proxy() {
    let gate = gate();
    let ours = config::read(&gate.folder().join("ca.pem")).expect("a file");
    assert_eq!(
        curl(&gate, "/ca.pem").succeeded().stdout.trim(),
        ours.trim()
    );
    curl(&gate, "/").succeeded().showed("/ca.pem");
    let line = gate.line("a decision", |line| {
        line.is_decision() && line.text("server.address") == "tidegate.internal"
    });
    assert_eq!((line.verdict(), line.reason()), ("allow", "allowed"));
    assert_eq!(line.text("tidegate.action"), "read");
    assert_eq!(line.text("security_rule.name"), "tidegate.internal");
    assert!(!line.has("network.peer.address"));
    assert!(gate.close(line.flow()).is_close());
    for none in ["/metrics", "/healthz", "/v1/policy", "/ca.key"] {
        let answer = curl(&gate, none);
        assert!(
            !answer.success && answer.stdout.contains("no such page"),
            "{answer:?}"
        );
    }
    let metrics = gate.metrics();
    let kind = [("kind", "inspect-ca")];
    let end = metrics.sum("tidegate_certificate_not_after_timestamp_seconds", &kind);
    assert!(end > 1e9, "{end}");
    // What clients are pointed to lies beside the records.
    assert!(gate.folder().join("trust-bundle.pem").is_file());
}

#[test]
fn the_gates_own_pages_are_only_read_and_only_through_http() {
    let gate = gate();
    let mut client = gate.client();
    let answer = client.request("POST", "http://tidegate.internal/ca.pem", "", "");
    assert_eq!(answer.status(), 405);
    let answer = gate.client().get("http://tidegate.internal:8080/");
    assert_eq!(answer.status(), 400);
    let mut client = gate.client();
    for _ in 0..2 {
        assert_eq!(
            client.get("http://tidegate.internal/").status(),
            200,
            "it is kept"
        );
    }
    let answer = gate.client().connect("tidegate.internal:443");
    assert_eq!(answer.refusal(), "not_allowed");
}

#[test]
fn without_inspection_there_is_nothing_to_trust_and_it_says_so() {
    let gate = Gate::with(TIERS);
    curl(&gate, "/").succeeded().showed("looks into no TLS");
    curl(&gate, "/ca.pem").failed();
}

#[test]
fn a_running_gate_takes_a_new_authority_and_publishes_both() {
    let gate = gate();
    let before = gate.reloads();
    let old = config::read(&gate.folder().join("ca.pem")).expect("a file");
    Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), gate.folder())
        .args(["ca", "rotate", "--config", "tidegate.toml"])
        .run()
        .succeeded();
    gate.signal(Signal::HUP);
    until("a reload", || gate.reloads() > before);
    let published = eventually("both", || {
        Some(curl(&gate, "/ca.pem").stdout).filter(|pem| count(pem) == 2)
    });
    let new = config::read(&gate.folder().join("ca.pem")).expect("a file");
    assert!(published.starts_with(new.trim()) && published.trim().ends_with(old.trim()));
    let bundle = config::read(&gate.folder().join("trust-tidegate.pem")).expect("a file");
    assert_eq!(bundle, published);
    assert!(
        gate.records()
            .iter()
            .all(|line: &Line| line.reason() != "connect_failed")
    );
}

/// Completes one TLS handshake with the next client; whether it came to its end.
fn serve(server: &Arc<Server>, listener: std::net::TcpListener) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        let (socket, _) = listener.accept().await.expect("a client");
        server.accept(socket).await.is_ok()
    })
}

const NAME: &str = "a.docs.example.org";
const NODE: &str = "const s = require('tls').connect(\
    { host: '127.0.0.1', port: process.argv[1], servername: 'a.docs.example.org' },\
    () => process.exit(0)); s.on('error', e => { console.error(e); process.exit(1); })";
const PYTHON: &str = "import socket, ssl, sys
context = ssl.create_default_context(cafile='ca.pem')
context.verify_flags |= ssl.VERIFY_X509_STRICT
server = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
context.wrap_socket(server, server_hostname='a.docs.example.org')
";

/// What is made for a name of `INSPECT`, with the files that a client trusts in `bench`.
fn authority(bench: &Bench) -> Authority {
    bench.run("ca init --config tidegate.toml").succeeded();
    let config = config::load(&bench.path("tidegate.toml"))
        .0
        .expect("a configuration");
    let (authority, findings) = Authority::new(&config.inspect, &inspecting(), &Clock::system());
    assert!(findings.is_empty(), "{findings:?}");
    authority.expect("an authority")
}

/// Lets one client shake hands with a server; what it showed, and whether the server is content.
fn shake(server: Arc<Server>, client: impl FnOnce(u16) -> Outcome) -> (Outcome, bool) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let serving = std::thread::spawn(move || serve(&server, listener));
    let outcome = client(port);
    (outcome, serving.join().expect("a server"))
}

#[test]
fn openssl_believes_what_the_authority_makes() {
    let bench = Bench::new(INSPECT);
    let authority = authority(&bench);
    let host = Host::parse(NAME.as_bytes()).expect("a host");
    for (http2, protocol) in [
        (true, "ALPN protocol: h2"),
        (false, "ALPN protocol: http/1.1"),
    ] {
        let server = authority.server(&host, http2).expect("a certificate");
        let (outcome, _) = shake(server, |port| {
            let address = format!("127.0.0.1:{port}");
            let line = format!(
                "s_client -connect {address} -servername {NAME} -verify_hostname {NAME} \
                 -verify_return_error -CAfile ca.pem -alpn h2,http/1.1"
            );
            bench.openssl(&line.split(' ').collect::<Vec<_>>())
        });
        outcome
            .showed("Verify return code: 0 (ok)")
            .showed(protocol);
    }
    let other = Host::parse(b"example.net").expect("a host");
    assert!(authority.server(&other, true).is_err());
}

#[test]
fn curl_node_and_a_strict_python_believe_what_the_authority_makes() {
    let bench = Bench::new(INSPECT);
    let authority = authority(&bench);
    let host = Host::parse(NAME.as_bytes()).expect("a host");
    let run = |name: &str| Program::at(&need(name), bench.0.path());
    let ask = |client: &dyn Fn(u16) -> Outcome| {
        let server = authority.server(&host, true).expect("a certificate");
        shake(server, client)
    };
    // Nobody answers it, so how it ends does not tell.
    let (outcome, shaken) = ask(&|port| {
        let to = format!("{NAME}:443:127.0.0.1:{port}");
        let url = format!("https://{NAME}/");
        run("curl")
            .args(["-sS", "--cacert", "ca.pem", "--connect-to", &to, &url])
            .run()
    });
    assert!(shaken, "{outcome:?}");
    ask(&|port| {
        let node = run("node").env("NODE_EXTRA_CA_CERTS", "ca.pem");
        node.args(["-e", NODE, &port.to_string()]).run().succeeded()
    });
    ask(&|port| {
        let python = run("python3").args(["-c", PYTHON, &port.to_string()]);
        python.run().succeeded()
    });
}

#[test]
fn a_command_in_a_jail_does_not_see_the_key() {
    let bench = Bench::new(&format!("{TIERS}{INSPECT}"));
    bench.run("ca init --config tidegate.toml").succeeded();
    std::fs::create_dir(bench.path("web")).expect("a folder");
    let script = "cat ../ca.key; head -n 1 $SSL_CERT_FILE";
    let ran = Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), bench.0.path())
        .within(&bench.path("web"))
        .args(["exec", "--jail", "--config", "../tidegate.toml"])
        .args(["--", "bash", "-c", script])
        .run();
    if ran.code == Some(3) {
        eprintln!("NOT TESTED HERE: no jail can be made: {}", ran.stderr);
        return;
    }
    assert!(ran.stdout.contains("BEGIN CERTIFICATE"), "{ran:?}");
    assert!(!ran.stdout.contains("PRIVATE KEY"), "{ran:?}");
}
