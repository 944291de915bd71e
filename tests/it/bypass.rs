//! The corpus of ways round a proxy, row by row (`bypass.toml`).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::kit::{Client, Dns, Gate, Lines, Origin, TIERS, tidegate, until};

const GOOD: &str = "allowed.example.com";

/// `bypass.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Corpus {
    pub(crate) row: Vec<Row>,
    unloadable: Vec<Unloadable>,
    elsewhere: Vec<Elsewhere>,
}

/// Requests that must be refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) source: String,
    #[serde(default)]
    pub(crate) policy: Option<String>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    authorities: Vec<String>,
    #[serde(default)]
    urls: Vec<String>,
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    requests: Vec<String>,
    pub(crate) status: Vec<u16>,
    pub(crate) code: Vec<String>,
    #[serde(default)]
    pub(crate) closes: bool,
}

/// Configurations that must not load.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unloadable {
    name: String,
    source: String,
    configs: Vec<String>,
}

/// Rows of the corpus that are tested by a test of another module.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    source: String,
    test: String,
}

pub(crate) fn corpus() -> Corpus {
    toml::from_str(include_str!("bypass.toml")).expect("the corpus")
}

/// A running proxy with one of the named policies.
struct Bench {
    gate: Gate,
    origin: Origin,
    dns: Dns,
    good: bool,
}

impl Bench {
    fn start(policy: &str) -> Self {
        let origin = Origin::echo();
        let dns = Dns::start(&[]);
        let port = origin.port();
        let mut gate = Gate::with(&text(policy, port, &dns, (1, 1)));
        if policy == "itself" {
            // Only now are the ports known that the rule has to name.
            let own = (gate.proxy().port(), gate.admin().port());
            gate.reload(&text(policy, port, &dns, own));
        }
        until("the policy", || gate.generation()["stale"] == false);
        let good = !["empty", "itself", "scoped", "named", "tiered"].contains(&policy);
        let _ = &mut gate;
        Self {
            gate,
            origin,
            dns,
            good,
        }
    }

    /// Puts this proxy's ports and the long names where a row wants them; `<ff>` becomes a byte.
    fn bytes(&self, text: &str) -> Vec<u8> {
        let port = self.origin.port();
        let label = "a".repeat(64);
        let fields: Vec<String> = (0..200).map(|number| format!("A{number}: b")).collect();
        let text = text
            .replace("{port}", &port.to_string())
            .replace("{good}", &format!("{GOOD}:{port}"))
            .replace("{proxy}", &self.gate.proxy().port().to_string())
            .replace("{admin}", &self.gate.admin().port().to_string())
            .replace("{long-label}", &label)
            .replace(
                "{long-name}",
                &format!("{}example.com", "abcdefghi.".repeat(25)),
            )
            .replace("{70k}", &"a".repeat(70_000))
            .replace("{200-fields}", &fields.join("\r\n"));
        unescape(&text)
    }

    /// Sends one request and looks at everything that must be so.
    fn refuses(&self, row: &Row, request: &[u8]) -> Result<(), String> {
        let reached = self.origin.requests().len();
        let connections = self.origin.connections();
        let mut client = self.gate.client();
        client.send(request);
        let method = if request.starts_with(b"CONNECT") {
            "CONNECT"
        } else {
            "GET"
        };
        let answer = client
            .try_answer(method)
            .map_err(|error| format!("no answer: {error}"))?;
        if !row.status.contains(&answer.status()) {
            return Err(format!("answered {:?}", answer.start));
        }
        // Decisions only: the close of an earlier, good request may still be on its way.
        let before = self.gate.records().named("decision").len();
        let code = answer.refusal();
        if !row.code.contains(&code) {
            return Err(format!("answered {} {code}", answer.status()));
        }
        if row.closes {
            client.is_closed();
        }
        let flow = answer.field("x-tidegate-flow").unwrap_or_default();
        let line = self.gate.decision(flow);
        if line.reason() != code {
            return Err(format!("answered {code}, recorded {}", line.reason()));
        }
        if line.verdict() == "allow" {
            return Err("recorded as allowed".to_owned());
        }
        let lines = self.gate.records().of(flow).len();
        if lines != 1 {
            return Err(format!("left {lines} lines"));
        }
        if row.closes && self.gate.records().named("decision").len() > before + 1 {
            return Err("what came after it was looked at".to_owned());
        }
        if self.origin.requests().len() != reached || self.origin.connections() != connections {
            return Err(format!("reached the origin: {:?}", self.origin.last()));
        }
        if !self.dns.asked().is_empty() {
            return Err(format!("asked DNS for {:?}", self.dns.asked()));
        }
        self.is_healthy()
    }

