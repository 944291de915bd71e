//! The record of what the gate fetches for itself: the keys of issuers.
//!
//! The layer above writes it, so that identity needs no log of its own.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use crate::name::Target;

/// A fetch of the gate itself.
#[derive(Clone, Debug)]
pub struct OwnFetch {
    /// What allows it: `identity.issuer.NAME`.
    pub rule: String,
    /// Where the document is.
    pub target: Target,
    /// What the name resolved to.
    pub answers: Box<[IpAddr]>,
}

/// How a fetch ended: the bytes of the document, or a code of the closed list.
pub type FetchEnd = Result<u64, &'static str>;

/// A fetch whose decision is on record and whose end is not.
pub trait OpenFetch: Send {
    /// Writes its end.
    fn close(self: Box<Self>, end: FetchEnd);
}

/// What [`Journal::decided`] returns.
pub type Deciding<'j> = Pin<Box<dyn Future<Output = Option<Box<dyn OpenFetch>>> + Send + 'j>>;
/// What [`Journal::refused`] returns.
pub type Refusing<'j> = Pin<Box<dyn Future<Output = ()> + Send + 'j>>;

/// Writes fetches to the record.
pub trait Journal: fmt::Debug + Send + Sync {
    /// Writes the decision, before anything is dialled. `None` where it cannot be recorded: then
    /// nothing may be dialled.
    fn decided<'j>(&'j self, fetch: &'j OwnFetch) -> Deciding<'j>;

    /// Writes that a fetch cannot be, for that code of the closed list.
    fn refused<'j>(&'j self, fetch: &'j OwnFetch, code: &'static str) -> Refusing<'j>;
}
