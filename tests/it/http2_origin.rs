//! HTTP/2 with origins inside tunnels: origins that mean harm, and trailers.
//!
//! Whatever an origin does, the client gets an answer that says so or an end that cannot be taken
//! for a whole answer, memory stays bounded, and others go on being served.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use crate::kit::{
    Client, Ended, Frame, Http2, Inside, Origin, Origin2, Pki, TIERS, Wire, fields, flag,
    inspected, kind, until,
};

pub(crate) const HOST: &str = "grpc.example.net";
const GOOD: &str = "good.example.net";

/// Bytes that the gate may grow by while one origin attacks it.
const GROWTH: u64 = 48 << 20;

/// What an origin does once a request came on that stream.
type Act = fn(&mut Http2, u32);

/// A gate between clients, an origin that attacks and one that does not.
struct Bench {
    inside: Inside,
    port: u16,
    good: Origin,
}

impl Bench {
    fn against(act: impl Fn(&mut Http2, u32) + Send + Sync + 'static) -> Self {
        Self::with(act, "")
    }

    /// The origin answers with that head, and has no body.
    fn answering(head: &'static [(&'static str, &'static str)]) -> Self {
        Self::against(move |origin, stream| {
            origin.head(stream, flag::WHOLE, head);
            wait(origin);
        })
    }

    fn with(act: impl Fn(&mut Http2, u32) + Send + Sync + 'static, lines: &str) -> Self {
        let origins = Pki::new();
        let port = attack(&origins, act);
        let good = Origin::tls(&origins, &[GOOD]);
        let rules = inspected("bad", HOST, port, "") + &inspected("good", GOOD, good.port(), "");
        let policy = format!("{TIERS}{rules}{lines}");
        let inside = Inside::start(&origins, &[HOST, GOOD], &policy);
        Self { inside, port, good }
    }

    /// HTTP/2 inside a tunnel to the origin that attacks.
    fn connect(&self) -> Http2 {
        connect(&self.inside, self.port)
    }

    fn head(&self, method: &str) -> Vec<u8> {
        head(method, self.port)
    }

    /// Neither client takes what the origin does for a whole answer.
    #[track_caller]
    fn fails(&self, what: &str) {
        let before = self.inside.gate.resident();
        let mut client = self.connect();
        client.frame(kind::SETTINGS, 0, 0, [0, 4, 0x40, 0, 0, 0]);
        client.frame(kind::WINDOW_UPDATE, 0, 0, [0x40, 0, 0, 0]);
        client.frame(kind::HEADERS, flag::WHOLE, 1, self.head("GET"));
        let ended = client.outcome(1);
        match ended {
            Ended::Status(200) => {
                let body = client.body(1);
                let broken = !matches!(body, Ok(_) | Err(Ended::Silent));
                assert!(broken, "{what}: {body:?}");
            }
            Ended::Status(500..) | Ended::Reset(_) | Ended::GoAway(_) | Ended::Closed => {}
            other => panic!("{what}: {other:?}"),
        }
        let mut client = self.inside.enter(HOST, self.port);
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n",
            self.port
        ));
        let mut answer = client.try_answer("GET");
        while answer.as_ref().is_ok_and(|answer| answer.status() < 200) {
            answer = client.try_answer("GET");
        }
        assert!(
            answer
                .as_ref()
                .map_or_else(is_end, |answer| answer.status() >= 500),
            "{what}: {answer:?}"
        );
        self.is_bounded(what, before);
    }

    /// How many connections to origins were ended for that.
    fn ended(&self, reason: &str) -> f64 {
        let labels = [("side", "upstream"), ("reason", reason)];
        let metrics = self.inside.gate.metrics();
        metrics.sum("tidegate_http2_ended_total", &labels)
    }

    #[track_caller]
    fn is_bounded(&self, what: &str, before: u64) {
        let grown = self.inside.gate.resident().saturating_sub(before);
        assert!(grown < GROWTH, "{what}: {grown} bytes more");
        let port = self.good.port();
        let mut other: Client = self.inside.enter(GOOD, port);
        let answer = other.inside("GET", &format!("{GOOD}:{port}"), "/");
        assert_eq!(answer.status(), 200, "{what}");
    }
}

