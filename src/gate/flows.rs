//! Open flows: counted, listed, judged again when the policy changes.

use std::borrow::Cow;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{DefaultHashBuilder, HashMap};
use tokio::sync::Notify;
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

/// Why an open flow is ended from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// Shutdown.
    Drain,
    /// The policy no longer lets it pass.
    Revoke,
    /// Its exception ended or was revoked.
    ExceptionEnded,
    /// The budget of its exception is spent.
    ExceptionSpent,
}

/// What was attempted, kept so that it can be judged again.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A tunnel.
    Connect,
    /// A plain request.
    Request {
        /// As on the wire.
        method: Cow<'static, str>,
        /// Path and query.
        path: Path,
        /// Whether it became another protocol.
        upgrade: bool,
        /// Whether it goes over TLS.
        tls: bool,
        /// What it does; the last of several.
        deed: Option<Arc<RequestFacts>>,
    },
}

impl Asked {
    /// A copy of an attempt.
    pub fn of(attempt: &Attempt<'_>) -> Self {
        match attempt {
            Attempt::Connect => Self::Connect,
            Attempt::Request {
                method,
                path,
                upgrade,
                tls,
                deed,
            } => Self::Request {
                method: Cow::Owned((*method).to_owned()),
                path: (*path).clone(),
                upgrade: *upgrade,
                tls: *tls,
                deed: deed.map(|deed| Arc::new(deed.clone())),
            },
        }
    }

    /// As the policy takes it.
    pub fn attempt(&self) -> Attempt<'_> {
        match self {
            Self::Connect => Attempt::Connect,
            Self::Request {
                method,
                path,
                upgrade,
                tls,
                deed,
            } => Attempt::Request {
                method,
                path,
                upgrade: *upgrade,
                tls: *tls,
                deed: deed.as_deref(),
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
    /// Both directions together; what matters is whether it changes.
    pub fn total(&self) -> u64 {
        self.out
            .load(Ordering::Relaxed)
            .wrapping_add(self.back.load(Ordering::Relaxed))
    }
}

/// A flow that passed and has not ended.
#[derive(Debug)]
pub struct OpenFlow {
    /// The flow's id.
    pub id: Uuid,
    /// Who asked.
    pub presented: Presented,
    /// Where to.
    pub target: Target,
    /// What for.
    pub asked: Asked,
    /// The approval that let it pass, where one did.
    pub approval: Option<Arc<str>>,
    /// What it was judged to be for.
    pub category: Category,
    /// The tier it was judged in, and the handles of that generation's metrics.
    pub tier: (TierId, Arc<GenerationMetrics>),
    /// The address that was dialled, judged again as well.
    pub peer: Mutex<Option<std::net::SocketAddr>>,
    /// What is not looked into: bytes of a tunnel that pass as they are.
    pub opaque: AtomicBool,
    /// The exceptions that let it pass.
    pub exceptions: Vec<ByException>,
    /// Bytes that moved so far.
    pub bytes: Counters,
    reported: [AtomicU64; 2],
    cut: AtomicU8,
    wake: Notify,
}

/// What let a flow pass beside the rules.
#[derive(Debug, Default)]
pub struct PassedBy {
    /// The approval, where one did.
    pub approval: Option<Arc<str>>,
    /// The exceptions.
    pub exceptions: Vec<ByException>,
}

impl OpenFlow {
    /// A flow that has moved nothing yet.
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
            asked,
            approval,
            category,
            tier,
            peer: Mutex::new(None),
            opaque: AtomicBool::new(false),
            exceptions,
            bytes,
            reported: [AtomicU64::new(0), AtomicU64::new(0)],
            cut: AtomicU8::new(0),
            wake: Notify::new(),
        }
    }

