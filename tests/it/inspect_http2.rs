//! Inside TLS with HTTP/2: mirrored where the origin speaks it, each stream judged on its own, and
//! bounded against clients that flood.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::kit::{DEADLINE, Inside, Line, Message, Origin, Origin2, Pki, TIERS, inspected, until};

pub(crate) const HOST: &str = "grpc.example.net";

/// A gate that looks inside, in front of the port of an origin.
pub(crate) struct Bench {
    pub(crate) inside: Inside,
    pub(crate) port: u16,
    runtime: tokio::runtime::Runtime,
}

/// An origin of HTTP/2 and a gate in front of it.
pub(crate) fn both(connect: bool, lines: &str) -> (Origin2, Bench) {
    let pki = Pki::new();
    let origin = Origin2::start(pki.serving(&[HOST], |_| {}), connect);
    let bench = Bench::start(&pki, origin.port(), lines);
    (origin, bench)
}

impl Bench {
    pub(crate) fn start(origins: &Pki, port: u16, lines: &str) -> Self {
        let rules = inspected("grpc", HOST, port, lines);
        let inside = Inside::start(origins, &[HOST], &format!("{TIERS}{rules}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        Self {
            inside,
            port,
            runtime,
        }
    }

    pub(crate) fn uri(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.port)
    }

    /// TLS with the gate in a tunnel.
    pub(crate) async fn tls(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let socket = std::net::TcpStream::connect(self.inside.gate.proxy()).expect("a listener");
        socket.set_nonblocking(true).expect("a socket");
        let mut socket = TcpStream::from_std(socket).expect("a socket");
        let connect = format!(
            "CONNECT {HOST}:{0} HTTP/1.1\r\nHost: {HOST}:{0}\r\n\r\n",
            self.port
        );
        socket.write_all(connect.as_bytes()).await.expect("open");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("an answer"));
        }
        assert!(
            head.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        let mut config = self.inside.trust.trusting();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        let name = ServerName::try_from(HOST).expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, socket).await.expect("TLS")
    }

    /// HTTP/2 with the gate in a tunnel.
    pub(crate) fn connect(&self) -> SendRequest<Bytes> {
        self.runtime.block_on(async {
            let stream = self.tls(&[b"h2", b"http/1.1"]).await;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            self.runtime.spawn(async move {
                let _ = connection.await;
            });
            send.ready().await.expect("a connection")
        })
    }

    /// Sends a head; the answer and the way in.
    pub(crate) fn send(
        &self,
        client: &SendRequest<Bytes>,
        request: Request<()>,
        ended: bool,
    ) -> (Response<RecvStream>, SendStream<Bytes>) {
        self.within(async {
            let mut client = client.clone().ready().await.expect("a connection");
            let (answer, send) = client.send_request(request, ended).expect("a stream");
            (answer.await.expect("an answer"), send)
        })
    }

    pub(crate) fn get(&self, client: &SendRequest<Bytes>, path: &str) -> (u16, String) {
        let request = Request::get(self.uri(path)).body(()).expect("a request");
        let (answer, _) = self.send(client, request, true);
        let status = answer.status().as_u16();
        (status, self.all(answer.into_body()).0)
    }

    /// All that comes until the stream ends, and its trailers.
    pub(crate) fn all(&self, mut body: RecvStream) -> (String, Option<HeaderMap>) {
        self.within(async {
            let mut all = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.expect("data");
                let _ = body.flow_control().release_capacity(data.len());
                all.extend_from_slice(&data);
            }
            let trailers = body.trailers().await.expect("trailers");
            (String::from_utf8_lossy(&all).into_owned(), trailers)
        })
    }

    /// One frame of data.
    pub(crate) fn data(&self, body: &mut RecvStream) -> Bytes {
        self.within(async {
            let data = body.data().await.expect("more").expect("data");
            let _ = body.flow_control().release_capacity(data.len());
            data
        })
    }

    pub(crate) fn within<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            tokio::time::timeout(DEADLINE, what)
                .await
                .expect("an end in time")
        })
    }
}

