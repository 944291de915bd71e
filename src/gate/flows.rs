//! Open flows: counted, listed, and decided again when the policy changes.

use std::borrow::Cow;
use std::future::poll_fn;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use atomic_waker::AtomicWaker;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use uuid::Uuid;

use crate::identity::{CallerKey, Presented};
use crate::ledger::Meter;
use crate::metrics::GenerationMetrics;
use crate::name::{Path, Target};
use crate::policy::{
    Attempt, ByException, Category, Decision, Inspect, Query, RequestFacts, TierId, Verdict,
};

use super::Snapshot;
use super::approvals::Asks;

/// The reason why an open flow is cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// Shutdown.
    Drain,
    /// The policy no longer allows the flow.
    Revoke,
    /// The exception of the flow ended or was revoked.
    ExceptionEnded,
    /// The budget of the flow's exception is spent.
    ExceptionSpent,
}

/// The attempt of a flow, kept so that it can be decided again.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A tunnel.
    Connect,
    /// A plain request.
    Request {
        /// The method, as on the wire.
        method: Cow<'static, str>,
        /// Path and query.
        path: Path,
        /// Whether the request was upgraded to another protocol.
        upgrade: bool,
        /// Whether the request goes over TLS.
        tls: bool,
        /// The facts of the request; of several, the last.
        request_facts: Option<Arc<RequestFacts>>,
    },
}

impl Asked {
    /// Copies an attempt.
    pub fn of(attempt: &Attempt<'_>) -> Self {
        match attempt {
            Attempt::Connect => Self::Connect,
            Attempt::Request {
                method,
                path,
                upgrade,
                tls,
                request_facts,
            } => Self::Request {
                method: Cow::Owned((*method).to_owned()),
                path: (*path).clone(),
                upgrade: *upgrade,
                tls: *tls,
                request_facts: request_facts.map(|request_facts| Arc::new(request_facts.clone())),
            },
        }
    }

    /// The attempt, in the form that the policy needs.
    pub fn attempt(&self) -> Attempt<'_> {
        match self {
            Self::Connect => Attempt::Connect,
            Self::Request {
                method,
                path,
                upgrade,
                tls,
                request_facts,
            } => Attempt::Request {
                method,
                path,
                upgrade: *upgrade,
                tls: *tls,
                request_facts: request_facts.as_deref(),
            },
        }
    }
}

/// Bytes of one flow, counted as they are handed to the other side.
#[derive(Debug, Default)]
pub struct Counters {
    /// From the client to its destination.
    pub out: Meter,
    /// From the destination to the client.
    pub back: Meter,
}

impl Counters {
    /// The bytes of both directions together; used to detect changes.
    pub fn total(&self) -> u64 {
        self.out
            .load(Ordering::Relaxed)
            .wrapping_add(self.back.load(Ordering::Relaxed))
    }
}

/// An allowed flow that has not ended.
#[derive(Debug)]
pub struct OpenFlow {
    /// The flow's id.
    pub id: Uuid,
    /// The evidence of the caller.
    pub presented: Presented,
    /// The target.
    pub target: Target,
    /// The attempt; `None` for a tunnel, which needs no memory for it.
    request: Option<Box<Asked>>,
    /// The approval that allowed the flow, if there is one.
    pub approval: Option<Arc<str>>,
    /// The category of the decision.
    pub category: Category,
    /// The tier of the decision, with the metrics handles of its generation.
    pub tier: (TierId, Arc<GenerationMetrics>),
    /// The dialled address, which is checked again as well.
    pub peer: Mutex<Option<std::net::SocketAddr>>,
    /// Whether the flow is a tunnel that is not inspected.
    pub opaque: AtomicBool,
    /// The exceptions that allowed the flow.
    pub exceptions: Vec<ByException>,
    /// The bytes moved so far.
    pub bytes: Counters,
    reported: [AtomicU64; 2],
    cut: AtomicU8,
    /// The task of the flow, while it waits for the cut.
    waiting: AtomicWaker,
}

/// The approval and the exceptions that allowed a flow.
#[derive(Debug, Default)]
pub struct PassedBy {
    /// The approval, if there is one.
    pub approval: Option<Arc<str>>,
    /// The exceptions.
    pub exceptions: Vec<ByException>,
}

impl OpenFlow {
    /// A flow that has moved no bytes yet.
    pub fn new(
        id: Uuid,
        presented: Presented,
        target: Target,
        asked: Asked,
        passed_by: PassedBy,
        category: Category,
        tier: (TierId, Arc<GenerationMetrics>),
    ) -> Self {
        let PassedBy {
            approval,
            exceptions,
        } = passed_by;
        let bytes = Counters::default();
        bytes
            .out
            .charge(exceptions.iter().filter_map(|it| it.allowance.as_ref()));
        Self {
            id,
            presented,
            target,
            request: match asked {
                Asked::Connect => None,
                request @ Asked::Request { .. } => Some(Box::new(request)),
            },
            approval,
            category,
            tier,
            peer: Mutex::new(None),
            opaque: AtomicBool::new(false),
            exceptions,
            bytes,
            reported: [AtomicU64::new(0), AtomicU64::new(0)],
            cut: AtomicU8::new(0),
            waiting: AtomicWaker::new(),
        }
    }

