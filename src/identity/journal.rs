//! The record of the gate's own requests: for the keys of issuers, and to webhooks.
//!
//! The layer above implements it, so that this module needs no log.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use crate::name::Target;

/// A request of the gate itself.
#[derive(Clone, Debug)]
pub struct OwnFetch {
    /// The rule that allows the request: `identity.issuer.NAME`, `notify.NAME`.
    pub rule: String,
    /// Bytes of the body of a POST request; `None`: it is a GET request.
    pub sends: Option<u64>,
    /// The host and port of the document.
    pub target: Target,
    /// The resolved addresses.
    pub answers: Box<[IpAddr]>,
}

/// The end of a fetch: the bytes of the document, or a code of the closed list.
pub type FetchEnd = Result<u64, &'static str>;

/// A fetch whose decision is recorded and whose end is not.
pub trait OpenFetch: Send {
    /// Writes the end of the fetch.
    fn close(self: Box<Self>, end: FetchEnd);
}

/// What [`Journal::decided`] returns.
pub type Deciding<'j> = Pin<Box<dyn Future<Output = Option<Box<dyn OpenFetch>>> + Send + 'j>>;
/// What [`Journal::refused`] returns.
pub type Refusing<'j> = Pin<Box<dyn Future<Output = ()> + Send + 'j>>;

/// Records fetches.
pub trait Journal: fmt::Debug + Send + Sync {
    /// Writes the decision before the dial. `None` if the decision cannot be recorded: then the
    /// gate must not dial.
    fn decided<'j>(&'j self, fetch: &'j OwnFetch) -> Deciding<'j>;

    /// Writes the refusal of a fetch, with a code of the closed list.
    fn refused<'j>(&'j self, fetch: &'j OwnFetch, code: &'static str) -> Refusing<'j>;
}
