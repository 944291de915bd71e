//! The client, and the ways that it takes to an origin.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::Request;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Authority, trusting};
use crate::origin::{DIGITS, END, now};

/// A call that the listed servers allow.
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"question":"why"}}}"#;

/// From the client to an origin.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    host: String,
    port: u16,
    between: Between,
    http2: bool,
    tools: bool,
}

/// What is between client and origin.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Between {
    Nothing,
    Tunnel,
    Inspection,
}

impl Way {
    pub(crate) fn direct(name: &'static str, host: &str, port: u16) -> Self {
        Self {
            name,
            host: host.to_owned(),
            port,
            between: Between::Nothing,
            http2: false,
            tools: false,
        }
    }

    pub(crate) fn tunnel(name: &'static str, host: &str, port: u16) -> Self {
        Self {
            between: Between::Tunnel,
            ..Self::direct(name, host, port)
        }
    }

    pub(crate) fn inspected(name: &'static str, host: &str, port: u16) -> Self {
        Self {
            between: Between::Inspection,
            ..Self::tunnel(name, host, port)
        }
    }

    /// The client offers HTTP/2 and nothing else.
    pub(crate) fn with_http2(self) -> Self {
        Self {
            http2: true,
            ..self
        }
    }

    /// Events are asked for with a call of a tool.
    pub(crate) fn with_tools(self) -> Self {
        Self {
            tools: true,
            ..self
        }
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A client that has one connection at a time.
pub(crate) struct Client {
    runtime: Runtime,
    proxy: SocketAddr,
    /// By whether it is inspected, and whether it is HTTP/2: each trusts one authority alone, so
    /// that who is at the other end is who is meant.
    configs: [[Arc<ClientConfig>; 2]; 2],
}

impl Client {
    pub(crate) fn new(origins: &Authority, inspecting: &Authority, proxy: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let config = |authority| {
            [&b"http/1.1"[..], b"h2"].map(|protocol| Arc::new(trusting(authority, protocol)))
        };
        Self {
            runtime,
            proxy,
            configs: [config(origins), config(inspecting)],
        }
    }

    /// How long each event of a stream was on its way.
    pub(crate) fn events(&self, way: &Way) -> Vec<Duration> {
        self.runtime.block_on(async {
            let mut events = Events::default();
            let stream = self.open(way).await;
            if way.http2 {
                let mut send = http2(stream).await;
                let mut body = ask2(&mut send, way, events_of(way)).await;
                while let Some(data) = body.data().await {
                    let data = data.expect("data");
                    events.take(&data);
                    let _ = body.flow_control().release_capacity(data.len());
                }
            } else {
                let mut stream = stream;
                ask1(&mut stream, way, events_of(way)).await;
                let mut piece = vec![0; 64 * 1024];
                while !events.is_over() {
                    let length = stream.read(&mut piece).await.expect("more");
                    assert!(length > 0, "{}: closed", way.name);
                    events.take(&piece[..length]);
                }
            }
            events.times
        })
    }

    /// How many requests one connection carries in that time, one after the other.
    pub(crate) fn requests(&self, way: &Way, during: Duration) -> u32 {
        self.runtime.block_on(async {
            let mut stream = self.open(way).await;
            let (began, mut count) = (Instant::now(), 0);
            if way.http2 {
                let mut send = http2(stream).await;
                while began.elapsed() < during {
                    let mut body = ask2(&mut send, way, "/").await;
                    while let Some(data) = body.data().await {
                        let length = data.expect("data").len();
                        let _ = body.flow_control().release_capacity(length);
                    }
                    count += 1;
                }
            } else {
                while began.elapsed() < during {
                    ask1(&mut stream, way, "/").await;
                    short_answer(&mut stream).await;
                    count += 1;
                }
            }
            count
        })
    }

    /// From dialling to the answer to a first request.
    pub(crate) fn first_byte(&self, way: &Way) -> Duration {
        self.runtime.block_on(async {
            let began = Instant::now();
            let mut stream = self.open(way).await;
            ask1(&mut stream, way, "/").await;
            short_answer(&mut stream).await;
            began.elapsed()
        })
    }

    /// TLS with the origin, or with the gate in its name.
    async fn open(&self, way: &Way) -> TlsStream<TcpStream> {
        let through_gate = way.between != Between::Nothing;
        let direct = SocketAddr::from((Ipv4Addr::LOCALHOST, way.port));
        let peer = if through_gate { self.proxy } else { direct };
        let mut socket = TcpStream::connect(peer).await.expect("a listener");
        socket.set_nodelay(true).expect("a socket");
        if through_gate {
            tunnel(&mut socket, &way.authority()).await;
        }
        let inspected = way.between == Between::Inspection;
        let config = &self.configs[usize::from(inspected)][usize::from(way.http2)];
        let name = ServerName::try_from(way.host.clone()).expect("a name");
        let connector = TlsConnector::from(config.clone());
        connector.connect(name, socket).await.expect("TLS")
    }
}

/// The events of a stream so far.
#[derive(Default)]
struct Events {
    held: Vec<u8>,
    times: Vec<Duration>,
}

impl Events {
    /// Whether the last chunk has come.
    fn is_over(&self) -> bool {
        self.held.ends_with(b"0\r\n\r\n")
    }

    /// Takes what came just now.
    fn take(&mut self, piece: &[u8]) {
        let now = now();
        self.held.extend_from_slice(piece);
        let end = END.as_bytes();
        while let Some(at) = self.held.windows(end.len()).position(|it| it == end) {
            let digits = str::from_utf8(&self.held[at - DIGITS..at]).expect("digits");
            let left: u64 = digits.parse().expect("a time");
            self.times.push(Duration::from_nanos(now - left));
            self.held.drain(..at + end.len());
        }
    }
}

fn events_of(way: &Way) -> &'static str {
    if way.tools { "/mcp" } else { "/events" }
}

async fn tunnel(socket: &mut TcpStream, authority: &str) {
    let connect = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    socket.write_all(connect.as_bytes()).await.expect("open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let more = socket.read_buf(&mut head).await.expect("an answer");
        assert!(more > 0, "closed: {}", String::from_utf8_lossy(&head));
    }
    let text = String::from_utf8_lossy(&head);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

async fn ask1(stream: &mut TlsStream<TcpStream>, way: &Way, path: &str) {
    let host = way.authority();
    let request = if way.tools {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{CALL}",
            CALL.len()
        )
    } else {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    };
    stream.write_all(request.as_bytes()).await.expect("open");
    stream.flush().await.expect("open");
}

async fn short_answer(stream: &mut TlsStream<TcpStream>) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let more = stream.read_buf(&mut answer).await.expect("an answer");
        assert!(more > 0, "closed: {}", String::from_utf8_lossy(&answer));
    }
}

async fn http2(stream: TlsStream<TcpStream>) -> SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

async fn ask2(send: &mut SendRequest<Bytes>, way: &Way, path: &str) -> RecvStream {
    let uri = format!("https://{}{path}", way.authority());
    let method = if way.tools { "POST" } else { "GET" };
    let mut request = Request::builder().method(method).uri(uri);
    if way.tools {
        request = request
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
    }
    let request = request.body(()).expect("a request");
    *send = send.clone().ready().await.expect("a connection");
    let (answer, mut body) = send.send_request(request, !way.tools).expect("a stream");
    if way.tools {
        body.send_data(Bytes::from_static(CALL.as_bytes()), true)
            .expect("open");
    }
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.status(), 200, "{}", way.name);
    answer.into_body()
}
