//! What the entries amount to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::entry::{Actor, Change, Entry, Settlement};
use super::grant::{Grant, Limit};

/// The folded entries of a ledger.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The revision of the last entry; 0: there is none.
    pub revision: u64,
    /// Every exception that was granted, by its id.
    pub granted: BTreeMap<String, Arc<Granted>>,
    /// Every request that was settled.
    pub settled: HashMap<Uuid, Settled>,
    /// What the gates reserved of the budget of an exception, by its id.
    pub budgets: HashMap<String, Budget>,
}

/// An exception that was granted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Granted {
    /// The exception.
    pub grant: Grant,
    /// The revision of the entry that granted it.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Actor,
    /// Its revocation.
    pub revoked: Option<Revoked>,
}

/// The end of an exception before its time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Actor,
    /// Why.
    pub reason: String,
}

/// A request that was settled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settled {
    /// What was decided.
    pub settlement: Settlement,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Actor,
    /// The exception that was granted.
    pub exception: Option<String>,
}

/// What all gates together reserved of an exception's budget.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Budget {
    /// Bytes to the destination.
    pub bytes_out: u64,
    /// Flows.
    pub requests: u64,
    /// When a part was last reserved.
    pub last: Option<Timestamp>,
}

/// Why a change cannot follow the state.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The id is taken.
    #[error("there is an exception `{0}` in the ledger: choose another id")]
    SameId(String),
    /// No exception has that id.
    #[error("there is no exception `{0}` in the ledger: run `tidegate exceptions`")]
    NoException(String),
    /// The exception was revoked before.
    #[error("exception `{id}` was revoked before, at {at} by {by}")]
    RevokedBefore {
        /// The exception.
        id: String,
        /// When.
        at: Timestamp,
        /// By whom.
        by: String,
    },
    /// The request was settled before.
    #[error("request {request} was settled before, at {at} by {by}")]
    SettledBefore {
        /// The request.
        request: Uuid,
        /// When.
        at: Timestamp,
        /// By whom.
        by: String,
    },
    /// Something else that the caller of [`Ledger::append`](super::Ledger::append) found.
    #[error("{0}")]
    Other(String),
}

impl State {
    /// Whether a change can follow this state.
    pub fn accepts(&self, change: &Change) -> Result<(), Refused> {
        if let Some(grant) = change.grant()
            && self.granted.contains_key(&grant.id)
        {
            return Err(Refused::SameId(grant.id.clone()));
        }
        match change {
            Change::ExceptionRevoked { id, .. } => self.may_revoke(id),
            Change::RequestSettled { request, .. } => match self.settled.get(request) {
                Some(before) => Err(Refused::SettledBefore {
                    request: *request,
                    at: before.at,
                    by: before.by.principal.clone(),
                }),
                None => Ok(()),
            },
            Change::ExceptionGranted { .. }
            | Change::BudgetTaken { .. }
            | Change::WorkspacePinned { .. } => Ok(()),
        }
    }

    fn may_revoke(&self, id: &str) -> Result<(), Refused> {
        let Some(granted) = self.granted.get(id) else {
            return Err(Refused::NoException(id.to_owned()));
        };
        match &granted.revoked {
            Some(before) => Err(Refused::RevokedBefore {
                id: id.to_owned(),
                at: before.at,
                by: before.by.principal.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Folds an entry in. What cannot follow the state changes nothing: every gate that reads the
    /// same entries has the same state.
    pub fn apply(&mut self, entry: &Entry) {
        self.revision = entry.revision;
        if self.accepts(&entry.change).is_err() {
            return;
        }
        if let Some(grant) = entry.change.grant() {
            let granted = Granted {
                grant: grant.clone(),
                revision: entry.revision,
                at: entry.at,
                by: entry.actor.clone(),
                revoked: None,
            };
            self.granted.insert(grant.id.clone(), Arc::new(granted));
        }
        match &entry.change {
            Change::ExceptionRevoked { id, reason } => self.revoke(id, reason, entry),
            Change::BudgetTaken { id, taken } => self.take(id, *taken, entry.at),
            Change::RequestSettled {
                request,
                settlement,
                grant,
                ..
            } => {
                let settled = Settled {
                    settlement: *settlement,
                    at: entry.at,
                    by: entry.actor.clone(),
                    exception: grant.as_ref().map(|grant| grant.id.clone()),
                };
                self.settled.insert(*request, settled);
            }
            Change::ExceptionGranted { .. } | Change::WorkspacePinned { .. } => {}
        }
    }

    fn revoke(&mut self, id: &str, reason: &str, entry: &Entry) {
        if let Some(granted) = self.granted.get_mut(id) {
            Arc::make_mut(granted).revoked = Some(Revoked {
                at: entry.at,
                by: entry.actor.clone(),
                reason: reason.to_owned(),
            });
        }
    }

    fn take(&mut self, id: &str, taken: Limit, at: Timestamp) {
        let budget = self.budgets.entry(id.to_owned()).or_default();
        let add = |sum: u64, part: Option<u64>| sum.saturating_add(part.unwrap_or(0));
        budget.bytes_out = add(budget.bytes_out, taken.bytes_out);
        budget.requests = add(budget.requests, taken.requests);
        budget.last = Some(at);
    }
}

impl Granted {
    /// Whether the exception holds at a time.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && now < self.grant.expires
    }
}
