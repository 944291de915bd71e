//! Lines on their way to the log, in order, and what could not be kept.
//!
//! A flow that waits for its line writes the queue itself where it may ([`Queue::is_direct`]): no
//! thread has to be woken. Else, and for lines that no flow waits for, the writing thread does.
//!
//! The queue needs no bound of its own: every line in it stands in the room of a permit, and a
//! permit's room is free again only when its flow's last line is written. Events, which have no
//! permit, are bounded by [`MAX_EVENTS`].

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::clock::Clock;
use crate::config::{self, OnFailure};
use crate::metrics::Metrics;

use super::encode::Line;
use super::repeats::Repeats;

/// Events that may wait to be written.
pub(super) const MAX_EVENTS: usize = 1024;
/// How often a sink that fails is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often the writing thread looks after the file and what is due, without lines to write.
const TICK: Duration = Duration::from_secs(1);

/// Orders that follow the last within this time are a sign of load.
const BUSY: Duration = Duration::from_millis(1);
/// How long lines gather under load, before the writing thread writes them.
const LOAD_GATHER_TIME: Duration = Duration::from_micros(250);
/// How long lines that no flow waits for gather before the writing thread writes them. A flow that
/// writes before takes them along.
const IDLE_GATHER_TIME: Duration = Duration::from_millis(10);

/// What all handles and the writing thread share.
#[derive(Debug)]
pub(super) struct Queue {
    /// Room for flows.
    pub(super) room: Arc<Semaphore>,
    /// What happens to new flows while records cannot be kept.
    pub(super) on_failure: OnFailure,
    /// Tells the time.
    pub(super) clock: Clock,
    /// Counts.
    pub(super) metrics: Metrics,
    /// What is counted instead of written.
    pub(super) repeats: Repeats,
    health: watch::Sender<Health>,
    /// Whether flows may write the queue themselves.
    direct: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
}

/// How the writing goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Health {
    /// No new flows; what is queued is being written.
    Closing,
    /// Nothing is written any more.
    Ended,
    /// The sink fails and is tried again.
    Failing,
    /// Lines are written.
    Writing,
}

/// A line on its way.
#[derive(Debug)]
pub(super) struct Queued {
    /// The line.
    pub(super) line: Line,
    /// The flow or the call that waits until the line is written.
    pub(super) waiter: Option<Waiter>,
    /// The flow's room, where this is its last line: free when it is written.
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

/// What the next `record_gap` tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    /// `failing`, `slow`, `unsaid`, or a change of the file: `appended`, `moved`, `removed`,
    /// `replaced`, `truncated`.
    pub(super) cause: &'static str,
    /// When it began.
    pub(super) since: Timestamp,
    /// Lines that will never be written.
    pub(super) lost: u64,
    /// Flows refused without a line.
    pub(super) refused: u64,
    /// Bytes that the file lacks, or has more than it should.
    pub(super) bytes: u64,
}

/// What the writing thread is to do next.
#[derive(Debug)]
pub(super) struct Orders {
    /// Lines to write.
    pub(super) lines: Vec<Queued>,
    /// What to tell first.
    pub(super) missing: Option<Missing>,
    /// Open the file anew before.
    pub(super) reopen: bool,
    /// End after.
    pub(super) closing: bool,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Queued>,
    /// Lines in the hands of the writing thread.
    held: usize,
    events: usize,
    missing: Option<Missing>,
    reopen: bool,
    /// What the writing thread was last woken for.
    call: Call,
    /// When lines were last taken to be written.
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
            health: watch::Sender::new(Health::Writing),
            direct: AtomicBool::new(false),
            state: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// How the writing goes now.
    pub(super) fn health(&self) -> Health {
        *self.health.borrow()
    }

