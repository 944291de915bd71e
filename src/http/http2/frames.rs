//! Counts frames without content as they are read (RFC 9113 section 10.5).
//!
//! The library bounds memory, but not work: the gate answers each PING, and judges, records and
//! dials for a stream that the client resets at once. A peer could keep the gate busy at no cost of
//! its own. And the interim responses of an origin wait in memory until they are read, however many
//! there are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

use super::STREAMS;
use super::fragments::{Fragments, HeaderBlocks};

/// Allowed frames without content: initially, and per second afterwards.
const BURST: u64 = 1000;
const PER_SECOND: u64 = 100;
/// The cost of one interim response, whose header list stays in memory: about sixty fit at once.
const INTERIM: u64 = 16;

/// Octets that a client sends before its first frame (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// Octets of the head of a frame (RFC 9113 section 4.1).
const HEAD: usize = 9;

const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// A connection whose frames are counted; after too many, nothing more is read.
pub(super) struct Counted<S> {
    io: S,
    heads: Heads,
    allowance: Allowance,
    flooded: CancellationToken,
}

/// Counts the frames of a client; the token is cancelled when there are too many. The streams whose
/// `:path` contains `#` are added to `fragments`.
pub(super) fn from_client<S>(
    io: S,
    clock: Clock,
    fragments: Fragments,
) -> (Counted<S>, CancellationToken) {
    let (mut counted, flooded) = counted(io, clock, PREFACE, None);
    counted.heads.blocks = Some(HeaderBlocks::new(fragments));
    (counted, flooded)
}

/// The requests to an origin, and its last processed stream.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The number of requests that were sent.
    pub(super) requests: Arc<AtomicU64>,
    /// The last stream that the origin may have processed, after a GOAWAY (RFC 9113 section 6.8).
    pub(super) last: Arc<AtomicU32>,
}

impl Asked {
    pub(super) fn nothing() -> Self {
        Self {
            requests: Arc::default(),
            last: Arc::new(AtomicU32::new(u32::MAX)),
        }
    }
}

/// Counts the frames of an origin that received the requests in `asked`.
pub(super) fn from_origin<S>(io: S, clock: Clock, asked: Asked) -> (Counted<S>, CancellationToken) {
    counted(io, clock, 0, Some(asked))
}

fn counted<S>(
    io: S,
    clock: Clock,
    before: usize,
    asked: Option<Asked>,
) -> (Counted<S>, CancellationToken) {
    let flooded = CancellationToken::new();
    let counted = Counted {
        io,
        heads: Heads {
            before,
            head: Vec::with_capacity(HEAD),
            asked,
            answered: 0,
            goaway: Goaway::default(),
            blocks: None,
        },
        allowance: Allowance {
            left: BURST,
            since: clock.instant(),
            clock,
        },
        flooded: flooded.clone(),
    };
    (counted, flooded)
}

/// Finds the heads of frames in the bytes that are read, in pieces of any size.
struct Heads {
    /// Octets before the next frame head.
    before: usize,
    /// The octets of the next frame head so far.
    head: Vec<u8>,
    /// The requests to the origin.
    asked: Option<Asked>,
    /// The number of response heads that the origin sent.
    answered: u64,
    goaway: Goaway,
    /// The header blocks of a client.
    blocks: Option<HeaderBlocks>,
}

/// The beginning of the payload of a GOAWAY frame: the number of a stream.
#[derive(Default)]
struct Goaway {
    missing: usize,
    stream: u32,
}

impl Goaway {
    /// Processes a piece of a payload; returns the stream number when it is complete.
    fn take(&mut self, payload: &[u8]) -> Option<u32> {
        for byte in payload.iter().take(self.missing) {
            self.missing -= 1;
            self.stream = self.stream << 8 | u32::from(*byte);
            if self.missing == 0 {
                // The first bit is reserved.
                return Some(self.stream & (u32::MAX >> 1));
            }
        }
        None
    }
}

impl Heads {
    /// Returns the cost of the frames in these octets.
    fn cost(&mut self, mut bytes: &[u8]) -> u64 {
        let mut cost = 0;
        while !bytes.is_empty() {
            let (passed, rest) = bytes.split_at(self.before.min(bytes.len()));
            self.before -= passed.len();
            if let (Some(last), Some(asked)) = (self.goaway.take(passed), &self.asked) {
                asked.last.fetch_min(last, Ordering::AcqRel);
            }
            if let Some(blocks) = &mut self.blocks {
                blocks.take(passed);
            }
            let (part, rest) = rest.split_at((HEAD - self.head.len()).min(rest.len()));
            self.head.extend_from_slice(part);
            bytes = rest;
            if let [a, b, c, kind, flags, stream @ ..] = self.head.as_slice()
                && let Ok(stream) = <[u8; 4]>::try_from(stream)
            {
                let [a, b, c, kind, flags] = [*a, *b, *c, *kind, *flags];
                self.head.clear();
                self.before = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.goaway = Goaway {
                    missing: if kind == GOAWAY { 4 } else { 0 },
                    stream: 0,
                };
                if let Some(blocks) = &mut self.blocks {
                    let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                    blocks.begin(kind, flags, stream, self.before);
                }
                cost += self.cost_of(kind, flags);
            }
        }
        cost
    }

