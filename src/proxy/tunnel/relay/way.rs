//! One direction of a tunnel.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp;

use crate::ledger::Meter;

use super::super::buffers::{Buffer, Buffers, Size};
use super::super::splice::Pipe;
use super::{Relayed, Side};

/// The reading side of a direction.
pub(super) trait Source: AsyncRead + Unpin {
    /// The socket, if there is no other layer over it: a plain socket can be waited for without a
    /// buffer.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// The writing side of a direction.
pub(super) trait Sink: AsyncWrite + Unpin {
    /// The socket, if there is no other layer over it.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl Source for tcp::ReadHalf<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl Sink for tcp::WriteHalf<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

/// One direction.
pub(super) struct Way<'a, R, W> {
    from: R,
    to: W,
    pub(super) side: Side,
    moved: &'a Meter,
    buffers: &'a Buffers,
    /// Bytes that were read before the relay began, not yet written.
    pub(super) early: Bytes,
    rest: Option<Rest<'a>>,
    pipe: Option<Pipe<'a>>,
    no_pipes: bool,
    state: State,
    /// Whether the other direction is done.
    pub(super) is_last: bool,
    full_reads: u8,
}

/// Reads in one poll before other tasks get their share.
const ROUNDS: usize = 16;

/// Bytes that one poll moves before other tasks get their share, at most; the last read may exceed it.
const MAX_BYTES_OF_POLL: u64 = 4 * 1024 * 1024;

/// Full reads in a row that make a direction bulk.
const BULK_AFTER: u8 = 4;

/// Bytes that a direction moves before the kernel moves the rest.
const SPLICE_AFTER: u64 = 512 * 1024;

/// Bytes that were read and not yet written to the other side.
struct Rest<'a> {
    buffer: Buffer<'a>,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The side is open.
    Open,
    /// The side sent its end, which is not yet passed on.
    Ended,
    /// The end was passed on.
    Done,
}

impl<'a, R: Source, W: Sink> Way<'a, R, W> {
    pub(super) fn new(from: R, to: W, side: Side, moved: &'a Meter, buffers: &'a Buffers) -> Self {
        Self {
            no_pipes: from.socket().is_none() || to.socket().is_none(),
            from,
            to,
            side,
            moved,
            buffers,
            early: Bytes::new(),
            rest: None,
            pipe: None,
            state: State::Open,
            is_last: false,
            full_reads: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Moves all available bytes; ready when the end was passed on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Relayed>> {
        let turn = self.turn(cx);
        // An idle direction returns its empty pipe for other flows.
        self.pipe.take_if(|pipe| pipe.held() == 0);
        turn
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Relayed>> {
        let mut spare = None;
        let before = self.moved.load(Ordering::Relaxed);
        for _ in 0..ROUNDS {
            if self.moved.load(Ordering::Relaxed).wrapping_sub(before) >= MAX_BYTES_OF_POLL {
                break;
            }
            ready!(self.poll_early(cx))?;
            ready!(self.poll_rest(cx, &mut spare))?;
            ready!(self.poll_drain(cx))?;
            ready!(self.poll_flush(cx))?;
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ended => {
                    // When both directions have ended, the sockets are closed, which passes the end
                    // on as well.
                    if !self.is_last || self.to.socket().is_none() {
                        // The result does not matter: the other side may have stopped reading.
                        let _ = ready!(Pin::new(&mut self.to).poll_shutdown(cx));
                    }
                    self.state = State::Done;
                }
                // Bytes are read only if they may be sent.
                State::Open if self.moved.poll_ready(cx).is_pending() => return Poll::Pending,
                State::Open if self.is_bulk() => ready!(self.poll_fill(cx))?,
                State::Open => ready!(self.poll_read(cx, &mut spare))?,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Relayed>> {
        while !self.early.is_empty() {
            let written = ready!(Pin::new(&mut self.to).poll_write(cx, &self.early));
            let written = self.count(written)?;
            self.early.advance(written);
            if self.early.is_empty() {
                self.early = Bytes::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the bytes that were read; leaves the empty buffer in `spare` for the next read.
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

    /// Flushes TLS, which may hold back bytes that its socket did not accept.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Relayed>> {
        let flushed = Pin::new(&mut self.to).poll_flush(cx);
        flushed.map_err(|error| broken(self.side.other(), &error))
    }

    /// A slow reader must not hold a large buffer for a few bytes.
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
        if let Some(socket) = self.from.socket()
            && let Err(error) = ready!(socket.poll_read_ready(cx))
        {
            return Poll::Ready(Err(broken(self.side, &error)));
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
            return Poll::Ready(Err(broken(self.side, &error)));
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

    fn is_bulk(&self) -> bool {
        !self.no_pipes
            && self.full_reads >= BULK_AFTER
            && self.moved.load(Ordering::Relaxed) >= SPLICE_AFTER
    }

    /// Moves the bytes of the socket into a pipe, if a pipe is free.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Relayed>> {
        let Some(from) = self.from.socket() else {
            self.no_pipes = true;
            return Poll::Ready(Ok(()));
        };
        if let Err(error) = ready!(from.poll_read_ready(cx)) {
            return Poll::Ready(Err(broken(self.side, &error)));
        }
        let Some(mut pipe) = self.pipe.take().or_else(|| self.buffers.pipes().take()) else {
            self.no_pipes = true;
            return Poll::Ready(Ok(()));
        };
        match from.try_io(Interest::READABLE, || pipe.fill(from)) {
            Ok(0) => self.state = State::Ended,
            Ok(len) => {
                if len <= Size::Small.bytes() {
                    self.full_reads -= 1;
                }
                self.pipe = Some(pipe);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.no_pipes = true,
            Err(error) => return Poll::Ready(Err(broken(self.side, &error))),
        }
        Poll::Ready(Ok(()))
    }

    /// Moves the bytes of the pipe to the other side.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Relayed>> {
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0) {
            let Some(to) = self.to.socket() else {
                return Poll::Ready(Err(broken(self.side, &io::ErrorKind::Unsupported.into())));
            };
            if let Err(error) = ready!(to.poll_write_ready(cx)) {
                return Poll::Ready(Err(broken(self.side.other(), &error)));
            }
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                drained => {
                    self.count(drained)?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn count(&self, written: io::Result<usize>) -> Result<usize, Relayed> {
        match written {
            Ok(0) => Err(broken(self.side.other(), &io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                self.moved.fetch_add(written as u64, Ordering::Relaxed);
                Ok(written)
            }
            Err(error) => Err(broken(self.side.other(), &error)),
        }
    }
}

fn broken(side: Side, error: &io::Error) -> Relayed {
    Relayed::Reset {
        side,
        error: error.kind(),
    }
}
