//! The state of the ledger: the result of folding its entries.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::entry::{Actor, Change, Entry};
use super::grant::{Grant, Limit};
use super::review::{Review, ReviewResult, Voter};

/// How long a settled request stays in the state after its approval or denial ended. No gate keeps
/// a request open that long.
const SETTLED_RETENTION: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Number of entries between two sweeps of settled requests.
const SETTLED_SWEEP: u64 = 1_024;

/// The folded entries of a ledger.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The revision of the last entry; 0: there is none.
    pub revision: u64,
    /// Every granted exception, by its id.
    pub granted: BTreeMap<String, Arc<Granted>>,
    /// The settled requests, until a week after the approval or denial ended.
    pub settled: HashMap<Uuid, Arc<Settled>>,
    /// The votes of reviewers to allow requests that are not settled; some may have ended.
    pub votes: Vec<Arc<Voted>>,
    /// The reserved budget of each exception, by its id.
    pub budgets: HashMap<String, Budget>,
}

/// A granted exception.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Granted {
    /// The exception.
    pub grant: Grant,
    /// The revision of the entry that granted it.
    pub revision: u64,
    /// When it was granted.
    pub at: Timestamp,
    /// The actor who granted it.
    pub by: Actor,
    /// Its revocation.
    pub revoked: Option<Revoked>,
}

/// The end of an exception before its time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revoked {
    /// When it was revoked.
    pub at: Timestamp,
    /// The actor who revoked it.
    pub by: Actor,
    /// The reason.
    pub reason: String,
}

/// A settled request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settled {
    /// The request and the decision.
    pub review: Review,
    /// The revision of the entry that settled it.
    pub revision: u64,
    /// When it was settled.
    pub at: Timestamp,
    /// The actor who settled it.
    pub by: Actor,
    /// The revocation of the approval.
    pub revoked: Option<Revoked>,
    /// The flow that used up an approval for one flow.
    pub used_by: Option<Uuid>,
}

/// The vote of one of two reviewers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Voted {
    /// The request, and when the vote ends.
    pub review: Review,
    /// The reviewer.
    pub voter: Voter,
    /// The actor who appended it.
    pub by: Actor,
}

/// The budget of an exception that all gates together have reserved.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Budget {
    /// Bytes to the destination.
    pub bytes_out: u64,
    /// Flows.
    pub requests: u64,
    /// When a part was last reserved.
    pub last: Option<Timestamp>,
}

/// Why the state does not permit a change.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The id is in use.
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
        /// When it was revoked.
        at: Timestamp,
        /// The actor who revoked it.
        by: String,
    },
    /// The request was settled before.
    #[error("request {request} was settled before, at {at} by {by}")]
    SettledBefore {
        /// The request.
        request: Uuid,
        /// When it was settled.
        at: Timestamp,
        /// The actor who settled it.
        by: String,
    },
    /// The reviewer allowed the request before; another reviewer has to allow it.
    #[error("`{0}` allowed the request before: a second reviewer has to allow it")]
    VotedBefore(String),
    /// The request was not allowed, or its approval was revoked.
    #[error("no approval of request {0} is in force")]
    NoApproval(Uuid),
    /// An approval for one flow was used up by another flow.
    #[error("the approval of request {0} was used up by another flow")]
    UsedBefore(Uuid),
    /// A refusal by the caller of [`Ledger::append`](super::Ledger::append).
    #[error("{0}")]
    Other(String),
}

impl State {
    /// Whether the state permits a change.
    pub fn accepts(&self, change: &Change) -> Result<(), Refused> {
        if let Some(grant) = change.grant()
            && self.granted.contains_key(&grant.id)
        {
            return Err(Refused::SameId(grant.id.clone()));
        }
        match change {
            Change::ExceptionRevoked { id, .. } => self.may_revoke(id),
            Change::RequestSettled { review } | Change::RequestVoted { review, .. } => {
                match self.settled.get(&review.request) {
                    Some(before) => Err(Refused::SettledBefore {
                        request: review.request,
                        at: before.at,
                        by: before.by.principal.clone(),
                    }),
                    None => Ok(()),
                }
            }
            Change::ApprovalRevoked { request, .. } => self.approval(*request).map(drop),
            Change::ApprovalUsed { request, .. } => match self.approval(*request)?.used_by {
                Some(_) => Err(Refused::UsedBefore(*request)),
                None => Ok(()),
            },
            Change::ExceptionGranted { .. }
            | Change::BudgetTaken { .. }
            | Change::WorkspacePinned { .. } => Ok(()),
        }
    }

    fn approval(&self, request: Uuid) -> Result<&Settled, Refused> {
        let settled = self.settled.get(&request).filter(|it| it.is_approval());
        settled.map(Arc::as_ref).ok_or(Refused::NoApproval(request))
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

    /// Folds an entry into the state. An entry that the state does not permit has no effect: every
    /// gate that reads the same entries has the same state.
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
            Change::RequestVoted { review, voter } => self.vote(review, voter, entry),
            Change::RequestSettled { review } => {
                self.votes.retain(|vote| !vote.review.is_like(review));
                let settled = Settled {
                    review: Review::clone(review),
                    revision: entry.revision,
                    at: entry.at,
                    by: entry.actor.clone(),
                    revoked: None,
                    used_by: None,
                };
                self.settled.insert(review.request, Arc::new(settled));
            }
            Change::ApprovalRevoked { request, note } => {
                let reason = note.clone().unwrap_or_default();
                self.change_settled(*request, |it| it.revoked = Some(revoked(entry, reason)));
            }
            Change::ApprovalUsed { request, flow } => {
                self.change_settled(*request, |it| it.used_by = Some(*flow));
            }
            Change::ExceptionGranted { .. } | Change::WorkspacePinned { .. } => {}
        }
        // Triggered by the entry alone: every gate removes the same requests.
        if entry.revision.is_multiple_of(SETTLED_SWEEP) {
            let now = entry.at;
            self.settled
                .retain(|_, it| now.duration_since(it.review.until) < SETTLED_RETENTION);
        }
    }

    /// Adds a vote. Replaces an earlier vote of the reviewer on a like request, and removes votes that
    /// ended.
    fn vote(&mut self, review: &Review, voter: &Voter, entry: &Entry) {
        let is_replaced = |it: &Voted| it.voter.name == voter.name && it.review.is_like(review);
        self.votes
            .retain(|it| it.review.until > entry.at && !is_replaced(it));
        self.votes.push(Arc::new(Voted {
            review: review.clone(),
            voter: voter.clone(),
            by: entry.actor.clone(),
        }));
    }

    fn change_settled(&mut self, request: Uuid, change: impl FnOnce(&mut Settled)) {
        if let Some(settled) = self.settled.get_mut(&request) {
            change(Arc::make_mut(settled));
        }
    }

    fn revoke(&mut self, id: &str, reason: &str, entry: &Entry) {
        if let Some(granted) = self.granted.get_mut(id) {
            Arc::make_mut(granted).revoked = Some(revoked(entry, reason.to_owned()));
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
    /// Whether the exception is in force at a time.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && now < self.grant.expires
    }
}

impl Settled {
    /// Whether the request was allowed, and the approval not revoked.
    pub fn is_approval(&self) -> bool {
        self.review.result == ReviewResult::Allowed && self.revoked.is_none()
    }
}

fn revoked(entry: &Entry, reason: String) -> Revoked {
    Revoked {
        at: entry.at,
        by: entry.actor.clone(),
        reason,
    }
}
