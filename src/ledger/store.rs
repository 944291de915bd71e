//! The stores of ledger entries.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use super::entry::Entry;

/// The answer of a store, awaited.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store of ledger entries.
pub trait Store: fmt::Debug + Send + Sync {
    /// Appends an entry with its own revision.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`]: an entry with that revision exists; nothing was written.
    /// [`StoreError::Unknown`]: the entry may be stored; [`Store::follow`] shows it.
    fn append<'a>(&'a self, entry: &'a Entry) -> Answer<'a, ()>;

    /// Returns the entries after a revision, in order, at most [`MAX_BATCH`] of them. If there are
    /// none, waits for one at most `wait`, and then returns an empty list.
    fn follow(&self, after: u64, wait: Duration) -> Answer<'_, Vec<Entry>>;
}

/// Maximum number of entries that [`Store::follow`] returns at once.
pub const MAX_BATCH: usize = 1_000;

/// The format of the entries that this version writes, and the newest that it reads. Format 2 has
/// the kinds `approval-revoked` and `approval-used`, format 3 `request-voted`. `SQLite` stores it as
/// `PRAGMA user_version`.
pub(crate) const FORMAT: i64 = 3;

/// Why a store did not perform an operation.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// Another entry has that revision.
    #[error("another entry was appended first")]
    Conflict,
    /// The connection was lost before the answer arrived.
    #[error("the answer of the ledger was lost: {0}")]
    Unknown(String),
    /// The store cannot be reached or cannot write now; nothing was written.
    #[error("the ledger is not available: {0}")]
    Unavailable(String),
    /// The stored entries are damaged, or not those of a ledger.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    /// A newer version of tidegate wrote the ledger.
    #[error("the ledger has format {found}, and this version reads up to {known}: update tidegate")]
    Newer {
        /// The format that was found.
        found: i64,
        /// The newest format that this version reads.
        known: i64,
    },
    /// The open file is no longer the file at its path.
    #[error("the file of the ledger was replaced while the gate used it: {0}")]
    Replaced(String),
}
