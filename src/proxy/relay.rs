//! Two sockets, both ways: counted, limited in silence, half-closes passed on.
//!
//! Both directions live in one future, so a tunnel costs one task. A direction that rests owns no
//! buffer: it waits for its socket to be readable first, and borrows one only then. A direction
//! that fills its small buffer again and again gets a large one, since for bulk the size of the
//! buffer decides what a byte costs. What the reader does not take is kept, and nothing more is
//! read until it has: that is the back-pressure.
//!
//! Why not `copy_bidirectional`: it owns two buffers for as long as the tunnel lives, so they are
//! either too small for bulk or too dear for ten thousand tunnels at rest.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::gate::Counters;

use super::buffers::{Buffer, Buffers, Size};

/// How a relay ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Relayed {
    /// Both sides said that they were done, `first` before the other.
    Closed {
        /// Who ended it.
        first: Side,
    },
    /// Not one byte moved for as long as allowed.
    Idle,
    /// A side broke off.
    Reset {
        /// Who did.
        side: Side,
        /// What the system called it.
        error: io::ErrorKind,
    },
}

/// A side of a tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// Who asked for the tunnel.
    Client,
    /// Where it leads.
    Upstream,
}

/// Moves bytes both ways until both sides are done, one breaks off, or both are silent for `idle`.
///
/// The early bytes were read from the other side before and go first. The end is `Idle` between
/// `idle` and five quarters of it after the last byte. Dropping the future stops at once; what
/// moved until then is in `counters`.
pub(crate) async fn relay(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    early_to_upstream: &[u8],
    early_to_client: &[u8],
    buffers: &Buffers,
    counters: &Counters,
    idle: Duration,
) -> Relayed {
    let (from_client, to_client) = client.split();
    let (from_upstream, to_upstream) = upstream.split();
    let mut out = Way::new(
        from_client,
        to_upstream,
        Side::Client,
        &counters.out,
        buffers,
    );
    let mut back = Way::new(
        from_upstream,
        to_client,
        Side::Upstream,
        &counters.back,
        buffers,
    );
    (out.early, back.early) = (early_to_upstream, early_to_client);
    let mut silence = pin!(silence(counters, idle));
    let mut first = None;
    poll_fn(|cx| {
        for way in [&mut out, &mut back] {
            match way.poll(cx) {
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Ready(Ok(())) if first.is_none() => first = Some(way.side),
                _ => {}
            }
        }
        match first {
            Some(first) if out.is_done() && back.is_done() => {
                Poll::Ready(Relayed::Closed { first })
            }
            _ => silence.as_mut().poll(cx).map(|()| Relayed::Idle),
        }
    })
    .await
}

/// Waits until no byte has been counted for `idle`, give or take a quarter.
///
/// Looks four times in that time instead of setting a timer anew for every byte.
pub(crate) async fn silence(counters: &Counters, idle: Duration) {
    let mut seen = counters.total();
    let mut quiet = 0;
    while quiet < 5 {
        tokio::time::sleep(idle / 4).await;
        let total = counters.total();
        quiet = if total == seen { quiet + 1 } else { 1 };
        seen = total;
    }
}

impl Side {
    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// Reads in a turn before other tasks get theirs.
const ROUNDS: usize = 16;

/// Full reads in a row that make a direction bulk.
const BULK_AFTER: u8 = 4;

/// One direction.
struct Way<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    side: Side,
    moved: &'a AtomicU64,
    buffers: &'a Buffers,
    early: &'a [u8],
    rest: Option<Rest<'a>>,
    state: State,
    full_reads: u8,
}

/// What was read and not yet taken by the other side.
struct Rest<'a> {
    buffer: Buffer<'a>,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The side reads and writes.
    Open,
    /// The side has sent its end; it is not passed on yet.
    Ended,
    /// The end is passed on.
    Done,
}