    /// Whether a flow may write the queue itself.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Acquire) && self.health() == Health::Writing
    }

    /// Sets whether flows may write the queue themselves.
    pub(super) fn set_direct(&self, direct: bool) {
        self.direct.store(direct, Ordering::Release);
    }

    /// Whether a flow that writes the queue should let other flows add their lines first: there is
    /// load.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        let now = self.clock.instant();
        let recent = |taken: Instant| now.saturating_duration_since(taken) < BUSY;
        state.lines.len() > 1 || state.taken.is_some_and(recent)
    }

    /// Whether lines wait that the writer has not taken.
    pub(super) fn has_lines(&self) -> bool {
        !self.lock().lines.is_empty()
    }

    /// To wait for a change of health.
    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Queues a line; `false` where it can never be written (then it is counted as lost).
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

    /// Queues a line and says how to wait for it; `None` where the sink fails.
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
        // The flow writes it; where the flow is dropped first, the line is not wanted any more.
        if !self.is_direct() {
            self.call(&mut state, Call::Now);
        }
        drop(state);
        Some(receiver)
    }

    /// Queues the line of a refusal and says how to wait for it; the line is written even if the
    /// flow stops waiting. `None` where the sink fails or has ended.
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

    /// Queues the line of an event, where fewer than `capacity` events wait.
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

    /// Queues the line of an event and says how to wait for it, where there is room. `None` where
    /// the line will not be written soon: the sink fails, has ended, or is too slow.
    ///
    /// A `removable` line is only queued where the sink works.
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

    /// Tells of a change of the file.
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

    /// Has the file opened anew.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        state.reopen = true;
        self.call(&mut state, Call::Now);
    }

    /// No new flows; the thread ends when all is written.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        self.health.send_if_modified(|health| {
            let changes = !matches!(health, Health::Closing | Health::Ended);
            if changes {
                *health = Health::Closing;
            }
            changes
        });
        self.call(&mut state, Call::Now);
    }

    /// Waits, on the writing thread, for something to do: at most [`RETRY`] while the sink fails,
    /// else [`TICK`].
    ///
    /// Where the `last` turn was not long ago there is load, and then a short rest lets lines
    /// gather: a thread that woke for each line would cost every flow two switches.
    pub(super) fn wait(&self, failing: bool, last: Instant) {
        let mut state = self.lock();
        if failing {
            // Lines that come meanwhile wait for the next try as well.
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

    /// Takes what there is to do.
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

    /// Takes lines for a flow that writes them itself; `None` where there is more to do than that.
    pub(super) fn take_lines(&self) -> Option<Vec<Queued>> {
        let mut state = self.lock();
        if state.reopen || state.missing.is_some() || self.health() != Health::Writing {
            return None;
        }
        state.events = 0;
        state.taken = Some(self.clock.instant());
        let lines = mem::take(&mut state.lines);
        state.held += lines.len();
        Some(lines)
    }

    /// Has the writing thread look at the queue at once.
    pub(super) fn hurry(&self) {
        self.call(&mut self.lock(), Call::Now);
    }

    /// The writing thread makes lines itself.
    pub(super) fn holds(&self, lines: usize) {
        self.lock().held += lines;
    }

    /// Lines that the writing thread held are written, or taken back.
    pub(super) fn settled(&self, lines: usize) {
        let mut state = self.lock();
        state.held = state.held.saturating_sub(lines);
        self.metrics.record_queue(state.lines.len() + state.held);
    }

    /// What was to be told was not.
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

    /// The sink fails: from here on no flow waits for a line. Takes back what was waited for.
    pub(super) fn failed(&self) {
        let mut state = self.lock();
        self.become_unless_closing(Health::Failing);
        let on_failure = self.on_failure;
        state.lines.retain_mut(|queued| keep(queued, on_failure));
    }

    /// The sink works again.
    pub(super) fn recovered(&self) {
        let _state = self.lock();
        self.become_unless_closing(Health::Writing);
    }

    /// The thread is gone; what is still queued is lost.
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
        self.health.send_replace(Health::Ended);
        self.room.close();
    }

    fn closing(&self) -> bool {
        matches!(self.health(), Health::Closing | Health::Ended)
    }

    fn become_unless_closing(&self, new: Health) {
        self.health.send_if_modified(|health| {
            let changes = !matches!(health, Health::Closing | Health::Ended) && *health != new;
            if changes {
                *health = new;
            }
            changes
        });
    }

    /// Wakes the writing thread for new lines: at once where flows do not write themselves.
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

/// Whether a line stays queued while the sink fails. Tells the flow that waits for the line: with
/// `on-failure = "continue"` it goes on; otherwise it is refused, and the line that would have let
/// it pass is removed.
pub(super) fn keep(queued: &mut Queued, on_failure: OnFailure) -> bool {
    let Some(Waiter { written, removable }) = queued.waiter.take() else {
        return true;
    };
    let goes_on = on_failure == OnFailure::Continue;
    let told = written.send(goes_on).is_ok();
    goes_on || !removable || !told
}
