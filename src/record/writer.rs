//! Writes batches of whole lines, numbered in the order of the file: on a separate thread, or on
//! the thread of a flow that waits for its line.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use hashbrown::HashSet;
use jiff::Timestamp;
use uuid::{NoContext, Uuid};

use crate::config::OnFailure;
use crate::decimal;

use super::chain::{Head, public_hex};
use super::encode::{self, Checkpoint, Gap, Line, Says};
use super::key::Signer;
use super::line::SCHEMA;
use super::queue::{MAX_EVENTS, Missing, Orders, Queue, Queued, keep};
use super::scan::{Found, Tail};
use super::sink::Sink;

/// Maximum bytes of one write, except its last line.
const BATCH: usize = 1 << 20;
/// Maximum number of flows in the `checkpoint` lines of one file, and in one line: log shippers
/// reject lines of more than 32 KiB.
const CHECKPOINT: usize = 10_000;
const CHECKPOINT_LINE: usize = 500;
/// How often the log is signed while lines are written, and rotated files are checked.
const MINUTE: Duration = Duration::from_mins(1);

/// Two longer writes, close together, show a slow disk: flows then leave their lines to the thread
/// for a while, so that no thread of the data path waits for the disk. A single one may have waited
/// for the processor.
const SLOW_WRITE: Duration = Duration::from_millis(5);
/// Maximum time between the two writes.
const SLOW_WRITES_WITHIN: Duration = Duration::from_millis(500);
/// A single write of this duration shows a slow disk.
const VERY_SLOW_WRITE: Duration = Duration::from_millis(100);
/// How long flows do not write themselves after the disk was slow.
const SLOW_DISK_PAUSE: Duration = Duration::from_secs(5);

/// The writer of the log.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    sink: Sink,
    signer: Option<Signer>,
    /// The public key, as in checkpoints.
    key: Option<String>,
    /// The service fields of every line, after its number.
    service: String,
    /// The number of the next line.
    sequence: u64,
    /// The last line written.
    head: Head,
    /// Lines that are not yet in the file.
    pending: VecDeque<Queued>,
    /// Allowed flows that have not ended, according to the file.
    open: HashSet<Uuid>,
    batch: Batch,
    failing: bool,
    /// When a flow's write was last slow.
    slow_write: Option<Instant>,
    /// Until when the disk counts as slow.
    slow_until: Option<Instant>,
    kept: Instant,
    /// When the last checkpoint was written, by the time of day: a machine that slept signs first.
    signed: Timestamp,
    /// Whether lines were written after the last checkpoint.
    unsigned: bool,
    /// Lines written to this file.
    in_file: u64,
}

/// Numbered lines, ready to be written at once.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// The head of the chain after each line.
    heads: Vec<Head>,
    /// The last signed line, counted from one; 0: none.
    signed: usize,
}

impl Writer {
    pub(super) fn new(queue: Arc<Queue>, sink: Sink, signer: Option<Signer>, head: Head) -> Self {
        let now = queue.clock.instant();
        Self {
            service: service(&queue),
            key: signer.as_ref().map(|signer| public_hex(&signer.key)),
            signed: queue.clock.now(),
            queue,
            sink,
            signer,
            sequence: 1,
            head,
            pending: VecDeque::new(),
            open: HashSet::new(),
            batch: Batch::default(),
            failing: false,
            slow_write: None,
            slow_until: None,
            kept: now,
            unsigned: false,
            in_file: 0,
        }
    }

    /// Begins a run that follows another with a checkpoint, which signs the unsigned lines of the
    /// earlier run and shows when new lines begin.
    pub(super) fn begin(&mut self, found: &Found) {
        if self.sink.is_empty() && self.head.seq > 0 {
            self.checkpoint_now("opened");
        } else if self.head.seq > 0 && (!found.signed || self.signer.is_some()) {
            self.checkpoint_now("started");
        }
    }

    /// Writes on the writing thread until an end is requested.
    pub(super) fn run(writer: &Mutex<Self>) {
        let mut guard = lock(writer);
        guard.keep_files();
        guard.write(None);
        guard.judge_disk();
        let (queue, mut last) = (guard.queue.clone(), guard.kept);
        loop {
            let failing = guard.failing;
            drop(guard);
            queue.wait(failing, last);
            // After a panic in a write the state of the file is unknown: the log ends, and every
            // flow is refused.
            guard = match writer.lock() {
                Ok(guard) => guard,
                Err(poisoned) => return poisoned.into_inner().end(),
            };
            let orders = queue.take();
            if guard.turn(orders) {
                return guard.end();
            }
            last = queue.clock.instant();
        }
    }