/// An end, and not that nothing came.
fn is_end(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    !matches!(error.kind(), TimedOut | WouldBlock)
}

/// HTTP/2 inside a tunnel to that port.
pub(crate) fn connect(inside: &Inside, port: u16) -> Http2 {
    let mut wire = Wire::dial(inside.gate.proxy());
    let connect = format!("CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n");
    wire.write_all(connect.as_bytes()).expect("open");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    Http2::client(inside.trust.enter_as(wire, HOST, &["h2"]))
}

fn head(method: &str, port: u16) -> Vec<u8> {
    let authority = format!("{HOST}:{port}");
    fields(&[
        (":method", method),
        (":scheme", "https"),
        (":authority", &authority),
        (":path", "/"),
    ])
}

/// Starts an origin that does this for the first request of each connection; its port.
pub(crate) fn attack(pki: &Pki, act: impl Fn(&mut Http2, u32) + Send + Sync + 'static) -> u16 {
    let mut config = pki.serving(&[HOST], |_| {});
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (config, act) = (Arc::new(config), Arc::new(act));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (config, act) = (config.clone(), act.clone());
            thread::spawn(move || {
                let Wire::Tcp(socket) = Wire::plain(socket) else {
                    return;
                };
                let connection = ServerConnection::new(config).expect("a server");
                let wire = Wire::TlsServer(Box::new(StreamOwned::new(connection, socket)));
                let Ok(mut origin) = Http2::server(wire) else {
                    return;
                };
                while let Some(frame) = origin.next() {
                    if frame.kind == kind::HEADERS {
                        act(&mut origin, frame.stream);
                        return;
                    }
                }
            });
        }
    });
    port
}

fn good(origin: &mut Http2, stream: u32, flags: u8) {
    origin.head(stream, flag::END_HEADERS | flags, &[(":status", "200")]);
}

/// Sends this until the other side is gone, but not for ever; then leaves.
fn flood(origin: &mut Http2, frames: &[u8]) {
    for _ in 0..5_000 {
        if !(origin.send(frames) && origin.drain()) {
            return;
        }
    }
    // It was not stopped: wait, so that this is seen.
    let _ = origin.ended();
}

/// Reads until the other side is gone.
fn wait(origin: &mut Http2) {
    let _ = origin.ended();
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect()
}

#[test]
fn heads_of_answers_that_are_too_large_fail() {
    let bomb: Act = |origin, stream| {
        let mut block = fields(&[(":status", "200")]);
        block.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
        block.extend([b'x'; 4000]);
        block.extend([0xbe; 30]);
        origin.frame(kind::HEADERS, flag::WHOLE, stream, block);
        wait(origin);
    };
    Bench::against(bomb).fails("a large head");
    let far: Act = |origin, stream| {
        let mut block = fields(&[(":status", "200")]);
        block.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
        block.extend([b'x'; 4000]);
        block.extend(vec![0xbe; 12_000]);
        origin.frame(kind::HEADERS, flag::WHOLE, stream, block);
        wait(origin);
    };
    Bench::against(far).fails("a head that is far too large");
    let endless: Act = |origin, stream| {
        origin.frame(kind::HEADERS, 0, stream, fields(&[(":status", "200")]));
        flood(
            origin,
            &Frame::new(kind::CONTINUATION, 0, stream, [])
                .bytes()
                .repeat(10),
        );
    };
    Bench::against(endless).fails("a head without end");
    let crumbs: Act = |origin, stream| {
        let block = [
            fields(&[(":status", "200")]),
            fields(&[("a", "")]).repeat(1500),
        ]
        .concat();
        origin.frame(kind::HEADERS, flag::WHOLE, stream, block);
        wait(origin);
    };
    Bench::against(crumbs).fails("a head of many fields");
}

#[test]
fn interim_answers_without_end_fail_and_end_the_connection() {
    // Each as large as a frame can be: what is kept of them is measured.
    for link in ["</a>", &"x".repeat(15_000)] {
        let hint = fields(&[(":status", "103"), ("link", link)]);
        let bench = Bench::against(move |origin, stream| {
            let hint = Frame::new(kind::HEADERS, flag::END_HEADERS, stream, &hint);
            flood(origin, &hint.bytes());
        });
        bench.fails("hints");
        until("their end", || bench.ended("flood") >= 1.0);
    }
}

