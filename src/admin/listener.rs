//! The listeners of the admin interface: TCP, TLS or a Unix socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::sleep;

use crate::tls::ServerStream;

/// The pause after a failed accept; the usual cause is a lack of descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A listener of the admin interface.
#[derive(Debug)]
pub enum AdminListener {
    /// TCP; keep it on loopback.
    Tcp(TcpListener),
    /// TCP with TLS, for other hosts.
    Tls(TcpListener),
    /// A socket in the file system.
    Unix(UnixListener),
}

/// The process or host at the other end of a connection.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Peer {
    /// The client of a TCP connection.
    pub(super) address: Option<IpAddr>,
    /// The user of a process that connected to a Unix socket (`SO_PEERCRED`).
    pub(super) uid: Option<u32>,
    /// The process that connected to a Unix socket.
    pub(super) pid: Option<u32>,
}

impl Peer {
    fn of_unix(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        let pid = credentials.and_then(|credentials| credentials.pid());
        Self {
            address: None,
            uid: credentials.map(|credentials| credentials.uid()),
            pid: pid.and_then(|pid| u32::try_from(pid).ok()),
        }
    }

    fn of_tcp(address: IpAddr) -> Self {
        Self {
            address: Some(address.to_canonical()),
            ..Self::default()
        }
    }
}

impl AdminListener {
    /// Accepts the next connection; after a failure, waits and tries again.
    pub(super) async fn accept(&mut self) -> (Connection, Peer) {
        loop {
            let accepted = match self {
                Self::Tcp(listener) | Self::Tls(listener) => listener
                    .accept()
                    .await
                    .map(|(stream, from)| (Connection::Tcp(stream), Peer::of_tcp(from.ip()))),
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                    let peer = Peer::of_unix(&stream);
                    (Connection::Unix(stream), peer)
                }),
            };
            match accepted {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!(%error, "an admin connection was not accepted");
                    sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub(super) enum Connection {
    Tcp(TcpStream),
    Tls(Box<ServerStream>),
    Unix(UnixStream),
}

/// The two addresses of a TCP connection, to find its process; `None` for a Unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends(pub(super) Option<(SocketAddr, SocketAddr)>);

impl Connection {
    /// The two addresses of the connection.
    pub(super) fn ends(&self) -> Ends {
        let Self::Tcp(stream) = self else {
            return Ends(None);
        };
        Ends(stream.peer_addr().ok().zip(stream.local_addr().ok()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
