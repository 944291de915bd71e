//! A client that writes exactly the bytes a test says.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use super::{Message, Pki, Reader, Wire};

/// One connection to the proxy.
#[derive(Debug)]
pub(crate) struct Client {
    wire: Wire,
    reader: Reader,
    credentials: Option<String>,
}

impl Client {
    /// Connects.
    pub(crate) fn dial(address: SocketAddr) -> Self {
        Self {
            wire: Wire::dial(address),
            reader: Reader::default(),
            credentials: None,
        }
    }

    /// Connects from an address of this host.
    pub(crate) fn dial_from(own: [u8; 4], address: SocketAddr) -> Self {
        Self {
            wire: Wire::dial_from(own, address),
            reader: Reader::default(),
            credentials: None,
        }
    }

    /// Says who it is in every request that it composes.
    #[must_use]
    pub(crate) fn known_as(mut self, user: &str, secret: &str) -> Self {
        use base64::Engine as _;
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{secret}"));
        self.credentials = Some(format!("Proxy-Authorization: Basic {both}\r\n"));
        self
    }

    /// Asks for a tunnel and reads the answer.
    pub(crate) fn connect(&mut self, target: &str) -> Message {
        let credentials = self.credentials.clone().unwrap_or_default();
        self.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credentials}\r\n"
        ));
        self.answer("CONNECT")
    }

    /// Asks for a tunnel that must open.
    #[track_caller]
    pub(crate) fn tunnel(&mut self, target: &str) -> &mut Self {
        let answer = self.connect(target);
        assert_eq!(answer.status(), 200, "{target}: {answer:?}");
        self
    }

    /// Asks for a URL in absolute form, without a body, and reads the answer.
    pub(crate) fn get(&mut self, url: &str) -> Message {
        self.request("GET", url, "", "")
    }

    /// Asks for a URL in absolute form with more fields (each with its line end) and a body.
    pub(crate) fn request(&mut self, method: &str, url: &str, fields: &str, body: &str) -> Message {
        let host = url.split('/').nth(2).unwrap_or_default();
        let credentials = self.credentials.clone().unwrap_or_default();
        self.send(format!(
            "{method} {url} HTTP/1.1\r\nHost: {host}\r\n{credentials}{fields}\r\n{body}"
        ));
        self.answer(method)
    }

    /// Writes bytes at once; a proxy that has closed already is not an error here.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.write_all(bytes.as_ref());
        let _ = self.wire.flush();
    }

    /// Writes each byte in a segment of its own.
    pub(crate) fn dribble(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send([*byte]);
        }
    }

    /// Reads an answer to a request of that method.
    #[track_caller]
    pub(crate) fn answer(&mut self, method: &str) -> Message {
        self.try_answer(method)
            .unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// Reads an answer, or says how the connection ended instead.
    pub(crate) fn try_answer(&mut self, method: &str) -> io::Result<Message> {
        self.reader.answer(&mut self.wire, method)
    }

    /// Reads the head of an answer alone.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Message {
        self.reader
            .head(&mut self.wire)
            .expect("a head")
            .expect("an answer")
    }

    /// Reads exactly so many bytes.
    #[track_caller]
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.reader.exactly(&mut self.wire, count).expect("bytes")
    }

    /// Reads one chunk of a chunked body.
    #[track_caller]
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        self.reader.chunk(&mut self.wire).expect("a chunk")
    }

    /// Reads to the end of the stream.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.reader.rest(&mut self.wire)
    }

    /// The proxy says nothing more and closes (a reset counts).
    #[track_caller]
    pub(crate) fn is_closed(&mut self) {
        let rest = self.reader.held();
        assert!(
            rest.is_empty(),
            "more came: {:?}",
            String::from_utf8_lossy(&rest)
        );
        let mut byte = [0];
        match self.wire.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("more came, beginning with {byte:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
    }

    /// Nothing is there to read for a little while. (Says nothing about later.)
    pub(crate) fn is_silent_for(&mut self, time: std::time::Duration) -> bool {
        self.wire
            .socket()
            .set_read_timeout(Some(time))
            .expect("a read timeout");
        let silent = self.wire.socket().peek(&mut [0]).is_err();
        self.wire
            .socket()
            .set_read_timeout(Some(super::DEADLINE))
            .expect("a read timeout");
        silent
    }

    /// Whether the other side has ended the connection by now.
    pub(crate) fn was_closed(&mut self) -> bool {
        let mut byte = [0];
        let socket = self.wire.socket();
        socket.set_nonblocking(true).expect("a socket");
        let ended = match socket.peek(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        socket.set_nonblocking(false).expect("a socket");
        ended
    }

    /// Says that nothing more will be written.
    pub(crate) fn half_close(&mut self) {
        self.wire.half_close();
    }

    /// Ends with a reset.
    pub(crate) fn reset(self) {
        self.wire.reset();
    }

    /// Goes on with TLS inside the tunnel, asking for `name`.
    pub(crate) fn enter(self, pki: &Pki, name: &str) -> Self {
        Self {
            wire: pki.enter(self.wire, name),
            ..self
        }
    }

    /// The certificates that the other side of the TLS showed, the leaf first.
    pub(crate) fn certificates(&self) -> Vec<Vec<u8>> {
        let Wire::TlsClient(stream) = &self.wire else {
            panic!("no TLS")
        };
        let chain = stream.conn.peer_certificates().unwrap_or_default();
        chain.iter().map(|it| it.to_vec()).collect()
    }

    /// A request in origin form, for inside a tunnel.
    pub(crate) fn inside(&mut self, method: &str, host: &str, path: &str) -> Message {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.answer(method)
    }
}
