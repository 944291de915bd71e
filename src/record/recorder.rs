//! The recorder: gives flows their permits and writes the log.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError, oneshot};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::config::{self, OnFailure};
use crate::metrics::Metrics;

#[cfg(test)]
use super::chain::Head;
use super::encode::{self, Line};
use super::flow::FlowRecord;
use super::key::Signer;
use super::line::{CloseFacts, Event, FlowFacts};
use super::queue::{Health, MAX_EVENTS, Queue, Queued};
use super::repeats::Noted;
use super::sink::Sink;
use super::tally::Tally;
use super::writer::{self, Writer};

/// How long a flow waits for a permit.
const ROOM: Duration = Duration::from_secs(2);
/// How long a flow waits for its line to be written before it is refused.
const WRITTEN: Duration = Duration::from_secs(10);
/// The same with `on-failure = "continue"`, where flows pass although records are lost.
const WRITTEN_CONTINUE: Duration = Duration::from_secs(2);
/// How long [`Recorder::close`] waits for the queued lines.
const CLOSE: Duration = Duration::from_secs(5);

/// Records cannot be kept now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("records cannot be kept: {0}")]
pub struct RecordUnavailable(pub Unavailable);

/// Why records cannot be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unavailable {
    /// Shutdown has begun.
    #[error("the log is closed")]
    Closed,
    /// The sink fails.
    #[error("the log cannot be written")]
    Failing,
    /// The sink is too slow.
    #[error("the log does not keep up")]
    Full,
}

