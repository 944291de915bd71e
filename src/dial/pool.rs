//! Idle HTTP/1 connections, keyed by everything that the policy checked.
//!
//! A pool belongs to one generation: a new policy begins with an empty pool, so that no connection
//! outlives the decision that opened it. The address of a connection is checked again at each use.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::name::Target;
use crate::policy::{CallerKey, TierId};

use super::{Stream, Through, Unasked};

/// Idle connections of one key, and in all, at most.
const MAX_PER_KEY: usize = 64;
const MAX_CONNECTIONS: usize = 1024;
/// The maximum age of a connection: the certificate verified at its start may have expired since.
const MAX_AGE: Duration = Duration::from_hours(1);
/// The maximum idle time of a connection: shorter than the keep-alive of most origins.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// The purpose of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolKey {
    /// The checked target.
    pub target: Target,
    /// The caller: an origin may tie a connection, and its answers, to one client.
    pub caller: CallerKey,
    /// The tier of the caller.
    pub tier: TierId,
    /// The TLS settings; `None` without TLS.
    pub tls: Option<TlsKey>,
    /// The parent: connections through different parents are never shared.
    pub parent: Option<Arc<str>>,
}

/// Only the target and the caller are hashed: connections of a caller to a target rarely differ in
/// the rest, which `Eq` compares.
impl Hash for PoolKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.target.hash(state);
        self.caller.hash(state);
    }
}

impl From<&Self> for PoolKey {
    fn from(key: &Self) -> Self {
        key.clone()
    }
}

/// The TLS settings of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsKey {
    /// The `[upstream.NAME]`; `None`: the system's roots.
    pub upstream: Option<Arc<str>>,
    /// The [`identity`](crate::tls::Upstream::identity) of the upstream: the same name may have
    /// another certificate after a reload.
    pub identity: u64,
}

/// An idle connection.
#[derive(Debug)]
pub struct Idle {
    /// The connection.
    pub stream: Stream,
    /// The address that was dialled.
    pub address: SocketAddr,
    /// The parent of the connection.
    pub through: Option<Through>,
    /// Whether the origin speaks no HTTP/2 although the gate offered it.
    pub only_http1: bool,
    /// The time of its opening, when its certificate was verified.
    pub opened: Instant,
}

/// An idle connection, and the time when it became idle.
#[derive(Debug)]
struct Rested {
    idle: Idle,
    since: Instant,
}

/// Idle connections of one generation.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    idle: HashMap<PoolKey, Vec<Rested>>,
    count: usize,
}

impl Pool {
    /// Takes a connection that is still open and whose checked address, if known, passes `judge`.
    pub fn take(
        &self,
        key: &PoolKey,
        now: Instant,
        judge: impl Fn(SocketAddr) -> bool,
    ) -> Option<Idle> {
        self.take_where(key, now, judge, |_| true)
    }

    /// Like [`Pool::take`], but only a connection whose origin speaks no HTTP/2.
    pub fn take_http1(
        &self,
        key: &PoolKey,
        now: Instant,
        judge: impl Fn(SocketAddr) -> bool,
    ) -> Option<Idle> {
        self.take_where(key, now, judge, |idle| idle.only_http1)
    }

    fn take_where(
        &self,
        key: &PoolKey,
        now: Instant,
        judge: impl Fn(SocketAddr) -> bool,
        fits: impl Fn(&Idle) -> bool,
    ) -> Option<Idle> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (found, gone, is_empty) = {
            let idle = kept.idle.get_mut(key)?;
            let before = idle.len();
            let mut found = None;
            // The last one first: it was idle for the shortest time.
            while let Some(at) = idle.iter().rposition(|rested| fits(&rested.idle)) {
                let rested = idle.remove(at);
                let (mut candidate, since) = (rested.idle, rested.since);
                let rested = now.saturating_duration_since(since);
                let judged = super::judged(candidate.address, candidate.through.as_ref());
                let age = now.saturating_duration_since(candidate.opened);
                let fresh = rested < MAX_IDLE && age < MAX_AGE;
                let good = fresh && judged.is_none_or(&judge);
                if good && matches!(candidate.stream.unasked(), Unasked::Nothing) {
                    found = Some(candidate);
                    break;
                }
            }
            (found, before - idle.len(), idle.is_empty())
        };
        kept.count = kept.count.saturating_sub(gone);
        if is_empty {
            kept.idle.remove(key);
        }
        found
    }

    /// Keeps a connection whose last exchange ended cleanly; closes it if the pool is full.
    pub fn put(&self, key: &PoolKey, rests: Idle, now: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.count >= MAX_CONNECTIONS {
            kept.sweep(now);
        }
        if kept.count >= MAX_CONNECTIONS {
            return;
        }
        let idle = kept.idle.entry_ref(key).or_default();
        if idle.len() < MAX_PER_KEY {
            idle.push(Rested {
                idle: rests,
                since: now,
            });
            kept.count += 1;
        }
    }

    /// Closes one idle connection of a caller; returns whether there was one.
    pub fn close_one_of(&self, caller: &CallerKey) -> bool {
        self.close_where(|key| key.caller == *caller)
    }

    /// Closes one idle connection; returns whether there was one.
    pub fn close_one(&self) -> bool {
        self.close_where(|_| true)
    }

    fn close_where(&self, fits: impl Fn(&PoolKey) -> bool) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = kept.idle.keys().find(|key| fits(key)).cloned() else {
            return false;
        };
        let closed = kept.idle.get_mut(&key).and_then(Vec::pop).is_some();
        if kept.idle.get(&key).is_some_and(Vec::is_empty) {
            kept.idle.remove(&key);
        }
        kept.count = kept.count.saturating_sub(usize::from(closed));
        closed
    }

    /// Closes the connections that have been idle too long.
    pub fn sweep(&self, now: Instant) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sweep(now);
    }
}

