//! An origin that speaks HTTP/2 alone: echo, streams with trailers, events, extended CONNECT.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::{Message, socket, until};

/// A server on loopback that speaks HTTP/2; it ends with the test process.
pub(crate) struct Origin2 {
    address: SocketAddr,
    shared: Arc<Shared>,
    events: mpsc::Sender<String>,
}

struct Shared {
    /// Whether new connections offer extended CONNECT; those that are open end when it changes.
    connect: watch::Sender<bool>,
    seen: Mutex<Vec<Message>>,
    connections: Mutex<usize>,
    broken: Mutex<usize>,
    events: tokio::sync::Mutex<mpsc::Receiver<String>>,
}

impl Origin2 {
    /// Serves as `config` says; `connect`: whether WebSocket may come over HTTP/2 (RFC 8441).
    ///
    /// - `/stream` gives each frame of the body back, then trailers, as gRPC does;
    /// - `/events` sends what [`Self::event`] is given, one at a time;
    /// - an extended CONNECT gives every byte back, for `/frames` every WebSocket text, is refused
    ///   for `/refused` and reset after the first bytes for `/reset`;
    /// - everything else answers with what it saw.
    pub(crate) fn start(mut config: ServerConfig, connect: bool) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a socket");
        let (events, receiver) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            connect: watch::Sender::new(connect),
            seen: Mutex::default(),
            connections: Mutex::default(),
            broken: Mutex::default(),
            events: tokio::sync::Mutex::new(receiver),
        });
        let (acceptor, inner) = (TlsAcceptor::from(Arc::new(config)), shared.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(accept(listener, acceptor, inner));
        });
        Self {
            address,
            shared,
            events,
        }
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections reached it.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().expect("connections")
    }

    /// Ends what is open, and offers no extended CONNECT from here on.
    pub(crate) fn withdraw(&self) {
        self.shared.connect.send_replace(false);
    }

    /// How many extended CONNECTs a client broke off.
    pub(crate) fn broken(&self) -> usize {
        *self.shared.broken.lock().expect("broken")
    }

    /// The requests that reached it whole, in order.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.shared.seen.lock().expect("seen").clone()
    }

    /// Waits for the first request for that path.
    pub(crate) fn request(&self, path: &str) -> Message {
        let found = || self.requests().into_iter().find(|it| it.target() == path);
        until("a request at the origin", || found().is_some());
        found().expect("a request")
    }

    /// Lets `/events` send one event.
    pub(crate) fn event(&self, data: &str) {
        let event = format!("data: {data}\n\n");
        self.events.blocking_send(event).expect("an origin");
    }
}

async fn accept(listener: std::net::TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        *shared.connections.lock().expect("connections") += 1;
        tasks.spawn(connection(socket, acceptor.clone(), shared.clone()));
    }
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = acceptor.accept(socket).await else {
        return;
    };
    let mut builder = h2::server::Builder::new();
    let mut connect = shared.connect.subscribe();
    if *connect.borrow_and_update() {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let arrival = tokio::select! {
            arrival = connection.accept() => arrival,
            _ = connect.changed() => return,
        };
        let Some(Ok((request, respond))) = arrival else {
            return;
        };
        let shared = shared.clone();
        // A client that leaves early is what many tests are about.
        tasks.spawn(async move { drop(answer(request, respond, &shared).await) });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let mut message = Message {
        start: format!("{} {} HTTP/2", request.method(), request.uri().path()),
        fields: fields(request.headers()),
        ..Message::default()
    };
    let authority = request.uri().authority().map(ToString::to_string);
    let pseudo = (":authority".to_owned(), authority.unwrap_or_default());
    message.fields.push(pseudo);
    let extended = request.extensions().get::<h2::ext::Protocol>().cloned();
    if let Some(protocol) = &extended {
        let pseudo = (":protocol".to_owned(), protocol.as_str().to_owned());
        message.fields.push(pseudo);
    }
    let mut body = request.into_body();
    if extended.is_some() {
        shared.seen.lock().expect("seen").push(message.clone());
        let ended = connected(body, respond, message.target()).await;
        *shared.broken.lock().expect("broken") += usize::from(ended.is_err());
        return ended;
    }
    if message.target() == "/stream" {
        shared.seen.lock().expect("seen").push(message);
        let mut send = respond.send_response(Response::new(()), false)?;
        return give_back(body, &mut send).await;
    }
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.body.extend_from_slice(&data);
    }
    if let Some(trailers) = body.trailers().await? {
        message.trailers = fields(&trailers);
    }
    shared.seen.lock().expect("seen").push(message.clone());
    if message.target() == "/events" {
        let head = Response::builder().header("content-type", "text/event-stream");
        let mut send = respond.send_response(head.body(()).expect("a head"), false)?;
        while let Some(event) = shared.events.lock().await.recv().await {
            send.send_data(event.into(), false)?;
        }
        return send.send_data(Bytes::new(), true);
    }
    let said = serde_json::json!({
        "method": message.method(), "target": message.target(),
        "fields": message.fields, "body": message.text(),
    });
    let head = Response::builder().header("content-type", "application/json");
    let mut send = respond.send_response(head.body(()).expect("a head"), false)?;
    send.send_data(said.to_string().into(), true)
}

/// Answers an extended CONNECT.
async fn connected(
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    path: &str,
) -> Result<(), h2::Error> {
    if path == "/refused" {
        let refused = Response::builder()
            .status(403)
            .header("x-why", "no sockets");
        let mut send = respond.send_response(refused.body(()).expect("a head"), false)?;
        return send.send_data("not here".into(), true);
    }
    let agreed = match path {
        // A browser takes no protocol that it did not name.
        "/frames" => Response::builder(),
        _ => Response::builder().header("sec-websocket-protocol", "chat"),
    };
    let mut send = respond.send_response(agreed.body(()).expect("a head"), false)?;
    if path != "/frames" && path != "/reset" {
        return give_back(body, &mut send).await;
    }
    let mut came = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        if path == "/reset" {
            send.send_reset(h2::Reason::CANCEL);
            return Ok(());
        }
        came.extend_from_slice(&data);
        while let Some((answer, last)) = socket::reply(&mut came) {
            send.send_data(answer.into(), last)?;
        }
    }
    Ok(())
}

async fn give_back(mut body: RecvStream, send: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        send.send_data(data, false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    send.send_trailers(trailers)
}

fn fields(all: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    all.iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}
