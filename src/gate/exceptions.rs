//! The exceptions in force: of the files and of the ledger, kept up to date beside the data path.
//!
//! Deciding looks into a set that is built here and swapped as a whole, so no flow waits for the
//! ledger. The keeper builds the set anew when the ledger or the policy changes and when an exception
//! ends, and then judges the open flows again. Beside that it reserves budgets, which may have to wait
//! for the ledger.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Allowance, Change, Grant, Granted, Ledger, Limit, State};
use crate::policy::{ByException, Exception, Exceptions, Policy};
use crate::record::{Asker, Event, ExceptionFacts};

use super::{Gate, Snapshot};

/// The bound on a sleep while an exception is in force: a clock that jumps is noticed after that.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// The state of the ledger of a gate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerStatus {
    /// The last entry that this gate has read.
    pub revision: u64,
    /// When the ledger last answered.
    pub answered: Option<Timestamp>,
    /// Why the ledger does not answer now; `None`: the ledger answers.
    pub failure: Option<String>,
    /// Attempts to read or append that failed, since the start.
    pub failures: u64,
    /// Whether the ledger has not answered for `stale-after`: its exceptions and approvals count as
    /// ended.
    pub is_stale: bool,
}

/// What the gate knows of exceptions besides the set that decides.
#[derive(Debug, Default)]
pub struct ExceptionKeeper {
    /// The ledger; `None`: the configuration has no `[ledger]`.
    pub ledger: Option<Arc<Ledger>>,
    /// How long what was granted counts while the ledger does not answer.
    pub stale_after: Duration,
    /// Whether gates of other hosts share the ledger.
    pub is_shared: bool,
    /// A budget runs low, or the set was built anew.
    low: Arc<Notify>,
    /// The policy changed, or an approval is in force.
    changed: Notify,
    /// What is left of the budgets, by the exception's id. They outlive a reload.
    allowances: Mutex<HashMap<String, Arc<Allowance>>>,
    /// Flows that each exception let pass since the start.
    uses: Mutex<HashMap<String, u64>>,
    /// What is on record as in force.
    announced: Mutex<BTreeMap<String, Announced>>,
}

/// An exception that is on record as in force.
#[derive(Clone, Debug)]
struct Announced {
    grant: Grant,
    location: Arc<str>,
}

impl ExceptionKeeper {
    /// The keeper of a gate with a ledger, which gates of other hosts may share.
    pub fn with_ledger(ledger: Arc<Ledger>, stale_after: Duration, is_shared: bool) -> Self {
        Self {
            ledger: Some(ledger),
            stale_after,
            is_shared,
            ..Self::default()
        }
    }

    /// Whether the gate has a ledger.
    pub(super) fn has_ledger(&self) -> bool {
        self.ledger.is_some()
    }

    /// Counts a flow that exceptions let pass.
    pub fn count_use(&self, exceptions: &[ByException]) {
        if exceptions.is_empty() {
            return;
        }
        let mut uses = lock(&self.uses);
        for exception in exceptions {
            *uses.entry(exception.named.name.to_string()).or_default() += 1;
        }
    }

    /// Flows that an exception let pass since the start.
    pub(super) fn uses(&self, id: &str) -> u64 {
        lock(&self.uses).get(id).copied().unwrap_or_default()
    }

    /// The exceptions that may hold under a policy at a time. Those of the ledger that `before` has
    /// heard of are neither compiled nor proved again.
    fn in_force(&self, policy: &Policy, before: &Exceptions, now: Timestamp) -> Exceptions {
        let written = policy.exceptions().iter();
        let mut all: Vec<Arc<Exception>> = written
            .filter(|it| now < it.grant.expires)
            .cloned()
            .collect();
        let mut not_in_force = BTreeMap::new();
        if let Some(ledger) = self.ledger.as_deref().filter(|it| !self.is_stale(it, now)) {
            let state = ledger.state();
            not_in_force = add_granted(policy, &state, before, now, &mut all);
        }
        for exception in &all {
            self.allow(exception);
        }
        Exceptions::new(all).without(not_in_force)
    }