#[test]
fn streams_are_judged_one_by_one() {
    let (origin, bench) = both(false, "does.paths = [\"/docs/**\"]\n");
    let client = bench.connect();
    assert_eq!(bench.get(&client, "/docs/a").0, 200);
    let (status, body) = bench.get(&client, "/secret");
    assert_eq!(status, 403);
    assert!(body.contains("action_denied"), "{body}");
    assert_eq!(bench.get(&client, "/docs/b").0, 200);
    let seen = origin.requests();
    let paths: Vec<_> = seen.iter().map(Message::target).collect();
    assert_eq!(paths, ["/docs/a", "/docs/b"]);
    let authority = format!("{HOST}:{}", bench.port);
    assert_eq!(seen[0].field(":authority"), Some(authority.as_str()));
    let judged = bench.inside.judged();
    let verdicts: Vec<_> = judged.iter().map(Line::verdict).collect();
    assert_eq!(verdicts, ["allow", "deny", "allow"], "{judged:?}");
    assert_eq!(origin.connections(), 1, "one connection for one tunnel");
}

#[test]
fn an_origin_of_http_1_is_not_shown_as_one_of_http_2() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let bench = Bench::start(&pki, origin.port(), "");
    bench.runtime.block_on(async {
        let stream = bench.tls(&[b"h2", b"http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    });
}

#[test]
fn a_client_of_http_1_reaches_an_origin_of_http_2() {
    let (origin, bench) = both(false, "");
    let url = bench.uri("/old");
    let curl = bench
        .inside
        .program("curl")
        .args(["-sS", "--http1.1", &url]);
    let outcome = curl.run();
    // Refused with a reason, or carried over: never a hang, never bytes that mean nothing.
    if outcome.success && outcome.shows("\"target\"") {
        assert_eq!(origin.request("/old").method(), "GET");
    } else {
        assert!(outcome.shows("502"), "{outcome:#?}");
    }
}

#[test]
fn frames_and_trailers_pass_as_they_come() {
    let (origin, bench) = both(false, "");
    let client = bench.connect();
    let request = Request::post(bench.uri("/stream"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let (answer, mut send) = bench.send(&client, request, false);
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    // Each frame comes back before the next is sent: nothing waits for more.
    for number in 0..10 {
        let frame = Bytes::from(format!("frame {number}"));
        send.send_data(frame.clone(), false).expect("open");
        assert_eq!(bench.data(&mut body), frame);
    }
    send.send_data(Bytes::new(), true).expect("open");
    let (rest, trailers) = bench.all(body);
    assert_eq!(rest, "");
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers.get("grpc-status").expect("a status"), "0");
    assert_eq!(origin.request("/stream").field("te"), Some("trailers"));
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let (origin, bench) = both(false, "");
    let client = bench.connect();
    let request = Request::get(bench.uri("/events"))
        .body(())
        .expect("a request");
    let (answer, _) = bench.send(&client, request, true);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    for number in 0..20 {
        origin.event(&number.to_string());
        let expected = format!("data: {number}\n\n");
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend(bench.data(&mut body));
        }
        assert_eq!(String::from_utf8_lossy(&got), expected);
    }
}

#[test]
fn a_large_body_passes_both_ways() {
    const BULK: usize = 3_000_000;
    let (origin, bench) = both(false, "");
    let url = bench.uri("/stream");
    std::fs::write(bench.inside.home().join("bulk"), vec![b'z'; BULK]).expect("a file");
    let words = ["-sS", "--http2", "-o", "back", "-T", "bulk", &url];
    bench.inside.program("curl").args(words).run().succeeded();
    let back = std::fs::read(bench.inside.home().join("back")).expect("a file");
    assert_eq!(back.len(), BULK);
    assert_eq!(origin.request("/stream").method(), "PUT");
}

#[test]
fn an_authority_that_is_not_the_one_of_the_tunnel_is_refused() {
    let (origin, bench) = both(false, "");
    let client = bench.connect();
    let port = bench.port;
    for authority in [
        "other.example.net".to_owned(),
        format!("other.example.net:{port}"),
        format!("{HOST}:1"),
    ] {
        let uri = format!("https://{authority}/");
        let request = Request::get(uri).body(()).expect("a request");
        let (answer, _) = bench.send(&client, request, true);
        assert_eq!(answer.status(), 421, "{authority}");
    }
    let request = Request::get(bench.uri("/"))
        .header("host", "other.example.net")
        .body(())
        .expect("a request");
    let (answer, _) = bench.send(&client, request, true);
    assert!([400, 421].contains(&answer.status().as_u16()), "{answer:?}");
    assert!(origin.requests().is_empty());
    assert_eq!(bench.get(&client, "/").0, 200);
    bench.inside.refused("host_mismatch");
}

#[test]
fn a_tunnel_in_a_tunnel_is_refused() {
    let (origin, bench) = both(false, "grant.upgrade = true\n");
    let client = bench.connect();
    let target = format!("{HOST}:{}", bench.port);
    let request = Request::builder().method("CONNECT").uri(target);
    let (answer, _) = bench.send(&client, request.body(()).expect("a request"), false);
    assert!(
        [400, 403, 405, 501].contains(&answer.status().as_u16()),
        "{answer:?}"
    );
    assert!(origin.requests().is_empty());
}

#[test]
fn after_a_change_of_its_upstream_a_tunnel_goes_on_by_a_new_connection() {
    let pki = Pki::new();
    let origin = Origin2::start(pki.serving(&[HOST], |_| {}), false);
    let bench = Bench::start(&pki, origin.port(), "");
    let client = bench.connect();
    let request = Request::get(bench.uri("/events")).body(()).expect("a head");
    let (answer, _) = bench.send(&client, request, true);
    let mut events = answer.into_body();
    origin.event("one");
    assert_eq!(bench.data(&mut events), "data: one\n\n");
    bench.inside.gate.replace("unrelated", "");
    assert_eq!(bench.get(&client, "/same").0, 200);
    assert_eq!(origin.connections(), 1, "nothing of it changed");
    let roots = pki.pem() + &Pki::stranger().pem();
    bench.inside.gate.replace("origins.pem", &roots);
    for _ in 0..3 {
        assert_eq!(bench.get(&client, "/other").0, 200);
    }
    assert_eq!(origin.connections(), 2);
    // What was under way is not disturbed.
    origin.event("two");
    assert_eq!(bench.data(&mut events), "data: two\n\n");
}

#[test]
fn a_stream_that_is_given_up_is_given_up_at_the_origin_and_no_other() {
    let (origin, bench) = both(false, "");
    let client = bench.connect();
    let request = Request::get(bench.uri("/events"))
        .body(())
        .expect("a request");
    let (answer, mut send) = bench.send(&client, request, true);
    origin.event("first");
    let mut body = answer.into_body();
    assert_eq!(bench.data(&mut body), "data: first\n\n");
    send.send_reset(h2::Reason::CANCEL);
    drop(body);
    assert_eq!(bench.get(&client, "/after").0, 200);
    until("both are over", || {
        let lines = bench.inside.gate.records();
        let closes = lines
            .iter()
            .filter(|line| line.is_close() && line.has("tidegate.flow.parent"));
        closes.count() == 2
    });
}

#[test]
fn a_reload_that_changes_the_upstream_takes_a_new_connection_and_breaks_off_none() {
    let (origin, bench) = both(false, "");
    let client = bench.connect();
    let request = Request::get(bench.uri("/events"))
        .body(())
        .expect("a request");
    let (answer, _) = bench.send(&client, request, true);
    origin.event("first");
    let mut body = answer.into_body();
    assert_eq!(bench.data(&mut body), "data: first\n\n");
    assert_eq!(bench.get(&client, "/before").0, 200);
    assert_eq!(origin.connections(), 1);

    let rules = inspected("grpc", HOST, bench.port, "");
    let text = Inside::text(&[HOST], &format!("{TIERS}{rules}"));
    bench
        .inside
        .gate
        .reload(&format!("{text}min-version = \"1.3\"\n"));
    assert_eq!(bench.get(&client, "/after").0, 200);
    assert_eq!(
        origin.connections(),
        2,
        "judged by what is behind the name now"
    );
    origin.event("second");
    assert_eq!(bench.data(&mut body), "data: second\n\n");
}

// --- Floods -------------------------------------------------------------------------------------

/// A frame as it is on the wire.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a short frame")
        .to_be_bytes();
    let mut all = vec![length[1], length[2], length[3], kind, flags];
    all.extend(stream.to_be_bytes());
    all.extend(payload);
    all
}

const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A request head in HPACK without its dynamic table.
fn head(bench: &Bench, method: u8) -> Vec<u8> {
    let authority = format!("{HOST}:{}", bench.port);
    let mut all = vec![0x80 | method, 0x87, 0x84, 0x01];
    all.push(u8::try_from(authority.len()).expect("a short name"));
    all.extend(authority.as_bytes());
    all
}

const GET: u8 = 2;
const POST: u8 = 3;

/// Sends a preface and then what `flood` makes, so many times or until the gate ends the
/// connection; whether it did. The gate goes on serving others.
#[track_caller]
fn flooded(what: &str, bench: &Bench, rounds: u32, mut flood: impl FnMut(u32) -> Vec<u8>) -> bool {
    let ended = bench.within(async {
        let stream = bench.tls(&[b"h2"]).await;
        let (mut read, mut write) = tokio::io::split(stream);
        let reader = tokio::task::spawn(async move {
            let mut some = vec![0; 64 * 1024];
            while read.read(&mut some).await.is_ok_and(|count| count > 0) {}
        });
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let mut open = write.write_all(preface).await.is_ok();
        open &= write.write_all(&frame(SETTINGS, 0, 0, &[])).await.is_ok();
        for round in 0..rounds {
            open = open && write.write_all(&flood(round)).await.is_ok();
            if !open || reader.is_finished() {
                break;
            }
        }
        let ended = !open || reader.is_finished();
        reader.abort();
        ended
    });
    let client = bench.connect();
    assert_eq!(bench.get(&client, "/healthy").0, 200, "{what}");
    ended
}

/// As [`flooded`], over and over until the gate ends the connection.
#[track_caller]
fn ends(what: &str, bench: &Bench, flood: impl FnMut(u32) -> Vec<u8>) {
    assert!(
        flooded(what, bench, 200_000, flood),
        "{what}: the gate took all of it"
    );
}

/// The number of a client's stream.
fn nth(round: u32) -> u32 {
    round * 2 + 1
}

#[test]
fn a_client_that_begins_streams_and_resets_them_is_ended() {
    let (origin, bench) = both(false, "");
    let head = head(&bench, GET);
    ends("rapid reset", &bench, |round| {
        let open = frame(HEADERS, END_STREAM | END_HEADERS, nth(round), &head);
        let cancel = 8_u32.to_be_bytes();
        [open, frame(RST_STREAM, 0, nth(round), &cancel)].concat()
    });
    assert!(
        origin.requests().len() < 20_000,
        "{}",
        origin.requests().len()
    );
}

#[test]
fn a_client_that_makes_the_gate_reset_streams_is_ended() {
    let (_origin, bench) = both(false, "");
    let head = head(&bench, POST);
    ends("resets made by the server", &bench, |round| {
        let open = frame(HEADERS, END_HEADERS, nth(round), &head);
        // No window grows by nothing (RFC 9113, section 6.9).
        let update = frame(WINDOW_UPDATE, 0, nth(round), &0_u32.to_be_bytes());
        [open, update].concat()
    });
}

#[test]
fn a_head_that_goes_on_and_on_is_ended() {
    let (_origin, bench) = both(false, "");
    let head = head(&bench, GET);
    ends("CONTINUATION", &bench, |round| {
        let field = [&b"\x00\x01a\x7f\x01"[..], &[b'b'; 128]].concat();
        if round == 0 {
            frame(HEADERS, END_STREAM, 1, &head)
        } else {
            frame(CONTINUATION, 0, 1, &field)
        }
    });
}

#[test]
fn a_head_of_very_many_fields_is_refused() {
    let (origin, bench) = both(false, "");
    let head = head(&bench, GET);
    // One field of 3 kB goes into the table, then each byte stands for it again.
    let mut first = vec![0x40, 1, b'a', 0x7f, 0xb9, 0x16];
    first.extend(vec![b'c'; 3_000]);
    flooded("a header bomb", &bench, 30, |round| {
        let fields = [&head[..], &first, &[0xbe; 8_000]].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, nth(round), &fields)
    });
    assert!(origin.requests().iter().all(|it| it.target() == "/healthy"));
}

#[test]
fn a_client_that_sends_frames_of_nothing_is_ended() {
    let (_origin, bench) = both(false, "");
    let head = head(&bench, POST);
    ends("empty DATA", &bench, |round| {
        if round == 0 {
            frame(HEADERS, END_HEADERS, 1, &head)
        } else {
            frame(DATA, 0, 1, &[])
        }
    });
}

#[test]
fn a_client_that_only_sends_settings_or_pings_does_no_harm() {
    let (_origin, bench) = both(false, "");
    for (kind, payload) in [(SETTINGS, &[][..]), (PING, &[0; 8])] {
        flooded("settings and pings", &bench, 20_000, |_| {
            frame(kind, 0, 0, payload)
        });
    }
}
