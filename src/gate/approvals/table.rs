//! The table of requests: bounded for each caller and in all.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::identity::CallerKey;

use super::approval::Approval;
use super::first_reader::Readers;
use super::{Request, RequestKey, RequestState, Vote};

/// Open requests of one caller, at most.
pub const MAX_OPEN_OF_ONE: usize = 32;
/// Requests of one caller, including settled ones, at most.
const MAX_OF_ONE: usize = 2 * MAX_OPEN_OF_ONE;
/// Requests in all, at most.
const MAX_REQUESTS: usize = 1024;
/// The time for which a request waits for a reviewer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_hours(1);
/// Flows held for an answer, of one caller and in all, at most.
const MAX_HELD_OF_ONE: usize = 4;
const MAX_HELD: usize = 64;
/// Approvals in force, at most.
const MAX_APPROVALS: usize = 10_000;

/// Every open or recently settled request, and the approvals in force.
#[derive(Debug, Default)]
pub struct Requests {
    table: Mutex<Table>,
    /// Turns of first readers.
    pub(super) readers: Readers,
    /// Wakes held flows and the notifiers.
    changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) requests: HashMap<Uuid, Request>,
    /// The newest request of each key.
    pub(super) newest: HashMap<RequestKey, Uuid>,
    pub(super) approvals: HashMap<RequestKey, Vec<Approval>>,
    /// The latest revision of the ledger that was read.
    pub(super) read: u64,
    /// The callers of held flows, one entry for each flow.
    held: Vec<CallerKey>,
}

/// An attempt to file.
pub struct Filing<'a> {
    /// The key of the attempt.
    pub key: RequestKey,
    /// The time of the attempt.
    pub at: Timestamp,
    /// Creates the request, if this is the first attempt.
    pub request: &'a mut dyn FnMut(Uuid, RequestKey) -> Request,
}

/// The result of filing an attempt.
#[derive(Clone, Debug)]
pub enum Filed {
    /// A reviewer denied the same attempt recently.
    Denied(Uuid),
    /// The caller, or all callers together, have too many open requests.
    Full,
    /// The attempt belongs to an open request.
    Known(Uuid),
    /// The attempt became a new request.
    New(Box<Request>),
}

impl Requests {
    /// Files an attempt that the policy asks about.
    pub fn file(&self, filing: Filing<'_>) -> Filed {
        let Filing { key, at, request } = filing;
        let mut table = self.lock();
        if let Some(known) = table.newest.get(&key).copied()
            && let Some(known) = table.requests.get_mut(&known)
        {
            let denied = |how: &super::Settlement| how.until > at;
            match &known.state {
                state if state.is_open() && known.expires > at => {
                    known.count = known.count.saturating_add(1);
                    known.last = at;
                    return Filed::Known(known.id);
                }
                RequestState::Denied(how) if denied(how) => {
                    known.count = known.count.saturating_add(1);
                    known.last = at;
                    return Filed::Denied(known.id);
                }
                _ => {}
            }
        }
        if !table.make_room(&key.caller) {
            return Filed::Full;
        }
        let new = request(Uuid::now_v7(), key);
        table.newest.insert(new.key.clone(), new.id);
        table.requests.insert(new.id, new.clone());
        Filed::New(Box::new(new))
    }

    /// Whether an attempt would be a new request of its caller.
    pub(super) fn would_be_new(&self, key: &RequestKey) -> bool {
        let table = self.lock();
        let newest = table.newest.get(key).and_then(|id| table.requests.get(id));
        !newest.is_some_and(|it| it.state.is_open()) && table.open_of(&key.caller) < MAX_OPEN_OF_ONE
    }

    /// Returns a request by its id.
    pub fn get(&self, id: Uuid) -> Option<Request> {
        self.lock().requests.get(&id).cloned()
    }

    /// Lists the requests for which `keep` is true, the oldest first.
    pub fn list(&self, keep: impl Fn(&Request) -> bool) -> Vec<Request> {
        let table = self.lock();
        let mut kept: Vec<Request> = table
            .requests
            .values()
            .filter(|it| keep(it))
            .cloned()
            .collect();
        kept.sort_by_key(|request| request.id);
        kept
    }

    /// The number of open requests.
    pub fn open(&self) -> usize {
        let table = self.lock();
        table
            .requests
            .values()
            .filter(|it| it.state.is_open())
            .count()
    }

