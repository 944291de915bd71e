//! The corpus of ways round a proxy, inside TLS: what is refused in a plain request is refused in
//! one that came through a tunnel, and what only a tunnel makes possible besides.

use std::collections::BTreeSet;

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::bypass::{Row, corpus, unescape, variations};
use crate::kit::{Hello, Inside, Line, Lines, Message, Origin, Pki, TIERS, inspected, until};

const HOST: &str = "allowed.example.com";

struct Bench {
    origin: Origin,
    inside: Inside,
}

impl Bench {
    fn start(lines: &str) -> Self {
        let pki = Pki::new();
        let origin = Origin::tls(&pki, &[HOST]);
        let rules = inspected("allowed", HOST, origin.port(), lines);
        let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}"));
        Self { origin, inside }
    }

    fn authority(&self) -> String {
        format!("{HOST}:{}", self.origin.port())
    }

    /// A row's request as it is written inside a tunnel.
    fn bytes(&self, text: &str) -> Vec<u8> {
        let fields: Vec<String> = (0..200).map(|number| format!("A{number}: b")).collect();
        let text = text
            .replace("http://{good}", "")
            .replace("{good}", &self.authority())
            .replace("{70k}", &"a".repeat(70_000))
            .replace("{200-fields}", &fields.join("\r\n"));
        unescape(&text)
    }

    /// Sends one request in a tunnel of its own and looks at everything that must be so.
    fn refuses(&self, row: &Row, request: &[u8]) -> Result<(), String> {
        let reached = self.origin.requests().len();
        let mut client = self.inside.enter(HOST, self.origin.port());
        client.send(request);
        let answer = client
            .try_answer("GET")
            .map_err(|error| format!("no answer: {error}"))?;
        let code = answer.refusal();
        // A tunnel in a tunnel is an action that no rule allows.
        let inner = request.starts_with(b"CONNECT") && code == "action_denied";
        let expected = row.status.contains(&answer.status()) && row.code.contains(&code);
        if !(expected || inner) {
            return Err(format!("answered {:?} {code}", answer.start));
        }
        if row.closes && !client.rest().is_empty() {
            return Err("what came after it was looked at".to_owned());
        }
        if self.origin.requests().len() != reached {
            return Err(format!("reached the origin: {:?}", self.origin.last()));
        }
        let flow = answer.field("x-tidegate-flow").unwrap_or_default();
        let line = self.inside.gate.decision(flow);
        if line.reason() != code || line.verdict() == "allow" {
            return Err(format!("answered {code}, recorded {line:?}"));
        }
        if line.text("tidegate.tls.mode") != "inspected" || !line.has("tidegate.flow.parent") {
            return Err(format!("recorded as no request of a tunnel: {line:?}"));
        }
        Ok(())
    }

    fn ask(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Message {
        let mut client = self.inside.enter(HOST, self.origin.port());
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{fields}\r\n",
            self.authority(),
            body.len()
        ));
        client.send(body);
        client.answer(method)
    }

    #[track_caller]
    fn is_healthy(&self) {
        let answer = self.ask("GET", "/docs/good", "", b"");
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
}

/// Runs every row with that policy that can be written inside a tunnel.
fn run(policy: &str, lines: &str) {
    let bench = Bench::start(lines);
    let chosen = |row: &&Row| row.policy.as_deref().unwrap_or("base") == policy;
    let (mut wrong, mut count) = (Vec::new(), 0);
    for row in corpus().row.iter().filter(chosen) {
        for request in variations(row) {
            // The others are about other hosts, or about asking for a tunnel.
            if !request.contains(" http://{good}/") && !request.contains(" http://{good}{") {
                continue;
            }
            count += 1;
            if let Err(what) = bench.refuses(row, &bench.bytes(&request)) {
                let shown: String = request.escape_debug().take(120).collect();
                wrong.push(format!(
                    "{} ({}): {shown}\n    {what}",
                    row.source, row.name
                ));
            }
        }
    }
    assert!(count > 10, "hardly a row has the policy `{policy}`");
    assert!(
        wrong.is_empty(),
        "{} of {count} got round:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    bench.is_healthy();
}

#[test]
fn nothing_gets_round_a_narrow_policy_inside() {
    run("base", "");
}

#[test]
fn nothing_gets_round_a_rule_with_paths_inside() {
    run(
        "scoped",
        "does.methods = [\"GET\"]\ndoes.paths = [\"/docs/**\"]\n",
    );
}

// --- What only a tunnel makes possible ----------------------------------------------------------

#[test]
fn what_comes_behind_a_refused_request_with_a_body_is_not_a_request() {
    let bench = Bench::start("does.methods = [\"GET\"]\n");
    let mut client = bench.inside.enter(HOST, bench.origin.port());
    let hidden = format!(
        "GET /hidden HTTP/1.1\r\nHost: {}\r\n\r\n",
        bench.authority()
    );
    client.send(format!(
        "POST /a HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{hidden}",
        bench.authority(),
        hidden.len()
    ));
    assert_eq!(client.answer("POST").status(), 403);
    drop(client);
    bench.is_healthy();
    assert_eq!(bench.origin.asked(), ["GET /docs/good"]);
}

#[test]
fn requests_in_one_piece_are_judged_one_by_one() {
    let bench = Bench::start("does.paths = [\"/docs/**\"]\n");
    let mut client = bench.inside.enter(HOST, bench.origin.port());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", bench.authority());
    client.send(get("/docs/a") + &get("/secret") + &get("/docs/b"));
    assert_eq!(client.answer("GET").status(), 200);
    assert_eq!(client.answer("GET").status(), 403);
    let last = client.try_answer("GET");
    assert!(last.is_err() || last.is_ok_and(|answer| answer.status() == 200));
    let asked = bench.origin.asked();
    assert!(!asked.contains(&"GET /secret".to_owned()), "{asked:?}");
}

#[test]
fn a_redirect_is_passed_on_and_not_followed() {
    let pki = Pki::new();
    let away =
        "HTTP/1.1 302 Found\r\nLocation: https://169.254.169.254/\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::https(&pki, &[HOST], move |visit, _| visit.say(away));
    let rules = inspected("allowed", HOST, origin.port(), "");
    let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}"));
    let mut client = inside.enter(HOST, origin.port());
    let answer = client.inside("GET", &format!("{HOST}:{}", origin.port()), "/");
    assert_eq!(answer.status(), 302);
    assert_eq!(answer.field("location"), Some("https://169.254.169.254/"));
    let decisions = inside.gate.records().named("decision");
    assert_eq!(decisions.len(), 2, "{decisions:?}");
}