    /// Whether the ledger has not answered for too long.
    pub(super) fn is_stale(&self, ledger: &Ledger, now: Timestamp) -> bool {
        let health = ledger.health();
        let stale_after = SignedDuration::try_from(self.stale_after).unwrap_or(SignedDuration::MAX);
        health.failure.is_some()
            && health
                .answered
                .is_none_or(|at| now.duration_since(at) > stale_after)
    }

    /// Gives an exception with a limit what is left of its budget.
    fn allow(&self, exception: &Arc<Exception>) {
        let limit = exception.grant.limit;
        if limit.is_empty() {
            return;
        }
        let mut allowances = lock(&self.allowances);
        let known = allowances.get(&exception.grant.id);
        let allowance = match known.filter(|known| known.limit() == limit) {
            Some(known) => known.clone(),
            None => Arc::new(Allowance::new(limit, self.low.clone())),
        };
        if let Some(ledger) = &self.ledger {
            allowance.note(reserved(&ledger.state(), &exception.grant.id));
        }
        allowances.insert(exception.grant.id.clone(), allowance.clone());
        exception.set_allowance(allowance);
    }

    /// Says on record which exceptions began and ended.
    fn announce(
        &self,
        gate: &Gate,
        announced: &mut BTreeMap<String, Announced>,
        exceptions: &Exceptions,
        now: Timestamp,
    ) {
        let state = self.ledger.as_ref().map(|ledger| ledger.state());
        let next: BTreeMap<String, Announced> = exceptions
            .iter()
            .map(|it| {
                let grant = it.grant.clone();
                let location = it.named.location.clone();
                (grant.id.clone(), Announced { grant, location })
            })
            .collect();
        for (id, began) in next.iter().filter(|(id, _)| !announced.contains_key(*id)) {
            let by = state.as_ref().and_then(|state| state.granted.get(id));
            let facts = began.facts(by.map(|it| asker(&it.by)).unwrap_or_default(), None);
            gate.recorder
                .event(&Event::ExceptionGranted(Box::new(facts)));
        }
        for (id, ended) in announced.iter().filter(|(id, _)| !next.contains_key(*id)) {
            let revoked = state.as_ref().and_then(|state| state.granted.get(id));
            let event = match revoked.and_then(|it| it.revoked.as_ref()) {
                Some(revoked) => {
                    let facts = ended.facts(asker(&revoked.by), Some(revoked.reason.as_str()));
                    Event::ExceptionRevoked(Box::new(facts))
                }
                None if now < ended.grant.expires => {
                    let gone = "it is no longer in the policy, or the ledger does not answer";
                    let why = exceptions.why_not(id).map_or(gone, |why| why);
                    let facts = ended.facts(Asker::default(), Some(why));
                    Event::ExceptionRevoked(Box::new(facts))
                }
                None => {
                    let facts = ended.facts(Asker::default(), None);
                    Event::ExceptionExpired(Box::new(facts))
                }
            };
            gate.recorder.event(&event);
        }
        *announced = next;
    }

