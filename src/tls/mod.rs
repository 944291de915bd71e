//! TLS with callers.

pub type ServerStream = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