/// The handle of the decision log; cheap to clone. When the last clone is dropped, the queued lines
/// are written.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
    writer: Arc<Mutex<Writer>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    /// The counts of decisions for the summary of a command.
    tally: OnceLock<Arc<Tally>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Recorder {
    /// Opens the log, records which flows of an earlier run have no end (`record_gap`), and starts
    /// the writing thread. `flows` is the maximum number of permits in use.
    ///
    /// Returns `Err` if the file cannot be opened, or another process writes the file.
    pub fn start(
        config: &config::Record,
        flows: usize,
        clock: Clock,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let (sink, found) = Sink::open(config)?;
        // A device has no folder for the key, and no content at the next start.
        let signer = match (&config.key, &config.file) {
            (Some(key), Some(log)) if sink.is_file() => Some(Signer::open(key, log)?),
            (Some(key), None) => Some(Signer::open(key, Path::new("stdout"))?),
            _ => None,
        };
        let last_checkpoint = signer.as_ref().map(|signer| signer.head);
        let last_checkpoint = last_checkpoint.filter(|_| sink.is_file());
        let queue = Arc::new(Queue::new(flows, config, clock, metrics.clone()));
        writer::begin(&queue, &found, last_checkpoint);
        // A log that ends before the last signed line continues after that line, so the gap is
        // visible.
        let head = last_checkpoint
            .filter(|checkpoint| checkpoint.seq >= found.head.seq)
            .unwrap_or(found.head);
        let mut writer = Writer::new(queue.clone(), sink, signer, head);
        writer.begin(&found);
        Self::run(queue, writer)
    }

    /// Like [`Recorder::start`], with a sink that is open.
    #[cfg(test)]
    pub(super) fn over(
        sink: Sink,
        on_failure: OnFailure,
        flows: usize,
        clock: Clock,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let config = config::Record {
            on_failure,
            ..config::embedded().record
        };
        let queue = Arc::new(Queue::new(flows, &config, clock, metrics.clone()));
        let writer = Writer::new(queue.clone(), sink, None, Head::default());
        Self::run(queue, writer)
    }

    fn run(queue: Arc<Queue>, writer: Writer) -> io::Result<Self> {
        let writer = Arc::new(Mutex::new(writer));
        let shared = writer.clone();
        let thread = thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || Writer::run(&shared))?;
        Ok(Self(Arc::new(Handle {
            queue,
            writer,
            thread: Mutex::new(Some(thread)),
            tally: OnceLock::new(),
        })))
    }

    /// Returns a permit: memory for every line of one flow. Waits a bounded time, then returns the
    /// reason why no permit is available.
    pub async fn permit(&self) -> Result<Permit, RecordUnavailable> {
        let room = match self.room().await {
            Ok(room) => Some(room),
            Err(Unavailable::Closed) => return Err(RecordUnavailable(Unavailable::Closed)),
            Err(_) if self.queue().on_failure == OnFailure::Continue => None,
            Err(why) => {
                self.queue().refused_untold(cause(why));
                return Err(RecordUnavailable(why));
            }
        };
        Ok(Permit {
            recorder: self.clone(),
            room,
            waiting: None,
            said: Said::Nothing,
        })
    }

    /// Writes an event that belongs to no flow.
    ///
    /// Counts instead of writes the sessions that one user starts or ends, and the tool calls that
    /// one session reports, if they are faster than a person could follow.
    pub fn event(&self, event: &Event) {
        if let Some(line) = self.event_line(event) {
            self.queue().push_event(line, event_capacity(event));
        }
    }

    /// Queues the event of a change; the change is answered when the event is written.
    ///
    /// The line of a session that ended always stays queued, because the end is in force.
    /// Other lines are removed if the caller stops waiting: the change is not made then.
    pub fn queue_event(&self, event: &Event) -> QueuedEvent {
        let removable = !matches!(event, Event::SessionEnded(_));
        let line = self.event_line(event);
        let capacity = event_capacity(event);
        let queue = self.queue();
        QueuedEvent {
            queue: self.0.queue.clone(),
            line: line.map_or(EventLine::Counted, |line| {
                EventLine::Queued(queue.push_event_awaited(line, capacity, removable))
            }),
        }
    }

    /// Returns the line of an event; `None` if the event is counted instead.
    fn event_line(&self, event: &Event) -> Option<Line> {
        let queue = self.queue();
        let (at, now) = (queue.clock.now(), queue.clock.instant());
        match queue.repeats.event(at, now, event) {
            Noted::Counted => None,
            Noted::Opens(count) => Some(encode::repeated(at, &count)),
            Noted::Line => Some(encode::event(at, event)),
        }
    }

    /// Counts every decision in `tally` from now on; only the first call has an effect.
    pub fn count_into(&self, tally: &Arc<Tally>) {
        let _ = self.0.tally.set(tally.clone());
    }

    /// Opens the path again (SIGHUP, after a rotation from outside).
    pub fn reopen(&self) {
        self.queue().reopen();
    }

    /// Writes the queued lines, then ends; stops after five seconds. Call after every permit is
    /// dropped.
    pub async fn close(&self) {
        let mut health = self.queue().watch();
        self.queue().close();
        let ended = timeout(CLOSE, health.wait_for(|health| *health == Health::Ended)).await;
        let thread = self
            .0
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let (Ok(_), Some(thread)) = (ended, thread) {
            let _ = thread.join();
        }
    }

    fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// Writes the queue on this thread, if allowed. Under load, the flows that are ready to run add
    /// their lines first: one write, and no thread to wake.
    async fn write_directly(&self) {
        if self.queue().is_direct() && self.queue().is_busy() {
            tokio::task::yield_now().await;
        }
        if self.queue().has_lines() {
            Writer::write_directly(&self.0.writer, self.queue());
        }
    }

    fn counted(&self, facts: &FlowFacts) {
        if let Some(tally) = self.0.tally.get() {
            tally.add(facts);
        }
    }

    fn counted_again(&self, facts: &FlowFacts, close: &CloseFacts) {
        if let Some(tally) = self.0.tally.get() {
            tally.correct(facts, close);
        }
    }

    async fn room(&self) -> Result<OwnedSemaphorePermit, Unavailable> {
        self.available()?;
        match self.queue().room.clone().try_acquire_owned() {
            Ok(room) => Ok(room),
            Err(TryAcquireError::Closed) => Err(Unavailable::Closed),
            Err(TryAcquireError::NoPermits) => self.wait_for_room().await,
        }
    }

    async fn wait_for_room(&self) -> Result<OwnedSemaphorePermit, Unavailable> {
        let mut health = self.queue().watch();
        let room = self.queue().room.clone().acquire_owned();
        let waited = timeout(ROOM, async {
            tokio::select! {
                room = room => room.map_err(|_| Unavailable::Closed),
                _ = health.wait_for(|health| *health != Health::Writing) => {
                    Err(self.available().err().unwrap_or(Unavailable::Failing))
                }
            }
        });
        waited.await.unwrap_or(Err(Unavailable::Full))
    }

    /// Whether permits are available at all. With `on-failure = "continue"` flows need none while
    /// the sink fails.
    pub fn available(&self) -> Result<(), Unavailable> {
        match self.queue().health() {
            Health::Closing | Health::Ended => Err(Unavailable::Closed),
            Health::Failing if self.queue().on_failure == OnFailure::Refuse => {
                Err(Unavailable::Failing)
            }
            Health::Failing | Health::Writing => Ok(()),
        }
    }
}

/// The event of a change, on its way to the log.
#[derive(Debug)]
#[must_use = "a change is answered when its event is written"]
pub struct QueuedEvent {
    queue: Arc<Queue>,
    line: EventLine,
}