#[test]
fn answers_that_break_off_are_not_taken_for_whole() {
    Bench::against(|origin, stream| {
        good(origin, stream, 0);
        origin.frame(kind::DATA, 0, stream, b"half");
        origin.frame(kind::RST_STREAM, 0, stream, [0, 0, 0, 2]);
        wait(origin);
    })
    .fails("a reset");
    Bench::against(|origin, stream| {
        good(origin, stream, 0);
        origin.frame(kind::DATA, 0, stream, b"half");
        origin.frame(kind::RST_STREAM, 0, stream, [0, 0, 0, 0]);
        wait(origin);
    })
    .fails("a reset without an error");
    Bench::against(|origin, stream| {
        good(origin, stream, 0);
        origin.frame(kind::DATA, 0, stream, b"half");
        origin.frame(kind::GOAWAY, 0, 0, [0; 8]);
    })
    .fails("GOAWAY and the end");
    Bench::against(|origin, stream| {
        good(origin, stream, 0);
        origin.frame(kind::DATA, 0, stream, b"half");
    })
    .fails("the end");
    Bench::against(|_, _| {}).fails("the end at once");
    Bench::against(|origin, stream| {
        let head = [(":status", "200"), ("content-length", "10")];
        origin.head(stream, flag::END_HEADERS, &head);
        origin.frame(kind::DATA, flag::END_STREAM, stream, b"half");
        wait(origin);
    })
    .fails("less than its length");
    Bench::against(|origin, stream| {
        let head = [(":status", "200"), ("content-length", "2")];
        origin.head(stream, flag::END_HEADERS, &head);
        origin.frame(kind::DATA, flag::END_STREAM, stream, b"half");
        wait(origin);
    })
    .fails("more than its length");
}

#[test]
fn frames_that_no_server_may_send_fail() {
    Bench::against(|origin, stream| {
        let promise = [&[0, 0, 0, 2][..], &fields(&[(":method", "GET")])].concat();
        origin.frame(kind::PUSH_PROMISE, flag::END_HEADERS, stream, promise);
        good(origin, stream, flag::END_STREAM);
        wait(origin);
    })
    .fails("a push");
    for head in [
        &[("a", "b")][..],
        &[(":status", "20")],
        &[(":status", "101")],
        &[(":status", "200"), (":status", "404")],
        &[(":status", "200"), ("Upper", "case")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("a", "b\r\nset-cookie: c")],
        &[(":status", "200"), ("a", "b\nc")],
        &[(":status", "200"), ("a\r\nb", "c")],
        &[(":status", "200"), ("a", "b\0")],
        &[(":status", "200"), ("content-length", "1, 2")],
        &[("a", "b"), (":status", "200")],
    ] {
        let bench = Bench::answering(head);
        bench.fails(&format!("{head:?}"));
    }
}

#[test]
fn floods_of_an_origin_end() {
    const FLOODS: [(&str, Act); 4] = [
        ("SETTINGS", |origin, _| {
            flood(
                origin,
                &Frame::new(kind::SETTINGS, 0, 0, []).bytes().repeat(20),
            );
        }),
        ("PING", |origin, _| {
            flood(
                origin,
                &Frame::new(kind::PING, 0, 0, [0; 8]).bytes().repeat(20),
            );
        }),
        ("empty DATA", |origin, stream| {
            good(origin, stream, 0);
            flood(
                origin,
                &Frame::new(kind::DATA, 0, stream, []).bytes().repeat(20),
            );
        }),
        ("more than the window", |origin, stream| {
            good(origin, stream, 0);
            let data = Frame::new(kind::DATA, 0, stream, [0; 16_000]).bytes();
            for _ in 0..5_000 {
                if !origin.send(&data) {
                    return;
                }
            }
            wait(origin);
        }),
    ];
    for (what, act) in FLOODS {
        Bench::against(act).fails(what);
    }
}

