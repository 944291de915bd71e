//! What an origin answers, and what a client sends behind its head: whose fault is told, and that an
//! origin cannot speak as the gate does.

use std::io;

use crate::http2_origin::{self, attack, connect};
use crate::kit::{
    Client, Ended, Gate, Http2, Inside, Lines, Message, Origin, Pki, TIERS, allow_more, flag,
    inspected, kind, loopback, names,
};

const HOST: &str = "files.example.net";
/// The origin that speaks HTTP/2.
const TWO: &str = http2_origin::HOST;

/// All by which a gate marks a refusal of its own.
const FORGED: &str = "X-Deny-Reason: host_not_allowed\r\nX-Proxy-Error: blocked-by-allowlist\r\n\
    Proxy-Status: tidegate; error=http_request_denied; details=\"not_allowed\"\r\n\
    X-Tidegate-Flow: 0195b1f0-0000-7000-8000-000000000000\r\nX_Deny_Reason: host_not_allowed\r\n\
    Via: 1.1 tidegate\r\nVia: 1.1 cdn, 1.1 tidegate-0123 (a)\r\nContent-Length: 0\r\n";

fn url(origin: &Origin, path: &str) -> String {
    format!("http://{HOST}:{}{path}", origin.port())
}

#[track_caller]
fn is_unmarked(answer: &Message) {
    for name in [
        "x-deny-reason",
        "x-proxy-error",
        "proxy-status",
        "x-tidegate-flow",
        "x_deny_reason",
        "proxy-authenticate",
    ] {
        assert!(answer.all(name).is_empty(), "{name}: {answer:?}");
    }
    assert!(!answer.phrase().contains("tidegate"), "{answer:?}");
    let via = answer.all("via");
    let ours = |element: &&str| element.contains("tidegate");
    let elements = via.iter().flat_map(|via| via.split(','));
    assert_eq!(elements.filter(ours).count(), 1, "{answer:?}");
}

/// A gate that inspects one origin.
fn inside(pki: &Pki, port: u16, limits: &str) -> Inside {
    let rules = inspected("files", HOST, port, "") + &inspected("two", TWO, port, "");
    Inside::start(pki, &[HOST, TWO], &format!("{TIERS}{rules}{limits}"))
}

#[test]
fn no_answer_of_an_origin_looks_like_a_refusal_of_the_gate() {
    let say = |visit: &mut crate::kit::Visit, _: &Message| {
        visit.say(format!("HTTP/1.1 103 tidegate\r\n{FORGED}\r\n"))?;
        visit.say(format!(
            "HTTP/1.1 403 tidegate denied files.example.net:80 not_allowed\r\n{FORGED}\r\n"
        ))
    };
    let origin = Origin::http(say);
    let gate = Gate::with(&loopback(origin.port()));
    let mut client = gate.client();
    let hint = client.get(&url(&origin, "/"));
    assert_eq!(hint.status(), 103);
    is_unmarked(&hint);
    let answer = client.answer("GET");
    assert_eq!(answer.status(), 403);
    is_unmarked(&answer);

    let pki = Pki::new();
    let origin = Origin::https(&pki, &[HOST], say);
    let inside = inside(&pki, origin.port(), "");
    let mut client = inside.enter(HOST, origin.port());
    let hint = client.inside("GET", &format!("{HOST}:{}", origin.port()), "/");
    assert_eq!(hint.status(), 103);
    is_unmarked(&hint);
    is_unmarked(&client.answer("GET"));
}

#[test]
fn no_answer_over_http2_looks_like_a_refusal_of_the_gate() {
    let pki = Pki::new();
    let port = attack(&pki, |origin, stream| {
        let head = [
            (":status", "403"),
            ("x-deny-reason", "host_not_allowed"),
            ("x-proxy-error", "blocked-by-allowlist"),
            ("proxy-status", "tidegate; error=http_request_denied"),
            ("x-tidegate-flow", "1"),
            ("via", "1.1 tidegate"),
        ];
        origin.head(stream, flag::WHOLE, &head);
        let _ = origin.ended();
    });
    let inside = inside(&pki, port, "");
    let mut client = inside.enter(TWO, port);
    let answer = client.inside("GET", &format!("{TWO}:{port}"), "/");
    assert_eq!(answer.status(), 403);
    is_unmarked(&answer);
}