    /// The proxy still does what it should.
    fn is_healthy(&self) -> Result<(), String> {
        if !self.good {
            return Ok(());
        }
        let port = self.origin.port();
        let answer = Client::dial(self.gate.proxy()).get(&format!("http://{GOOD}:{port}/good"));
        if answer.status() == 200 {
            Ok(())
        } else {
            Err(format!("not healthy: {answer:?}"))
        }
    }
}

/// The policies that rows name.
fn text(policy: &str, port: u16, dns: &Dns, (proxy, admin): (u16, u16)) -> String {
    let dial = format!(
        "{}hosts = {{ \"{GOOD}\" = [\"127.0.0.1\"], \"inside.example.com\" = [\"127.0.0.1\"], \
         \"meta.example.com\" = [\"169.254.169.254\"], \"self.example.com\" = [\"127.0.0.1\"] }}\n",
        dns.section()
    );
    let loopback = "grant.addresses = [\"127.0.0.0/8\"]";
    let base = format!(
        "{dial}[[rule]]\nid = \"allowed\"\nverdict = \"allow\"\nto.hosts = [\"{GOOD}\"]\n\
         to.ports = [{port}, 443]\n{loopback}\n\
         [[rule]]\nid = \"wide\"\nverdict = \"allow\"\nto.hosts = [\"*.wide.example.com\"]\n\
         to.ports = [{port}, 443]\n{loopback}\n"
    );
    let rest = match policy {
        "base" | "resolving" => base,
        "generous" => {
            let tiers = TIERS.replace("default = \"deny\"", "default = \"allow\"");
            return format!(
                "{tiers}{base}[[rule]]\nid = \"no\"\nverdict = \"deny\"\n\
                 to.hosts = [\"denied.example.org\", \"*.denied-below.example.org\"]\n"
            );
        }
        "named" => format!(
            "{dial}[[rule]]\nid = \"named\"\nverdict = \"allow\"\n\
             to.hosts = [\"169.254.169.254\", \"100.100.100.200\", \"168.63.129.16\", \
             \"fd00:ec2::254\", \"meta.example.com\"]\nto.ports = [80, 443]\n\
             grant.addresses = [\"0.0.0.0/0\", \"::/0\"]\n"
        ),
        "itself" => format!(
            "{dial}[[rule]]\nid = \"itself\"\nverdict = \"allow\"\n\
             to.hosts = [\"127.0.0.1\", \"127.0.0.2\", \"0.0.0.0\", \"self.example.com\"]\n\
             to.ports = [{proxy}, {admin}]\ngrant.addresses = [\"127.0.0.0/8\"]\n"
        ),
        "scoped" => format!(
            "{dial}[[rule]]\nid = \"docs\"\nverdict = \"allow\"\nto.hosts = [\"{GOOD}\"]\n\
             to.ports = [{port}]\n{loopback}\ndoes.methods = [\"GET\"]\n\
             does.paths = [\"/docs/**\"]\n"
        ),
        "tiered" => format!(
            "{dial}[[rule]]\nid = \"open\"\nverdict = \"allow\"\nfrom.tiers = [\"open\"]\n\
             to.hosts = [\"{GOOD}\"]\nto.ports = [{port}]\n{loopback}\n\
             [[repository]]\nmatch = \"github.com/acme/open\"\ntier = \"open\"\n"
        ),
        "empty" => return dial,
        other => panic!("no policy is called `{other}`"),
    };
    format!("{TIERS}{rest}")
}

