//! The lines that wait to be written to the log, in order, and the counts of lost lines.
//!
//! A flow that waits for its line may write the queue itself ([`Queue::is_direct`]): then no thread
//! has to be woken. Otherwise, and for lines that no flow waits for, the writing thread writes.
//!
//! The queue needs no bound of its own: every line has the memory of a permit, and a permit's
//! memory is free only when the flow's last line is written. Events, which have no permit, are
//! bounded by [`MAX_EVENTS`].

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::clock::Clock;
use crate::config::{self, OnFailure};
use crate::metrics::Metrics;

use super::decision_text::DecisionTexts;
use super::encode::Line;
use super::repeats::Repeats;

/// Maximum number of events that wait to be written.
pub(super) const MAX_EVENTS: usize = 1024;
/// How often the writing thread retries a sink that fails.
const RETRY: Duration = Duration::from_millis(250);
/// How often the writing thread checks the file and the due work if no lines are queued.
const TICK: Duration = Duration::from_secs(1);

/// A call for the writer within this time after the previous one is a sign of load.
const BUSY: Duration = Duration::from_millis(1);
/// How long lines gather under load before the writing thread writes them.
const LOAD_GATHER_TIME: Duration = Duration::from_micros(250);
/// How long lines that no flow waits for gather before the writing thread writes them. A flow that
/// writes before takes them along.
const IDLE_GATHER_TIME: Duration = Duration::from_millis(10);

/// The state that all recorder handles and the writing thread share.
#[derive(Debug)]
pub(super) struct Queue {
    /// The permits of flows that are available.
    pub(super) room: Arc<Semaphore>,
    /// What the gate does with new flows while the sink fails.
    pub(super) on_failure: OnFailure,
    /// The clock of the lines.
    pub(super) clock: Clock,
    /// The metrics of the gate.
    pub(super) metrics: Metrics,
    /// The counts of repeated refusals and events.
    pub(super) repeats: Repeats,
    /// The kept texts of decisions.
    pub(super) texts: DecisionTexts,
    /// The state of the sink, for those that wait for a change.
    health: watch::Sender<Health>,
    /// The same state: each flow reads it several times, without a lock.
    health_now: AtomicU8,
    /// Whether flows may write the queue themselves.
    direct: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
}

const CLOSING: u8 = Health::Closing as u8;
const FAILING: u8 = Health::Failing as u8;
const WRITING: u8 = Health::Writing as u8;

/// The state of the sink.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Health {
    /// No new flows; the queued lines are being written.
    Closing,
    /// No line is written any more.
    Ended,
    /// The sink fails, and the writing thread retries it.
    Failing,
    /// Lines are written.
    Writing,
}

/// A line that waits to be written.
#[derive(Debug)]
pub(super) struct Queued {
    /// The line.
    pub(super) line: Line,
    /// The flow or the call that waits until the line is written.
    pub(super) waiter: Option<Waiter>,
    /// The flow's permit, if this is the flow's last line: free when the line is written.
    #[expect(dead_code, reason = "it is held, not read")]
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// A flow that waits until its line is written.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Gets `true` when the line is written, `false` when the sink fails.
    pub(super) written: oneshot::Sender<bool>,
    /// Whether the line is removed when the flow stops waiting: a line that lets a flow pass must
    /// not be written after that flow was refused. The line of a refusal stays.
    pub(super) removable: bool,
}

/// The facts of the next `record_gap` line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    /// The cause: `failing`, `slow`, `unsaid`, or a change of the file: `appended`, `moved`,
    /// `removed`, `replaced`, `truncated`.
    pub(super) cause: &'static str,
    /// When the gap began.
    pub(super) since: Timestamp,
    /// Lines that will never be written.
    pub(super) lost: u64,
    /// Flows that were refused without a line.
    pub(super) refused: u64,
    /// Bytes that the file has too few or too many.
    pub(super) bytes: u64,
}

/// The next work of the writing thread.
#[derive(Debug)]
pub(super) struct Orders {
    /// Lines to write.
    pub(super) lines: Vec<Queued>,
    /// The facts of a `record_gap` line to write before the lines.
    pub(super) missing: Option<Missing>,
    /// Whether to open the path again first.
    pub(super) reopen: bool,
    /// Whether to end afterwards.
    pub(super) closing: bool,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Queued>,
    /// The number of lines that the writing thread has taken and not written.
    held: usize,
    events: usize,
    missing: Option<Missing>,
    reopen: bool,
    /// The last wake-up call of the writing thread.
    call: Call,
    /// When lines were last taken from the queue.
    taken: Option<Instant>,
}