    /// Ends the flow from outside; the first reason stays.
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
        self.wake.notify_one();
    }

    /// Waits until the flow is ended from outside.
    pub async fn cut(&self) -> Cut {
        loop {
            if let Some(why) = self.is_cut() {
                return why;
            }
            self.wake.notified().await;
        }
    }

    /// Whether the flow was ended from outside.
    pub fn is_cut(&self) -> Option<Cut> {
        match self.cut.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Cut::Drain),
            3 => Some(Cut::ExceptionEnded),
            4 => Some(Cut::ExceptionSpent),
            _ => Some(Cut::Revoke),
        }
    }

    /// Bytes (out, in) moved since this was last asked.
    pub fn unreported(&self) -> (u64, u64) {
        let [out, back] = &self.reported;
        let step = |total: &Meter, told: &AtomicU64| {
            let total = total.load(Ordering::Relaxed);
            total.saturating_sub(told.swap(total, Ordering::Relaxed))
        };
        (step(&self.bytes.out, out), step(&self.bytes.back, back))
    }

    /// Counts what moved since the last time: a long flow shows in the metrics while it runs.
    pub fn sample(&self) {
        let (out, back) = self.unreported();
        let (tier, metrics) = &self.tier;
        metrics.bytes(self.category, *tier, out, back);
    }

    /// Remembers the address that was dialled.
    pub fn dialled(&self, address: std::net::SocketAddr) {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Whether what was granted besides the verdict is granted still: not to be looked into, and to
    /// become another protocol.
    fn keeps_its_form(&self, decision: &Decision) -> bool {
        let looked_into = decision.inspect == Inspect::Yes && !decision.raw;
        let upgraded = matches!(self.asked, Asked::Request { upgrade: true, .. });
        !(looked_into && self.opaque.load(Ordering::Acquire)) && (decision.upgrade || !upgraded)
    }

    /// Why the flow is ended where it no longer passes.
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

    /// Whether a generation, and the exceptions and approvals in force, still let the flow pass.
    fn still_passes(&self, gate: &super::Gate, snapshot: &Snapshot) -> bool {
        let Some(caller) = snapshot.caller(&self.presented) else {
            return false;
        };
        let query = Query {
            who: &caller.who,
            target: &self.target,
            attempt: self.asked.attempt(),
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

/// More flows are open than may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TooMany {
    /// In all.
    InAll,
    /// Of this caller.
    OfCaller,
}

/// How many parts the table of open flows has, so that flows rarely wait for each other.
const PARTS: usize = 16;

/// Every open flow.
#[derive(Debug, Default)]
pub struct Flows {
    open: [Mutex<HashMap<Uuid, Arc<OpenFlow>>>; PARTS],
    callers: [Mutex<HashMap<CallerKey, usize>>; PARTS],
    /// Says which part of `callers` a caller is in.
    hasher: DefaultHashBuilder,
    count: AtomicUsize,
    /// Set when all were ended: one that is added later ends as well.
    over: AtomicBool,
}

/// A place among the open flows; given back when dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<super::Gate>,
    caller: CallerKey,
}

impl Flows {
    /// Takes a place for a flow of `caller`, within the bounds.
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
        let mut callers = flows.callers_of(&caller);
        let open = callers.entry(caller.clone()).or_insert(0);
        if *open >= most_of_caller {
            flows.count.fetch_sub(1, Ordering::AcqRel);
            return Err(TooMany::OfCaller);
        }
        *open += 1;
        drop(callers);
        Ok(Place {
            gate: gate.clone(),
            caller,
        })
    }

    /// Adds a flow that passed in the generation `judged`. Where the gate's is already another, the
    /// flow is judged again: it may have missed the round that the reload made, or a revocation. One that comes when
    /// all were ended has missed that. So it is with one that an approval let pass.
    pub fn add(&self, flow: &Arc<OpenFlow>, judged: u64, gate: &super::Gate) {
        self.part(flow.id).insert(flow.id, flow.clone());
        let current = gate.snapshot.load();
        // An approval or an exception may have ended meanwhile.
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

    /// Takes a flow out that has ended.
    pub fn remove(&self, id: Uuid) {
        self.part(id).remove(&id);
    }

    /// How many flows are open.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Every flow that is open now.
    pub fn list(&self) -> Vec<Arc<OpenFlow>> {
        self.open
            .iter()
            .flat_map(|part| lock(part).values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Ends every open flow, and every one that still comes: shutdown waits for no more.
    pub fn end_all(&self) {
        self.over.store(true, Ordering::Release);
        for flow in self.list() {
            flow.end(Cut::Drain);
        }
    }

    /// Ends the flows that a generation no longer lets pass.
    pub fn judge_again(&self, gate: &super::Gate, snapshot: &Snapshot) {
        for flow in self.list() {
            if !flow.still_passes(gate, snapshot) {
                flow.end(flow.why_not());
            }
        }
    }

    /// As [`Flows::judge_again`], of the flows that an exception lets pass.
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

    fn callers_of(&self, caller: &CallerKey) -> MutexGuard<'_, HashMap<CallerKey, usize>> {
        part_of(&self.callers, self.hasher.hash_one(caller))
    }
}

impl Place {
    /// Whose it is.
    pub fn caller(&self) -> &CallerKey {
        &self.caller
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let flows = &self.gate.flows;
        let mut callers = flows.callers_of(&self.caller);
        if let Some(open) = callers.get_mut(&self.caller) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                callers.remove(&self.caller);
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
