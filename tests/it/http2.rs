//! HTTP/2 from callers: tunnels with half-closes, requests, refusals, resets.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use rcgen::SanType;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::kit::{Gate, Origin, Pki, TIERS, allow, allow_more, names, until};

const HOST: &str = "files.example.net";
const RAW: &str = "raw.example.net";

/// A gate with a TLS listener, and an origin of plain HTTP.
struct Bench {
    pki: Pki,
    origin: Origin,
    gate: Gate,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn start(raw: u16) -> Self {
        Self::with(raw, "")
    }

    /// With more lines of a configuration.
    fn with(raw: u16, lines: &str) -> Self {
        let (pki, origin) = (Pki::new(), Origin::echo());
        let (cert, key) = pki.issue(|params| {
            let name = "proxy.example.net".try_into().expect("ASCII");
            params.subject_alt_names = vec![SanType::DnsName(name)];
        });
        let policy = format!(
            "{TIERS}{}{}{}
[[listener]]
address = \"127.0.0.1:0\"
tls = {{ cert = \"proxy.pem\", key = \"proxy.key\" }}
{lines}",
            names(&[HOST, RAW]),
            allow("files", HOST, origin.port()),
            allow_more("raw", RAW, raw, "grant.raw = true\n"),
        );
        let gate = Gate::plan(&policy)
            .file("proxy.pem", &cert)
            .file("proxy.key", &key)
            .start();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self {
            pki,
            origin,
            gate,
            runtime: runtime.expect("a runtime"),
        }
    }

    /// TLS to the listener.
    async fn tls(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        self.tls_as(self.pki.trusting(), protocols).await
    }

    /// As a client with that configuration, whose sessions it may resume.
    async fn tls_as(&self, mut config: ClientConfig, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        let socket = std::net::TcpStream::connect(self.gate.listener(1)).expect("a listener");
        socket.set_nonblocking(true).expect("a socket");
        let socket = TcpStream::from_std(socket).expect("a socket");
        let name = ServerName::try_from("proxy.example.net").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, socket).await.expect("TLS")
    }

    /// A connection of HTTP/2 to the listener.
    fn connect(&self) -> SendRequest<Bytes> {
        self.runtime.block_on(async {
            let stream = self.tls(&[b"h2"]).await;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            self.runtime.spawn(async move {
                let _ = connection.await;
            });
            send
        })
    }

    /// Sends a head; the status and both ways of the stream.
    fn ask(
        &self,
        client: &SendRequest<Bytes>,
        method: &str,
        uri: &str,
        ended: bool,
    ) -> (http::Response<RecvStream>, SendStream<Bytes>) {
        let request = http::Request::builder().method(method).uri(uri);
        let request = request.body(()).expect("a request");
        self.runtime.block_on(async {
            let mut client = client.clone().ready().await.expect("a connection");
            let (answer, send) = client.send_request(request, ended).expect("a stream");
            (answer.await.expect("an answer"), send)
        })
    }

    /// All that comes until the stream ends, or how it broke off.
    fn all(&self, mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
        self.runtime.block_on(async {
            let mut all = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                let _ = body.flow_control().release_capacity(data.len());
                all.extend_from_slice(&data);
            }
            Ok(all)
        })
    }
}

#[test]
fn a_stream_to_the_proxy_itself_becomes_no_websocket() {
    let bench = Bench::start(1);
    let client = bench.connect();
    let port = bench.origin.port();
    let uri = format!("http://{HOST}:{port}/");
    assert_eq!(bench.ask(&client, "GET", &uri, true).0.status(), 200);
    assert!(!client.is_extended_connect_protocol_enabled());
    for scheme in ["http", "https"] {
        let uri = format!("{scheme}://{HOST}:{port}/ws");
        let request = http::Request::builder().method("CONNECT").uri(uri);
        let mut request = request.body(()).expect("a request");
        let protocol = h2::ext::Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        let refused = bench.runtime.block_on(async {
            let mut client = client.clone().ready().await.expect("a connection");
            let (answer, _send) = client.send_request(request, false).expect("a stream");
            answer.await.map(|answer| answer.status())
        });
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(bench.origin.requests().len(), 1);
}

/// A listener of ours that one connection is taken from.
fn listener() -> (std::net::TcpListener, u16) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

#[test]
fn a_tunnel_passes_half_closes_on_both_ways() {
    const BULK: usize = 3_000_000;
    let (listener, port) = listener();
    let far = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut asked = Vec::new();
        socket.read_to_end(&mut asked).expect("an end");
        socket.write_all(&vec![7; BULK]).expect("half open");
        socket.shutdown(Shutdown::Write).expect("half open");
        asked
    });
    let bench = Bench::start(port);
    let client = bench.connect();
    let (answer, mut send) = bench.ask(&client, "CONNECT", &format!("{RAW}:{port}"), false);
    assert_eq!(answer.status(), 200);
    send.send_data(Bytes::from_static(b"question"), true)
        .expect("open");
    assert_eq!(bench.all(answer.into_body()).expect("whole"), vec![7; BULK]);
    assert_eq!(far.join().expect("an origin"), b"question");
    let close = bench.gate.last_close();
    assert_eq!(close.number("tidegate.bytes.in"), BULK as u64);
    assert_eq!(close.text("tidegate.end"), "closed");
}