#[test]
fn no_rule_that_inspects_leads_to_the_gate_itself() {
    let pki = Pki::new();
    let policy = |port| {
        format!(
            "{TIERS}{}",
            inspected("itself", "self.example.com", port, "")
        )
    };
    let inside = Inside::start(&pki, &["self.example.com"], &policy(1));
    for port in [inside.gate.proxy().port(), inside.gate.admin().port()] {
        let text = Inside::text(&["self.example.com"], &policy(port));
        inside.gate.reload(&text);
        let answer = inside
            .gate
            .client()
            .connect(&format!("self.example.com:{port}"));
        assert_eq!(answer.status(), 403, "{answer:?}");
        assert_eq!(answer.refusal(), "address_denied");
    }
}

#[test]
fn a_connection_is_not_used_for_what_it_was_not_judged_for() {
    let bench = Bench::start("");
    for _ in 0..3 {
        bench.is_healthy();
    }
    // One tunnel never answers for another: each asks for itself.
    let tunnels: BTreeSet<_> = bench
        .inside
        .judged()
        .iter()
        .map(|line| line.text("tidegate.flow.parent").to_owned())
        .collect();
    assert_eq!(tunnels.len(), 3);
}

#[test]
fn a_query_that_hides_a_push_is_a_push() {
    let lines = "category = \"source-control\"\ndoes.actions = [\"read\"]\n";
    let bench = Bench::start(lines);
    for query in [
        "service=git-receive-pack",
        "service=git-upload-pack&service=git-receive-pack",
        "service=git-receive-pack&service=git-upload-pack",
        "service=git%2Dreceive%2Dpack",
        "s%65rvice=git-receive-pack",
        "x=1&service=git-receive-pack",
        "service=git-upload-pack;service=git-receive-pack",
    ] {
        let path = format!("/acme/app.git/info/refs?{query}");
        let answer = bench.ask("GET", &path, "", b"");
        assert!([400, 403].contains(&answer.status()), "{query}: {answer:?}");
    }
    for path in [
        "/acme/app.git/git-receive-pack",
        "/acme/app/git-receive-pack",
    ] {
        let kind = "Content-Type: application/x-git-receive-pack-request\r\n";
        let answer = bench.ask("POST", path, kind, b"0000");
        assert_eq!(answer.status(), 403, "{path}: {answer:?}");
    }
    assert!(
        bench.origin.requests().is_empty(),
        "{:?}",
        bench.origin.asked()
    );
}

#[test]
fn a_body_that_is_too_large_to_be_read_does_not_pass_unread() {
    let lines = "category = \"source-control\"\nservice = \"github\"\ndoes.actions = [\"read\"]\n";
    let bench = Bench::start(lines);
    let hidden = format!(
        "{{\"x\":\"{}\",\"query\":\"mutation {{ x }}\"}}",
        "a".repeat(40 * 1024 * 1024)
    );
    let mut client = bench.inside.enter(HOST, bench.origin.port());
    client.send(format!(
        "POST /graphql HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        bench.authority(),
        hidden.len()
    ));
    client.send(&hidden);
    if let Ok(answer) = client.try_answer("POST") {
        assert!([403, 413].contains(&answer.status()), "{answer:?}");
    }
    assert!(bench.origin.requests().is_empty());
    let judged = bench.inside.judged();
    assert!(
        judged.iter().all(|line| line.verdict() != "allow"),
        "{judged:?}"
    );
}

