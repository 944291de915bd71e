//! Inside TLS, with HTTP/1.1 on both sides: each request is judged, what passes arrives as it was
//! sent, and what is no request does not pass.

use std::io;
use std::sync::{Arc, Mutex, mpsc};

use rcgen::date_time_ymd;

use crate::kit::{
    Client, Inside, Line, Lines, Message, Origin, Pki, TIERS, allow, inspected, socket, until,
};

const HOST: &str = "files.example.net";

/// An origin over TLS, and a gate that looks inside.
struct Bench {
    origin: Origin,
    inside: Inside,
}

impl Bench {
    /// An origin that echoes.
    fn start(lines: &str) -> Self {
        Self::before(Origin::tls, lines)
    }

    fn before(origin: impl FnOnce(&Pki, &[&str]) -> Origin, lines: &str) -> Self {
        let pki = Pki::new();
        let origin = origin(&pki, &[HOST]);
        let rules = inspected("files", HOST, origin.port(), lines);
        let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}"));
        Self { origin, inside }
    }

    fn client(&self) -> Client {
        self.inside.enter(HOST, self.origin.port())
    }

    fn authority(&self) -> String {
        format!("{HOST}:{}", self.origin.port())
    }

    /// A tunnel was closed for that reason.
    #[track_caller]
    fn ended_for(&self, code: &str) {
        let ended = |line: &Line| line.is_close() && line.text("error.type") == code;
        let line = self.inside.gate.line(code, ended);
        assert_eq!(line.text("tidegate.end"), "refused", "{line:?}");
    }

    fn ask(&self, client: &mut Client, path: &str) -> Message {
        client.inside("GET", &self.authority(), path)
    }
}

// --- Connections to the origin ------------------------------------------------------------------

/// A tunnel whose one request is answered, and that is closed in order.
fn one_request(bench: &Bench) {
    let mut client = bench.client();
    let before = bench
        .inside
        .gate
        .records()
        .iter()
        .filter(|line| line.is_close())
        .count();
    assert_eq!(bench.ask(&mut client, "/docs/a").status(), 200);
    drop(client);
    // The request and the tunnel: then the connection to the origin rests.
    until("both close lines", || {
        let lines = bench.inside.gate.records();
        lines.iter().filter(|line| line.is_close()).count() >= before + 2
    });
}

#[test]
fn tunnels_of_one_caller_share_the_connection_to_the_origin() {
    let bench = Bench::start("does.paths = [\"/docs/**\"]\n");
    one_request(&bench);
    one_request(&bench);
    assert_eq!(bench.origin.connections(), 1);
    let decisions = bench.inside.gate.records();
    let tunnels: Vec<_> = decisions
        .iter()
        .filter(|line| line.is_decision() && line.text("http.request.method") == "CONNECT")
        .collect();
    assert_eq!(tunnels.len(), 2, "{decisions:?}");
    // The decision of the first stands in the log before an address is dialled.
    assert_eq!(
        tunnels[1].text("network.peer.address"),
        "127.0.0.1",
        "{tunnels:?}"
    );
    for tunnel in &tunnels {
        assert_eq!(tunnel.text("tidegate.tls.mode"), "inspected", "{tunnel:?}");
    }
    // What is refused inside is refused on a shared connection as well.
    let mut client = bench.client();
    assert_eq!(bench.ask(&mut client, "/secret").status(), 403);
    assert_eq!(bench.origin.asked(), ["GET /docs/a", "GET /docs/a"]);
}

// --- Each request is judged ---------------------------------------------------------------------

