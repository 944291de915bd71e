//! Rate limits: how often one caller may do an operation that costs resources of others.
//!
//! Each caller has a bucket of each kind (GCRA, `governor`). A full bucket allows ten seconds'
//! worth at once. The table of callers is bounded: idle callers are dropped. While the table is
//! full, new callers share one entry, so that a caller gains nothing by using many names.

use std::hash::BuildHasher as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use hashbrown::{DefaultHashBuilder, HashMap};

use crate::clock::Clock;
use crate::config::Limits;
use crate::identity::{CallerKey, network_of};

/// The seconds' worth of operations that a full bucket allows at once.
const BURST_SECONDS: u32 = 10;
/// Parts of the table, each with its own lock.
const PARTS: usize = 16;
/// Callers in one part of the table.
const MAX_CALLERS_OF_PART: usize = 4096;
/// The idle time after which a caller has full buckets again and may be dropped from the table.
const CALLER_IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// How often one part of a full table is searched for idle callers.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The delay of an answer over the limit.
pub const RATE_LIMIT_DELAY: Duration = Duration::from_millis(250);
/// Delayed answers of one caller at once; further answers are sent immediately.
const MAX_DELAYED_OF_CALLER: usize = 8;

/// The kind of operation that is limited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RateKind {
    /// Connections with a request (`limits.connection-rate`).
    Connections,
    /// Refused flows (`limits.refusal-rate`).
    Refusals,
    /// Started sessions (`limits.session-rate`).
    Sessions,
    /// Calls that change state at the admin listener (`limits.admin-rate`).
    Admin,
}

impl RateKind {
    /// Every kind, in the order of the buckets.
    pub const ALL: [Self; 4] = [
        Self::Connections,
        Self::Refusals,
        Self::Sessions,
        Self::Admin,
    ];

    /// `kind` of `tidegate_rate_limited_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Refusals => "refusals",
            Self::Sessions => "sessions",
            Self::Admin => "admin",
        }
    }

    fn of(self, limits: &Limits) -> u32 {
        match self {
            Self::Connections => limits.connection_rate,
            Self::Refusals => limits.refusal_rate,
            Self::Sessions => limits.session_rate,
            Self::Admin => limits.admin_rate,
        }
    }
}

/// The key of a caller's buckets.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RateKey {
    /// A caller of a proxy listener.
    Caller(CallerKey),
    /// A client address at a listener, for an unidentified caller.
    Address(IpAddr, SocketAddr),
    /// A token for the reports of a doctor, by its hash.
    ReportToken([u8; 32]),
    /// A user of this host, at a Unix socket.
    Uid(u32),
}

impl RateKey {
    /// The key of a caller at a listener. A caller identified only by its address is counted for
    /// each listener, and an IPv6 address by its /64.
    pub fn of_caller(key: CallerKey, listener: SocketAddr) -> Self {
        match key {
            CallerKey::Address(address) => Self::of_address(address, listener),
            key @ (CallerKey::Session(_) | CallerKey::Subject(_)) => Self::Caller(key),
        }
    }

    /// The key of a client at a listener, by its network.
    pub fn of_address(address: IpAddr, listener: SocketAddr) -> Self {
        Self::Address(network_of(address), listener)
    }
}

/// The gate's clock, in the form that `governor` needs.
#[derive(Clone, Debug)]
struct GateClock(Clock);

impl governor::clock::Clock for GateClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.instant()
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, GateClock, NoOpMiddleware<Instant>>;

/// The buckets of one caller. Connections keep a reference, so that counting takes no lock.
#[derive(Debug)]
pub struct CallerRates {
    buckets: [Bucket; 4],
    delayed: AtomicUsize,
    /// The last look-up, in milliseconds since the table was made.
    used: AtomicU64,
}

/// A caller is over its limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateLimited {
    /// The exceeded limit.
    pub kind: RateKind,
}

/// A delayed answer; the delay ends when dropped.
#[derive(Debug)]
pub struct Delay(Arc<CallerRates>);

impl Drop for Delay {
    fn drop(&mut self) {
        self.0.delayed.fetch_sub(1, Ordering::AcqRel);
    }
}

impl CallerRates {
    fn new(limits: &Limits, clock: &GateClock) -> Self {
        let bucket = |kind: RateKind| {
            let rate = NonZeroU32::new(kind.of(limits)).unwrap_or(NonZeroU32::MIN);
            let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1));
            let quota = Quota::per_second(rate).allow_burst(burst);
            RateLimiter::direct_with_clock(quota, clock.clone())
        };
        Self {
            buckets: RateKind::ALL.map(bucket),
            delayed: AtomicUsize::new(0),
            used: AtomicU64::new(0),
        }
    }

    /// Counts one operation; `Err` if the caller is over the limit.
    pub fn take(&self, kind: RateKind) -> Result<(), RateLimited> {
        let [connections, refusals, sessions, admin] = &self.buckets;
        let bucket = match kind {
            RateKind::Connections => connections,
            RateKind::Refusals => refusals,
            RateKind::Sessions => sessions,
            RateKind::Admin => admin,
        };
        bucket.check().map_err(|_| RateLimited { kind })
    }

    /// Takes a slot for a delayed answer; `None` if no slot is free.
    pub fn delay(self: &Arc<Self>) -> Option<Delay> {
        let delayed = self.delayed.fetch_add(1, Ordering::AcqRel);
        let delay = Delay(self.clone());
        (delayed < MAX_DELAYED_OF_CALLER).then_some(delay)
    }
}

#[derive(Debug, Default)]
struct Part {
    callers: HashMap<RateKey, Arc<CallerRates>>,
    swept: Duration,
}

