//! One connection to the database. The statement that waits for an answer drives the connection, so that
//! no task runs beside it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Connection, Error, NoTls};

use crate::config::{Database, DatabaseServer};
use crate::dial::{Resolver, dial_service};
use crate::name::Host;
use crate::tls::{self, ClientStream};

/// Bytes of the answers to one statement, at most: more than [`MAX_BATCH`] entries have. A row that
/// another role wrote may be longer.
///
/// [`MAX_BATCH`]: crate::ledger::MAX_BATCH
const MAX_ANSWERS: u64 = 64 << 20;

/// Polls the connection, and returns the next message that is not an answer to a statement.
type Drive = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>> + Send>;

/// One connection.
pub(super) struct Session {
    client: Client,
    drive: Drive,
    /// Bytes that may still be read.
    left: Arc<AtomicU64>,
    /// Whether a notification arrived since the last check.
    is_told: bool,
}

/// The error of a failed connection attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The password cannot be read.
    #[error("cannot read the password: {0}")]
    Password(String),
    /// The server cannot be reached.
    #[error("cannot reach the database: {0}")]
    Dial(io::Error),
    /// The server refused.
    #[error("{}", said(.0))]
    Refused(Error),
}

impl Session {
    /// Connects: to a Unix socket in the clear, to all else by TLS.
    pub(super) async fn connect(
        database: &Database,
        tls: Option<&tls::Client>,
        resolver: &Resolver,
    ) -> Result<Self, ConnectError> {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&database.user)
            .dbname(&database.name)
            .application_name("tidegate");
        if let Some(password) = database.password() {
            config.password(password.map_err(ConnectError::Password)?);
        }
        match &database.server {
            DatabaseServer::Socket(folder) => {
                config.ssl_mode(SslMode::Disable);
                let path = folder.join(format!(".s.PGSQL.{}", database.port));
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(ConnectError::Dial)?;
                let (stream, left) = Bounded::new(stream);
                let connected = config.connect_raw(stream, NoTls).await;
                let connected = connected.map_err(ConnectError::Refused)?;
                Ok(Self::of(connected, left))
            }
            DatabaseServer::Host(host) => {
                config.ssl_mode(SslMode::Require);
                let stream = dial_service(resolver, host, database.port).await;
                let stream = stream.map_err(ConnectError::Dial)?;
                let tls = tls.cloned().ok_or_else(|| {
                    ConnectError::Dial(io::Error::other("no root certificate is known"))
                })?;
                let host = host.clone();
                let (stream, left) = Bounded::new(stream);
                let connected = config.connect_raw(stream, Tls { tls, host }).await;
                let connected = connected.map_err(ConnectError::Refused)?;
                Ok(Self::of(connected, left))
            }
        }
    }

    fn of<S, T>((client, mut connection): (Client, Connection<S, T>), left: Arc<AtomicU64>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self {
            client,
            drive: Box::new(move |cx| connection.poll_message(cx)),
            left,
            is_told: false,
        }
    }

    /// Runs a statement to its end.
    pub(super) async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Self {
            client,
            drive,
            left,
            is_told,
        } = self;
        left.store(MAX_ANSWERS, Ordering::Relaxed);
        let mut statement = pin!(statement(client));
        poll_fn(|cx| {
            // Sends the queued statement, and delivers its answer.
            if let Poll::Ready(done) = statement.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            match poll_told(drive, is_told, cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                // The connection ended: the statement returns that error.
                Poll::Ready(Ok(())) | Poll::Pending => statement.as_mut().poll(cx),
            }
        })
        .await
    }

    /// Whether the connection is open. Does not wait.
    pub(super) async fn is_open(&mut self) -> bool {
        let Self { drive, is_told, .. } = self;
        poll_fn(|cx| Poll::Ready(poll_told(drive, is_told, cx).is_pending())).await
    }

    /// Waits for the next notification.
    pub(super) async fn told(&mut self) -> Result<(), Error> {
        let Self {
            drive,
            left,
            is_told,
            ..
        } = self;
        left.store(MAX_ANSWERS, Ordering::Relaxed);
        poll_fn(|cx| {
            let ended = poll_told(drive, is_told, cx);
            if std::mem::take(is_told) {
                return Poll::Ready(Ok(()));
            }
            ended
        })
        .await
    }
}

/// Drives the connection; ready if the connection ended.
fn poll_told(
    drive: &mut Drive,
    is_told: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    loop {
        match drive(cx) {
            Poll::Ready(Some(Ok(AsyncMessage::Notification(_)))) => *is_told = true,
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// The text of an error: the server's message, if there is one.
pub(super) fn said(error: &Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

/// A stream of which a bounded number of bytes can be read: the database cannot fill the memory.
struct Bounded<S> {
    stream: S,
    left: Arc<AtomicU64>,
}

impl<S> Bounded<S> {
    fn new(stream: S) -> (Self, Arc<AtomicU64>) {
        let left = Arc::new(AtomicU64::new(MAX_ANSWERS));
        let bounded = Self {
            stream,
            left: left.clone(),
        };
        (bounded, left)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = (buffer.filled().len() - before) as u64;
        let left = self.left.load(Ordering::Relaxed);
        if count > left {
            let why = format!("the answer is longer than {MAX_ANSWERS} bytes");
            return Poll::Ready(Err(io::Error::other(why)));
        }
        self.left.store(left - count, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// TLS with the server of that name.
struct Tls {
    tls: tls::Client,
    host: Host,
}

impl TlsConnect<Bounded<TcpStream>> for Tls {
    type Stream = ClientStream<Bounded<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Stream>> + Send>>;

    fn connect(self, stream: Bounded<TcpStream>) -> Self::Future {
        Box::pin(async move {
            let name = match &self.host {
                Host::Address(address) => address.to_string(),
                Host::Name(name) => name.as_str().to_owned(),
            };
            self.tls.enter(&name, stream).await
        })
    }
}

impl TlsStream for ClientStream<Bounded<TcpStream>> {
    /// The certificate was verified; SCRAM is not bound to it besides.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