#[test]
fn each_request_of_a_tunnel_is_judged() {
    let bench = Bench::start("does.paths = [\"/docs/**\"]\n");
    let mut client = bench.client();
    assert_eq!(bench.ask(&mut client, "/docs/a").status(), 200);
    let refused = bench.ask(&mut client, "/secret?token=x");
    assert_eq!(refused.status(), 403, "{refused:?}");
    assert_eq!(refused.refusal(), "action_denied");
    assert_eq!(
        refused.field("content-type"),
        Some("application/problem+json")
    );
    // What was refused had no body, so the tunnel goes on.
    assert_eq!(bench.ask(&mut client, "/docs/b").status(), 200);
    assert_eq!(bench.origin.asked(), ["GET /docs/a", "GET /docs/b"]);

    let judged = bench.inside.judged();
    let verdicts: Vec<_> = judged.iter().map(Line::verdict).collect();
    assert_eq!(verdicts, ["allow", "deny", "allow"], "{judged:?}");
    assert!(
        judged
            .iter()
            .all(|line| line.text("tidegate.action") == "read"),
        "{judged:?}"
    );
    let parents: Vec<_> = judged
        .iter()
        .map(|line| line.text("tidegate.flow.parent"))
        .collect();
    assert!(parents.iter().all(|it| *it == parents[0]), "{parents:?}");
    assert_eq!(Some(judged[1].flow()), refused.field("x-tidegate-flow"));
    let log = std::fs::read_to_string(bench.inside.gate.log()).expect("a log");
    assert!(!log.contains("token=x"), "a query is on record");
    drop(client);
    let close = bench.inside.gate.close(parents[0]);
    assert_eq!(close.text("tidegate.end"), "closed", "{close:?}");
}

#[test]
fn what_passes_arrives_as_it_was_sent() {
    let bench = Bench::start("");
    let mut client = bench.client();
    let body = "{\"a\" : 1}";
    let fields = "anthropic-version: 2023-06-01\r\nanthropic-beta: a,b\r\n\
                  x-claude-code-session-id: 4f1c2b4e-1111-4222-8333-123456789abc\r\n\
                  Accept-Encoding: gzip, br\r\nAuthorization: Bearer x\r\nX-Odd: a  b\r\n";
    client.send(format!(
        "POST /v1/messages?beta=true HTTP/1.1\r\nHost: {}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        bench.authority(),
        body.len()
    ));
    assert_eq!(client.answer("POST").status(), 200);
    let seen = bench.origin.last();
    assert_eq!(seen.target(), "/v1/messages?beta=true");
    assert_eq!(seen.text(), body);
    for line in fields.lines() {
        let (name, value) = line.split_once(": ").expect("a field");
        assert_eq!(seen.field(name), Some(value));
    }
    assert_eq!(seen.field("host"), Some(bench.authority().as_str()));
    for ours in ["x-forwarded-for", "forwarded", "proxy-authorization"] {
        assert_eq!(seen.field(ours), None, "{seen:?}");
    }
}

#[test]
fn a_host_inside_that_is_not_the_one_of_the_tunnel_is_refused() {
    let bench = Bench::start("");
    let port = bench.origin.port();
    for host in [
        "other.example.net".to_owned(),
        format!("other.example.net:{port}"),
        format!("{HOST}:1"),
        format!("{HOST}.evil.example:{port}"),
        format!("127.0.0.1:{port}"),
    ] {
        let mut client = bench.client();
        let answer = client.inside("GET", &host, "/");
        assert_eq!(answer.status(), 421, "{host}: {answer:?}");
        assert_eq!(answer.refusal(), "host_mismatch");
        let line = bench
            .inside
            .gate
            .decision(answer.field("x-tidegate-flow").unwrap_or_default());
        assert_eq!(line.reason(), "host_mismatch", "{line:?}");
    }
    assert!(bench.origin.requests().is_empty());
    let mut client = bench.client();
    assert_eq!(bench.ask(&mut client, "/").status(), 200);
}