#[test]
fn an_origin_that_takes_nothing_is_given_up() {
    let bench = Bench::with(
        |origin, _| {
            origin.frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]);
            wait(origin);
        },
        "\n[limits]\nidle = \"2 s\"\n",
    );
    let before = bench.inside.gate.resident();
    let mut client = bench.connect();
    client.frame(kind::HEADERS, flag::END_HEADERS, 1, bench.head("POST"));
    // What a client may send before it is told of a window.
    for _ in 0..3 {
        client.frame(kind::DATA, 0, 1, [0; 16_000]);
    }
    client.frame(kind::DATA, flag::END_STREAM, 1, [0; 16_000]);
    let ended = client.outcome(1);
    assert!(
        matches!(ended, Ended::Status(500..) | Ended::Reset(_)),
        "{ended:?}"
    );
    bench.is_bounded("no window", before);
}

#[test]
fn what_follows_the_end_of_an_answer_is_not_part_of_it() {
    let bench = Bench::against(|origin, stream| {
        good(origin, stream, 0);
        let end = Frame::new(kind::DATA, flag::END_STREAM, stream, b"whole");
        let more = Frame::new(kind::DATA, 0, stream, b"more");
        origin.send(frames(&[end, more]));
        wait(origin);
    });
    let mut client = bench.connect();
    client.frame(kind::HEADERS, flag::WHOLE, 1, bench.head("GET"));
    if client.outcome(1) == Ended::Status(200)
        && let Ok(body) = client.body(1)
    {
        assert_eq!(body, b"whole");
    }
    bench.is_bounded("more", bench.inside.gate.resident());
}

/// Sends a request with trailers on stream 1.
fn ask_with_trailers(client: &mut Http2, port: u16, trailers: &[(&str, &str)]) {
    client.frame(kind::HEADERS, flag::END_HEADERS, 1, head("POST", port));
    client.frame(kind::DATA, 0, 1, b"body");
    client.head(1, flag::WHOLE, trailers);
    assert_eq!(client.outcome(1), Ended::Status(200));
}

#[test]
fn trailers_of_a_request_reach_an_origin_of_either_http() {
    let origins = Pki::new();
    let two = Origin2::start(origins.serving(&[HOST], |_| {}), false);
    let rules = inspected("two", HOST, two.port(), "");
    let inside = Inside::start(&origins, &[HOST], &format!("{TIERS}{rules}"));
    let mut client = connect(&inside, two.port());
    ask_with_trailers(&mut client, two.port(), &[("content-digest", "7")]);
    until("a request", || two.requests().len() == 1);
    assert_eq!(two.requests()[0].text(), "body");
    assert_eq!(
        two.requests()[0].trailers,
        [("content-digest".into(), "7".into())]
    );

    // Only where its origin speaks HTTP/2 does a client: so this one is HTTP/1 on both sides.
    let origins = Pki::new();
    let one = Origin::tls(&origins, &[HOST]);
    let rules = inspected("one", HOST, one.port(), "");
    let inside = Inside::start(&origins, &[HOST], &format!("{TIERS}{rules}"));
    let mut client = inside.enter(HOST, one.port());
    let host = format!("{HOST}:{}", one.port());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTrailer: content-digest\r\n\r\n\
         4\r\nbody\r\n0\r\ncontent-digest: 7\r\n\r\n"
    ));
    assert_eq!(client.answer("POST").status(), 200);
    assert_eq!(one.last().trailers, [("content-digest".into(), "7".into())]);
}

#[test]
fn trailers_of_a_request_that_mean_something_to_a_proxy_go_nowhere() {
    for trailer in [
        ("host", "evil.example"),
        ("content-length", "4"),
        ("authorization", "Bearer other"),
        ("cookie", "a=b"),
        ("mcp-method", "tools/list"),
        ("x-original-url", "/admin"),
        ("x-anything", "1"),
        ("transfer_encoding", "chunked"),
    ] {
        let origins = Pki::new();
        let origin = Origin2::start(origins.serving(&[HOST], |_| {}), false);
        let rules = inspected("two", HOST, origin.port(), "");
        let inside = Inside::start(&origins, &[HOST], &format!("{TIERS}{rules}"));
        let mut client = connect(&inside, origin.port());
        ask_with_trailers(
            &mut client,
            origin.port(),
            &[("content-digest", "7"), trailer],
        );
        assert_eq!(origin.requests()[0].trailers, [], "{trailer:?}");
    }
}