/// Where the line of an event is.
#[derive(Debug)]
enum EventLine {
    /// The event is counted under an opening line that is in the log.
    Counted,
    /// The line is queued; `None`: the line will not be written soon.
    Queued(Option<oneshot::Receiver<bool>>),
}

impl QueuedEvent {
    /// Waits until the log has the event (with `on-failure = "continue"`: does not fail).
    pub async fn written(self) -> Result<(), RecordUnavailable> {
        match self.line {
            EventLine::Counted => Ok(()),
            EventLine::Queued(waiting) => kept(&self.queue, waiting).await,
        }
    }
}

/// Memory for the lines of one flow: one `decision`, and one `close` if the flow is allowed.
///
/// A permit that is dropped before its first line writes no line. A permit that is dropped between
/// its two lines is a defect, and counted as a lost line.
#[derive(Debug)]
pub struct Permit {
    recorder: Recorder,
    /// Absent if the flow passes without a permit (`on-failure = "continue"`).
    room: Option<OwnedSemaphorePermit>,
    /// The result of the `decision` line, if its wait was cut short.
    waiting: Option<oneshot::Receiver<bool>>,
    said: Said,
}

/// The lines that a flow has written so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Said {
    /// All lines of the flow.
    All,
    /// The `decision` line of an allowed flow.
    MayPass,
    /// No line.
    Nothing,
    /// No line, and the flow was refused for that reason.
    Untold,
}

impl Permit {
    /// Writes the `decision` line of an allowed flow and waits until the log has it (with
    /// `on-failure = "continue"`: does not fail). Only then may the flow act.
    ///
    /// After an error the flow is refused: [`Permit::refused`] records the refusal as soon as the
    /// log works; a permit that is dropped instead is counted in the next `record_gap`.
    pub async fn decided(&mut self, facts: &mut FlowRecord) -> Result<(), RecordUnavailable> {
        self.recorder.counted(facts);
        let queue = self.queue();
        let line = encode::decision_to_repeat(queue.clock.now(), facts, &queue.texts);
        self.said = Said::MayPass;
        if !self.has_room() {
            self.queue().lost("slow", 1);
            return Ok(());
        }
        self.waiting = self.queue().push_awaited(line);
        let carries_on = self.queue().on_failure == OnFailure::Continue;
        if carries_on && self.queue().health() == Health::Failing {
            // The sink fails, and `on-failure` is `continue`: there is no wait. The line stays
            // queued.
            self.waiting = None;
            return Ok(());
        }
        self.recorder.write_directly().await;
        let written = written(&self.recorder.0.queue, &mut self.waiting).await;
        if written.is_err() {
            self.said = Said::Untold;
        }
        written.map_err(RecordUnavailable)
    }

    /// Writes the one `decision` line of a refused flow and waits until the log has it (with
    /// `on-failure = "continue"`: does not fail). Only then may the client be answered.
    ///
    /// After an error, and if the caller stops waiting, the line stays queued.
    pub async fn refused(mut self, facts: &FlowFacts) -> Result<(), RecordUnavailable> {
        if self.said == Said::Untold {
            // The log could not be written a moment ago, and the client has already waited.
            self.abandoned(facts);
            return Err(RecordUnavailable(Unavailable::Failing));
        }
        let queue = self.recorder.0.queue.clone();
        let Some(line) = self.refusal(facts) else {
            return Ok(());
        };
        let waiting = queue.push_refusal(line, self.room.take());
        self.recorder.write_directly().await;
        kept(&queue, waiting).await
    }

    /// Queues the one `decision` line of a refused flow whose client gets no answer.
    pub fn abandoned(mut self, facts: &FlowFacts) {
        if let Some(line) = self.refusal(facts) {
            let room = self.room.take();
            self.queue().push(Queued {
                line,
                waiter: None,
                room,
            });
        }
    }

    /// Returns the line of a refusal; `None` if the refusal is counted, or no permit is available.
    fn refusal(&mut self, facts: &FlowFacts) -> Option<Line> {
        self.recorder.counted(facts);
        self.said = Said::All;
        let queue = self.queue();
        let at = queue.clock.now();
        let noted = queue.repeats.refusal(at, queue.clock.instant(), facts);
        let line = match noted {
            Noted::Counted => return None,
            Noted::Opens(count) => encode::repeated(at, &count),
            Noted::Line => encode::decision(at, facts),
        };
        if !self.has_room() {
            self.queue().lost("slow", 1);
            return None;
        }
        Some(line)
    }

