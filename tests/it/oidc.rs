//! Tokens of an issuer that we serve: presented, exchanged, revoked, and refused.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::kit::{
    DEADLINE, Gate, Hello, Line, Message, Origin, Pki, Reader, TIERS, allow_more, names,
};

pub(crate) const HOST: &str = "issuer.example.com";
const OPEN: &str = "github.com/acme/open-tools";

/// An issuer over TLS on loopback.
pub(crate) struct Issuer {
    origin: Origin,
    pub(crate) pki: Pki,
    key: Mutex<Arc<(String, RsaKeyPair)>>,
    served: Arc<Mutex<Value>>,
    pub(crate) url: String,
}

impl Issuer {
    /// Its discovery document says `issuer` and `keys`, where they are not what they should be.
    fn saying(issuer: Option<&str>, keys: Option<&str>) -> Self {
        let pki = Pki::new();
        let served = Arc::new(Mutex::new(Value::Null));
        let (said, shown) = (
            served.clone(),
            (issuer.map(str::to_owned), keys.map(str::to_owned)),
        );
        let origin = Origin::https(&pki, &[HOST], move |visit, request| {
            let url = format!("https://{}", request.field("host").unwrap_or_default());
            let body = if request.target() == "/keys" {
                said.lock().expect("keys").clone()
            } else {
                json!({
                    "issuer": shown.0.clone().unwrap_or_else(|| url.clone()),
                    "jwks_uri": shown.1.clone().unwrap_or_else(|| format!("{url}/keys")),
                })
            };
            visit.answer("200 OK", "application/json", body.to_string().as_bytes())
        });
        let url = format!("https://{HOST}:{}", origin.port());
        let issuer = Self {
            origin,
            pki,
            key: Mutex::new(Arc::new(fresh("k1"))),
            served,
            url,
        };
        issuer.publish();
        issuer
    }

    pub(crate) fn new() -> Self {
        Self::saying(None, None)
    }

    fn publish(&self) {
        let key = self.key.lock().expect("a key").clone();
        let public = key.1.public_key();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        *self.served.lock().expect("keys") = json!({"keys": [{
            "kty": "RSA", "kid": key.0, "use": "sig", "alg": "RS256",
            "n": part(public.modulus().big_endian_without_leading_zero()),
            "e": part(public.exponent().big_endian_without_leading_zero()),
        }]});
    }

    /// A token that says this besides what every token says.
    pub(crate) fn token(&self, more: &Value) -> String {
        let key = self.key.lock().expect("a key").clone();
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "iss": self.url, "aud": "tidegate", "iat": now, "exp": now + 300, "jti": "token-1",
            "owner": "12", "repository": "acme/open-tools", "run_id": "99", "workflow": "build",
            "check_run_id": 5, "ref": "refs/heads/main", "actor": "ana",
        });
        for (name, value) in more.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "RS256", "kid": key.0, "typ": "JWT"});
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; key.1.public_modulus_len()];
        key.1
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn fetches(&self) -> usize {
        let requests = self.origin.requests();
        requests
            .iter()
            .filter(|request| request.target() == "/keys")
            .count()
    }
}

fn fresh(id: &str) -> (String, RsaKeyPair) {
    (
        id.to_owned(),
        RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
    )
}

struct Bench {
    issuer: Issuer,
    origin: Origin,
    gate: Gate,
}

impl Bench {
    fn new() -> Self {
        Self::with(Issuer::new(), "addresses = [\"127.0.0.0/8\"]")
    }