impl<'a> Way<'a> {
    fn new(
        from: ReadHalf<'a>,
        to: WriteHalf<'a>,
        side: Side,
        moved: &'a AtomicU64,
        buffers: &'a Buffers,
    ) -> Self {
        Self {
            from,
            to,
            side,
            moved,
            buffers,
            early: &[],
            rest: None,
            state: State::Open,
            full_reads: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Moves what can be moved now; ready when the end was passed on, just now or before.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Relayed>> {
        let mut spare = None;
        for _ in 0..ROUNDS {
            ready!(self.poll_early(cx))?;
            ready!(self.poll_rest(cx, &mut spare))?;
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ended => {
                    // Whether the other side still listens does not matter any more.
                    let _ = ready!(Pin::new(&mut self.to).poll_shutdown(cx));
                    self.state = State::Done;
                }
                State::Open => ready!(self.poll_read(cx, &mut spare))?,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Relayed>> {
        while !self.early.is_empty() {
            let written = ready!(Pin::new(&mut self.to).poll_write(cx, self.early));
            let written = self.count(written)?;
            self.early = self.early.get(written..).unwrap_or_default();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was read; leaves the empty buffer in `spare` for the next read.
    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        spare: &mut Option<Buffer<'a>>,
    ) -> Poll<Result<(), Relayed>> {
        while let Some(rest) = &mut self.rest {
            let bytes = rest.buffer.get(rest.start..rest.end).unwrap_or_default();
            let Poll::Ready(written) = Pin::new(&mut self.to).poll_write(cx, bytes) else {
                self.shrink_rest();
                return Poll::Pending;
            };
            let written = self.count(written)?;
            if let Some(mut rest) = self.rest.take() {
                rest.start += written;
                if rest.start < rest.end {
                    self.rest = Some(rest);
                } else {
                    *spare = Some(rest.buffer);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A slow reader must not sit on a large buffer for a few bytes.
    fn shrink_rest(&mut self) {
        let Some(rest) = self.rest.take_if(|rest| {
            rest.buffer.len() > Size::Small.bytes() && rest.end - rest.start <= Size::Small.bytes()
        }) else {
            return;
        };
        let bytes = rest.buffer.get(rest.start..rest.end).unwrap_or_default();
        let mut buffer = self.buffers.take(Size::Small);
        let end = bytes.len();
        if let Some(room) = buffer.get_mut(..end) {
            room.copy_from_slice(bytes);
        }
        self.rest = Some(Rest {
            buffer,
            start: 0,
            end,
        });
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        spare: &mut Option<Buffer<'a>>,
    ) -> Poll<Result<(), Relayed>> {
        if let Err(error) = ready!(self.from.as_ref().poll_read_ready(cx)) {
            return Poll::Ready(Err(self.broken(self.side, &error)));
        }
        let size = if self.full_reads < BULK_AFTER {
            Size::Small
        } else {
            Size::Large
        };
        let mut buffer = spare
            .take()
            .filter(|spare| spare.len() == size.bytes())
            .unwrap_or_else(|| self.buffers.take(size));
        let mut read = ReadBuf::new(&mut buffer);
        if let Err(error) = ready!(Pin::new(&mut self.from).poll_read(cx, &mut read)) {
            return Poll::Ready(Err(self.broken(self.side, &error)));
        }
        let end = read.filled().len();
        if end == 0 {
            self.state = State::Ended;
            return Poll::Ready(Ok(()));
        }
        self.full_reads = match end {
            _ if end >= size.bytes() => (self.full_reads + 1).min(BULK_AFTER * 2),
            _ if end <= Size::Small.bytes() => self.full_reads.saturating_sub(1),
            _ => self.full_reads,
        };
        self.rest = Some(Rest {
            buffer,
            start: 0,
            end,
        });
        Poll::Ready(Ok(()))
    }

    fn count(&self, written: io::Result<usize>) -> Result<usize, Relayed> {
        match written {
            Ok(0) => Err(self.broken(self.side.other(), &io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                self.moved.fetch_add(written as u64, Ordering::Relaxed);
                Ok(written)
            }
            Err(error) => Err(self.broken(self.side.other(), &error)),
        }
    }

    fn broken(&self, side: Side, error: &io::Error) -> Relayed {
        Relayed::Reset {
            side,
            error: error.kind(),
        }
    }
}