#[test]
fn a_tunnel_through_tls_passes_close_notify_on_both_ways() {
    let (listener, port) = listener();
    let far = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut asked = Vec::new();
        socket.read_to_end(&mut asked).expect("an end");
        socket.write_all(&vec![7; 1_000_000]).expect("half open");
        asked
    });
    let bench = Bench::start(port);
    let answer = bench.runtime.block_on(async {
        let mut stream = bench.tls(&[]).await;
        let connect = format!("CONNECT {RAW}:{port} HTTP/1.1\r\nHost: {RAW}\r\n\r\nquestion");
        stream.write_all(connect.as_bytes()).await.expect("open");
        stream.shutdown().await.expect("open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("close_notify");
        answer
    });
    assert_eq!(far.join().expect("an origin"), b"question");
    let head = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .expect("a head");
    assert!(answer[head + 4..] == vec![7; 1_000_000], "{}", answer.len());
}

#[test]
fn no_session_is_resumed_after_a_reload() {
    use rustls::HandshakeKind::{Full, Resumed};
    let bench = Bench::start(9);
    let client = bench.pki.trusting();
    let mut kinds = Vec::new();
    for reload in [false, false, true] {
        if reload {
            bench.gate.replace("unrelated", "");
        }
        let kind = bench.runtime.block_on(async {
            let mut stream = bench.tls_as(client.clone(), &[b"http/1.1"]).await;
            let kind = stream.get_ref().1.handshake_kind();
            let ask = format!(
                "GET http://{HOST}:1/ HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(ask.as_bytes()).await.expect("open");
            stream
                .read_to_end(&mut Vec::new())
                .await
                .expect("close_notify");
            kind
        });
        kinds.push(kind);
    }
    assert_eq!(kinds, [Some(Full), Some(Resumed), Some(Full)]);
}

#[test]
fn streams_are_flows_of_their_own() {
    let bench = Bench::start(9);
    let client = bench.connect();
    let url = |host: &str, port: u16| format!("http://{host}:{port}/hello");
    let (good, _) = bench.ask(&client, "GET", &url(HOST, bench.origin.port()), true);
    assert_eq!(good.status(), 200);
    let body = bench.all(good.into_body()).expect("whole");
    assert!(String::from_utf8_lossy(&body).contains("/hello"));
    let (no, _) = bench.ask(&client, "CONNECT", "evil.example.org:443", false);
    assert_eq!(no.status(), 403);
    assert_eq!(no.headers()["x-deny-reason"], "host_not_allowed");
    let flow = no.headers()["x-tidegate-flow"]
        .to_str()
        .expect("ASCII")
        .to_owned();
    let body = bench.all(no.into_body()).expect("whole");
    assert!(String::from_utf8_lossy(&body).contains("\"error\":\"not_allowed\""));
    assert_eq!(bench.gate.decision(&flow).reason(), "not_allowed");
    let (tls, _) = bench.ask(&client, "GET", "https://files.example.net/", true);
    assert_eq!(tls.status(), 400);
    let (again, _) = bench.ask(&client, "GET", &url(HOST, bench.origin.port()), true);
    assert_eq!(again.status(), 200);
}

#[test]
fn a_body_without_a_length_goes_on_in_chunks() {
    let bench = Bench::start(9);
    let client = bench.connect();
    let url = format!("http://{HOST}:{}/upload", bench.origin.port());
    let request = http::Request::post(url).body(()).expect("a request");
    let answer = bench.runtime.block_on(async {
        let mut client = client.clone().ready().await.expect("a connection");
        let (answer, mut send) = client.send_request(request, false).expect("a stream");
        send.send_data(Bytes::from_static(b"hello "), false)
            .expect("open");
        send.send_data(Bytes::from_static(b"world"), true)
            .expect("open");
        answer.await.expect("an answer")
    });
    assert_eq!(answer.status(), 200);
    assert_eq!(bench.origin.last().text(), "hello world");
}

#[test]
fn an_end_of_a_tunnel_by_one_side_reaches_the_other_side() {
    let (listener, port) = listener();
    let bench = Bench::start(port);
    let client = bench.connect();
    let target = format!("{RAW}:{port}");
    let (answer, _send) = bench.ask(&client, "CONNECT", &target, false);
    let (socket, _) = listener.accept().expect("a connection");
    rustix::net::sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO))
        .expect("a socket");
    drop(socket);
    let broken = bench.all(answer.into_body()).expect_err("a reset");
    assert_eq!(broken.reason(), Some(h2::Reason::CONNECT_ERROR));

    let (_answer, mut send) = bench.ask(&client, "CONNECT", &target, false);
    let (mut socket, _) = listener.accept().expect("a connection");
    send.send_reset(h2::Reason::CANCEL);
    let ended = socket.read(&mut [0]);
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    until("both are over", || {
        bench
            .gate
            .records()
            .iter()
            .filter(|line| line.is_close())
            .count()
            == 2
    });
}

#[test]
fn connections_that_open_no_stream_keep_no_other_client_out() {
    let bench = Bench::with(1, "[limits]\nflows = 16\n");
    let uri = format!("http://{HOST}:{}/", bench.origin.port());
    // The first has a stream that goes on, so it is not ended, although it is the oldest.
    let busy = bench.connect();
    let target = format!("{HOST}:{}", bench.origin.port());
    let (opened, _tunnel) = bench.ask(&busy, "CONNECT", &target, false);
    assert_eq!(opened.status(), 200);
    let held: Vec<_> = (0..40).map(|_| bench.connect()).collect();
    let (answer, _) = bench.ask(&bench.connect(), "GET", &uri, true);
    assert_eq!(answer.status(), 200);
    let metrics = bench.gate.metrics();
    assert!(metrics.sum("tidegate_connections_evicted_total", &[]) >= 16.0);
    let (again, _) = bench.ask(&busy, "GET", &uri, true);
    assert_eq!(again.status(), 200);
    drop(held);
}