/// Every request that a row asks for, as text for [`Bench::bytes`].
pub(crate) fn variations(row: &Row) -> Vec<String> {
    let method = row.method.as_deref().unwrap_or("GET");
    let mut all = row.requests.clone();
    for authority in &row.authorities {
        all.push(format!("CONNECT {authority} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    for url in &row.urls {
        all.push(format!("{method} {url} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    for fields in &row.fields {
        all.push(format!(
            "{method} http://{{good}}/ HTTP/1.1\r\nHost: {{good}}\r\n{fields}\r\n\r\n"
        ));
    }
    for path in &row.paths {
        all.push(format!(
            "{method} http://{{good}}{path} HTTP/1.1\r\nHost: {{good}}\r\n\r\n"
        ));
    }
    all
}

/// Replaces each `<ff>` by that byte.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut all = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], byte, bytes.get(at + 3)) {
            (b'<', Some(byte), Some(b'>')) => {
                all.push(byte);
                at += 4;
            }
            (other, ..) => {
                all.push(other);
                at += 1;
            }
        }
    }
    all
}

/// Runs every row with that policy and reports all that is wrong at once.
fn run(policy: &str) {
    let bench = Bench::start(policy);
    let corpus = corpus();
    let chosen = |row: &&Row| row.policy.as_deref().unwrap_or("base") == policy;
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in corpus.row.iter().filter(chosen) {
        for request in variations(row) {
            count += 1;
            let bytes = bench.bytes(&request);
            if let Err(what) = bench.refuses(row, &bytes) {
                let shown: String = request.escape_debug().take(120).collect();
                wrong.push(format!(
                    "{} ({}): {shown}\n    {what}",
                    row.source, row.name
                ));
            }
        }
    }
    assert!(count > 0, "no row has the policy `{policy}`");
    assert!(
        wrong.is_empty(),
        "{} of {count} got round:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn nothing_gets_round_a_narrow_policy() {
    run("base");
}

#[test]
fn nothing_gets_round_the_floor_of_a_generous_policy() {
    run("generous");
}

#[test]
fn no_rule_opens_a_metadata_service() {
    run("named");
}

#[test]
fn no_rule_opens_the_proxy_itself() {
    run("itself");
}

#[test]
fn nothing_gets_round_a_rule_with_paths() {
    run("scoped");
}

#[test]
fn nothing_is_resolved_that_is_denied() {
    run("resolving");
}

#[test]
fn nobody_chooses_a_looser_tier() {
    run("tiered");
}

#[test]
fn a_policy_that_says_nothing_lets_nothing_pass() {
    run("empty");
}

#[test]
fn a_configuration_that_is_wrong_does_not_start() {
    let mut wrong = Vec::new();
    for row in corpus().unloadable {
        for (number, config) in row.configs.iter().enumerate() {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("tidegate.toml");
            let listen = "[listen]\nproxy = [\"127.0.0.1:0\"]\n";
            std::fs::write(&file, format!("{listen}{TIERS}{config}")).expect("a file");
            let outcome = tidegate(&["check".as_ref(), file.as_os_str()]);
            let (place, code) = (outcome.shows("tidegate.toml:"), outcome.code);
            if !(place && (code == Some(2) || code == Some(1))) {
                wrong.push(format!(
                    "{} {} #{number}: {outcome:#?}",
                    row.source, row.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_test_that_stands_for_a_row_exists() {
    let sources = BTreeMap::from([
        ("admin", include_str!("admin.rs")),
        ("connect", include_str!("connect.rs")),
        ("forward", include_str!("forward.rs")),
        ("identity", include_str!("identity.rs")),
        ("inspect", include_str!("inspect.rs")),
        ("inspect_api", include_str!("inspect_api.rs")),
        ("inspect_bypass", include_str!("inspect_bypass.rs")),
        ("inspect_clients", include_str!("inspect_clients.rs")),
        ("inspect_http2", include_str!("inspect_http2.rs")),
        ("mcp", include_str!("mcp.rs")),
        ("limits", include_str!("limits.rs")),
        ("records", include_str!("records.rs")),
        ("reload", include_str!("reload.rs")),
    ]);
    for Elsewhere { source, test } in corpus().elsewhere {
        let (module, name) = test.split_once("::").expect("module::test");
        let found = sources[module].contains(&format!("\nfn {name}()"));
        assert!(found, "{source}: there is no test `{test}`");
    }
}
