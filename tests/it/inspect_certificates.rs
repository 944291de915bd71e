//! Certificates of its own that a client shows to the destination, and so to the gate that looks
//! inside: seen, and asked for where that is configured.

use tempfile::TempDir;

use crate::kit::{Gate, Line, Origin, Outcome, Pki, Program, TIERS, inspected, names};

const HOST: &str = "api.example.net";

/// A gate that asks for certificates inside, and a client that has one.
struct Bench {
    origin: Origin,
    gate: Gate,
    home: TempDir,
}

impl Bench {
    fn start(demand: &str) -> Self {
        let (origins, trust, clients) = (Pki::new(), Pki::for_leaves(), Pki::new());
        let origin = Origin::tls(&origins, &[HOST]);
        let rules = inspected("api", HOST, origin.port(), "");
        let policy = format!(
            "{TIERS}{rules}{}\n[inspect]\nca-cert = \"inspect.pem\"\nca-key = \"inspect.key\"\n\
             client-ca = \"clients.pem\"\n{demand}\n[upstream.test]\nroots = [\"origins.pem\"]\n",
            names(&[HOST])
        );
        let gate = Gate::plan(&policy)
            .file("inspect.pem", &trust.pem())
            .file("inspect.key", &trust.key_pem())
            .file("clients.pem", &clients.pem())
            .file("origins.pem", &origins.pem())
            .start();
        let home = TempDir::new().expect("a home");
        trust.write(home.path());
        for (name, pki) in [("own", &clients), ("stranger", &Pki::new())] {
            let (cert, key) = pki.issue(|_| {});
            std::fs::write(home.path().join(format!("{name}.pem")), cert + &key).expect("a file");
        }
        Self { origin, gate, home }
    }

    fn curl(&self, cert: Option<&str>) -> Outcome {
        let url = format!("https://{HOST}:{}/v1/models", self.origin.port());
        let ca = self.home.path().join("ca.pem");
        let mut curl = Program::new("curl", self.home.path())
            .through(&self.gate.url())
            .args(["-sS", "--cacert", ca.to_str().expect("a path"), &url]);
        if let Some(cert) = cert {
            let cert = self.home.path().join(cert);
            curl = curl.args(["--cert", cert.to_str().expect("a path")]);
        }
        curl.run()
    }

    fn inner(&self) -> Line {
        let inner = |line: &Line| line.is_decision() && line.has("tidegate.flow.parent");
        self.gate.line("a request inside", inner)
    }
}

#[test]
fn a_certificate_that_a_client_shows_inside_is_on_record() {
    let bench = Bench::start("");
    bench.curl(Some("own.pem")).succeeded();
    let line = bench.inner();
    assert_eq!(line.text("tls.client.hash.sha256").len(), 64, "{line:?}");
    assert_eq!(line.verdict(), "allow");
}

#[test]
fn who_shows_none_is_let_in_where_none_is_required() {
    let bench = Bench::start("");
    bench.curl(None).succeeded();
    assert!(!bench.inner().has("tls.client.hash.sha256"));
}

#[test]
fn a_certificate_can_be_required_inside() {
    let bench = Bench::start("client-cert = \"require\"");
    bench.curl(None).failed();
    let ended = |line: &Line| line.is_close() && line.text("error.type") == "no_certificate";
    let line = bench.gate.line("no certificate", ended);
    assert_eq!(line.text("tidegate.blame"), "client");
    bench.curl(Some("stranger.pem")).failed();
    let ended =
        |line: &Line| line.is_close() && line.text("error.type").starts_with("certificate_");
    bench.gate.line("a stranger's certificate", ended);
    assert!(bench.origin.requests().is_empty());
    bench.curl(Some("own.pem")).succeeded();
}
