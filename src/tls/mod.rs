//! TLS: the only module that names rustls.
//!
//! Everything is built from the texts that the configuration read, anew for each generation: so
//! keys, authorities and revocation lists follow their files, and no session that was begun under
//! an earlier generation is resumed.

mod authority;
mod bundle;
mod client;
mod constraints;
mod failure;
mod inside;
mod leaf;
mod material;
mod root;
mod server;
mod upstream;

pub use authority::{Authority, MintError};
pub use bundle::{Bundle, create, pem, replace, whole};
pub use client::{Client, TlsError};
pub use constraints::Constraints;
pub use failure::TlsFailure;
pub use inside::{EnteredInside, InsideStream, Rewound};
pub use root::{Facts, NewAuthority};
pub use server::{Accepted, HandshakeError, Server, ServerStream, Servers};
pub use upstream::{Alpn, ClientStream, Entered, Upstream, Upstreams};
