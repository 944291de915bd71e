//! Room for connections: bounded, and no client can keep it full.
//!
//! When all places are taken, the listener ends one connection of the peer that has the most
//! connections: the oldest waiting connection. It does not end a connection whose request is being
//! answered, nor one that it accepted a moment ago: that request may be on the way.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::listener::Peer;

/// Connections at once, at most.
const MAX_CONNECTIONS: usize = 64;
/// The age below which a connection is not closed to make room.
const MIN_AGE: Duration = Duration::from_millis(20);
/// The time limit for a client to read an answer that does not fit into its socket buffer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Every connection of one listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// Grows with every connection and every request.
    step: u64,
    seats: HashMap<u64, Arc<Seat>>,
}

/// One connection in the table.
#[derive(Debug)]
pub(super) struct Seat {
    peer: Peer,
    accepted: Instant,
    /// The step at which it was accepted or began its last request.
    since: AtomicU64,
    /// Whether a read was attempted.
    is_read: AtomicBool,
    /// The number of requests being carried out.
    busy: AtomicUsize,
    /// Cancelled when the connection has to make room.
    pub(super) ended: CancellationToken,
}

/// The place of a connection; released when dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Room,
    id: u64,
    pub(super) seat: Arc<Seat>,
}

/// A request being carried out; finished when dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Seat>);

impl Room {
    /// Takes a place; `None` if all are taken and no connection may be closed yet.
    pub(super) fn enter(&self, peer: Peer, now: Instant) -> Option<Place> {
        let mut table = self.table();
        if table.seats.len() >= MAX_CONNECTIONS {
            let id = table.longest_waiting(now)?;
            if let Some(seat) = table.seats.remove(&id) {
                seat.ended.cancel();
            }
        }
        table.step += 1;
        let id = table.step;
        let seat = Arc::new(Seat {
            peer,
            accepted: now,
            since: AtomicU64::new(id),
            is_read: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            ended: CancellationToken::new(),
        });
        table.seats.insert(id, seat.clone());
        let room = self.clone();
        Some(Place { room, id, seat })
    }

    /// Counts the start of a request on a connection.
    pub(super) fn asked(&self, seat: &Seat) {
        let mut table = self.table();
        table.step += 1;
        seat.since.store(table.step, Ordering::Relaxed);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The connection to end: the oldest waiting connection of the peer with the most.
    fn longest_waiting(&self, now: Instant) -> Option<u64> {
        let mut of_peer: HashMap<(Option<std::net::IpAddr>, Option<u32>), usize> = HashMap::new();
        for seat in self.seats.values() {
            *of_peer.entry(seat.peer.owner()).or_default() += 1;
        }
        let waiting = self.seats.iter().filter(|(_, seat)| seat.is_waiting(now));
        let worst = waiting.max_by_key(|(_, seat)| {
            let count = of_peer.get(&seat.peer.owner()).copied().unwrap_or_default();
            (count, std::cmp::Reverse(seat.since.load(Ordering::Relaxed)))
        });
        worst.map(|(id, _)| *id)
    }
}

impl Peer {
    /// The owner of a connection: an address, or a user of this host.
    fn owner(self) -> (Option<std::net::IpAddr>, Option<u32>) {
        (self.address, self.uid)
    }
}

impl Seat {
    /// Marks the connection as read.
    pub(super) fn reads(&self) {
        self.is_read.store(true, Ordering::Release);
    }

    fn is_waiting(&self, now: Instant) -> bool {
        self.busy.load(Ordering::Acquire) == 0
            && self.is_read.load(Ordering::Acquire)
            && now.saturating_duration_since(self.accepted) >= MIN_AGE
    }

    /// Keeps the connection open until the request is done.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.table().seats.remove(&self.id);
    }
}

/// A connection with a time limit for the client to read answers.
#[derive(Debug)]
pub(super) struct Paced<S> {
    inner: S,
    seat: Arc<Seat>,
    /// Runs while an answer waits for the client to read.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(super) fn new(inner: S, seat: Arc<Seat>) -> Self {
        Self {
            inner,
            seat,
            waits: None,
        }
    }

    /// Bounds the time from the first byte that waits to be sent to the last byte that the client
    /// reads. Bytes that the client reads in between do not extend it.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let waits = self
            .waits
            .get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        match waits.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.seat.reads();
        Pin::new(&mut this.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_write(context, bytes) {
            Poll::Pending => this.wait(context),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_flush(context) {
            Poll::Pending => this.wait(context),
            ready @ Poll::Ready(_) => {
                // The whole answer is sent.
                this.waits = None;
                ready
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_shutdown(context) {
            Poll::Pending => this.wait(context),
            ready @ Poll::Ready(_) => ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn peer(last: u8) -> Peer {
        Peer {
            address: Some([192, 0, 2, last].into()),
            ..Peer::default()
        }
    }

    #[test]
    fn who_waits_longest_of_those_with_the_most_makes_room() {
        let (room, began) = (Room::default(), Clock::system().instant());
        let other = room.enter(peer(1), began).unwrap();
        let mut places: Vec<_> = (1..MAX_CONNECTIONS)
            .map(|_| room.enter(peer(2), began).unwrap())
            .collect();
        let later = began + MIN_AGE;
        assert!(room.enter(peer(3), later).is_none(), "nothing was read yet");
        for place in places.iter().chain([&other]) {
            place.seat.is_read.store(true, Ordering::Release);
        }
        assert!(room.enter(peer(3), began).is_none(), "all are new");
        room.asked(&places[0].seat);
        let busy = places[1].seat.busy();
        let new = room.enter(peer(3), later).unwrap();
        assert!(places[2].seat.ended.is_cancelled());
        assert!(
            ![&other, &new, &places[0], &places[1]]
                .iter()
                .any(|it| it.seat.ended.is_cancelled())
        );
        drop((busy, new));
        places.clear();
        drop(other);
        assert!(room.table().seats.is_empty());
    }
}
