//! TLS: the only module that names rustls.
//!
//! Everything is built from the texts that the configuration read, anew for each generation: so
//! keys, authorities and revocation lists follow their files, and no session that was begun under
//! an earlier generation is resumed; with an upstream, only where nothing about it changed.

mod authority;
mod client;
mod failure;
mod material;
mod pins;
mod server;
mod stream;
mod upstream;
mod upstreams;

pub use authority::{Authority, MintError};
pub use client::{Client, TlsError};
pub use failure::TlsFailure;
pub use server::{Accepted, HandshakeError, Server, ServerStream, Servers};
pub use stream::ClientStream;
pub use upstream::{Alpn, Entered, Shown, Upstream};
pub use upstreams::Upstreams;
