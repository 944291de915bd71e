//! The server that requests are for: 2 bytes, or as many as the client reads.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use anyhow::{Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates;

/// Where it speaks plain HTTP.
pub const PLAIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 18000));
/// Where it speaks HTTPS.
pub const TLS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 18001));
/// Where it speaks plain HTTP with tunnels that rest. The kernel looks for a free port by the address that is
/// dialled: to the same address, dialling would cost more with each tunnel.
pub const RESTING: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), 18000));
/// A small answer, whole.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The head of an answer that no client reads to its end.
const BULK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n";

pub async fn serve(place: &Path) -> Result<()> {
    let acceptor = TlsAcceptor::from(certificates::server(place)?);
    let (plain, resting, tls) = (
        TcpListener::bind(PLAIN).await?,
        TcpListener::bind(RESTING).await?,
        TcpListener::bind(TLS).await?,
    );
    loop {
        tokio::select! {
            accepted = plain.accept() => answer_plain(accepted?.0)?,
            accepted = resting.accept() => answer_plain(accepted?.0)?,
            accepted = tls.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                let acceptor = acceptor.clone();
                tokio::task::spawn_local(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        drop(answer(stream).await);
                    }
                });
            }
        }
    }
}

fn answer_plain(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    tokio::task::spawn_local(async move { drop(answer(stream).await) });
    Ok(())
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut head = Vec::with_capacity(1024);
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
            if head.len() > 64 << 10 {
                bail!("the head is too long");
            }
        }
        if head.windows(6).any(|it| it == b"/bulk ") {
            return endless(stream).await;
        }
        stream.write_all(OK).await?;
        stream.flush().await?;
    }
}

async fn endless(mut stream: impl AsyncWrite + Unpin) -> Result<()> {
    stream.write_all(BULK).await?;
    let bytes = vec![b'x'; 256 << 10];
    loop {
        stream.write_all(&bytes).await?;
    }
}
