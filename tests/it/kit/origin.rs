//! Servers on loopback that remember everything that reached them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Message, Pki, Reader, Wire, until};

/// A server on loopback; its threads end with the test process.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

/// What reached an origin.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    requests: Vec<Message>,
    bytes: Vec<u8>,
}

/// A connection to an origin, from the origin's side.
pub(crate) struct Visit {
    /// The stream, TLS taken off where there is any.
    pub(crate) wire: Wire,
    reader: Reader,
    seen: Arc<Mutex<Seen>>,
}

impl Origin {
    /// Answers each request 200 with what it saw of it: method, target, fields, body.
    pub(crate) fn echo() -> Self {
        Self::http(Visit::echo)
    }

    /// As [`Self::echo`], over TLS with a certificate for these names.
    pub(crate) fn tls(pki: &Pki, names: &[&str]) -> Self {
        Self::https(pki, names, Visit::echo)
    }

    /// Answers each request of kept-alive connections with `answer`; an error closes.
    pub(crate) fn http<F>(answer: F) -> Self
    where
        F: Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::serve(None, move |visit| visit.requests(&answer))
    }

    /// As [`Self::http`], over TLS.
    pub(crate) fn https<F>(pki: &Pki, names: &[&str], answer: F) -> Self
    where
        F: Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::serve(Some(pki.server(names)), move |visit| {
            visit.requests(&answer)
        })
    }

    /// As [`Self::http`], over TLS as it says.
    pub(crate) fn https_with<F>(config: Arc<ServerConfig>, answer: F) -> Self
    where
        F: Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::serve(Some(config), move |visit| visit.requests(&answer))
    }

    /// As [`Self::echo`], over TLS as `config` says.
    pub(crate) fn tls_as(config: ServerConfig) -> Self {
        Self::serve(Some(Arc::new(config)), |visit| visit.requests(&Visit::echo))
    }

    /// Gives each connection to `carry`, bytes as they are.
    pub(crate) fn raw<F>(carry: F) -> Self
    where
        F: Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::serve(None, carry)
    }

    /// Gives each connection to `carry`, over TLS with a certificate for these names.
    pub(crate) fn raw_tls<F>(pki: &Pki, names: &[&str], carry: F) -> Self
    where
        F: Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::serve(Some(pki.server(names)), carry)
    }

    /// Sends every byte back, and the end as well.
    pub(crate) fn bytes() -> Self {
        Self::raw(|visit| {
            let mut some = vec![0; 64 * 1024];
            loop {
                let count = visit.wire.read(&mut some)?;
                visit.note(&some[..count]);
                if count == 0 {
                    visit.wire.half_close();
                    return Ok(());
                }
                visit.wire.write_all(&some[..count])?;
            }
        })
    }

    /// As [`Self::http`], on a listener that the test made.
    pub(crate) fn http_on<F>(listener: TcpListener, answer: F) -> Self
    where
        F: Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::on(listener, None, move |visit| visit.requests(&answer))
    }

    /// As [`Self::raw`], on a listener that the test made.
    pub(crate) fn raw_on<F>(listener: TcpListener, carry: F) -> Self
    where
        F: Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static,
    {
        Self::on(listener, None, carry)
    }

    /// An address on which nobody listens.
    pub(crate) fn nobody() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        listener.local_addr().expect("an address")
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections reached it.
    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().expect("seen").connections
    }

    /// The requests that reached it, in order.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.seen.lock().expect("seen").requests.clone()
    }

    /// The last request that reached it.
    pub(crate) fn last(&self) -> Message {
        self.requests().pop().expect("a request")
    }

    /// The raw bytes that reached it ([`Self::bytes`] and origins that note them).
    pub(crate) fn received(&self) -> Vec<u8> {
        self.seen.lock().expect("seen").bytes.clone()
    }

    /// Method and target of each request that reached it, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        let line = |request: &Message| format!("{} {}", request.method(), request.target());
        self.requests().iter().map(line).collect()
    }

    /// Waits until so many raw bytes reached it.
    pub(crate) fn received_at_least(&self, count: usize) -> Vec<u8> {
        until("bytes at the origin", || self.received().len() >= count);
        self.received()
    }

    /// Nothing reached it: no request, no byte, no connection.
    ///
    /// The caller has an answer of the proxy, and the proxy answers a refusal last.
    #[track_caller]
    pub(crate) fn saw_nothing(&self) {
        let seen = self.seen.lock().expect("seen");
        assert!(
            seen.connections == 0 && seen.requests.is_empty(),
            "the origin saw {seen:?}"
        );
    }

    fn serve<F>(tls: Option<Arc<ServerConfig>>, carry: F) -> Self
    where
        F: Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        Self::on(listener, tls, carry)
    }

    fn on<F>(listener: TcpListener, tls: Option<Arc<ServerConfig>>, carry: F) -> Self
    where
        F: Fn(&mut Visit) -> io::Result<()> + Send + Sync + 'static,
    {
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (carry, shared) = (Arc::new(carry), seen.clone());
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let mut visit = Visit::begin(socket, tls.as_ref(), &shared);
                let carry = carry.clone();
                // A client that leaves early is what many tests are about.
                thread::spawn(move || drop(carry(&mut visit)));
            }
        });
        Self { address, seen }
    }
}

