//! The thread that writes: batches of whole lines, numbered in the order of the file.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use tokio::sync::oneshot;
use uuid::{NoContext, Uuid};

use crate::config::OnFailure;

use super::encode::{self, Gap, Line, Says};
use super::json::digits;
use super::line::SCHEMA;
use super::queue::{Missing, Orders, Queue, Queued, keep};
use super::scan::{Found, Tail};
use super::sink::Sink;

/// Bytes of one write, but for its last line.
const BATCH: usize = 1 << 20;
/// Flows that the `checkpoint` lines of one file name, and that one line names: log shippers give
/// up on lines of more than 32 KiB.
const CHECKPOINT: usize = 10_000;
const CHECKPOINT_LINE: usize = 500;
/// How often a look is taken whether the file is still there.
const LOOK: Duration = Duration::from_secs(1);

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    sink: Sink,
    /// What every line says of us, behind its number.
    service: String,
    /// The number of the next line.
    sequence: u64,
    /// Lines not yet in the file.
    pending: VecDeque<Queued>,
    /// Flows that may pass and have not ended, as the file tells it.
    open: HashSet<Uuid>,
    batch: Batch,
    failing: bool,
    looked: Instant,
    /// Lines written since the last look.
    unlooked: u64,
}

/// Numbered lines, ready to be written at once.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Writer {
    pub(super) fn new(queue: Arc<Queue>, sink: Sink) -> Self {
        let looked = queue.clock.instant();
        Self {
            service: service(&queue),
            queue,
            sink,
            sequence: 1,
            pending: VecDeque::new(),
            open: HashSet::new(),
            batch: Batch::default(),
            failing: false,
            looked,
            unlooked: 0,
        }
    }

    /// Writes until it is told to end.
    pub(super) fn run(mut self) {
        let mut last = self.looked;
        loop {
            let orders = self.queue.next(self.failing, last);
            let Orders {
                lines,
                missing,
                reopen,
                closing,
            } = orders;
            let done = closing && lines.is_empty();
            self.pending.extend(lines);
            if reopen {
                self.reopen();
            }
            self.look();
            self.write(missing);
            if done || closing && self.failing {
                break;
            }
            if self.sink.rotation_due() {
                self.rotate();
            }
            last = self.queue.clock.instant();
        }
        self.queue.ended(self.pending.len());
    }

    /// Writes what is missing, then what is pending, as far as it goes.
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

    /// Takes out lines that flows waited for until they were refused: a log that was too slow must
    /// not tell later that they may have passed.
    fn forget(&mut self) {
        if self.queue.on_failure == OnFailure::Continue {
            return;
        }
        let before = self.pending.len();
        self.pending.retain(|queued| {
            let abandoned = queued
                .waiter
                .as_ref()
                .is_some_and(oneshot::Sender::is_closed);
            !abandoned
        });
        self.queue.settled(before - self.pending.len());
    }

    /// Fills the batch: what is missing first, then as much as fits of what is pending.
    fn assemble(&mut self, missing: Option<Missing>) {
        self.batch.clear();
        if let Some(missing) = missing {
            self.add(&encode::gap(self.queue.clock.now(), &told(&missing)));
        }
        let first = self.sequence + u64::try_from(self.batch.ends.len()).unwrap_or(0);
        for (sequence, queued) in (first..).zip(&self.pending) {
            if self.batch.bytes.len() >= BATCH {
                break;
            }
            self.batch.add(&queued.line, sequence, &self.service);
        }
    }

    /// Adds a line that nobody queued.
    fn add(&mut self, line: &Line) {
        let sequence = self.sequence + u64::try_from(self.batch.ends.len()).unwrap_or(0);
        self.batch.add(line, sequence, &self.service);
    }

    /// Writes the batch; says how many of its lines are in the file.
    fn put(&mut self) -> (usize, io::Result<()>) {
        let (written, result) = self.sink.append(&self.batch.bytes, &self.batch.ends);
        self.numbered(written);
        (written, result)
    }

    fn numbered(&mut self, written: usize) {
        let written = u64::try_from(written).unwrap_or(0);
        self.sequence += written;
        self.unlooked += written;
        self.queue.metrics.records_written(written);
    }

    /// The first lines pending are in the file.
    fn commit(&mut self, lines: usize) {
        for queued in self.pending.drain(..lines) {
            match queued.line.says {
                Says::Closed(flow) => {
                    self.open.remove(&flow);
                }
                Says::Nothing => {}
                Says::Opened(flow) => {
                    self.open.insert(flow);
                }
            }
            if let Some(waiter) = queued.waiter {
                let _ = waiter.send(true);
            }
        }
        self.queue.settled(lines);
    }

    fn fail(&mut self, error: &io::Error) {
        if !self.failing {
            tracing::error!(%error, "the decision log cannot be written");
            let since = self.queue.clock.now();
            self.queue.untold(Missing {
                cause: "failing",
                since,
                lost: 0,
                refused: 0,
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

    /// Sees whether the file is still there, now and then.
    fn look(&mut self) {
        let now = self.queue.clock.instant();
        if now.duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        if self.sink.is_gone() {
            tracing::error!(
                lines = self.unlooked,
                "the decision log was removed: it begins anew"
            );
            self.queue.lost("removed", self.unlooked);
            self.reopen();
        }
        self.unlooked = 0;
    }

    fn reopen(&mut self) {
        self.checkpoint();
        match self.sink.reopen(&self.batch.bytes) {
            Ok(true) => self.numbered(self.batch.ends.len()),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "the decision log cannot be opened anew: the old goes on");
            }
        }
    }

    fn rotate(&mut self) {
        self.checkpoint();
        match self.sink.rotate(&self.batch.bytes) {
            Ok(()) => self.numbered(self.batch.ends.len()),
            Err(error) => {
                tracing::error!(%error, "the decision log cannot be rotated: the old goes on");
            }
        }
    }

    /// Puts into the batch what a new file begins with.
    fn checkpoint(&mut self) {
        let now = self.queue.clock.now();
        let mut open: Vec<_> = self.open.iter().copied().collect();
        open.sort_unstable();
        let count = open.len();
        open.truncate(CHECKPOINT);
        self.batch.clear();
        if open.is_empty() {
            self.add(&encode::checkpoint(now, &[], 0));
        }
        for some in open.chunks(CHECKPOINT_LINE) {
            self.add(&encode::checkpoint(now, some, count));
        }
    }
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * BATCH);
        self.ends.clear();
    }

    fn add(&mut self, line: &Line, sequence: u64, service: &str) {
        let (head, rest) = line.bytes.split_at(line.split.min(line.bytes.len()));
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(b",\"event.sequence\":");
        digits(&mut self.bytes, sequence);
        self.bytes.extend_from_slice(service.as_bytes());
        self.bytes.extend_from_slice(rest);
        self.ends.push(self.bytes.len());
    }
}

