//! Origins that send events with the time in them: over HTTP/1.1, and over HTTP/2.

use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authority::Authority;
use crate::{EVENTS, INSPECTED, OPAQUE, PAUSE, TOOLS};

/// The ports of both.
pub(crate) struct Origin {
    pub(crate) http1: u16,
    pub(crate) http2: u16,
}

/// When time begins.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What ends each event.
pub(crate) const END: &str = "}}\n\n";
/// Digits of the time in it.
pub(crate) const DIGITS: usize = 20;

/// Nanoseconds since time began.
pub(crate) fn now() -> u64 {
    u64::try_from(BEGINNING.elapsed().as_nanos()).expect("a short run")
}

/// An event of MCP, about as long as one of a model's; the time comes last, after a 1: no number
/// begins with zeros.
fn event() -> String {
    let text = "the next few words of an answer that is not over yet";
    format!(
        "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\
         \"params\":{{\"level\":\"info\",\"data\":\"{text}\",\"at\":1{:0width$}{END}",
        now(),
        width = DIGITS
    )
}

/// When the next event is due.
async fn pauses() -> Interval {
    let mut pauses = tokio::time::interval(PAUSE);
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pauses.tick().await;
    pauses
}

impl Origin {
    pub(crate) fn start(authority: &Authority) -> Self {
        LazyLock::force(&BEGINNING);
        let serve = |protocol: &'static [u8]| {
            let names = [OPAQUE, INSPECTED, TOOLS, "*.new.example.com"];
            let acceptor = TlsAcceptor::from(Arc::new(authority.server(&names, protocol)));
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
            listener.set_nonblocking(true).expect("a socket");
            let port = listener.local_addr().expect("an address").port();
            thread::spawn(move || run(listener, &acceptor));
            port
        };
        Self {
            http1: serve(b"http/1.1"),
            http2: serve(b"h2"),
        }
    }
}

fn run(listener: std::net::TcpListener, acceptor: &TlsAcceptor) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).expect("a listener");
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            socket.set_nodelay(true).expect("a socket");
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(socket).await.expect("TLS");
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    http2(stream).await;
                } else {
                    // A client that has what it wanted breaks off.
                    let _ = http1(stream).await;
                }
            });
        }
    });
}

async fn http1<S>(stream: TlsStream<S>) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    loop {
        let (mut first, mut length, mut line) = (String::new(), 0, String::new());
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a length");
            }
        }
        stream.read_exact(&mut vec![0; length]).await?;
        if first.starts_with("GET / ") {
            let answer =
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
        } else {
            events1(&mut stream).await?;
        }
    }
}

async fn events1(stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let mut pauses = pauses().await;
    for _ in 0..EVENTS {
        pauses.tick().await;
        let event = event();
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        stream.write_all(chunk.as_bytes()).await?;
        stream.flush().await?;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    stream.flush().await
}

async fn http2<S>(stream: TlsStream<S>)
where
    S: tokio::io::AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(async move {
            // A client that has what it wanted breaks off.
            let _ = answer(request, respond).await;
        });
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let events = request.uri().path() != "/";
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    let kind = if events {
        "text/event-stream"
    } else {
        "text/plain"
    };
    let head = Response::builder().header("content-type", kind);
    let mut send = respond.send_response(head.body(()).expect("a head"), false)?;
    if !events {
        return send.send_data(Bytes::from_static(b"ok"), true);
    }
    let mut pauses = pauses().await;
    for _ in 0..EVENTS {
        pauses.tick().await;
        send.send_data(event().into(), false)?;
    }
    send.send_data(Bytes::new(), true)
}