    /// Adds the agent's reason to an open request of `caller`; `false` if there is no such request.
    pub(super) fn explain(&self, id: Uuid, caller: &CallerKey, reason: &str) -> bool {
        let mut table = self.lock();
        let Some(request) = table.requests.get_mut(&id) else {
            return false;
        };
        let own = request.key.caller == *caller && request.state.is_open();
        if own {
            request.reason = Some(reason.into());
        }
        own
    }

    /// Times out requests that waited too long; returns these requests.
    pub fn expire(&self, now: Timestamp) -> Vec<Request> {
        let mut table = self.lock();
        let due = |it: &&mut Request| it.state == RequestState::Pending && it.expires <= now;
        let mut expired = Vec::new();
        for request in table.requests.values_mut().filter(due) {
            request.state = RequestState::TimedOut;
            expired.push(request.clone());
        }
        drop(table);
        if !expired.is_empty() {
            self.changed.notify_waiters();
        }
        expired
    }

    /// Gives one reviewer the turn to settle an open request: two concurrent reviewers cause one
    /// outcome. `Err` has the state of the request, or `None` for an unknown request.
    pub(super) fn take_turn(
        &self,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Turn<'_>, Option<&'static str>> {
        let mut table = self.lock();
        let request = table.requests.get_mut(&id).ok_or(None)?;
        if request.state != RequestState::Pending || request.expires <= now {
            let timed_out = request.state == RequestState::Pending;
            let state = if timed_out {
                &RequestState::TimedOut
            } else {
                &request.state
            };
            return Err(Some(state.as_str()));
        }
        request.state = RequestState::Settling;
        Ok(Turn {
            requests: self,
            request: request.clone(),
            outcome: RequestState::Pending,
        })
    }

    /// Sets the votes on a request that waits for reviewers.
    pub(super) fn set_votes(&self, id: Uuid, votes: Vec<Vote>) {
        let mut table = self.lock();
        let pending = |it: &&mut Request| it.state == RequestState::Pending;
        if let Some(request) = table.requests.get_mut(&id).filter(pending) {
            request.votes = votes;
        }
    }

    /// Sets the state of a request.
    pub(super) fn set_state(&self, id: Uuid, state: RequestState) {
        if let Some(request) = self.lock().requests.get_mut(&id) {
            request.state = state;
        }
        self.wake();
    }

    /// Notifies held flows.
    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until a request was settled. Must be created before the state is read, so that no
    /// change is missed.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Takes a slot for a held flow; `None` if all slots, or those of the caller, are taken.
    pub fn hold(&self, caller: &CallerKey) -> Option<HeldPlace<'_>> {
        let mut table = self.lock();
        let own = table.held.iter().filter(|it| *it == caller).count();
        if table.held.len() >= MAX_HELD || own >= MAX_HELD_OF_ONE {
            return None;
        }
        table.held.push(caller.clone());
        Some(HeldPlace {
            requests: self,
            caller: caller.clone(),
        })
    }

    /// Whether a request waits for reviewers.
    pub fn is_pending(&self, id: Uuid) -> bool {
        self.lock()
            .requests
            .get(&id)
            .is_some_and(|it| it.state.is_open())
    }

    /// Whether another approval may be put in force.
    pub(super) fn has_room(&self, now: Timestamp) -> bool {
        let table = self.lock();
        let in_force = table.approvals.values().flatten();
        in_force.filter(|it| it.until > now).count() < MAX_APPROVALS
    }

    /// Puts an approval in force.
    pub(super) fn approve(&self, approval: Approval) {
        let mut table = self.lock();
        let all = table.approvals.entry(approval.key.clone()).or_default();
        all.push(approval);
    }

    /// The time at which the next approval ends.
    pub(in crate::gate) fn next_end(&self) -> Option<Timestamp> {
        let table = self.lock();
        table.approvals.values().flatten().map(|it| it.until).min()
    }

    /// Calls `look` with the approvals of a key, which `look` may change.
    pub(super) fn approvals<T>(
        &self,
        key: &RequestKey,
        look: impl FnOnce(&mut Vec<Approval>) -> T,
    ) -> Option<T> {
        self.lock().approvals.get_mut(key).map(look)
    }

    /// Removes an approval. Returns whether there was one.
    pub(super) fn withdraw(&self, request: Uuid) -> bool {
        let mut table = self.lock();
        for all in table.approvals.values_mut() {
            if let Some(at) = all.iter().position(|it| it.request == request) {
                all.remove(at);
                return true;
            }
        }
        false
    }