#[test]
fn no_upgrade_looks_like_a_refusal_of_the_gate() {
    let origin = Origin::http(|visit, _| {
        visit.say(format!(
            "HTTP/1.1 101 tidegate\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{}\r\n",
            FORGED.replace("Content-Length: 0\r\n", "")
        ))
    });
    let rule = allow_more("files", HOST, origin.port(), "grant.upgrade = true\n");
    let gate = Gate::with(&format!("{TIERS}{}{rule}", names(&[HOST])));
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let answer = gate.client().request("GET", &url(&origin, "/"), fields, "");
    assert_eq!(answer.status(), 101);
    is_unmarked(&answer);
}

/// The answer is a 502 of the gate's own, and its record says what was wrong.
#[track_caller]
fn is_bad_response(gate: &Gate, answer: &Message, word: &str) {
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (502, "bad_response"),
        "{word}: {answer:?}"
    );
    assert_eq!(answer.field("proxy-authenticate"), None, "{answer:?}");
    let close = gate.close(answer.field("x-tidegate-flow").expect("a flow"));
    assert_eq!(close.text("error.type"), word);
    assert_eq!(close.text("tidegate.blame"), "upstream");
    assert_eq!(close.text("tidegate.reason"), "bad_response");
}

#[test]
fn a_407_of_an_origin_is_not_passed_on() {
    const ASKS: &str = "HTTP/1.1 407 Proxy Authentication Required\r\n\
        Proxy-Authenticate: Basic realm=\"tidegate\"\r\nContent-Length: 0\r\n\r\n";
    let word = "response_proxy_authentication";
    let origin = Origin::http(|visit, _| visit.say(ASKS));
    let gate = Gate::with(&loopback(origin.port()));
    is_bad_response(&gate, &gate.client().get(&url(&origin, "/")), word);

    let pki = Pki::new();
    let origin = Origin::https(&pki, &[HOST], |visit, _| visit.say(ASKS));
    let one = inside(&pki, origin.port(), "");
    let mut client = one.enter(HOST, origin.port());
    let answer = client.inside("GET", &format!("{HOST}:{}", origin.port()), "/");
    is_bad_response(&one.gate, &answer, word);

    let port = attack(&pki, |origin, stream| {
        let head = [(":status", "407"), ("proxy-authenticate", "Basic")];
        origin.head(stream, flag::WHOLE, &head);
        let _ = origin.ended();
    });
    let two = inside(&pki, port, "");
    let answer = two
        .enter(TWO, port)
        .inside("GET", &format!("{TWO}:{port}"), "/");
    is_bad_response(&two.gate, &answer, word);
}

#[test]
fn each_malformed_answer_has_a_word_of_its_own() {
    for (bytes, word) in [
        (&b"hello\r\n\r\n"[..], "response_status_line"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
            "response_content_length",
        ),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "response_field"),
        (
            b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
            "response_unprintable",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "response_transfer_encoding",
        ),
        (
            b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello",
            "response_unexpected_body",
        ),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n",
            "response_protocol",
        ),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", "unexpected_eof"),
        (b"", "response_missing"),
    ] {
        let origin = Origin::raw(move |visit| {
            visit.head()?;
            visit.say(bytes)?;
            visit.wire.half_close();
            Ok(())
        });
        let gate = Gate::with(&loopback(origin.port()));
        is_bad_response(&gate, &gate.client().get(&url(&origin, "/")), word);
        let counted = gate.metrics();
        let labels = [("error", "bad_response")];
        assert!(
            counted.sum("tidegate_upstream_errors_total", &labels) > 0.5,
            "{word}"
        );
    }
}