    /// Closes the file, so that another gate may write it, and ends the queue.
    fn end(&mut self) {
        self.sink.lose();
        self.queue.set_direct(false);
        self.queue.ended(self.pending.len());
    }

    /// Performs the orders; returns whether they were the last.
    fn turn(&mut self, orders: Orders) -> bool {
        let Orders {
            lines,
            missing,
            reopen,
            closing,
        } = orders;
        let done = closing && lines.is_empty();
        self.pending.extend(lines);
        if reopen {
            self.reopen(None);
        }
        self.look();
        self.close_counts(done);
        self.sign(done);
        self.write(missing);
        if done || closing && self.failing {
            return true;
        }
        if self.sink.rotation_due() {
            self.rotate();
        }
        self.judge_disk();
        false
    }

    /// Writes the queued lines on the thread of the caller, if there is no other work and no other
    /// thread writes. The writing thread does all other work: only it accesses the path of the
    /// file, which may be on a file system that does not answer.
    pub(super) fn write_directly(writer: &Mutex<Self>, queue: &Queue) {
        let wrote = writer
            .try_lock()
            .is_ok_and(|mut writer| writer.write_queued());
        if !wrote {
            queue.hurry();
        }
    }

    /// Writes the queued lines; returns whether all were written.
    fn write_queued(&mut self) -> bool {
        if !self.may_write_directly() {
            return false;
        }
        let Some(lines) = self.queue.take_lines() else {
            return false;
        };
        let began = self.queue.clock.instant();
        self.pending.extend(lines);
        self.write(None);
        self.time_write(began);
        self.judge_disk();
        !self.failing
    }

    /// Records the duration of a flow's write.
    fn time_write(&mut self, began: Instant) {
        let took = began.elapsed();
        if took < SLOW_WRITE {
            return;
        }
        let recent = |last: Instant| began.saturating_duration_since(last) < SLOW_WRITES_WITHIN;
        if took >= VERY_SLOW_WRITE || self.slow_write.is_some_and(recent) {
            self.slow_until = Some(began + SLOW_DISK_PAUSE);
        }
        self.slow_write = Some(began);
    }

    /// Whether the only work is to write lines, to an unchanged file.
    fn may_write_directly(&self) -> bool {
        let now = self.queue.clock.instant();
        self.queue.is_direct()
            && !self.failing
            && !self.sink.rotation_due()
            && !self.is_signature_due()
            && now.duration_since(self.kept) < MINUTE
            && self.sink.is_as_left()
    }

    /// Decides whether flows may write themselves: to a file on a local disk that is not slow.
    fn judge_disk(&mut self) {
        let now = self.queue.clock.instant();
        self.slow_until = self.slow_until.filter(|until| *until > now);
        let direct = self.sink.is_on_local_disk() && !self.failing && self.slow_until.is_none();
        self.queue.set_direct(direct);
    }

    /// Writes the gap, then the pending lines, as far as possible.
    fn write(&mut self, mut missing: Option<Missing>) {
        self.forget();
        while missing.is_some() || !self.pending.is_empty() {
            let told = usize::from(missing.is_some());
            self.assemble(missing);
            let (written, result) = self.put();
            if let Some(missing) = missing.take().filter(|_| written < told) {
                self.queue.untold(missing);
            }
            self.commit(written.saturating_sub(told));
            match result {
                Ok(()) => self.recover(),
                Err(error) => return self.fail(&error),
            }
            self.forget();
        }
    }

    /// Removes lines that flows waited for until they were refused: a log that was too slow must
    /// not contain later that they were allowed.
    fn forget(&mut self) {
        if self.queue.on_failure == OnFailure::Continue {
            return;
        }
        let before = self.pending.len();
        self.pending.retain(|queued| {
            let abandoned = queued
                .waiter
                .as_ref()
                .is_some_and(|waiter| waiter.removable && waiter.written.is_closed());
            !abandoned
        });
        self.queue.settled(before - self.pending.len());
    }