/// How urgently the writing thread has to look at the queue.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
enum Call {
    /// Not before the next tick.
    #[default]
    None,
    /// After [`IDLE_GATHER_TIME`].
    Soon,
    /// At once.
    Now,
}

impl Queue {
    pub(super) fn new(
        flows: usize,
        config: &config::Record,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self {
            room: Arc::new(Semaphore::new(flows.clamp(1, Semaphore::MAX_PERMITS))),
            on_failure: config.on_failure,
            clock,
            metrics,
            repeats: Repeats::new(config.repeat_window, config.repeat_after),
            texts: DecisionTexts::default(),
            health: watch::Sender::new(Health::Writing),
            health_now: AtomicU8::new(Health::Writing as u8),
            direct: AtomicBool::new(false),
            state: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Returns the state of the sink.
    pub(super) fn health(&self) -> Health {
        match self.health_now.load(Ordering::Acquire) {
            CLOSING => Health::Closing,
            FAILING => Health::Failing,
            WRITING => Health::Writing,
            _ => Health::Ended,
        }
    }

    /// Sets the state of the sink, if `allowed` from the present one. Called with the lock.
    fn set_health(&self, new: Health, allowed: impl FnOnce(Health) -> bool) {
        self.health.send_if_modified(|health| {
            let changes = *health != new && allowed(*health);
            if changes {
                *health = new;
                self.health_now.store(new as u8, Ordering::Release);
            }
            changes
        });
    }

    /// Whether a flow may write the queue itself.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Acquire) && self.health() == Health::Writing
    }

    /// Sets whether flows may write the queue themselves.
    pub(super) fn set_direct(&self, direct: bool) {
        self.direct.store(direct, Ordering::Release);
    }

    /// Whether load is high: a flow that writes the queue first lets other flows add their lines.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        let recent = |taken| self.clock.instant().saturating_duration_since(taken) < BUSY;
        state.lines.len() > 1 || state.taken.is_some_and(recent)
    }

    /// Whether the queue has lines.
    pub(super) fn has_lines(&self) -> bool {
        !self.lock().lines.is_empty()
    }

    /// Returns a receiver that notices a change of health.
    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Queues a line. Returns `false` if the line can never be written; the line is counted as
    /// lost.
    pub(super) fn push(&self, queued: Queued) -> bool {
        let mut state = self.lock();
        if self.health() == Health::Ended {
            self.lose(&mut state, "unsaid", 1, 0);
            return false;
        }
        state.lines.push(queued);
        self.metrics.record_queue(state.lines.len() + state.held);
        self.call_for_lines(&mut state);
        true
    }