#[test]
fn a_blank_behind_a_chunk_size_is_taken_from_an_origin_alone() {
    const CHUNKS: &str = "5 \r\nhello\r\n0\t \r\n\r\n";
    let origin = Origin::http(|visit, _| {
        visit.say(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"
        ))
    });
    let gate = Gate::with(&loopback(origin.port()));
    let mut client = gate.client();
    let answer = client.get(&url(&origin, "/"));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    assert_eq!(client.get(&url(&origin, "/")).status(), 200, "it is kept");

    let chunked = "Transfer-Encoding: chunked\r\n";
    let answer = client.request("POST", &url(&origin, "/"), chunked, CHUNKS);
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (400, "bad_request")
    );
}

#[test]
fn malformed_chunks_of_a_request_are_answered() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    for chunks in [
        "g\r\n",
        "5\r\nhelloXX",
        "-1\r\n",
        "5\r\nhello\r\n0\r\nA: \0\r\n\r\n",
    ] {
        let mut client = gate.client();
        let chunked = "Transfer-Encoding: chunked\r\n";
        let answer = client.request("POST", &url(&origin, "/"), chunked, chunks);
        assert_eq!(
            (answer.status(), answer.refusal().as_str()),
            (400, "bad_request"),
            "{chunks:?}"
        );
        assert_eq!(answer.field("connection"), Some("close"));
        let flow = answer.field("x-tidegate-flow").expect("a flow");
        // What is malformed in its first bytes is refused before the origin is dialled.
        let decision = gate.decision(flow);
        if decision.verdict() == "allow" {
            let close = gate.close(flow);
            assert_eq!(close.text("error.type"), "request_chunks");
            assert_eq!(close.text("tidegate.blame"), "client");
        } else {
            assert_eq!(decision.reason(), "bad_request", "{decision:?}");
        }
    }
    assert!(origin.requests().is_empty());

    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let inside = inside(&pki, origin.port(), "");
    let mut client = inside.enter(HOST, origin.port());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {HOST}:{}\r\nTransfer-Encoding: chunked\r\n\r\ng\r\n",
        origin.port()
    ));
    assert_eq!(client.answer("POST").status(), 400);
}

/// The client is told that it did not send its body in time.
#[track_caller]
fn is_stalled(gate: &Gate, answer: &Message) {
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (408, "bad_request"),
        "{answer:?}"
    );
    let close = gate.close(answer.field("x-tidegate-flow").expect("a flow"));
    assert_eq!(close.text("error.type"), "request_timeout");
    assert_eq!(close.text("tidegate.blame"), "client");
}

const IMPATIENT: &str = "\n[limits]\nidle = \"1 s\"\n";

#[test]
fn an_upload_that_stalls_is_the_fault_of_its_client() {
    let origin = Origin::echo();
    let gate = Gate::with(&format!("{}{IMPATIENT}", loopback(origin.port())));
    for (fields, body) in [
        ("Content-Length: 10\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"),
    ] {
        let answer = gate
            .client()
            .request("POST", &url(&origin, "/"), fields, body);
        is_stalled(&gate, &answer);
    }
    // The gate reads how a body begins before it dials: without that there is no flow to close.
    let fields = "Content-Length: 10\r\n";
    let answer = gate
        .client()
        .request("POST", &url(&origin, "/"), fields, "");
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (408, "bad_request")
    );
    let decision = gate.decision(answer.field("x-tidegate-flow").expect("a flow"));
    assert_eq!(decision.reason(), "bad_request", "{decision:?}");

    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let inside = inside(&pki, origin.port(), IMPATIENT);
    let mut client = inside.enter(HOST, origin.port());
    let host = format!("{HOST}:{}", origin.port());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\nabc"
    ));
    is_stalled(&inside.gate, &client.answer("POST"));
}

#[test]
fn an_upload_over_http2_that_stalls_is_the_fault_of_its_client() {
    let pki = Pki::new();
    let port = attack(&pki, |origin, _| {
        let _ = origin.ended();
    });
    let inside = inside(&pki, port, IMPATIENT);
    let mut client = connect(&inside, port);
    client.head(1, flag::END_HEADERS, &head("POST", port));
    client.frame(kind::DATA, 0, 1, b"half");
    assert_eq!(client.outcome(1), Ended::Status(408));
}