    /// The attempt.
    pub fn attempt(&self) -> Attempt<'_> {
        match &self.request {
            Some(request) => request.attempt(),
            None => Attempt::Connect,
        }
    }

    /// Cuts the flow; the first reason stays.
    pub fn end(&self, why: Cut) {
        let why = match why {
            Cut::Drain => 1,
            Cut::Revoke => 2,
            Cut::ExceptionEnded => 3,
            Cut::ExceptionSpent => 4,
        };
        let _ = self
            .cut
            .compare_exchange(0, why, Ordering::AcqRel, Ordering::Acquire);
        self.waiting.wake();
    }

    /// Waits until the flow is cut. Only the task of the flow waits, in one place at a time.
    pub async fn cut(&self) -> Cut {
        poll_fn(|cx| {
            if let Some(why) = self.is_cut() {
                return Poll::Ready(why);
            }
            self.waiting.register(cx.waker());
            // A cut before the registration woke no task.
            self.is_cut().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The reason, if the flow was cut.
    pub fn is_cut(&self) -> Option<Cut> {
        match self.cut.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Cut::Drain),
            3 => Some(Cut::ExceptionEnded),
            4 => Some(Cut::ExceptionSpent),
            _ => Some(Cut::Revoke),
        }
    }

    /// The bytes (out, in) moved since the last call.
    pub fn unreported(&self) -> (u64, u64) {
        let [out, back] = &self.reported;
        let step = |total: &Meter, told: &AtomicU64| {
            let total = total.load(Ordering::Relaxed);
            total.saturating_sub(told.swap(total, Ordering::Relaxed))
        };
        (step(&self.bytes.out, out), step(&self.bytes.back, back))
    }

    /// Adds the bytes moved since the last call to the metrics, so that they show a long flow while
    /// it runs.
    pub fn sample(&self) {
        let (out, back) = self.unreported();
        let (tier, metrics) = &self.tier;
        metrics.bytes(self.category, *tier, out, back);
    }

    /// Sets the dialled address.
    pub fn dialled(&self, address: std::net::SocketAddr) {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Whether the decision still grants the form of the flow: a tunnel without inspection, or an
    /// upgrade.
    fn keeps_its_form(&self, decision: &Decision) -> bool {
        let looked_into = decision.inspect == Inspect::Yes && !decision.raw;
        let upgraded = matches!(self.attempt(), Attempt::Request { upgrade: true, .. });
        !(looked_into && self.opaque.load(Ordering::Acquire)) && (decision.upgrade || !upgraded)
    }

    /// The reason for a flow that no longer passes.
    fn why_not(&self) -> Cut {
        let mut all = self
            .exceptions
            .iter()
            .filter_map(|it| it.allowance.as_ref());
        match self.exceptions.is_empty() {
            true => Cut::Revoke,
            false if all.any(|it| it.has_no_bytes()) => Cut::ExceptionSpent,
            false => Cut::ExceptionEnded,
        }
    }

    /// Whether the policy of a generation, with the exceptions and approvals in force, still allows
    /// the flow.
    fn still_passes(&self, gate: &super::Gate, snapshot: &Snapshot) -> bool {
        let Some(caller) = snapshot.caller(&self.presented) else {
            return false;
        };
        let query = Query {
            who: &caller.who,
            target: &self.target,
            attempt: self.attempt(),
        };
        let caller = caller.key(self.presented.channel.peer.ip());
        let asks = Asks::again(&caller, self.approval.as_ref());
        let decision = gate.decide_again(snapshot, &query, &asks);
        let peer = *self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        decision.verdict == Verdict::Allow
            && self.keeps_its_form(&decision)
            && peer.is_none_or(|peer| {
                let guard = &snapshot.guard;
                snapshot
                    .policy
                    .lets_dial(&decision, peer.ip(), peer.port(), guard)
            })
    }
}

/// A limit of open flows is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TooMany {
    /// The limit of all flows.
    InAll,
    /// The limit of this caller.
    OfCaller,
}

/// The parts of the table of open flows, each with its own lock.
const PARTS: usize = 16;

/// Every open flow.
#[derive(Debug, Default)]
pub struct Flows {
    open: [Mutex<HashMap<Uuid, Arc<OpenFlow>>>; PARTS],
    /// The number of open flows of each caller.
    callers: [Mutex<HashTable<(CallerKey, usize)>>; PARTS],
    hasher: DefaultHashBuilder,
    count: AtomicUsize,
    /// Set when all flows were cut: a flow that is added later is cut as well.
    over: AtomicBool,
}

/// The slot of an open flow; released when dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<super::Gate>,
    caller: CallerKey,
    /// The hash of the caller.
    hash: u64,
}