#[test]
fn a_request_from_a_tunnel_to_elsewhere_is_refused() {
    let bench = Bench::start("");
    let port = bench.origin.port();
    for request in [
        format!("GET https://other.example.net:{port}/ HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n"),
        format!("GET http://{HOST}:{port}/ HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n"),
        format!("CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\nHost: {HOST}:{port}\r\n\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let mut client = bench.client();
        client.send(&request);
        let answer = client.answer("GET");
        assert!(
            [400, 403, 405, 421].contains(&answer.status()),
            "{request}: {answer:?}"
        );
    }
    assert!(bench.origin.requests().is_empty());
}

#[test]
fn a_policy_that_changes_ends_what_is_open() {
    let bench = Bench::start("");
    let mut client = bench.client();
    assert_eq!(bench.ask(&mut client, "/").status(), 200);
    let narrower = inspected(
        "files",
        HOST,
        bench.origin.port(),
        "does.methods = [\"PUT\"]\n",
    );
    let text = Inside::text(&[HOST], &format!("{TIERS}{narrower}"));
    bench.inside.gate.reload(&text);
    let before = bench.origin.requests().len();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: {}\r\n\r\n",
        bench.authority()
    ));
    // Ended, or asked again and refused.
    if let Ok(answer) = client.try_answer("GET") {
        assert_eq!(answer.status(), 403, "{answer:?}");
    }
    assert_eq!(bench.origin.requests().len(), before);
}

// --- What is not HTTP ---------------------------------------------------------------------------

#[test]
fn what_is_not_http_inside_is_refused() {
    let bench = Bench::start("");
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"\x00\x01\x02\x03\x04\x05\x06\x07\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"get / http/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    ] {
        let mut client = bench.client();
        client.send(bytes);
        let rest = client.rest();
        let text = String::from_utf8_lossy(&rest);
        assert!(
            rest.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5"),
            "{bytes:?}: {text}"
        );
    }
    assert!(bench.origin.requests().is_empty());
    let refused = |bench: &Bench| {
        let judged = bench.inside.gate.records();
        judged
            .iter()
            .filter(|line| line.verdict() == "deny")
            .count()
    };
    assert!(refused(&bench) > 0 || !bench.inside.gate.records().named("close").is_empty());
    assert_eq!(bench.ask(&mut bench.client(), "/").status(), 200);
}

#[test]
fn what_is_not_tls_in_a_tunnel_that_is_inspected_is_refused() {
    let bench = Bench::start("");
    let mut client = bench.inside.gate.client();
    client.tunnel(&bench.authority());
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: {}\r\n\r\n",
        bench.authority()
    ));
    assert!(client.rest().is_empty());
    assert!(bench.origin.requests().is_empty());
    bench.ended_for("not_tls");
}

#[test]
fn a_name_inside_that_is_not_the_one_of_the_tunnel_is_refused() {
    let bench = Bench::start("");
    let mut client = bench.inside.gate.client();
    client.tunnel(&bench.authority());
    let mut client = client.enter(&bench.inside.trust, "other.example.net");
    client.send("GET / HTTP/1.1\r\nHost: other.example.net\r\n\r\n");
    assert!(client.try_answer("GET").is_err());
    assert!(bench.origin.requests().is_empty());
    bench.ended_for("sni_mismatch");
}

#[test]
fn a_client_without_server_name_in_a_tunnel_to_a_name_is_refused() {
    let bench = Bench::start("");
    let outcome = bench
        .inside
        .program("openssl")
        .args(["s_client", "-noservername", "-proxy"])
        .args([bench.inside.gate.proxy().to_string()])
        .args(["-connect", &bench.authority()])
        .run();
    outcome.failed();
    assert!(bench.origin.requests().is_empty());
    bench.ended_for("sni_missing");
}

#[test]
fn an_address_has_a_certificate_for_an_address() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &["127.0.0.1"]);
    let rules = inspected("address", "127.0.0.1", origin.port(), "");
    let inside = Inside::start(&pki, &[], &format!("{TIERS}{rules}"));
    let url = format!("https://127.0.0.1:{}/", origin.port());
    let curl = inside.program("curl").args(["-sS", "--http1.1", &url]);
    curl.run().succeeded().showed("\"target\":\"/\"");
    inside.all_passed("read");
}

