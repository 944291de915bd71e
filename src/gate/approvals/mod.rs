//! Requests for approval: filed by flows that the policy asks about, settled by reviewers.
//!
//! A flow that the policy *asks* about is refused at once (`needs_approval`), and a request is
//! filed. Attempts of one caller at one host, port and operation are one request. A reviewer allows
//! it for a limited time, or denies it. An approval lifts one ask, of one rule in one tier, for one
//! caller: it never lifts a deny or the floor. After a policy change by which another rule asks,
//! the next attempt is a new request.
//!
//! With `[ledger]`, a settlement is written to the ledger before the reviewer is answered, and
//! every gate of the ledger applies its approvals. Without a ledger, approvals are kept in memory.

mod approval;
mod first_reader;
mod ledger;
mod principal;
mod request;
mod scope;
mod settle;
mod table;
mod view;

pub use approval::{Approval, Asks};
pub use principal::Principal;
pub use request::{Attempted, ClientUser, Request, RequestKey, RequestState, Settlement, Vote};
pub use scope::Scope;
pub(in crate::gate) use settle::approval_id;
pub use settle::{Explained, SettleError};
pub use table::{Filed, Filing, HeldPlace, MAX_OPEN_OF_ONE, Requests};
pub use view::{
    CallView, CallerView, OwnRequestView, RepositoryView, RequestView, SettlementView, Untrusted,
};