impl Flows {
    /// Takes a slot for a flow of `caller`, within the limits.
    pub fn enter(
        gate: &Arc<super::Gate>,
        caller: CallerKey,
        most: usize,
        most_of_caller: usize,
    ) -> Result<Place, TooMany> {
        let flows = &gate.flows;
        if flows.count.fetch_add(1, Ordering::AcqRel) >= most {
            flows.count.fetch_sub(1, Ordering::AcqRel);
            return Err(TooMany::InAll);
        }
        let hash = flows.hasher.hash_one(&caller);
        let mut callers = flows.callers_of(hash);
        let rehash = |(caller, _): &(CallerKey, usize)| flows.hasher.hash_one(caller);
        let entry = callers.entry(hash, |(key, _)| *key == caller, rehash);
        let mut entry = entry.or_insert_with(|| (caller.clone(), 0));
        let (_, open) = entry.get_mut();
        if *open >= most_of_caller {
            flows.count.fetch_sub(1, Ordering::AcqRel);
            return Err(TooMany::OfCaller);
        }
        *open += 1;
        drop(callers);
        Ok(Place {
            gate: gate.clone(),
            caller,
            hash,
        })
    }

    /// Adds a flow that was allowed in the generation `judged`. If the gate has a newer generation,
    /// the flow is decided again, because it may have missed the check of a reload or a revocation.
    /// A flow with an approval or an exception is always decided again. A flow that is added after
    /// [`Flows::end_all`] is cut.
    pub fn add(&self, flow: &Arc<OpenFlow>, judged: u64, gate: &super::Gate) {
        self.part(flow.id).insert(flow.id, flow.clone());
        let current = gate.snapshot.load();
        // An approval or an exception may have ended since the decision.
        let lifted = flow.approval.is_some() || !flow.exceptions.is_empty();
        let changed = current.generation != judged || lifted;
        if !current.identity.stands_by(&flow.presented) {
            flow.end(Cut::Revoke);
        } else if changed && !flow.still_passes(gate, &current) {
            flow.end(flow.why_not());
        }
        if self.over.load(Ordering::Acquire) {
            flow.end(Cut::Drain);
        }
    }

    /// Removes a flow that has ended.
    pub fn remove(&self, id: Uuid) {
        self.part(id).remove(&id);
    }

    /// The number of open flows.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Lists every open flow.
    pub fn list(&self) -> Vec<Arc<OpenFlow>> {
        self.open
            .iter()
            .flat_map(|part| lock(part).values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Cuts every open flow, and every flow that is added later: shutdown waits no longer.
    pub fn end_all(&self) {
        self.over.store(true, Ordering::Release);
        for flow in self.list() {
            flow.end(Cut::Drain);
        }
    }

    /// Cuts the flows that a generation no longer allows.
    pub fn judge_again(&self, gate: &super::Gate, snapshot: &Snapshot) {
        for flow in self.list() {
            if !flow.still_passes(gate, snapshot) {
                flow.end(flow.why_not());
            }
        }
    }

    /// Like [`Flows::judge_again`], for the flows that an exception allowed.
    pub fn judge_again_excepted(&self, gate: &super::Gate, snapshot: &Snapshot) {
        let excepted = self.list();
        let excepted = excepted.iter().filter(|flow| !flow.exceptions.is_empty());
        for flow in excepted.filter(|flow| !flow.still_passes(gate, snapshot)) {
            flow.end(flow.why_not());
        }
    }

    fn part(&self, id: Uuid) -> MutexGuard<'_, HashMap<Uuid, Arc<OpenFlow>>> {
        let [.., last] = id.as_bytes();
        part_of(&self.open, u64::from(*last))
    }

    /// The part for a hash. The table selects by the lowest bits of the hash, so this does not.
    fn callers_of(&self, hash: u64) -> MutexGuard<'_, HashTable<(CallerKey, usize)>> {
        part_of(&self.callers, hash >> 32)
    }
}

impl Place {
    /// The caller of the flow.
    pub fn caller(&self) -> &CallerKey {
        &self.caller
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let flows = &self.gate.flows;
        let mut callers = flows.callers_of(self.hash);
        let is_caller = |(key, _): &(CallerKey, usize)| *key == self.caller;
        if let Ok(mut entry) = callers.find_entry(self.hash, is_caller) {
            let (_, open) = entry.get_mut();
            *open = open.saturating_sub(1);
            if *open == 0 {
                entry.remove();
            }
        }
        drop(callers);
        flows.count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "the index is taken modulo the length"
)]
fn part_of<T>(parts: &[Mutex<T>; PARTS], at: u64) -> MutexGuard<'_, T> {
    #[expect(clippy::cast_possible_truncation, reason = "less than PARTS")]
    lock(&parts[(at % PARTS as u64) as usize])
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_flow_fits_a_size_of_the_allocator() {
        // Each open flow holds one; with the 16 bytes of `Arc` it takes 448.
        assert!(size_of::<OpenFlow>() <= 432);
    }
}
