//! TLS: the only module that names rustls.
//!
//! Everything is built from the texts that the configuration read, anew for each generation: so
//! keys, authorities and revocation lists follow their files, and no session that was begun under
//! an earlier generation is resumed.

mod authority;
mod client;
mod failure;
mod inside;
mod material;
mod server;
mod upstream;

pub use authority::{Authority, MintError};
pub use client::{Client, TlsError};
pub use failure::TlsFailure;
pub use inside::{EnteredInside, InsideStream, Rewound};
pub use server::{Accepted, HandshakeError, Server, ServerStream, Servers};
pub use upstream::{Alpn, ClientStream, Entered, Upstream, Upstreams};