    /// Fills the batch: the gap first, then as many pending lines as fit.
    fn assemble(&mut self, missing: Option<Missing>) {
        self.batch.clear();
        if let Some(missing) = missing {
            self.add(&encode::gap(self.queue.clock.now(), &told(&missing)));
        }
        let key = self.signer.as_ref().map(|signer| &signer.key);
        let first = self.sequence + u64::try_from(self.batch.ends.len()).unwrap_or(0);
        for (sequence, queued) in (first..).zip(&self.pending) {
            if self.batch.bytes.len() >= BATCH {
                break;
            }
            self.batch
                .add(&queued.line, (self.head, sequence), &self.service, key);
        }
    }

    /// Adds a line of the writer itself.
    fn add(&mut self, line: &Line) {
        let key = self.signer.as_ref().map(|signer| &signer.key);
        let sequence = self.sequence + u64::try_from(self.batch.ends.len()).unwrap_or(0);
        self.batch
            .add(line, (self.head, sequence), &self.service, key);
    }

    /// Writes the batch; returns how many of its lines are in the file.
    fn put(&mut self) -> (usize, io::Result<()>) {
        let (written, result) = self.sink.append(&self.batch.bytes, &self.batch.ends);
        self.numbered(written);
        (written, result)
    }

    fn numbered(&mut self, lines: usize) {
        let Some(last) = lines.checked_sub(1) else {
            return;
        };
        let written = u64::try_from(lines).unwrap_or(0);
        self.sequence += written;
        self.in_file += written;
        self.head = self.batch.heads.get(last).copied().unwrap_or(self.head);
        self.queue.metrics.records_written(written);
        self.unsigned = true;
        if let Some(signed) = self.batch.signed.checked_sub(1).filter(|it| *it <= last) {
            self.unsigned = signed < last;
            self.signed = self.queue.clock.now();
            let head = self.batch.heads.get(signed).copied();
            if let (Some(signer), Some(head)) = (&mut self.signer, head) {
                signer.remember(head);
            }
        }
    }

    /// Handles the first pending lines, which are in the file now.
    fn commit(&mut self, lines: usize) {
        for queued in self.pending.drain(..lines) {
            match queued.line.says {
                Says::Closed(flow) => {
                    self.open.remove(&flow);
                }
                Says::Counts(stands) => stands.store(true, Ordering::Release),
                Says::Nothing => {}
                Says::Opened(flow) => {
                    self.open.insert(flow);
                }
            }
            if let Some(waiter) = queued.waiter {
                let _ = waiter.written.send(true);
            }
        }
        self.queue.settled(lines);
    }

    fn fail(&mut self, error: &io::Error) {
        if !self.failing {
            tracing::error!(%error, "the decision log cannot be written");
            self.queue.untold(Missing {
                cause: "failing",
                since: self.queue.clock.now(),
                lost: 0,
                refused: 0,
                bytes: 0,
            });
        }
        self.failing = true;
        self.queue.failed();
        let before = self.pending.len();
        let on_failure = self.queue.on_failure;
        self.pending.retain_mut(|queued| keep(queued, on_failure));
        self.queue.settled(before - self.pending.len());
    }

    fn recover(&mut self) {
        if self.failing {
            self.failing = false;
            self.queue.recovered();
            tracing::info!("the decision log can be written again");
        }
    }

    /// Queues the closing lines of counts whose windows have ended, or of `all`.
    fn close_counts(&mut self, all: bool) {
        let now = self.queue.clock.now();
        for count in self.queue.repeats.ended(self.queue.clock.instant(), all) {
            self.queue.metrics.records_repeated(count.total);
            self.make(encode::repeated(now, &count));
        }
    }

    /// Queues a checkpoint if one is due: each minute, with a key also without lines, and at the
    /// end. It precedes the waiting lines. While the sink fails, it is renewed: so its time is when
    /// the sink worked again.
    fn sign(&mut self, last: bool) {
        let due = self.is_signature_due();
        let wrote = self.sequence > 1 || !self.pending.is_empty();
        let signs = self.signer.is_some() && wrote || self.unsigned || !self.pending.is_empty();
        if last && wrote && !self.failing {
            let line = self.checkpoint("stopped", &[], &[]);
            self.make(line);
        } else if due && signs {
            self.sign_first();
        }
        let now = self.queue.clock.instant();
        if now.duration_since(self.kept) >= MINUTE {
            self.kept = now;
            self.keep_files();
        }
    }

    fn is_signature_due(&self) -> bool {
        let since = self.queue.clock.now().duration_since(self.signed);
        Duration::try_from(since).map_or(true, |since| since >= MINUTE)
    }