fn told(missing: &Missing) -> Gap<'static> {
    Gap {
        cause: missing.cause,
        since: Some(missing.since),
        lost: missing.lost,
        refused: missing.refused,
        detail: words(missing.cause),
        ..Gap::default()
    }
}

fn words(cause: &str) -> &'static str {
    match cause {
        "failing" => "the log could not be written",
        "removed" => "the file was removed while it was written",
        "slow" => "the log did not keep up",
        _ => "a flow was dropped without its last line",
    }
}

/// Queues what is to be said of an earlier run before anything else, where there is something.
pub(super) fn begin(queue: &Queue, found: &Found) {
    let torn = matches!(found.tail, Tail::Torn(_));
    if found.open.is_empty() && found.more == 0 && !torn {
        return;
    }
    let open = u64::try_from(found.open.len())
        .unwrap_or(u64::MAX)
        .saturating_add(found.more);
    tracing::warn!(
        flows = open,
        torn,
        "an earlier run ended without closing its log"
    );
    queue.metrics.records_lost(u64::from(torn));
    let gap = Gap {
        cause: "stopped",
        lost: u64::from(torn),
        open: (open, &found.open),
        detail: "an earlier run ended without the end of these flows",
        ..Gap::default()
    };
    queue.push_event(encode::gap(queue.clock.now(), &gap));
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