impl Visit {
    fn begin(socket: TcpStream, tls: Option<&Arc<ServerConfig>>, seen: &Arc<Mutex<Seen>>) -> Self {
        seen.lock().expect("seen").connections += 1;
        let mut wire = Wire::plain(socket);
        if let (Some(config), Wire::Tcp(socket)) = (tls, &wire) {
            let connection = ServerConnection::new(config.clone()).expect("a server");
            let socket = socket.try_clone().expect("a socket");
            wire = Wire::TlsServer(Box::new(StreamOwned::new(connection, socket)));
        }
        Self {
            wire,
            reader: Reader::default(),
            seen: seen.clone(),
        }
    }

    /// Remembers raw bytes.
    pub(crate) fn note(&self, bytes: &[u8]) {
        self.seen
            .lock()
            .expect("seen")
            .bytes
            .extend_from_slice(bytes);
    }

    /// Reads a request head and leaves its body; `None` at the end.
    pub(crate) fn head(&mut self) -> io::Result<Option<Message>> {
        self.reader.head(&mut self.wire)
    }

    /// Reads exactly so many bytes after what was read.
    pub(crate) fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.reader.exactly(&mut self.wire, count)
    }

    /// Remembers a request that the origin read by itself.
    pub(crate) fn remember(&self, request: &Message) {
        self.seen
            .lock()
            .expect("seen")
            .requests
            .push(request.clone());
    }

    /// Writes bytes at once.
    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.write_all(bytes.as_ref())?;
        self.wire.flush()
    }

    /// Answers with a status line, one field and a body with its length.
    pub(crate) fn answer(&mut self, status: &str, kind: &str, body: &[u8]) -> io::Result<()> {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        self.say([head.as_bytes(), body].concat())
    }

    /// Answers 200 with what the request said.
    pub(crate) fn echo(&mut self, request: &Message) -> io::Result<()> {
        let fields: Vec<_> = request
            .fields
            .iter()
            .map(|(name, value)| [name, value])
            .collect();
        let body = serde_json::json!({
            "method": request.method(),
            "target": request.target(),
            "fields": fields,
            "body": request.text(),
        });
        let body = body.to_string();
        let body = if request.method() == "HEAD" {
            ""
        } else {
            body.as_str()
        };
        self.answer("200 OK", "application/json", body.as_bytes())
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(&mut self) {
        let linger = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(self.wire.socket())
            .set_linger(linger)
            .expect("linger");
    }

    pub(crate) fn requests<F>(&mut self, answer: &F) -> io::Result<()>
    where
        F: Fn(&mut Self, &Message) -> io::Result<()>,
    {
        while let Some(mut request) = self.reader.head(&mut self.wire)? {
            if request.field("expect").is_some() {
                self.say("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            self.reader.request_body(&mut self.wire, &mut request)?;
            self.remember(&request);
            answer(self, &request)?;
            let closes = request
                .all("connection")
                .iter()
                .any(|value| value.contains("close"));
            if closes {
                self.wire.half_close();
                return Ok(());
            }
        }
        Ok(())
    }
}
