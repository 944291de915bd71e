//! TLS: the only module that names rustls.
//!
//! Each generation builds its TLS configurations anew from the texts of the configuration. So keys,
//! authorities and revocation lists follow their files, and no session of an earlier generation is
//! resumed; with an upstream, a session is resumed only by the same caller and only if the upstream
//! is unchanged.

mod authority;
mod bundle;
mod cache;
mod client;
mod constraints;
mod failure;
pub(crate) mod hello;
mod inside;
mod leaf;
mod material;
mod rejected;
mod root;
mod roots;
mod server;
mod sessions;
mod signer;
mod stand_in;
mod stream;
mod upstream;
mod upstreams;
mod verifier;

pub use authority::{Authority, MintError};
pub use bundle::{Bundle, create, pem, replace, whole};
pub use client::{Client, TlsError};
pub use constraints::Constraints;
pub use failure::TlsFailure;
pub use inside::{EnteredInside, InsideStream, Rewound};
pub use root::{Facts, NewAuthority};
pub use server::{Accepted, HandshakeError, Server, ServerStream, Servers};
pub use stand_in::StandIn;
pub use stream::ClientStream;
pub(crate) use stream::write_records;
pub use upstream::{Alpn, Entered, Shown, Upstream};
pub use upstreams::Upstreams;