    fn sign_first(&mut self) {
        let line = self.checkpoint("running", &[], &[]);
        if let Some(first) = self.pending.front_mut().filter(|first| first.line.signed) {
            if !self.sink.is_empty() {
                first.line = line;
            }
            return;
        }
        self.queue.holds(1);
        self.pending.push_front(Queued {
            line,
            waiter: None,
            room: None,
        });
    }

    /// Queues a line of the writer itself.
    fn make(&mut self, line: Line) {
        self.queue.holds(1);
        self.pending.push_back(Queued {
            line,
            waiter: None,
            room: None,
        });
    }

    /// Compares the file with its expected state, before each write: two system calls.
    fn look(&mut self) {
        if self.sink.is_lost() {
            self.reopen(Some("removed"));
        }
        let Some(change) = self.sink.changed(self.queue.clock.instant()) else {
            return;
        };
        tracing::error!(
            cause = change.cause,
            "the file of the decision log was changed"
        );
        self.queue.metrics.record_file_changed(change.cause);
        let lost = if change.lines_gone { self.in_file } else { 0 };
        self.queue.changed(change.cause, lost, change.bytes);
        if change.elsewhere {
            self.reopen(Some(change.cause));
        }
    }

    /// Continues in the file that is at the path now. If the old file is gone and there is no new
    /// one, the log fails.
    fn reopen(&mut self, cause: Option<&'static str>) {
        if self.sink.is_in_place() {
            return;
        }
        if cause.is_none() {
            self.write(None);
        }
        self.opening();
        match self.sink.reopen(&self.batch.bytes) {
            Ok(true) => {
                self.in_file = 0;
                self.numbered(self.batch.ends.len());
            }
            Ok(false) => {}
            Err(error) if cause.is_some() => {
                if !self.sink.is_lost() {
                    tracing::error!(%error, "the decision log cannot be opened anew");
                }
                self.sink.lose();
                self.fail(&error);
            }
            Err(error) => {
                tracing::error!(%error, "the decision log cannot be opened anew: the old goes on");
            }
        }
    }

    fn rotate(&mut self) {
        self.write(None);
        self.opening();
        match self.sink.rotate(&self.batch.bytes) {
            Ok(()) => {
                self.in_file = 0;
                self.numbered(self.batch.ends.len());
                self.keep_files();
            }
            Err(error) => {
                tracing::error!(%error, "the decision log cannot be rotated: the old goes on");
            }
        }
    }

    /// Removes rotated files that are too old, and records the removed files and a short retention.
    fn keep_files(&mut self) {
        let found = match self.sink.keep_files(self.queue.clock.now()) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "old files of the decision log cannot be looked after");
                return;
            }
        };
        let now = self.queue.clock.now();
        if self.queue.metrics.retention_short(found.short.is_some())
            && let Some(short) = found.short
        {
            tracing::warn!("{short}");
            self.make(encode::files(now, "records_retention_short", &short));
        }
        if let Some(removed) = found.removed {
            tracing::info!("{removed}");
            self.make(encode::files(now, "records_removed", &removed));
        }
    }

    fn checkpoint(&self, cause: &'static str, open: &[Uuid], repeats: &[Uuid]) -> Line {
        let checkpoint = Checkpoint {
            cause,
            count: self.open.len(),
            open,
            repeats,
            key: self.key.as_deref(),
        };
        encode::checkpoint(self.queue.clock.now(), &checkpoint)
    }

    fn checkpoint_now(&mut self, cause: &'static str) {
        let line = self.checkpoint(cause, &[], &[]);
        self.make(line);
    }

    /// Adds the first lines of a new file to the batch: a start reads only the newest file, so
    /// these lines name the open flows and counts.
    fn opening(&mut self) {
        let mut open: Vec<_> = self.open.iter().copied().collect();
        open.sort_unstable();
        open.truncate(CHECKPOINT);
        let mut repeats = self.queue.repeats.standing();
        repeats.truncate(CHECKPOINT);
        self.batch.clear();
        let mut lines: Vec<_> = open
            .chunks(CHECKPOINT_LINE)
            .map(|some| self.checkpoint("opened", some, &[]))
            .collect();
        let repeats = repeats.chunks(CHECKPOINT_LINE);
        lines.extend(repeats.map(|some| self.checkpoint("opened", &[], some)));
        if lines.is_empty() {
            lines.push(self.checkpoint("opened", &[], &[]));
        }
        for line in &lines {
            self.add(line);
        }
    }
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * BATCH);
        self.ends.clear();
        self.heads.clear();
        self.signed = 0;
    }

    /// Adds a line after the lines of the batch; `head` and `sequence` are those before the batch.
    fn add(
        &mut self,
        line: &Line,
        (head, sequence): (Head, u64),
        service: &str,
        key: Option<&Ed25519KeyPair>,
    ) {
        let start = self.bytes.len();
        let (first, rest) = line.bytes.split_at(line.split.min(line.bytes.len()));
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(b",\"event.sequence\":");
        decimal::put(&mut self.bytes, sequence);
        self.bytes.extend_from_slice(service.as_bytes());
        let rest = rest.strip_suffix(b"}\n").unwrap_or(rest);
        self.bytes.extend_from_slice(rest);
        let before = self.heads.last().copied().unwrap_or(head);
        let key = key.filter(|_| line.signed);
        let after = before.seal(&mut self.bytes, start, key);
        self.ends.push(self.bytes.len());
        self.heads.push(after);
        if line.signed {
            self.signed = self.ends.len();
        }
    }
}

fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn told(missing: &Missing) -> Gap<'static> {
    Gap {
        cause: missing.cause,
        since: Some(missing.since),
        lost: missing.lost,
        refused: missing.refused,
        bytes: missing.bytes,
        detail: words(missing.cause),
        ..Gap::default()
    }
}

fn words(cause: &str) -> &'static str {
    match cause {
        "appended" => "another process wrote to the file",
        "failing" => "the log could not be written",
        "moved" => "the file was moved while it was written: it goes on at its path",
        "removed" => "the file was removed while it was written: it begins anew",
        "replaced" => "another file was put in the place of the log",
        "slow" => "the log did not keep up",
        "truncated" => "the file was cut short while it was written",
        _ => "a flow was dropped without its last line",
    }
}

/// Queues the gap of an earlier run before any other line, if there is one. `signed` is the last
/// checkpoint of that run, from the memory file beside the key.
pub(super) fn begin(queue: &Queue, found: &Found, signed: Option<Head>) {
    let torn = matches!(found.tail, Tail::Torn(_));
    let open = u64::try_from(found.open.len())
        .unwrap_or(u64::MAX)
        .saturating_add(found.more);
    if open > 0 || found.repeats > 0 || torn {
        tracing::warn!(
            flows = open,
            counts = found.repeats,
            torn,
            "an earlier run ended without closing its log"
        );
        queue.metrics.records_lost(u64::from(torn) + found.repeats);
        let gap = Gap {
            cause: "stopped",
            lost: u64::from(torn),
            open: (open, &found.open),
            repeats: found.repeats,
            detail: "an earlier run ended without the end of these flows or counts",
            ..Gap::default()
        };
        queue.push_event(encode::gap(queue.clock.now(), &gap), MAX_EVENTS);
    }
    let cut = signed.map_or(0, |signed| signed.seq.saturating_sub(found.head.seq));
    if cut > 0 {
        cut_off(queue, found, cut);
    }
}

/// Queues the gap of a log that ends before the last signed checkpoint.
fn cut_off(queue: &Queue, found: &Found, lines: u64) {
    let whole = found.head.seq == 0;
    let cause = if whole { "removed" } else { "truncated" };
    tracing::error!(lines, cause, "lines of the decision log are gone");
    queue.metrics.record_file_changed(cause);
    let detail = if whole {
        "the log of earlier runs is not here: it was moved or removed between two runs"
    } else {
        "the log ends before the last checkpoint that was signed: lines were cut off"
    };
    let lost = if whole { 0 } else { lines };
    queue.metrics.records_lost(lost);
    let gap = Gap {
        cause,
        lost,
        detail,
        ..Gap::default()
    };
    queue.push_event(encode::gap(queue.clock.now(), &gap), MAX_EVENTS);
}

fn service(queue: &Queue) -> String {
    let now = queue.clock.now();
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    let instance = Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos));
    format!(
        ",\"tidegate.schema\":\"{SCHEMA}\",\"service.name\":\"tidegate\",\
         \"service.version\":\"{}\",\"service.instance.id\":\"{instance}\"",
        env!("CARGO_PKG_VERSION")
    )
}
