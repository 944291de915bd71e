//! TLS: with whom this gate speaks it, and whom it believes.

mod client;

pub use client::{TlsError, client};