    /// Removes expired approvals; returns whether there were any.
    pub fn end_approvals(&self, now: Timestamp) -> bool {
        let mut table = self.lock();
        let mut ended = false;
        table.approvals.retain(|_, all| {
            let before = all.len();
            all.retain(|it| it.until > now);
            ended |= all.len() != before;
            !all.is_empty()
        });
        ended
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The number of open requests of a caller.
    fn open_of(&self, caller: &CallerKey) -> usize {
        let own = self.requests.values().filter(|it| it.key.caller == *caller);
        own.filter(|it| it.state.is_open()).count()
    }

    /// Makes room for another request of a caller; `false` if there is none. A request with an
    /// approval in force stays, and counts only for [`MAX_APPROVALS`]: without the request no
    /// reviewer could revoke the approval.
    pub(super) fn make_room(&mut self, caller: &CallerKey) -> bool {
        if self.open_of(caller) >= MAX_OPEN_OF_ONE {
            return false;
        }
        let own = |it: &&Request| it.key.caller == *caller;
        if self.removable().filter(own).count() >= MAX_OF_ONE
            && let Some(oldest) = self.oldest_settled(own)
        {
            self.forget(oldest);
        }
        if self.removable().count() < MAX_REQUESTS {
            return true;
        }
        let oldest = self.oldest_settled(|_| true);
        match oldest.or_else(|| self.oldest_of_the_most(caller)) {
            Some(id) => {
                self.forget(id);
                true
            }
            None => false,
        }
    }

    /// Requests without an approval in force.
    fn removable(&self) -> impl Iterator<Item = &Request> {
        let in_force = |request: &Request| {
            let approvals = self.approvals.get(&request.key);
            approvals.is_some_and(|all| all.iter().any(|it| it.request == request.id))
        };
        self.requests.values().filter(move |it| !in_force(it))
    }

    fn oldest_settled(&self, keep: impl Fn(&&Request) -> bool) -> Option<Uuid> {
        let settled = self.removable().filter(|it| !it.state.is_open());
        settled.filter(keep).map(|it| it.id).min()
    }

    /// The oldest open request of the caller with the most open requests, if these are more than
    /// those of `caller`.
    fn oldest_of_the_most(&self, caller: &CallerKey) -> Option<Uuid> {
        let mut counts: HashMap<&CallerKey, usize> = HashMap::new();
        for request in self.requests.values() {
            *counts.entry(&request.key.caller).or_default() += 1;
        }
        let own = counts.get(caller).copied().unwrap_or_default();
        let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        if count <= own + 1 {
            return None;
        }
        let of_most = self
            .requests
            .values()
            .filter(|it| it.key.caller == *most && it.state == RequestState::Pending);
        of_most.min_by_key(|it| it.id).map(|it| it.id)
    }

    fn forget(&mut self, id: Uuid) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        if self.newest.get(&request.key) == Some(&id) {
            self.newest.remove(&request.key);
        }
    }
}

/// The slot of a held flow; released when dropped.
#[derive(Debug)]
pub struct HeldPlace<'r> {
    requests: &'r Requests,
    caller: CallerKey,
}

impl Drop for HeldPlace<'_> {
    fn drop(&mut self) {
        let mut table = self.requests.lock();
        if let Some(at) = table.held.iter().position(|it| *it == self.caller) {
            table.held.swap_remove(at);
        }
    }
}

/// The turn of one reviewer at a request. When dropped, it sets the outcome as the state of the
/// request.
pub(super) struct Turn<'r> {
    requests: &'r Requests,
    /// The request at the start of the turn.
    pub(super) request: Request,
    /// The new state of the request; pending by default.
    pub(super) outcome: RequestState,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut table = self.requests.lock();
        if let Some(request) = table.requests.get_mut(&self.request.id) {
            request.state = self.outcome.clone();
            request.votes.clone_from(&self.request.votes);
            request.facts = self.request.facts.clone();
        }
        drop(table);
        self.requests.changed.notify_waiters();
    }
}

/// The time at which a request filed now times out.
pub(super) fn expiry(now: Timestamp) -> Timestamp {
    let timeout = SignedDuration::try_from(REQUEST_TIMEOUT).unwrap_or(SignedDuration::MAX);
    now.saturating_add(timeout).unwrap_or(Timestamp::MAX)
}