// --- What upstream shows ------------------------------------------------------------------------

/// The tunnel is refused because of the certificate, and says which way it is wrong.
#[track_caller]
fn refused_for(origin: &Origin, pki: &Pki, word: &str, sentence: &str) {
    let rules = inspected("files", HOST, origin.port(), "");
    let inside = Inside::start(pki, &[HOST], &format!("{TIERS}{rules}"));
    let mut client = inside.gate.client();
    let answer = client.connect(&format!("{HOST}:{}", origin.port()));
    assert_eq!(answer.status(), 502, "{answer:?}");
    assert_eq!(answer.refusal(), "tls_failed");
    let detail = answer.json()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        detail.contains(word) && detail.contains(sentence),
        "{detail}"
    );
    let flow = answer.field("x-tidegate-flow").unwrap_or_default();
    let line = inside.gate.close(flow);
    assert_eq!(line.text("error.type"), word, "{line:?}");
    assert_eq!(line.reason(), "tls_failed", "{line:?}");
    assert_eq!(line.text("tidegate.blame"), "upstream", "{line:?}");
    let labels = [("side", "upstream"), ("result", word)];
    let counted = inside
        .gate
        .metrics()
        .sum("tidegate_tls_handshakes_total", &labels);
    assert!((counted - 1.0).abs() < 0.1, "counted {counted} times");
    assert!(origin.requests().is_empty());
}

#[test]
fn an_upstream_whose_certificate_has_expired_is_refused_before_the_tunnel_opens() {
    let pki = Pki::new();
    let config = pki.serving(&[HOST], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    refused_for(
        &Origin::tls_as(config),
        &pki,
        "certificate_expired",
        "expired",
    );
}

#[test]
fn an_upstream_whose_certificate_is_for_another_name_is_refused() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &["other.example.net"]);
    refused_for(&origin, &pki, "certificate_name", "another name");
}

#[test]
fn an_upstream_of_an_unknown_authority_is_refused() {
    let origin = Origin::tls(&Pki::stranger(), &[HOST]);
    refused_for(
        &origin,
        &Pki::new(),
        "certificate_unknown_issuer",
        "no trusted root",
    );
}

#[test]
fn an_upstream_that_does_not_speak_tls_is_refused() {
    let origin = Origin::raw(|visit| visit.say("220 mail.example.net ESMTP\r\n"));
    refused_for(&origin, &Pki::new(), "not_tls", "does not speak TLS");
}

#[test]
fn the_certificate_names_what_was_asked_for_and_nothing_else() {
    // The origin's own certificate has other names, and a wildcard.
    let origin =
        |pki: &Pki, _: &[&str]| Origin::tls(pki, &["*.example.net", "other.example.org", HOST]);
    let bench = Bench::before(origin, "");
    let outcome = bench
        .inside
        .program("openssl")
        .args(["s_client", "-showcerts", "-servername", HOST, "-proxy"])
        .args([bench.inside.gate.proxy().to_string()])
        .args(["-connect", &bench.authority()])
        .run();
    let begin = outcome.stdout.find("-----BEGIN").expect("a certificate");
    std::fs::write(bench.inside.home().join("leaf"), &outcome.stdout[begin..]).expect("a file");
    let text = bench
        .inside
        .program("openssl")
        .args(["x509", "-in", "leaf", "-noout", "-text"])
        .run()
        .succeeded();
    let names: Vec<_> = text
        .stdout
        .lines()
        .filter(|line| line.contains("DNS:"))
        .map(str::trim)
        .collect();
    assert_eq!(names, [format!("DNS:{HOST}")], "{}", text.stdout);
}

// --- Streams ------------------------------------------------------------------------------------

