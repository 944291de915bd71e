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

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may not be ended in favour of another one.
const MIN_AGE: Duration = Duration::from_millis(20);
/// How long a client may take to read an answer that does not fit into its socket.
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

/// One connection, as the others see it.
#[derive(Debug)]
pub(super) struct Seat {
    peer: Peer,
    accepted: Instant,
    /// When it was accepted or began its last request, in steps of the table.
    since: AtomicU64,
    /// Whether anything was read from it, or tried to be.
    is_read: AtomicBool,
    /// Requests that are being carried out.
    busy: AtomicUsize,
    /// Cancelled when it has to make room.
    pub(super) ended: CancellationToken,
}

/// The place of a connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Room,
    id: u64,
    pub(super) seat: Arc<Seat>,
}

/// A request that is being carried out; over when dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Seat>);

impl Room {
    /// Takes a place; `None` where all are taken and none of them can be ended yet.
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

    /// Notes that a request began on a connection.
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
    /// Whose connection it is: an address, or a user of this host.
    fn owner(self) -> (Option<std::net::IpAddr>, Option<u32>) {
        (self.address, self.uid)
    }
}

impl Seat {
    /// Notes that the connection is read from.
    pub(super) fn reads(&self) {
        self.is_read.store(true, Ordering::Release);
    }

    fn is_waiting(&self, now: Instant) -> bool {
        self.busy.load(Ordering::Acquire) == 0
            && self.is_read.load(Ordering::Acquire)
            && now.saturating_duration_since(self.accepted) >= MIN_AGE
    }

    /// Keeps the connection until what it asked for is done.
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

/// A connection whose client has to read its answers in time.
#[derive(Debug)]
pub(super) struct Paced<S> {
    inner: S,
    seat: Arc<Seat>,
    /// Runs while an answer waits for its client.
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
                // All of the answer is on its way.
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