impl Shelf {
    fn sweep(&mut self, now: Instant) {
        for idle in self.idle.values_mut() {
            idle.retain(|idle| now.saturating_duration_since(idle.since) < MAX_IDLE);
        }
        self.idle.retain(|_, idle| !idle.is_empty());
        self.count = self.idle.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use crate::clock::Clock;
    use crate::dial::Socket;

    use super::*;

    async fn pair() -> (Socket, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let budget = Arc::new(crate::dial::Descriptors::new(1));
        let take = || budget.take(None, 1);
        let (dialled, accepted) = tokio::join!(
            crate::dial::race::connect(std::slice::from_ref(&address), take),
            listener.accept()
        );
        (dialled.unwrap().0, accepted.unwrap().0, address)
    }

    fn rests(stream: Socket, address: SocketAddr) -> Idle {
        Idle {
            stream: Stream::Tcp(stream),
            address,
            through: None,
            only_http1: false,
            opened: Clock::system().instant(),
        }
    }

    fn key(tier: u8) -> PoolKey {
        key_of("a", tier)
    }

    fn key_of(subject: &str, tier: u8) -> PoolKey {
        PoolKey {
            caller: CallerKey::Subject(subject.into()),
            target: Target::from_connect(b"files.example.net:80").unwrap(),
            tier: TierId(tier),
            tls: None,
            parent: None,
        }
    }

    #[tokio::test]
    async fn a_connection_is_never_shared_across_tiers() {
        let (stream, _origin, address) = pair().await;
        let (pool, now) = (Pool::default(), Clock::system().instant());
        pool.put(&key(0), rests(stream, address), now);
        assert!(pool.take(&key(1), now, |_| true).is_none());
        assert!(pool.take(&key(0), now, |_| true).is_some());
        assert!(pool.take(&key(0), now, |_| true).is_none());
    }

    #[tokio::test]
    async fn a_connection_whose_origin_may_speak_http2_is_not_taken_for_http1() {
        let (stream, _origin, address) = pair().await;
        let (other, _other_origin, other_address) = pair().await;
        let (pool, now) = (Pool::default(), Clock::system().instant());
        let only_http1 = Idle {
            only_http1: true,
            ..rests(stream, address)
        };
        pool.put(&key(0), only_http1, now);
        pool.put(&key(0), rests(other, other_address), now);
        let taken = pool.take_http1(&key(0), now, |_| true).expect("one fits");
        assert_eq!(taken.address, address);
        assert!(pool.take_http1(&key(0), now, |_| true).is_none());
        assert!(pool.take(&key(0), now, |_| true).is_some());
    }

    #[tokio::test]
    async fn a_connection_is_never_shared_by_callers() {
        let (stream, _origin, address) = pair().await;
        let (pool, now) = (Pool::default(), Clock::system().instant());
        pool.put(&key_of("a", 0), rests(stream, address), now);
        let session = PoolKey {
            caller: CallerKey::Session("a".into()),
            ..key(0)
        };
        let address = PoolKey {
            caller: CallerKey::Address(address.ip()),
            ..key(0)
        };
        for other in [key_of("b", 0), session, address] {
            assert!(pool.take(&other, now, |_| true).is_none(), "{other:?}");
        }
        assert!(pool.take(&key_of("a", 0), now, |_| true).is_some());
    }

    #[tokio::test]
    async fn a_connection_is_closed_where_its_caller_needs_the_descriptor() {
        let (stream, _origin, address) = pair().await;
        let (pool, now) = (Pool::default(), Clock::system().instant());
        pool.put(&key_of("a", 0), rests(stream, address), now);
        assert!(!pool.close_one_of(&CallerKey::Subject("b".into())));
        assert!(pool.close_one_of(&CallerKey::Subject("a".into())));
        assert!(!pool.close_one() && pool.take(&key_of("a", 0), now, |_| true).is_none());
    }

    #[tokio::test]
    async fn a_connection_whose_address_no_longer_passes_is_dropped() {
        let (stream, _origin, address) = pair().await;
        let (pool, now) = (Pool::default(), Clock::system().instant());
        pool.put(&key(0), rests(stream, address), now);
        assert!(pool.take(&key(0), now, |_| false).is_none());
        assert!(pool.take(&key(0), now, |_| true).is_none());
    }

    #[tokio::test]
    async fn a_connection_that_was_opened_long_ago_is_dropped() {
        let (stream, _origin, address) = pair().await;
        let (pool, mut idle) = (Pool::default(), rests(stream, address));
        let later = Clock::system().instant() + MAX_AGE;
        idle.opened = later.checked_sub(MAX_AGE).unwrap();
        pool.put(&key(0), idle, later);
        assert!(pool.take(&key(0), later, |_| true).is_none());
    }

    #[tokio::test]
    async fn a_connection_that_rested_too_long_is_dropped() {
        let (stream, _origin, address) = pair().await;
        let (pool, now) = (Pool::default(), Clock::system().instant());
        pool.put(&key(0), rests(stream, address), now);
        assert!(pool.take(&key(0), now + MAX_IDLE, |_| true).is_none());
    }
}