    /// How long what is in force stays as it is, changes of the ledger and the policy aside;
    /// `approval_ends` is when the next approval ends.
    fn next_change(
        &self,
        exceptions: &Exceptions,
        approval_ends: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Duration> {
        let ends = exceptions.iter().map(|it| it.grant.expires);
        let next = ends.chain(approval_ends).min();
        let left =
            next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
        let ledger = self.ledger.as_deref();
        // A ledger that answers again has no new revision.
        let is_stale = ledger.is_some_and(|ledger| self.is_stale(ledger, now));
        let next = left.or(is_stale.then_some(MAX_SLEEP))?;
        Some(next.min(MAX_SLEEP))
    }

    /// Reserves more of each budget that runs low.
    async fn reserve(&self, exceptions: &Exceptions) {
        let Some(ledger) = &self.ledger else { return };
        for exception in exceptions.iter() {
            let Some(allowance) = exception.allowance() else {
                continue;
            };
            let id = &exception.grant.id;
            if allowance.wanted(reserved(&ledger.state(), id)).is_none() {
                allowance.note(reserved(&ledger.state(), id));
                continue;
            }
            let actor = ledger.actor("gate", "gate");
            let taken = ledger.append(&actor, |state| {
                let taken = allowance.wanted(reserved(state, id)).unwrap_or_default();
                let id = id.clone();
                Ok(Change::BudgetTaken { id, taken })
            });
            match taken.await {
                Ok(entry) => {
                    if let Change::BudgetTaken { taken, .. } = entry.change {
                        allowance.add(taken);
                    }
                }
                Err(error) => tracing::warn!(exception = %id, "no budget is reserved: {error}"),
            }
            allowance.note(reserved(&ledger.state(), id));
        }
    }
}

impl Announced {
    fn facts(&self, asker: Asker, detail: Option<&str>) -> ExceptionFacts {
        let grant = &self.grant;
        ExceptionFacts {
            id: grant.id.as_str().into(),
            location: self.location.clone(),
            expires: grant.expires,
            reviewers: grant.reviewer.iter().map(|it| it.as_str().into()).collect(),
            hosts: grant.to.hosts.iter().map(|it| it.as_str().into()).collect(),
            detail: detail.unwrap_or(&grant.reason).into(),
            asker,
        }
    }
}

/// Adds the exceptions of the ledger that hold, that the policy can read and that none of its
/// invariants forbids. Returns the others, each with the reason why it is not in force.
fn add_granted(
    policy: &Policy,
    state: &State,
    before: &Exceptions,
    now: Timestamp,
    all: &mut Vec<Arc<Exception>>,
) -> BTreeMap<String, Arc<str>> {
    let known: HashMap<&str, &Arc<Exception>> =
        before.iter().map(|it| (&*it.grant.id, it)).collect();
    let (mut new, mut closed) = (Vec::new(), BTreeMap::new());
    for granted in state.granted.values().filter(|it| it.holds(now)) {
        let id = &granted.grant.id;
        if let Some(known) = known.get(&**id).filter(|it| it.is_granted()) {
            all.push((*known).clone());
        } else if let Some(why) = before.why_not(id) {
            closed.insert(id.clone(), why.clone());
        } else {
            match compiled(policy, granted) {
                Ok(exception) => new.push(Arc::new(exception)),
                Err(why) => close(id, &why, &mut closed),
            }
        }
    }
    match policy.forbidden(all, &new) {
        Ok(forbidden) => {
            for it in &forbidden {
                new.retain(|exception| exception.named.name != it.id);
                close(&it.id, &it.to_string(), &mut closed);
            }
            all.extend(new);
        }
        Err(why) => {
            for exception in &new {
                close(&exception.grant.id, &why.to_string(), &mut closed);
            }
        }
    }
    closed
}

fn close(id: &str, why: &str, closed: &mut BTreeMap<String, Arc<str>>) {
    tracing::warn!(exception = %id, "a granted exception is not in force: {why}");
    closed.insert(id.to_owned(), why.into());
}

fn compiled(policy: &Policy, granted: &Granted) -> Result<Exception, String> {
    let mut written = policy.exceptions().iter();
    if written.any(|it| it.grant.id == granted.grant.id) {
        return Err("an exception of the files has the same id".to_owned());
    }
    let location = format!("ledger:{}", granted.revision);
    let compiled = policy.compile_grant(&granted.grant, &location);
    compiled.map_err(|findings| {
        let first = findings.first().map(|finding| finding.message.clone());
        first.unwrap_or_default()
    })
}

fn reserved(state: &State, id: &str) -> Limit {
    let budget = state.budgets.get(id).copied().unwrap_or_default();
    Limit {
        bytes_out: Some(budget.bytes_out),
        requests: Some(budget.requests),
    }
}

pub(super) fn asker(actor: &crate::ledger::Actor) -> Asker {
    let uid = actor.principal.strip_prefix("uid:");
    Asker {
        door: match actor.door.as_str() {
            "admin" => "admin",
            "admin-tls" => "admin-tls",
            "control" => "control",
            _ => "",
        },
        uid: uid.and_then(|uid| uid.parse().ok()),
        ..Asker::default()
    }
}

impl Gate {
    /// The state of the ledger, which is also put into the metrics; `None`: there is no ledger.
    pub fn ledger_status(&self) -> Option<LedgerStatus> {
        let ledger = self.exceptions.ledger.as_ref()?;
        let health = ledger.health();
        let status = LedgerStatus {
            revision: ledger.state().revision,
            answered: health.answered,
            failure: health.failure.as_ref().map(ToString::to_string),
            failures: health.failures,
            is_stale: self.exceptions.is_stale(ledger, self.clock.now()),
        };
        let LedgerStatus {
            revision, answered, ..
        } = status;
        self.metrics
            .ledger(revision, answered, status.is_stale, status.failures);
        Some(status)
    }