    /// Queues a line and returns a receiver for its result; `None` if the sink fails.
    pub(super) fn push_awaited(&self, line: Line) -> Option<oneshot::Receiver<bool>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        let waiter = match self.health() {
            Health::Closing | Health::Writing => Some(Waiter {
                written: sender,
                removable: true,
            }),
            Health::Failing if self.on_failure == OnFailure::Continue => {
                let _ = sender.send(true);
                None
            }
            Health::Ended | Health::Failing => return None,
        };
        state.lines.push(Queued {
            line,
            waiter,
            room: None,
        });
        self.metrics.record_queue(state.lines.len() + state.held);
        // The waiting flow writes the line. If the flow is dropped first, the line is removed.
        if !self.is_direct() {
            self.call(&mut state, Call::Now);
        }
        drop(state);
        Some(receiver)
    }

    /// Queues the line of a refusal and returns a receiver for the result; the line is written even
    /// if the flow stops waiting. `None` if the sink fails or has ended.
    pub(super) fn push_refusal(
        &self,
        line: Line,
        room: Option<OwnedSemaphorePermit>,
    ) -> Option<oneshot::Receiver<bool>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        let (waiter, receiver) = match self.health() {
            Health::Ended => {
                self.lose(&mut state, "unsaid", 1, 0);
                return None;
            }
            Health::Failing => (None, None),
            Health::Closing | Health::Writing => {
                let waiter = Waiter {
                    written: sender,
                    removable: false,
                };
                (Some(waiter), Some(receiver))
            }
        };
        self.add(&mut state, line, waiter, room);
        receiver
    }

    fn add(
        &self,
        state: &mut State,
        line: Line,
        waiter: Option<Waiter>,
        room: Option<OwnedSemaphorePermit>,
    ) {
        state.lines.push(Queued { line, waiter, room });
        self.metrics.record_queue(state.lines.len() + state.held);
        self.call_for_lines(state);
    }

    /// Queues the line of an event if fewer than `capacity` events wait.
    pub(super) fn push_event(&self, line: Line, capacity: usize) {
        let mut state = self.lock();
        if self.health() == Health::Ended || state.events >= capacity {
            self.lose(&mut state, "slow", 1, 0);
            return;
        }
        state.events += 1;
        self.add(&mut state, line, None, None);
        self.call(&mut state, Call::Now);
    }

    /// Queues the line of an event, if there is room, and returns a receiver for the result. `None`
    /// if the line will not be written soon: the sink fails, has ended, or is too slow.
    ///
    /// A `removable` line is queued only while the sink works.
    pub(super) fn push_event_awaited(
        &self,
        line: Line,
        capacity: usize,
        removable: bool,
    ) -> Option<oneshot::Receiver<bool>> {
        let (written, receiver) = oneshot::channel();
        let mut state = self.lock();
        let health = self.health();
        let fails = matches!(health, Health::Ended | Health::Failing);
        if fails && removable && self.on_failure == OnFailure::Refuse {
            return None;
        }
        if health == Health::Ended || state.events >= capacity {
            self.lose(&mut state, "slow", 1, 0);
            return None;
        }
        state.events += 1;
        let waiter = (!fails).then_some(Waiter { written, removable });
        let receiver = waiter.is_some().then_some(receiver);
        self.add(&mut state, line, waiter, None);
        self.call(&mut state, Call::Now);
        receiver
    }

    /// Counts lines that will never be written.
    pub(super) fn lost(&self, cause: &'static str, lines: u64) {
        self.lose(&mut self.lock(), cause, lines, 0);
    }

    /// Adds a change of the file to the next `record_gap` line.
    pub(super) fn changed(&self, cause: &'static str, lost: u64, bytes: u64) {
        let mut state = self.lock();
        self.metrics.records_lost(lost);
        let now = self.clock.now();
        let missing = state.missing.get_or_insert(Missing {
            cause,
            since: now,
            lost: 0,
            refused: 0,
            bytes: 0,
        });
        missing.cause = cause;
        missing.lost += lost;
        missing.bytes += bytes;
    }

    /// Counts a flow that was refused and has no line.
    pub(super) fn refused_untold(&self, cause: &'static str) {
        self.lose(&mut self.lock(), cause, 0, 1);
    }

    /// Requests that the writing thread opens the path again.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        state.reopen = true;
        self.call(&mut state, Call::Now);
    }

    /// Stops new flows; the writing thread ends when all lines are written.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        self.set_health(Health::Closing, |health| health != Health::Ended);
        self.call(&mut state, Call::Now);
    }

    /// Waits, on the writing thread, for work: at most [`RETRY`] while the sink fails, otherwise at
    /// most [`TICK`].
    ///
    /// If the previous write, at `last`, was recent, load is high. A short pause then lets lines
    /// gather: waking the thread for each line would cost every flow two context switches.
    pub(super) fn wait(&self, failing: bool, last: Instant) {
        let mut state = self.lock();
        if failing {
            // Lines that arrive meanwhile wait for the next try as well.
            let waited = self
                .wake
                .wait_timeout_while(state, RETRY, |state| !state.reopen && !self.closing());
            waited.unwrap_or_else(PoisonError::into_inner).0.call = Call::None;
            return;
        }
        state = self.wait_for(state, Call::Soon, TICK);
        if state.call == Call::Soon {
            state = self.wait_for(state, Call::Now, IDLE_GATHER_TIME);
        }
        let urgent = mem::take(&mut state.call) == Call::Now && !state.lines.is_empty();
        if urgent && self.clock.instant().duration_since(last) < BUSY {
            drop(state);
            thread::sleep(LOAD_GATHER_TIME);
        }
    }

    fn wait_for<'q>(
        &self,
        state: MutexGuard<'q, State>,
        call: Call,
        longest: Duration,
    ) -> MutexGuard<'q, State> {
        let waited = self
            .wake
            .wait_timeout_while(state, longest, |state| state.call < call && !self.closing());
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes all work of the writing thread.
    pub(super) fn take(&self) -> Orders {
        let mut state = self.lock();
        state.events = 0;
        let lines = mem::take(&mut state.lines);
        state.held += lines.len();
        if !lines.is_empty() {
            state.taken = Some(self.clock.instant());
        }
        Orders {
            lines,
            missing: state.missing.take(),
            reopen: mem::take(&mut state.reopen),
            closing: self.closing(),
        }
    }

    /// Takes lines for a flow that writes them itself; `None` if there is other work, which only
    /// the writing thread does.
    pub(super) fn take_lines(&self) -> Option<Vec<Queued>> {
        let mut state = self.lock();
        if state.reopen || state.missing.is_some() || self.health() != Health::Writing {
            return None;
        }
        state.events = 0;
        state.taken = Some(self.clock.instant());
        // As many lines are likely to come before the next turn: room for them is taken at once.
        let room = Vec::with_capacity(state.lines.len());
        let lines = mem::replace(&mut state.lines, room);
        state.held += lines.len();
        Some(lines)
    }

    /// Wakes the writing thread at once.
    pub(super) fn hurry(&self) {
        self.call(&mut self.lock(), Call::Now);
    }

    /// Counts lines that the writing thread makes itself.
    pub(super) fn holds(&self, lines: usize) {
        self.lock().held += lines;
    }

    /// Removes from that count lines that are written or returned to the queue.
    pub(super) fn settled(&self, lines: usize) {
        let mut state = self.lock();
        state.held = state.held.saturating_sub(lines);
        self.metrics.record_queue(state.lines.len() + state.held);
    }

    /// Restores the facts of a `record_gap` line that was not written.
    pub(super) fn untold(&self, missing: Missing) {
        let mut state = self.lock();
        state.missing = Some(match state.missing.take() {
            None => missing,
            Some(later) => Missing {
                lost: missing.lost + later.lost,
                refused: missing.refused + later.refused,
                ..missing
            },
        });
    }

    /// Sets the state to failing: no flow waits for a line from now on. Removes the awaited lines.
    pub(super) fn failed(&self) {
        let mut state = self.lock();
        self.become_unless_closing(Health::Failing);
        let on_failure = self.on_failure;
        state.lines.retain_mut(|queued| keep(queued, on_failure));
    }

    /// Sets the state to writing again.
    pub(super) fn recovered(&self) {
        let _state = self.lock();
        self.become_unless_closing(Health::Writing);
    }

    /// Sets the state to ended; lines still in the queue are lost.
    pub(super) fn ended(&self, unwritten: usize) {
        let mut state = self.lock();
        let lines = mem::take(&mut state.lines);
        let lost = unwritten.saturating_add(lines.len());
        if lost > 0 {
            self.lose(
                &mut state,
                "failing",
                u64::try_from(lost).unwrap_or(u64::MAX),
                0,
            );
        }
        self.metrics.record_queue(0);
        self.set_health(Health::Ended, |_| true);
        self.room.close();
    }

    fn closing(&self) -> bool {
        matches!(self.health(), Health::Closing | Health::Ended)
    }

    fn become_unless_closing(&self, new: Health) {
        self.set_health(new, |health| {
            !matches!(health, Health::Closing | Health::Ended)
        });
    }

    /// Wakes the writing thread for new lines: at once if flows do not write the queue themselves.
    fn call_for_lines(&self, state: &mut State) {
        let call = if self.is_direct() {
            Call::Soon
        } else {
            Call::Now
        };
        self.call(state, call);
    }

    fn call(&self, state: &mut State, call: Call) {
        if state.call < call {
            state.call = call;
            self.wake.notify_one();
        }
    }

    fn lose(&self, state: &mut State, cause: &'static str, lost: u64, refused: u64) {
        let now = self.clock.now();
        let missing = state.missing.get_or_insert(Missing {
            cause,
            since: now,
            lost: 0,
            refused: 0,
            bytes: 0,
        });
        missing.lost += lost;
        missing.refused += refused;
        self.metrics.records_lost(lost + refused);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a line stays queued while the sink fails. Notifies the flow that waits for the line:
/// with `on-failure = "continue"` the flow goes on; otherwise the flow is refused, and the line
/// that would have allowed the flow is removed.
pub(super) fn keep(queued: &mut Queued, on_failure: OnFailure) -> bool {
    let Some(Waiter { written, removable }) = queued.waiter.take() else {
        return true;
    };
    let goes_on = on_failure == OnFailure::Continue;
    let told = written.send(goes_on).is_ok();
    goes_on || !removable || !told
}