#[test]
fn where_no_certificate_can_be_made_nothing_passes() {
    // An authority that may not sign for the host.
    let bench = Bench::start("");
    for target in ["[::1]:443", "a_b.example.com:443"] {
        let answer = bench.inside.gate.client().connect(target);
        assert_ne!(answer.status(), 200, "{target}");
    }
    bench.is_healthy();
}

#[test]
fn a_hello_that_is_bent_opens_nothing() {
    let bench = Bench::start("");
    let host = HOST.as_bytes();
    let twice = Hello::naming(HOST).names(&[(0, host)]);
    let two_names = Hello::nameless().names(&[(0, host), (0, b"evil.example.org")]);
    let with_nul = Hello::nameless().names(&[(0, b"allowed.example.com\0.evil.example.org")]);
    let address = Hello::naming("127.0.0.1");
    let other = Hello::naming("evil.example.org");
    let hidden = Hello::naming("cloudflare-ech.example.org").encrypted();
    let nobody = Hello::nameless();
    for hello in [twice, two_names, with_nul, address, other, hidden, nobody] {
        for bytes in [hello.bytes(), hello.in_records(1)] {
            let mut client = bench.inside.gate.client();
            client.tunnel(&bench.authority());
            client.send(bytes);
            let rest = client.rest();
            // At most an alert: no handshake goes on, no certificate is shown.
            assert!(
                rest.first().is_none_or(|kind| *kind == 21),
                "{hello:?}: {rest:?}"
            );
        }
    }
    assert!(bench.origin.requests().is_empty());
    bench.is_healthy();
    let refused = |lines: &[Line]| {
        let codes = ["bad_client_hello", "sni_mismatch", "sni_missing", "not_tls"];
        let all = lines
            .iter()
            .filter(|line| codes.contains(&line.text("error.type")));
        all.count() >= 14
    };
    until("each is on record", || {
        refused(&bench.inside.gate.records())
    });
}

/// The certificates that the gate shows for the host, the leaf first.
fn shown(bench: &Bench) -> Vec<Vec<u8>> {
    let mut client = bench.inside.enter(HOST, bench.origin.port());
    client.inside("GET", &bench.authority(), "/docs/x");
    client.certificates()
}

#[test]
fn leaves_are_short_lived_and_have_numbers_and_a_key_of_their_own() {
    let bench = Bench::start("");
    let first = shown(&bench);
    let text = Inside::text(
        &[HOST],
        &format!(
            "{TIERS}{}",
            inspected("allowed", HOST, bench.origin.port(), "")
        ),
    );
    bench.inside.gate.reload(&text);
    let second = shown(&bench);
    let parsed = |chain: &[Vec<u8>]| {
        let (_, leaf) = X509Certificate::from_der(&chain[0]).expect("a certificate");
        let seconds =
            leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        let key = leaf.public_key().raw.to_vec();
        (leaf.raw_serial().to_vec(), seconds, key)
    };
    let (serial, seconds, key) = parsed(&first);
    assert!(serial.len() >= 15, "{serial:?}");
    let day = 24 * 60 * 60;
    assert!((day..=10 * day).contains(&seconds), "{seconds}");
    let pem = bench.inside.trust.pem();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
    let authority = pem.parse_x509().expect("a certificate");
    let authority = authority.public_key().raw.to_vec();
    assert_ne!(key, authority, "the authority's key serves");
    let (other, ..) = parsed(&second);
    if first[0] != second[0] {
        assert_ne!(serial, other, "two certificates with one number");
    }
}

#[test]
fn a_field_that_is_judged_is_not_taken_away_on_the_way() {
    let bench = Bench::start("");
    for (field, named) in [
        ("Content-Type: application/json", "content-type"),
        ("Content-Encoding: gzip", "close, Content-Encoding"),
        ("Mcp-Method: ping", "mcp-method"),
        ("Authorization: Basic eDp5", "keep-alive,AUTHORIZATION"),
        ("Cookie: a=b", "cookie"),
        ("X-Api-Key: k", "x-api-key"),
        ("Git-Protocol: version=2", "git-protocol"),
    ] {
        let fields = format!("{field}\r\nConnection: {named}\r\n");
        let answer = bench.ask("POST", "/docs/good", &fields, b"x");
        assert_eq!(answer.status(), 400, "{fields}: {answer:?}");
    }
    assert!(bench.origin.requests().is_empty());
    // A field of the hop alone still ends here, and the request goes on.
    let answer = bench.ask(
        "GET",
        "/docs/good",
        "X-Hop: 1\r\nConnection: x-hop\r\n",
        b"",
    );
    assert_eq!(answer.status(), 200, "{answer:?}");
}