    /// Builds the exceptions in force for a generation.
    pub(super) fn refresh_exceptions(&self, snapshot: &Snapshot) {
        // One set at a time: a set that was built earlier never replaces a later one.
        let mut announced = lock(&self.exceptions.announced);
        let now = self.clock.now();
        let before = snapshot.exceptions.load_full();
        let exceptions = self.exceptions.in_force(&snapshot.policy, &before, now);
        let exceptions = Arc::new(exceptions);
        self.exceptions
            .announce(self, &mut announced, &exceptions, now);
        let spent = exceptions.iter().filter(|it| it.is_spent()).count();
        let next = exceptions.iter().map(|it| it.grant.expires).min();
        self.metrics
            .exceptions(exceptions.iter().count() - spent, spent, next);
        snapshot.exceptions.store(exceptions);
    }

    /// Puts the exceptions of the first generation in force, and the approvals of the ledger.
    pub fn begin_exceptions(&self) {
        self.refresh_exceptions(&self.snapshot.load());
        self.adopt_settlements();
    }

    /// Puts what the ledger says now in force, and ends the open flows that no longer pass.
    pub fn refresh(&self) {
        let snapshot = self.snapshot.load_full();
        self.refresh_exceptions(&snapshot);
        self.flows.judge_again_excepted(self, &snapshot);
        self.exceptions_changed();
    }

    /// Says that the policy changed, or an approval is in force.
    pub(super) fn exceptions_changed(&self) {
        self.exceptions.changed.notify_one();
    }

    /// Keeps the exceptions in force and their budgets up to date until it is cancelled.
    pub async fn keep_exceptions(self: Arc<Self>, until: CancellationToken) {
        let kept = async { tokio::join!(self.keep_in_force(), self.keep_budgets()) };
        until.run_until_cancelled(kept).await;
    }

    async fn keep_in_force(&self) {
        let keeper = &self.exceptions;
        let mut revisions = keeper.ledger.as_ref().map(|ledger| ledger.changes());
        loop {
            let sleep = self.renew_exceptions();
            keeper.low.notify_one();
            tokio::select! {
                () = keeper.changed.notified() => {}
                () = changed(&mut revisions) => {}
                () = pause(sleep) => {}
            }
        }
    }

    /// Builds the set anew, and the approvals, and judges the open flows by them. Returns how long they
    /// stay as they are.
    fn renew_exceptions(&self) -> Option<Duration> {
        let snapshot = self.snapshot.load_full();
        self.refresh_exceptions(&snapshot);
        self.flows.judge_again_excepted(self, &snapshot);
        self.adopt_settlements();
        self.tend_requests();
        let exceptions = snapshot.exceptions.load();
        let approval_ends = self.requests.next_end();
        self.exceptions
            .next_change(&exceptions, approval_ends, self.clock.now())
    }

    /// Reserves budgets. A ledger that does not answer delays this, and no end of an exception.
    async fn keep_budgets(&self) {
        loop {
            self.exceptions.low.notified().await;
            let snapshot = self.snapshot.load_full();
            let exceptions = snapshot.exceptions.load_full();
            self.exceptions.reserve(&exceptions).await;
            self.flows.judge_again_excepted(self, &snapshot);
        }
    }
}

async fn changed(revisions: &mut Option<tokio::sync::watch::Receiver<u64>>) {
    if let Some(revisions) = revisions
        && revisions.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

async fn pause(sleep: Option<Duration>) {
    match sleep {
        // A clock that is set by hand does not wake a sleeper.
        Some(sleep) => tokio::time::sleep(sleep.max(Duration::from_millis(20))).await,
        None => std::future::pending().await,
    }
}

fn lock<T>(part: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
