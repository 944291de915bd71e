//! What flows hand to the thread that writes: lines in order, and what could not be kept.
//!
//! The queue needs no bound of its own: every line in it stands in the room of a permit, and a
//! permit's room is free again only when its flow's last line is written. Events, which have no
//! permit, are bounded by [`MAX_EVENTS`].

use std::mem;
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
/// How long lines gather under load.
const REST: Duration = Duration::from_micros(250);

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
    /// The writing thread sleeps and has to be woken.
    idle: bool,
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
            state: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// How the writing goes now.
    pub(super) fn health(&self) -> Health {
        *self.health.borrow()
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
        self.rouse(&mut state);
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
        self.add(&mut state, line, waiter, None);
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
        self.rouse(state);
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
        self.wake.notify_one();
    }

    /// No new flows; the thread ends when all is written.
    pub(super) fn close(&self) {
        let _state = self.lock();
        self.health.send_if_modified(|health| {
            let changes = !matches!(health, Health::Closing | Health::Ended);
            if changes {
                *health = Health::Closing;
            }
            changes
        });
        self.wake.notify_one();
    }

    /// Waits for something to do: at most [`RETRY`] while the sink fails, else [`TICK`].
    ///
    /// Where the `last` orders are not long gone there is load, and then a short rest lets lines
    /// gather: a thread that woke for each line would cost every flow two switches.
    pub(super) fn next(&self, failing: bool, last: Instant) -> Orders {
        let mut state = self.lock();
        if failing {
            if !self.closing() && !state.reopen {
                let waited = self.wake.wait_timeout(state, RETRY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        } else {
            state.idle = self.is_idle(&state);
            let waited = self
                .wake
                .wait_timeout_while(state, TICK, |state| self.is_idle(state));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.idle = false;
        let busy = !state.lines.is_empty();
        if busy && !failing && self.clock.instant().duration_since(last) < BUSY {
            drop(state);
            thread::sleep(REST);
            state = self.lock();
        }
        state.events = 0;
        let lines = mem::take(&mut state.lines);
        state.held += lines.len();
        Orders {
            lines,
            missing: state.missing.take(),
            reopen: mem::take(&mut state.reopen),
            closing: self.closing(),
        }
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

    /// The sink fails: from here on nobody waits for a line. Takes back what was waited for.
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

    fn is_idle(&self, state: &State) -> bool {
        state.lines.is_empty() && !state.reopen && !self.closing()
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

    fn rouse(&self, state: &mut State) {
        if mem::take(&mut state.idle) {
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