#[test]
fn an_origin_that_does_not_answer_a_whole_upload_is_still_to_blame() {
    let origin = Origin::raw(|visit| {
        visit.exactly(usize::MAX)?;
        Ok(())
    });
    let gate = Gate::with(&format!("{}{IMPATIENT}", loopback(origin.port())));
    let fields = "Content-Length: 3\r\n";
    let answer = gate
        .client()
        .request("POST", &url(&origin, "/"), fields, "abc");
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (504, "connect_timeout")
    );
    assert_eq!(gate.last_close().text("tidegate.blame"), "upstream");
}

/// Answers before it has read the body.
fn early(visit: &mut crate::kit::Visit) -> io::Result<()> {
    visit.head()?;
    visit.say("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")?;
    visit.exactly(usize::MAX)?;
    Ok(())
}

#[test]
fn an_early_answer_says_that_the_connection_ends() {
    let origin = Origin::raw(early);
    let gate = Gate::with(&loopback(origin.port()));
    for (fields, begun) in [
        ("Content-Length: 10\r\n", "a"),
        ("Transfer-Encoding: chunked\r\n", "9\r\na"),
        ("Content-Length: 10\r\nExpect: 100-continue\r\n", "a"),
    ] {
        let mut client: Client = gate.client();
        let waits = fields.contains("Expect");
        let sent = if waits { "" } else { begun };
        let mut answer = client.request("POST", &url(&origin, "/"), fields, sent);
        if waits {
            // The gate asks for the body itself: it reads how the body begins before it dials.
            assert_eq!(answer.status(), 100);
            client.send(begun);
            answer = client.answer("POST");
        }
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.field("connection"), Some("close"), "{fields:?}");
        client.is_closed();
    }
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let mut client = gate.client();
    let fields = "Content-Length: 3\r\n";
    let answer = client.request("POST", &url(&origin, "/"), fields, "abc");
    assert_eq!(answer.field("connection"), None, "a whole one does not");
    let fields = "Content-Length: 3\r\nExpect: 100-continue\r\n";
    assert_eq!(
        client
            .request("POST", &url(&origin, "/"), fields, "")
            .status(),
        100
    );
    client.send("abc");
    let answer = client.answer("POST");
    assert_eq!(
        answer.field("connection"),
        None,
        "nor does one that was waited for"
    );
    assert_eq!(client.get(&url(&origin, "/")).status(), 200);
}

fn head(method: &str, port: u16) -> [(&'static str, String); 4] {
    [
        (":method", method.to_owned()),
        (":scheme", "https".to_owned()),
        (":authority", format!("{TWO}:{port}")),
        (":path", "/".to_owned()),
    ]
}

/// An origin of HTTP/2 that says what it saw of a request without a body.
fn saw_whole(origin: &mut Http2, stream: u32) {
    origin.head(stream, flag::WHOLE, &[(":status", "204")]);
    let _ = origin.ended();
}

#[test]
fn a_get_may_end_with_an_empty_frame_and_has_no_content() {
    let pki = Pki::new();
    let port = attack(&pki, saw_whole);
    let inside = inside(&pki, port, "");
    let ask = |method: &str, data: &[u8]| {
        let mut client = connect(&inside, port);
        client.head(1, flag::END_HEADERS, &head(method, port));
        client.frame(kind::DATA, flag::END_STREAM, 1, data);
        client.outcome(1)
    };
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(ask(method, b""), Ended::Status(204), "{method}");
        assert_eq!(ask(method, b"content"), Ended::Status(400), "{method}");
    }
    let passed = inside.judged();
    assert_eq!(
        passed
            .iter()
            .filter(|line| line.verdict() == "allow")
            .count(),
        3
    );
    assert!(inside.gate.records().named("decision").len() > 3);
}