/// An origin that sends each event when the test says so.
fn events() -> (mpsc::Sender<String>, impl FnOnce(&Pki, &[&str]) -> Origin) {
    let (send, receive) = mpsc::channel::<String>();
    let receive = Arc::new(Mutex::new(receive));
    let origin = |pki: &Pki, names: &[&str]| {
        Origin::https(pki, names, move |visit, _| {
            visit.say(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
            )?;
            while let Ok(data) = receive.lock().expect("a channel").recv() {
                let event = format!("data: {data}\n\n");
                visit.say(format!("{:x}\r\n{event}\r\n", event.len()))?;
            }
            visit.say("0\r\n\r\n")
        })
    };
    (send, origin)
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let (send, origin) = events();
    let bench = Bench::before(origin, "");
    let mut client = bench.client();
    client.send(format!(
        "GET /events HTTP/1.1\r\nHost: {}\r\n\r\n",
        bench.authority()
    ));
    let head = client.head();
    assert_eq!(head.status(), 200);
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    for number in 0..20 {
        send.send(number.to_string()).expect("an origin");
        let expected = format!("data: {number}\n\n");
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend(client.chunk());
        }
        assert_eq!(String::from_utf8_lossy(&got), expected);
    }
    drop(send);
    assert!(client.chunk().is_empty());
}

#[test]
fn trailers_pass() {
    let origin = |pki: &Pki, names: &[&str]| {
        Origin::https(pki, names, |visit, _| {
            visit.say(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
            )
        })
    };
    let bench = Bench::before(origin, "");
    let mut client = bench.client();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nTE: trailers\r\n\r\n",
        bench.authority()
    ));
    let answer = client.answer("GET");
    assert_eq!(answer.text(), "hello");
    assert_eq!(
        answer
            .trailers
            .iter()
            .map(|it| it.1.as_str())
            .collect::<Vec<_>>(),
        ["7"]
    );
}

#[test]
fn early_hints_pass() {
    let origin = |pki: &Pki, names: &[&str]| {
        Origin::https(pki, names, |visit, _| {
            visit.say("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
            visit.answer("200 OK", "text/plain", b"late")
        })
    };
    let bench = Bench::before(origin, "");
    let mut client = bench.client();
    let first = bench.ask(&mut client, "/");
    let last = if first.status() == 103 {
        client.answer("GET")
    } else {
        // A gate may leave hints out; it may not take them for the answer.
        first
    };
    assert_eq!((last.status(), last.text()), (200, "late".to_owned()));
}

#[test]
fn an_upload_that_waits_for_leave_passes_once_it_was_judged() {
    const BULK: usize = 10 * 1024 * 1024;
    let bench = Bench::start("does.paths = [\"/up/**\"]\n");
    let mut client = bench.client();
    let head = |path: &str| {
        format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: {BULK}\r\n\r\n",
            bench.authority()
        )
    };
    client.send(head("/up/load"));
    assert_eq!(client.head().status(), 100);
    client.send(vec![b'x'; BULK]);
    assert_eq!(client.answer("PUT").status(), 200);
    assert_eq!(bench.origin.last().body.len(), BULK);

    let mut client = bench.client();
    client.send(head("/elsewhere"));
    let answer = client.answer("PUT");
    assert_eq!(answer.status(), 403, "{answer:?}");
    assert_eq!(bench.origin.requests().len(), 1);
}

#[test]
fn a_client_of_http_1_0_is_served_and_closed() {
    let bench = Bench::start("");
    let mut client = bench.client();
    client.send(format!(
        "GET /old HTTP/1.0\r\nHost: {}\r\n\r\n",
        bench.authority()
    ));
    let answer = client.answer("GET");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(answer.all("transfer-encoding").is_empty(), "{answer:?}");
    assert!(client.rest().is_empty());
}

#[test]
fn a_body_in_chunks_arrives_whole() {
    let bench = Bench::start("");
    let mut client = bench.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        bench.authority()
    ));
    client.send("5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n");
    assert_eq!(client.answer("POST").status(), 200);
    assert_eq!(bench.origin.last().text(), "hello world");
}

