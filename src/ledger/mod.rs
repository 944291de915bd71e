//! The ledger: decisions of people while the gate runs.
//!
//! A ledger is a list of [`Entry`]s, numbered from 1 without gaps. Each entry says when, by whom and
//! what changed: an exception was granted or revoked, a request was settled or one of two reviewers
//! allowed it, an approval was revoked or used up, an exception took a part of its budget. Folding the entries in order gives the [`State`].
//!
//! A [`Store`] keeps the entries: `SQLite` in one file, [`PostgreSQL`](crate::postgres) for several
//! gates, memory for tests.
//! It has two methods. [`Store::append`] writes the entry with the next revision, and fails with
//! [`StoreError::Conflict`] where an entry with that revision exists: so an entry always follows the
//! state that it was decided on, and two gates never settle one request twice. [`Store::follow`]
//! gives the entries after a revision, and waits for one.
//!
//! [`Ledger`] holds the folded state. Reading it waits for nothing. [`Ledger::append`] takes a
//! function from the state to a change, and calls the function again where another gate was first.
//!
//! A gate without `[ledger]` in its configuration has no ledger: no file, no task, no thread.

mod allowance;
mod entry;
mod grant;
mod handle;
mod memory;
mod meter;
mod review;
mod sqlite;
mod state;
mod store;

pub use allowance::Allowance;
pub use entry::{Actor, Change, Entry};
pub use grant::{Does, From, Grant, Limit, SessionScope, To};
pub use handle::{Health, Ledger, LedgerError};
pub use memory::MemoryStore;
pub use meter::Meter;
pub use review::{Review, ReviewResult, ReviewedCaller, Voter};
pub use sqlite::SqliteStore;
pub(crate) use sqlite::{number, read};
pub use state::{Budget, Granted, Refused, Revoked, Settled, State, Voted};
pub(crate) use store::FORMAT;
pub use store::{Answer, MAX_BATCH, Store, StoreError};

#[cfg(test)]
pub(crate) mod tests;