    fn cost_of(&mut self, kind: u8, flags: u8) -> u64 {
        match kind {
            // Opening a window is free, and a client may open it in small steps.
            DATA | WINDOW_UPDATE => 0,
            // A stream has one end, and the number of concurrent streams is bounded.
            HEADERS if flags & END_STREAM != 0 => 0,
            HEADERS => self.cost_of_head(),
            _ => 1,
        }
    }

    /// If there are more heads than requests, some of them were interim responses.
    fn cost_of_head(&mut self) -> u64 {
        let Some(asked) = &self.asked else {
            return 0;
        };
        // Responses that ended with their head were not counted; at most the open streams are
        // missing.
        let asked = asked.requests.load(Ordering::Relaxed);
        self.answered = self.answered.max(asked.saturating_sub(STREAMS.into()));
        if self.answered < asked {
            self.answered += 1;
            return 0;
        }
        INTERIM
    }
}

/// The frames that are still allowed.
struct Allowance {
    left: u64,
    since: Instant,
    clock: Clock,
}

impl Allowance {
    /// Subtracts `cost`; returns whether it was available.
    fn spend(&mut self, cost: u64) -> bool {
        if cost > self.left {
            let now = self.clock.instant();
            let seconds = now.saturating_duration_since(self.since).as_secs();
            if seconds > 0 {
                self.since = now;
                self.left = BURST.min(self.left + seconds.saturating_mul(PER_SECOND));
            }
        }
        let left = self.left.checked_sub(cost);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flooded.is_cancelled() {
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, into);
        if read.is_ready() {
            let new = into.filled().get(before..).unwrap_or_default();
            let cost = this.heads.cost(new);
            if cost > 0 && !this.allowance.spend(cost) {
                this.flooded.cancel();
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + usize::from(length), 0);
        frame
    }

    fn heads(before: usize, asked: Option<u64>) -> Heads {
        Heads {
            before,
            head: Vec::new(),
            asked: asked.map(|asked| Asked {
                requests: Arc::new(AtomicU64::new(asked)),
                ..Asked::nothing()
            }),
            answered: 0,
            goaway: Goaway::default(),
            blocks: None,
        }
    }

    #[test]
    fn frames_are_counted_in_pieces_of_any_size() {
        let mut all = vec![b'P'; PREFACE];
        for kind in [4, HEADERS, DATA, PING, WINDOW_UPDATE, PING, 3, 9, 200] {
            all.extend(frame(kind, 0, kind));
        }
        for size in 1..all.len() {
            let mut heads = heads(PREFACE, None);
            let cost: u64 = all.chunks(size).map(|piece| heads.cost(piece)).sum();
            assert_eq!(cost, 6, "in pieces of {size}");
        }
    }

    #[test]
    fn an_origin_has_one_head_for_each_request_and_trailers() {
        let mut heads = heads(0, Some(2));
        let head = frame(HEADERS, 0, 3);
        assert_eq!(heads.cost(&[head.clone(), head.clone()].concat()), 0);
        assert_eq!(heads.cost(&frame(HEADERS, END_STREAM, 3)), 0);
        assert_eq!(heads.cost(&head), INTERIM);
    }

    #[test]
    fn the_last_stream_of_a_goaway_is_seen_in_pieces_of_any_size() {
        let mut all = frame(PING, 0, 8);
        all.extend([0, 0, 10, GOAWAY, 0, 0, 0, 0, 0]);
        all.extend([0x80, 0, 1, 5, 0, 0, 0, 0, b'h', b'i']);
        all.extend(frame(DATA, 0, 9));
        for size in 1..all.len() {
            let mut heads = heads(0, Some(1));
            let asked = heads.asked.clone().expect("an origin");
            for piece in all.chunks(size) {
                heads.cost(piece);
            }
            assert_eq!(
                asked.last.load(Ordering::Relaxed),
                261,
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn answers_without_a_body_do_not_add_up_to_leave_for_interim_ones() {
        let mut heads = heads(0, Some(1_000_000));
        let head = frame(HEADERS, 0, 3);
        let free = (0..1000).take_while(|_| heads.cost(&head) == 0).count();
        assert_eq!(free, STREAMS as usize);
    }

    #[test]
    fn no_stream_sends_more_than_its_window() {
        let mut allowance = Allowance {
            left: BURST,
            since: Clock::system().instant(),
            clock: Clock::system(),
        };
        assert!(allowance.spend(BURST));
        assert!(!allowance.spend(BURST));
    }
}
