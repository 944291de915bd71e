//! Hands out the right to write records.

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
use super::key::Signer;
use super::line::{CloseFacts, Event, FlowFacts};
use super::queue::{Health, MAX_EVENTS, Queue, Queued};
use super::repeats::Noted;
use super::sink::Sink;
use super::tally::Tally;
use super::writer::{self, Writer};

/// How long a flow waits for room.
const ROOM: Duration = Duration::from_secs(2);
/// How long a flow waits for its line to be written before it is refused.
const WRITTEN: Duration = Duration::from_secs(10);
/// The same where flows pass although records are lost.
const WRITTEN_CONTINUE: Duration = Duration::from_secs(2);
/// How long the end waits for what is queued.
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

/// Writes the decision log; cheap to clone. When the last clone goes, what is queued is written.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
    writer: Arc<Mutex<Writer>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    /// Who counts along.
    tally: OnceLock<Arc<Tally>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Recorder {
    /// Opens the log, says which flows of an earlier run had no end (`record_gap`), starts writing.
    /// `flows` bounds the permits given out at once.
    ///
    /// Fails where the file cannot be opened, or another process writes it.
    pub fn start(
        config: &config::Record,
        flows: usize,
        clock: Clock,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let (sink, found) = Sink::open(config)?;
        // A device is no file that a key could lie beside, or that is there at the next start.
        let signer = match (&config.key, &config.file) {
            (Some(key), Some(log)) if sink.is_file() => Some(Signer::open(key, log)?),
            (Some(key), None) => Some(Signer::open(key, Path::new("stdout"))?),
            _ => None,
        };
        let last_checkpoint = signer.as_ref().map(|signer| signer.head);
        let last_checkpoint = last_checkpoint.filter(|_| sink.is_file());
        let queue = Arc::new(Queue::new(flows, config, clock, metrics.clone()));
        writer::begin(&queue, &found, last_checkpoint);
        // A log that ends before what was signed goes on behind it: the hole shows.
        let head = last_checkpoint
            .filter(|checkpoint| checkpoint.seq >= found.head.seq)
            .unwrap_or(found.head);
        let mut writer = Writer::new(queue.clone(), sink, signer, head);
        writer.begin(&found);
        Self::run(queue, writer)
    }

    /// As [`Recorder::start`], with a sink that is open.
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

    /// Room for every line of one flow. Waits a bounded time for room, then says why there is none.
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

    /// Writes an event that is not a flow's.
    ///
    /// Sessions that one user starts or ends, and tool calls that one session reports, faster than
    /// a person could follow are counted.
    pub fn event(&self, event: &Event) {
        if let Some(line) = self.event_line(event) {
            self.queue().push_event(line, event_capacity(event));
        }
    }

    /// Queues the event of a change; the change is answered when the event is written.
    ///
    /// The line of a session that ended always stays queued, because the end is in force.
    /// Other lines are removed where the caller stops waiting: the change is not made then.
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

    /// The line that an event is to leave; none where it is counted.
    fn event_line(&self, event: &Event) -> Option<Line> {
        let queue = self.queue();
        let (at, now) = (queue.clock.now(), queue.clock.instant());
        match queue.repeats.event(at, now, event) {
            Noted::Counted => None,
            Noted::Opens(count) => Some(encode::repeated(at, &count)),
            Noted::Line => Some(encode::event(at, event)),
        }
    }

    /// Counts every decision from now on; the first one that asks for it has it.
    pub fn count_into(&self, tally: &Arc<Tally>) {
        let _ = self.0.tally.set(tally.clone());
    }

    /// Opens the file anew (SIGHUP, after a rotation from outside).
    pub fn reopen(&self) {
        self.queue().reopen();
    }

    /// Writes what is queued, then ends; gives up after five seconds. Called after every permit is
    /// gone.
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

    /// Writes the queue on this thread, where that may be. Under load the flows that are ready to
    /// run add their lines first: one write, and no thread to wake.
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

    /// Whether a flow may have room at all. One that passes even so needs none while all fails.
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
    /// The event is counted under a line that stands in the log.
    Counted,
    /// It is queued; `None`: it will not be written soon.
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

/// Room for the lines of one flow: one `decision`, and one `close` where it may pass.
///
/// A permit that is dropped before it said anything leaves nothing. One that is dropped between
/// its two lines is a defect, and counted as a lost line.
#[derive(Debug)]
pub struct Permit {
    recorder: Recorder,
    /// Absent where the flow passes although its lines have no room.
    room: Option<OwnedSemaphorePermit>,
    /// The fate of the `decision` line, where its wait was cut short.
    waiting: Option<oneshot::Receiver<bool>>,
    said: Said,
}

/// What the lines of a flow say so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Said {
    /// All there is to say.
    All,
    /// That it may pass.
    MayPass,
    /// Nothing.
    Nothing,
    /// Nothing, and it was refused for that.
    Untold,
}

impl Permit {
    /// Writes the `decision` line of a flow that may pass and waits until the log has it (with
    /// `on-failure = "continue"`: does not fail). Only then may the flow act.
    ///
    /// After an error the flow is refused: [`Permit::refused`] then says so on record as soon as
    /// the log works; a permit that is dropped instead is counted in the next `record_gap`.
    pub async fn decided(&mut self, facts: &FlowFacts) -> Result<(), RecordUnavailable> {
        self.recorder.counted(facts);
        let line = encode::decision(self.queue().clock.now(), facts);
        self.said = Said::MayPass;
        if !self.has_room() {
            self.queue().lost("slow", 1);
            return Ok(());
        }
        self.waiting = self.queue().push_awaited(line);
        let carries_on = self.queue().on_failure == OnFailure::Continue;
        if carries_on && self.queue().health() == Health::Failing {
            // Known to fail, and told to go on: nothing to wait for. The line stays queued.
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

    /// Writes the one `decision` line of a flow that does not pass and waits until the log has it
    /// (with `on-failure = "continue"`: does not fail). Only then may the client be answered.
    ///
    /// After an error, and where the caller stops waiting, the line stays queued.
    pub async fn refused(mut self, facts: &FlowFacts) -> Result<(), RecordUnavailable> {
        if self.said == Said::Untold {
            // The log could not be written a moment ago: the client has waited for that already.
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

    /// Queues the one `decision` line of a flow that does not pass and whose client is not
    /// answered.
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

    /// The line that a refusal is to leave; none where it is counted, or there is no room for it.
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
    pub fn closed(self, facts: &FlowFacts, close: &CloseFacts) {
        self.recorder.counted_again(facts, close);
        let line = encode::close(self.queue().clock.now(), facts, close);
        self.last(line);
    }

    /// As [`Permit::closed`], and waits until the log has the line (with
    /// `on-failure = "continue"`: does not fail). Only then may the client be told of the end.
    ///
    /// After an error, and where the caller stops waiting, the line stays queued.
    pub async fn closed_first(
        mut self,
        facts: &FlowFacts,
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

    /// Whether there is room; where there was none, there may be now.
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

/// Waits until a line is written. Measured on the machine's clock, because the thread that writes
/// has no other.
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
    // Most lines were written by their own flow: no timer for them.
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
    // The flow stops waiting: a line that would let it pass is removed.
    *waiting = None;
    Err(Unavailable::Full)
}

fn cause(why: Unavailable) -> &'static str {
    match why {
        Unavailable::Full => "slow",
        Unavailable::Closed | Unavailable::Failing => "failing",
    }
}

/// How many events may wait, so that this one may wait as well: those of callers leave room to
/// those of the gate, and tool calls leave room to sessions.
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