#[test]
fn an_answer_that_ends_with_the_connection_passes_whole() {
    let origin = |pki: &Pki, names: &[&str]| {
        Origin::https(pki, names, |visit, _| {
            visit.say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            visit.say(vec![b'y'; 300_000])?;
            visit.wire.half_close();
            Err(io::ErrorKind::ConnectionAborted.into())
        })
    };
    let bench = Bench::before(origin, "");
    let answer = bench.ask(&mut bench.client(), "/");
    assert_eq!((answer.status(), answer.body.len()), (200, 300_000));
}

#[test]
fn a_hint_at_another_protocol_is_left_out() {
    let origin = |pki: &Pki, names: &[&str]| {
        Origin::https(pki, names, |visit, _| {
            visit.say(
                "HTTP/1.1 200 OK\r\nAlt-Svc: h3=\":443\"\r\nX-Kept: yes\r\nContent-Length: 0\r\n\r\n",
            )
        })
    };
    let bench = Bench::before(origin, "");
    let answer = bench.ask(&mut bench.client(), "/");
    assert_eq!(answer.field("x-kept"), Some("yes"));
    assert_eq!(answer.field("alt-svc"), None);
}

// --- WebSocket ----------------------------------------------------------------------------------

fn sockets(pki: &Pki, names: &[&str]) -> Origin {
    Origin::https(pki, names, socket::echo)
}

#[test]
fn a_websocket_passes_where_a_rule_lets_it() {
    let bench = Bench::before(sockets, "grant.upgrade = true\n");
    let mut client = bench.client();
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\n{}\r\n",
        bench.authority(),
        socket::UPGRADE
    ));
    let answer = client.head();
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert_eq!(
        answer.field("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    for text in ["one", "two", "three"] {
        assert_eq!(socket::say(&mut client, text), text);
    }
    bench.inside.all_passed("read");
}

#[test]
fn a_websocket_whose_rule_no_longer_lets_it_is_ended() {
    let bench = Bench::before(sockets, "grant.upgrade = true\n");
    let mut client = bench.client();
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\n{}\r\n",
        bench.authority(),
        socket::UPGRADE
    ));
    assert_eq!(client.head().status(), 101);
    assert_eq!(socket::say(&mut client, "one"), "one");
    let without = inspected("files", HOST, bench.origin.port(), "");
    let text = Inside::text(&[HOST], &format!("{TIERS}{without}"));
    bench.inside.gate.reload(&text);
    let judged = bench.inside.judged();
    let flow = judged.last().expect("a decision").flow().to_owned();
    assert_eq!(bench.inside.gate.close(&flow).text("error.type"), "revoked");
}

#[test]
fn a_websocket_does_not_pass_where_no_rule_lets_it() {
    let bench = Bench::before(sockets, "");
    let mut client = bench.client();
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\n{}\r\n",
        bench.authority(),
        socket::UPGRADE
    ));
    let answer = client.answer("GET");
    assert_ne!(answer.status(), 101, "{answer:?}");
    // Refused, or asked for without the upgrade: what reached the origin could become nothing else.
    for seen in bench.origin.requests() {
        assert_eq!(seen.field("upgrade"), None, "{seen:?}");
    }
}

#[test]
fn an_upgrade_that_nobody_asked_for_is_not_passed_on() {
    let origin = |pki: &Pki, names: &[&str]| {
        Origin::https(pki, names, |visit, _| {
            visit.say(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
            )?;
            visit.say("anything")
        })
    };
    let bench = Bench::before(origin, "grant.upgrade = true\n");
    let answer = bench.ask(&mut bench.client(), "/");
    assert_eq!(answer.status(), 502, "{answer:?}");
}

// --- Beside what is inspected -------------------------------------------------------------------

#[test]
fn what_no_rule_inspects_stays_opaque() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let rules = allow("files", HOST, origin.port());
    let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}"));
    let mut client = inside.gate.client();
    client.tunnel(&format!("{HOST}:{}", origin.port()));
    // The certificate is the origin's own.
    let mut client = client.enter(&pki, HOST);
    assert_eq!(client.inside("GET", HOST, "/").status(), 200);
    let line = inside.gate.line("a decision", Line::is_decision);
    assert_eq!(line.text("tidegate.tls.mode"), "opaque", "{line:?}");
}

