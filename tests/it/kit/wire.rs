//! A blocking byte stream, plain or TLS, that never hangs a test.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustls::{ClientConnection, ServerConnection, StreamOwned};

use super::DEADLINE;

/// One end of a connection.
#[derive(Debug)]
pub(crate) enum Wire {
    /// Bytes as they are.
    Tcp(TcpStream),
    /// TLS as its client.
    TlsClient(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// TLS as its server.
    TlsServer(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    /// Connects; every read and write then has the test's deadline.
    pub(crate) fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("a connection");
        Self::plain(stream)
    }

    /// As [`Wire::dial`], from an address of this host.
    pub(crate) fn dial_from(own: [u8; 4], address: SocketAddr) -> Self {
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let socket = socket2::Socket::new(domain, kind, None).expect("a socket");
        let own = SocketAddr::from((own, 0));
        socket.bind(&own.into()).expect("an address");
        socket.connect(&address.into()).expect("a connection");
        Self::plain(socket.into())
    }

    /// Takes a socket over.
    pub(crate) fn plain(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a read timeout");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a write timeout");
        stream.set_nodelay(true).expect("no delay");
        Self::Tcp(stream)
    }

    /// The socket beneath.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::TlsClient(stream) => &stream.sock,
            Self::TlsServer(stream) => &stream.sock,
        }
    }

    /// Says that nothing more will be written (for TLS: `close_notify`, then FIN).
    pub(crate) fn half_close(&mut self) {
        match self {
            Self::Tcp(_) => {}
            Self::TlsClient(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
            Self::TlsServer(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// Ends with a reset instead of a FIN.
    pub(crate) fn reset(self) {
        let socket = self.socket().try_clone().expect("a socket");
        socket2::SockRef::from(&socket)
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("linger");
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::TlsClient(stream) => stream.read(into),
            Self::TlsServer(stream) => stream.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(from),
            Self::TlsClient(stream) => stream.write(from),
            Self::TlsServer(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::TlsClient(stream) => stream.flush(),
            Self::TlsServer(stream) => stream.flush(),
        }
    }
}