    /// Writes the `close` line of a flow that passed.
    pub fn closed(self, facts: &FlowRecord, close: &CloseFacts) {
        self.recorder.counted_again(facts, close);
        let line = encode::close(self.queue().clock.now(), facts, close);
        self.last(line);
    }

    /// Like [`Permit::closed`], and waits until the log has the line (with `on-failure =
    /// "continue"`: does not fail). Only then may the client see the end of the flow.
    ///
    /// After an error, and if the caller stops waiting, the line stays queued.
    pub async fn closed_first(
        mut self,
        facts: &FlowRecord,
        close: &CloseFacts,
    ) -> Result<(), RecordUnavailable> {
        self.recorder.counted_again(facts, close);
        self.said = Said::All;
        let queue = self.recorder.0.queue.clone();
        if !self.has_room() {
            queue.lost("slow", 1);
            return Ok(());
        }
        let line = encode::close(queue.clock.now(), facts, close);
        let waiting = queue.push_refusal(line, self.room.take());
        self.recorder.write_directly().await;
        kept(&queue, waiting).await
    }

    fn last(mut self, line: Line) {
        self.said = Said::All;
        if self.has_room() {
            let room = self.room.take();
            self.queue().push(Queued {
                line,
                waiter: None,
                room,
            });
        } else {
            self.queue().lost("slow", 1);
        }
    }

    /// Whether the flow has a permit; tries once more to take one.
    fn has_room(&mut self) -> bool {
        if self.room.is_none() {
            self.room = self.queue().room.clone().try_acquire_owned().ok();
        }
        self.room.is_some()
    }

    fn queue(&self) -> &Queue {
        self.recorder.queue()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.said {
            Said::All | Said::Nothing => {}
            Said::MayPass => self.queue().lost("unsaid", 1),
            Said::Untold => self.queue().refused_untold("failing"),
        }
    }
}

/// Waits for a line that stays queued. With `on-failure = "continue"` the wait does not fail.
async fn kept(
    queue: &Queue,
    waiting: Option<oneshot::Receiver<bool>>,
) -> Result<(), RecordUnavailable> {
    let written = match waiting {
        Some(waiting) => written(queue, &mut Some(waiting)).await,
        None => Err(Unavailable::Failing),
    };
    match queue.on_failure {
        OnFailure::Continue => Ok(()),
        OnFailure::Refuse => written.map_err(RecordUnavailable),
    }
}

/// Waits until a line is written. Uses the machine's clock, because the writing thread has no
/// other.
async fn written(
    queue: &Queue,
    waiting: &mut Option<oneshot::Receiver<bool>>,
) -> Result<(), Unavailable> {
    let carries_on = queue.on_failure == OnFailure::Continue;
    let longest = if carries_on {
        WRITTEN_CONTINUE
    } else {
        WRITTEN
    };
    // Most flows have written their line themselves: no timer for them.
    match waiting.as_mut().map(oneshot::Receiver::try_recv) {
        None | Some(Err(TryRecvError::Empty)) => {}
        Some(Ok(true)) => {
            *waiting = None;
            return Ok(());
        }
        Some(Ok(false) | Err(TryRecvError::Closed)) => {
            *waiting = None;
            return Err(Unavailable::Failing);
        }
    }
    let began = queue.clock.instant();
    while let Some(left) = longest.checked_sub(began.elapsed()) {
        let Some(line) = waiting.as_mut() else {
            return Err(Unavailable::Failing);
        };
        match timeout(left, line).await {
            Err(_) => {}
            Ok(Ok(true)) => {
                *waiting = None;
                return Ok(());
            }
            Ok(_) => {
                *waiting = None;
                return Err(Unavailable::Failing);
            }
        }
    }
    if carries_on {
        return Ok(());
    }
    // The flow stops waiting: the line that would allow the flow is removed.
    *waiting = None;
    Err(Unavailable::Full)
}

fn cause(why: Unavailable) -> &'static str {
    match why {
        Unavailable::Full => "slow",
        Unavailable::Closed | Unavailable::Failing => "failing",
    }
}

/// Returns the maximum number of waiting events for an event of this kind. Events of callers leave
/// room for events of the gate, and tool calls leave room for sessions.
fn event_capacity(event: &Event) -> usize {
    match event {
        Event::ApprovalRequested(_) | Event::ToolCallEnded(_) | Event::ToolCallStarted(_) => {
            MAX_EVENTS / 4
        }
        Event::ContainmentReported { .. }
        | Event::ReportTokenMade { .. }
        | Event::SessionEnded(_)
        | Event::SessionRefused(_)
        | Event::SessionStarted(_) => MAX_EVENTS / 2,
        _ => MAX_EVENTS,
    }
}