/// The buckets of every caller.
#[derive(Debug)]
pub struct Rates {
    parts: [Mutex<Part>; PARTS],
    /// The hash function that selects the part of a caller.
    hasher: DefaultHashBuilder,
    /// The shared entry of callers without room in the table.
    shared: ArcSwap<CallerRates>,
    limits: ArcSwap<Limits>,
    clock: GateClock,
    began: Instant,
}

impl Rates {
    /// A table without callers.
    pub fn new(limits: &Limits, clock: &Clock) -> Self {
        let clock = GateClock(clock.clone());
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hasher: DefaultHashBuilder::default(),
            shared: ArcSwap::from_pointee(CallerRates::new(limits, &clock)),
            limits: ArcSwap::from_pointee(limits.clone()),
            began: clock.0.instant(),
            clock,
        }
    }

    /// Sets new limits. If they differ, every caller begins with full buckets; open connections
    /// keep their old buckets.
    pub fn adopt(&self, limits: &Limits) {
        let before = self.limits.swap(Arc::new(limits.clone()));
        if RateKind::ALL
            .iter()
            .all(|kind| kind.of(&before) == kind.of(limits))
        {
            return;
        }
        self.shared
            .store(Arc::new(CallerRates::new(limits, &self.clock)));
        for part in &self.parts {
            lock(part).callers.clear();
        }
    }

    /// The rates of one caller.
    pub fn of(&self, key: RateKey) -> Arc<CallerRates> {
        let now = self.clock.0.instant().saturating_duration_since(self.began);
        let hash = self.hasher.hash_one(&key);
        #[expect(clippy::cast_possible_truncation, reason = "less than PARTS")]
        let index = (hash % PARTS as u64) as usize;
        let Some(part) = self.parts.get(index) else {
            return self.shared.load_full();
        };
        let mut part = lock(part);
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if let Some(rates) = part.callers.get(&key) {
            rates.used.store(millis, Ordering::Relaxed);
            return rates.clone();
        }
        if part.callers.len() >= MAX_CALLERS_OF_PART && !part.sweep(now) {
            return self.shared.load_full();
        }
        let rates = Arc::new(CallerRates::new(&self.limits.load(), &self.clock));
        rates.used.store(millis, Ordering::Relaxed);
        part.callers.insert(key, rates.clone());
        rates
    }
}

impl Part {
    /// Drops idle callers; returns whether there is room now.
    fn sweep(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            let oldest = now.saturating_sub(CALLER_IDLE_TIMEOUT).as_millis();
            self.callers.retain(|_, rates| {
                Arc::strong_count(rates) > 1
                    || u128::from(rates.used.load(Ordering::Relaxed)) > oldest
            });
        }
        self.callers.len() < MAX_CALLERS_OF_PART
    }
}

fn lock(part: &Mutex<Part>) -> std::sync::MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rate: u32) -> Rates {
        let limits = Limits {
            refusal_rate: rate,
            ..Limits::default()
        };
        Rates::new(&limits, &Clock::system())
    }

    fn address(last: u8) -> RateKey {
        let listener = SocketAddr::from(([127, 0, 0, 1], 3128));
        RateKey::of_address([10, 0, 0, last].into(), listener)
    }

    #[test]
    fn one_caller_over_its_limit_takes_nothing_from_another() {
        let rates = rates(1);
        let flood = rates.of(address(1));
        let taken = (0..1000).filter(|_| flood.take(RateKind::Refusals).is_ok());
        assert!(taken.count() < 100, "ten at once, then one a second");
        let again = rates.of(address(1)).take(RateKind::Refusals);
        assert_eq!(
            again,
            Err(RateLimited {
                kind: RateKind::Refusals
            })
        );
        assert_eq!(rates.of(address(2)).take(RateKind::Refusals), Ok(()));
        assert_eq!(flood.take(RateKind::Connections), Ok(()), "another kind");
    }

    #[test]
    fn the_addresses_of_one_host_or_network_are_one_caller() {
        let listener = SocketAddr::from(([127, 0, 0, 1], 3128));
        let key = |text: &str| RateKey::of_address(text.parse().unwrap(), listener);
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(
            key("127.0.0.1"),
            key("127.1.2.3"),
            "any process may use either"
        );
        assert_eq!(key("127.0.0.1"), key("::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn callers_beyond_the_table_share_one_entry() {
        let rates = rates(1);
        let callers = u32::try_from(PARTS * MAX_CALLERS_OF_PART).unwrap() * 2;
        let limited = (0..callers)
            .map(|uid| rates.of(RateKey::Uid(uid)))
            .filter(|rates| rates.take(RateKind::Refusals).is_err());
        assert!(limited.count() > 1000);
        let held: usize = rates
            .parts
            .iter()
            .map(|part| lock(part).callers.len())
            .sum();
        assert!(held <= PARTS * MAX_CALLERS_OF_PART);
    }

    #[test]
    fn new_limits_hold_at_once() {
        let rates = rates(1);
        let flood = rates.of(address(1));
        while flood.take(RateKind::Refusals).is_ok() {}
        rates.adopt(&Limits {
            refusal_rate: 1000,
            ..Limits::default()
        });
        assert_eq!(rates.of(address(1)).take(RateKind::Refusals), Ok(()));
    }

    #[test]
    fn few_answers_are_held_back_at_once() {
        let caller = rates(1).of(address(1));
        let held: Vec<_> = (0..100).filter_map(|_| caller.delay()).collect();
        assert_eq!(held.len(), MAX_DELAYED_OF_CALLER);
        drop(held);
        assert!(caller.delay().is_some());
    }
}