    fn with(issuer: Issuer, lines: &str) -> Self {
        let origin = Origin::bytes();
        let host = |tier: &str| {
            let name = format!("{tier}.example.com");
            allow_more(
                tier,
                &name,
                origin.port(),
                &format!("from.tiers = [\"{tier}\"]"),
            )
        };
        let policy = format!(
            "{TIERS}{dial}{open}{restricted}
[[repository]]
match = \"github.com/acme/open*\"
tier = \"open\"

[group.secret]
members = [\"claim:repository_id=77\"]
floor = \"restricted\"

[[identity.issuer]]
name = \"ci\"
preset = \"github-actions\"
issuer = \"{url}\"
audience = \"tidegate\"
require = {{ owner = \"12\" }}
claims = {{ repository = \"github.com/{{repository}}\", tier = \"repo_property_tidegate_tier\" }}
roots = [\"ca.pem\"]
{lines}
",
            dial = names(&[HOST, "open.example.com", "restricted.example.com"]),
            open = host("open"),
            restricted = host("restricted"),
            url = issuer.url,
        );
        let folder = tempfile::tempdir().expect("a folder");
        let pem = std::fs::read_to_string(issuer.pki.write(folder.path())).expect("a file");
        let gate = Gate::plan(&policy).file("ca.pem", &pem).start();
        Self {
            issuer,
            origin,
            gate,
        }
    }

    fn target(&self, tier: &str) -> String {
        format!("{tier}.example.com:{}", self.origin.port())
    }

    /// How a credential fares at the host of a tier.
    fn ask(&self, user: &str, secret: &str, tier: &str) -> (u16, Line) {
        let mut client = self.gate.client().known_as(user, secret);
        let answer = client.connect(&self.target(tier));
        let line = answer.field("x-tidegate-flow").map_or_else(
            || {
                // It stood in the log before the 200 was sent.
                let lines = self.gate.records();
                let last = lines.into_iter().rfind(Line::is_decision);
                last.expect("a decision")
            },
            |flow| self.gate.decision(flow),
        );
        (answer.status(), line)
    }

    fn exchange(&self, token: &str, more: &str) -> Message {
        let body = format!(
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={token}\
             &subject_token_type=urn:ietf:params:oauth:token-type:jwt{more}"
        );
        let mut socket = TcpStream::connect(self.gate.admin()).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let head = format!(
            "POST /v1/sessions/exchange HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
             application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        write!(socket, "{head}{body}").expect("sent");
        Reader::default()
            .answer(&mut socket, "POST")
            .expect("an answer")
    }
}

#[test]
fn a_job_is_known_by_its_token() {
    let bench = Bench::new();
    let token = bench.issuer.token(&json!({}));
    let (status, line) = bench.ask("any", &token, "open");
    assert_eq!(status, 200);
    for (field, value) in [
        ("tidegate.session.evidence", "oidc"),
        ("tidegate.session.trust", "verified"),
        ("tidegate.tier", "open"),
        ("user.id", "ana"),
        ("vcs.repository.url.full", OPEN),
        ("tidegate.repository.trust", "verified"),
        ("tidegate.repository.basis", "issuer"),
        ("vcs.ref.head.name", "main"),
        ("cicd.pipeline.name", "build"),
        ("cicd.pipeline.run.id", "99"),
    ] {
        assert_eq!(line.text(field), value, "{field}");
    }
    for _ in 0..3 {
        assert_eq!(bench.ask("any", &token, "open").0, 200);
    }
    assert_eq!(bench.issuer.fetches(), 1, "keys are kept");
}

#[test]
fn claims_can_make_it_stricter() {
    let bench = Bench::new();
    for claims in [
        json!({"repo_property_tidegate_tier": "restricted"}),
        json!({"repo_property_tidegate_tier": "no-such-tier"}),
        json!({"repository_id": "77"}),
    ] {
        let token = bench.issuer.token(&claims);
        assert_eq!(bench.ask("any", &token, "open").0, 403, "{claims}");
        assert_eq!(bench.ask("any", &token, "restricted").0, 200, "{claims}");
    }
}

#[test]
fn a_token_that_is_not_for_here_is_refused() {
    let bench = Bench::new();
    for claims in [
        json!({"aud": "other"}),
        json!({"owner": "13"}),
        json!({"exp": 1}),
        json!({"iss": "https://elsewhere.example.com"}),
    ] {
        let token = bench.issuer.token(&claims);
        assert_eq!(bench.ask("any", &token, "open").0, 407, "{claims}");
    }
}

#[test]
fn a_key_that_is_not_known_is_not_asked_for_again_and_again() {
    let bench = Bench::new();
    assert_eq!(
        bench.ask("a", &bench.issuer.token(&json!({})), "open").0,
        200
    );
    *bench.issuer.key.lock().expect("a key") = Arc::new(fresh("k2"));
    for _ in 0..5 {
        assert_eq!(
            bench.ask("a", &bench.issuer.token(&json!({})), "open").0,
            407
        );
    }
    assert_eq!(bench.issuer.fetches(), 1);
}

#[test]
fn an_issuer_that_lies_or_is_inside_is_not_believed() {
    let inside = "addresses = []";
    let loopback = "addresses = [\"127.0.0.0/8\"]";
    for (issuer, lines) in [
        (
            Issuer::saying(Some("https://other.example.com"), None),
            loopback,
        ),
        (
            Issuer::saying(None, Some("https://other.example.com/keys")),
            loopback,
        ),
        (Issuer::new(), inside),
    ] {
        let bench = Bench::with(issuer, lines);
        let token = bench.issuer.token(&json!({}));
        assert_eq!(bench.ask("any", &token, "open").0, 407);
        assert_eq!(bench.issuer.fetches(), 0);
    }
}

#[test]
fn a_token_is_exchanged_for_a_session_that_can_be_revoked() {
    let bench = Bench::new();
    let token = bench.issuer.token(&json!({}));
    let answer = bench.exchange(&token, "");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["token_type"], "Bearer");
    assert!(
        answer["expires_in"].as_i64().expect("seconds") > 300,
        "it outlives the token"
    );
    let session = answer["session"].as_str().expect("a session");
    let secret = answer["access_token"].as_str().expect("a token");

    let (status, line) = bench.ask(session, secret, "open");
    assert_eq!(status, 200);
    for (field, value) in [
        ("session.id", session),
        ("tidegate.session.evidence", "token"),
        ("tidegate.session.trust", "verified"),
        ("vcs.repository.url.full", OPEN),
        ("cicd.pipeline.run.id", "99"),
    ] {
        assert_eq!(line.text(field), value, "{field}");
    }

    let hello = Hello::naming("open.example.com").bytes();
    let mut client = bench.gate.client().known_as(session, secret);
    client.tunnel(&bench.target("open")).send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);
    bench.gate.revoke(session);
    client.is_closed();
    assert_eq!(bench.ask(session, secret, "open").0, 407);
    bench.gate.revoke("token-1");
    assert_eq!(bench.exchange(&token, "").status(), 400);
}

#[test]
fn an_exchange_that_is_not_understood_is_refused() {
    let bench = Bench::new();
    let token = bench.issuer.token(&json!({}));
    for (token, more, error) in [
        ("rubbish", "", "invalid_request"),
        (&*token, "&narow=x", "invalid_request"),
        (&*token, "&subject_token=x", "invalid_request"),
        (&*token, "&scope=everything", "invalid_scope"),
        (&*token, "&requested_token_type=saml", "invalid_request"),
    ] {
        let answer = bench.exchange(token, more);
        assert_eq!(answer.status(), 400, "{more}");
        assert_eq!(answer.json()["error"], error, "{more}");
    }
    let narrowed = bench.exchange(&token, "&tier=restricted").json();
    assert_eq!(narrowed["tier"], "restricted");
}

/// The lines about the gate's own fetches.
fn own(bench: &Bench) -> Vec<Line> {
    let lines = bench.gate.records();
    let own = lines
        .into_iter()
        .filter(|line| line.text("user.id") == "tidegate");
    own.collect()
}

#[test]
fn the_fetches_of_keys_are_flows_on_record() {
    let bench = Bench::new();
    let token = bench.issuer.token(&json!({}));
    assert_eq!(bench.ask("any", &token, "open").0, 200);
    let own = own(&bench);
    let names: Vec<_> = own.iter().map(Line::name).collect();
    // The discovery document, then the keys: each decision stands before its end.
    assert_eq!(names, ["decision", "close", "decision", "close"], "{own:?}");
    for line in &own {
        assert_eq!(line.text("tidegate.channel"), "gate", "{line:?}");
        assert_eq!(
            line.text("security_rule.name"),
            "identity.issuer.ci",
            "{line:?}"
        );
        assert_eq!(line.text("server.address"), HOST, "{line:?}");
        assert_eq!(line.verdict(), "allow", "{line:?}");
    }
    assert_eq!(own[1].text("tidegate.end"), "closed", "{own:?}");
    assert!(own[3].number("tidegate.bytes.in") > 100, "{own:?}");
    assert_eq!(own[0].flow(), own[1].flow());
    assert_ne!(own[0].flow(), own[2].flow());
}

#[test]
fn a_fetch_of_keys_that_the_floor_forbids_is_on_record_as_refused() {
    // Loopback, and no `addresses` that name it.
    let bench = Bench::with(Issuer::new(), "");
    let token = bench.issuer.token(&json!({}));
    assert_eq!(bench.ask("any", &token, "open").0, 407);
    let own = own(&bench);
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!(own[0].verdict(), "deny", "{own:?}");
    assert_eq!(own[0].reason(), "address_denied", "{own:?}");
    assert!(bench.issuer.origin.requests().is_empty());
}

#[test]
fn a_fetch_of_keys_that_fails_is_on_record_as_failed() {
    let issuer = Issuer::new();
    let bench = Bench::with(
        issuer,
        "addresses = [\"127.0.0.0/8\"]\njwks = \"https://issuer.example.com:1/keys\"",
    );
    let token = bench.issuer.token(&json!({}));
    assert_eq!(bench.ask("any", &token, "open").0, 407);
    let own = own(&bench);
    assert_eq!(own.len(), 2, "{own:?}");
    assert_eq!(own[1].text("tidegate.end"), "failed", "{own:?}");
    assert_eq!(own[1].text("error.type"), "connect_failed", "{own:?}");
    assert_eq!(own[1].text("tidegate.blame"), "upstream", "{own:?}");
}