#[test]
fn a_rule_that_says_so_passes_a_host_through_that_is_inspected_otherwise() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let rules = allow("pinned", HOST, origin.port()) + "grant.inspect = false\n";
    let tiers = TIERS.replace(
        "[tier.standard]\n",
        "[tier.standard]\ninspect = [\"all\"]\n",
    );
    let inside = Inside::start(&pki, &[HOST], &format!("{tiers}{rules}"));
    let mut client = inside.gate.client();
    client.tunnel(&format!("{HOST}:{}", origin.port()));
    let mut client = client.enter(&pki, HOST);
    assert_eq!(client.inside("GET", HOST, "/").status(), 200);
    let line = inside.gate.line("a decision", Line::is_decision);
    assert_eq!(line.text("tidegate.tls.mode"), "opaque", "{line:?}");
}

#[test]
fn a_tier_may_have_everything_inspected() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let rules = allow("files", HOST, origin.port())
        + "grant.upstream = \"test\"\ndoes.methods = [\"GET\"]\n";
    let tiers = TIERS.replace(
        "[tier.standard]\n",
        "[tier.standard]\ninspect = [\"all\"]\n",
    );
    let inside = Inside::start(&pki, &[HOST], &format!("{tiers}{rules}"));
    let mut client = inside.enter(HOST, origin.port());
    let authority = format!("{HOST}:{}", origin.port());
    assert_eq!(client.inside("GET", &authority, "/").status(), 200);
    assert_eq!(client.inside("DELETE", &authority, "/").status(), 403);
    assert_eq!(origin.asked(), ["GET /"]);
    until("both are judged", || inside.judged().len() == 2);
}

// --- Clients ------------------------------------------------------------------------------------

#[test]
fn curl_node_and_python_are_served() {
    let bench = Bench::start("does.actions = [\"read\"]\n");
    let url = format!("https://{}/hello", bench.authority());
    let shown = "\"target\":\"/hello\"";
    for version in ["--http1.1", "--http2"] {
        let curl = bench.inside.program("curl").args(["-sS", version, &url]);
        curl.run().succeeded().showed(shown);
        let curl = bench
            .inside
            .program("curl")
            .args(["-sS", version, "-d", "x", &url]);
        curl.run().succeeded().showed("action_denied");
    }
    for script in [
        format!("import requests; print(requests.get('{url}').text)"),
        format!("import httpx; print(httpx.get('{url}').text)"),
        format!("import httpx; print(httpx.Client(http2=True).get('{url}').text)"),
    ] {
        let python = bench.inside.program("python").args(["-c", &script]);
        python.run().succeeded().showed(shown);
    }
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-node/");
    let script = format!(
        "const {{ EnvHttpProxyAgent, setGlobalDispatcher }} = \
         require('module').createRequire('{modules}')('undici');
         setGlobalDispatcher(new EnvHttpProxyAgent());
         fetch('{url}').then(it => it.text()).then(console.log)"
    );
    let node = bench.inside.program("node").args(["-e", &script]);
    node.run().succeeded().showed(shown);
    let writes = |line: &String| !line.starts_with("GET ");
    assert!(!bench.origin.asked().iter().any(writes));
    bench.inside.refused("action_denied");
}

#[test]
fn a_client_that_does_not_trust_the_gate_says_so() {
    let bench = Bench::start("");
    let url = format!("https://{}/", bench.authority());
    let curl = bench
        .inside
        .program("curl")
        .env("CURL_CA_BUNDLE", "/dev/null")
        .env("SSL_CERT_FILE", "/dev/null")
        .args(["-sS", &url]);
    curl.run().failed().showed("certificate");
    assert!(bench.origin.requests().is_empty());
}
