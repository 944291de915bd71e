//! The keys of an issuer over time: fetched at the first use, cached for their lifetime, and
//! fetched again for an unknown key id. Only one fetch runs at a time, and not often.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, watch};

use super::jwks::Keys;

/// The shortest and longest lifetime of keys, whatever their server sets.
const HOLD: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(24));
/// The lifetime of keys if the server sets none.
const USUAL: Duration = Duration::from_mins(5);
/// The pause after a successful fetch, and after a failed one.
const RETRY_INTERVAL: Duration = Duration::from_mins(1);
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Callers that wait for one fetch, at most.
const WAITERS: usize = 256;
/// The maximum wait of such a caller: longer than a fetch may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The keys of one issuer; kept for the whole run while the issuer's configuration is unchanged.
pub(super) struct Keyring {
    state: Mutex<State>,
    /// Notified when a fetch has ended.
    ended: watch::Sender<u64>,
    places: Semaphore,
    stale: Duration,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The time before which no fetch begins.
    rests_until: Option<Timestamp>,
    fetching: bool,
}

#[derive(Clone)]
struct Held {
    keys: Arc<Keys>,
    until: Timestamp,
}

/// The result of a fetch: keys and their lifetime.
pub(super) type Fetched = Option<(Keys, Option<Duration>)>;

impl Keyring {
    /// A ring without keys. If the issuer cannot be reached, keys are used for `stale` beyond their
    /// lifetime.
    pub(super) fn new(stale: Duration) -> Self {
        Self {
            state: Mutex::default(),
            ended: watch::Sender::new(0),
            places: Semaphore::new(WAITERS),
            stale,
        }
    }

    /// Keys valid at `now`; `None` if there are none and the fetch fails.
    pub(super) async fn keys<F>(
        &self,
        now: Timestamp,
        fetch: impl FnOnce() -> F,
    ) -> Option<Arc<Keys>>
    where
        F: Future<Output = Fetched>,
    {
        if let Some(keys) = self.held(now, Duration::ZERO) {
            return Some(keys);
        }
        self.refresh(now, fetch).await;
        self.held(now, self.stale)
    }

    /// Keys newer than these, if a fetch brings them.
    pub(super) async fn newer<F>(
        &self,
        than: &Arc<Keys>,
        now: Timestamp,
        fetch: impl FnOnce() -> F,
    ) -> Option<Arc<Keys>>
    where
        F: Future<Output = Fetched>,
    {
        self.refresh(now, fetch).await;
        let keys = self.held(now, self.stale);
        keys.filter(|keys| !Arc::ptr_eq(keys, than))
    }

    fn held(&self, now: Timestamp, longer: Duration) -> Option<Arc<Keys>> {
        let held = self.lock().held.clone()?;
        (now < after(held.until, longer)).then_some(held.keys)
    }

    /// Fetches the keys, or waits for a running fetch. Does nothing shortly after a fetch.
    async fn refresh<F>(&self, now: Timestamp, fetch: impl FnOnce() -> F)
    where
        F: Future<Output = Fetched>,
    {
        let mut ended = self.ended.subscribe();
        let turn = self.turn(now);
        match turn {
            Turn::Mine => {
                let fetching = Fetching {
                    ring: self,
                    now,
                    fetched: None,
                };
                fetching.end(fetch().await);
            }
            Turn::Other => {
                let Ok(_place) = self.places.try_acquire() else {
                    return;
                };
                let _ = tokio::time::timeout(PATIENCE, ended.changed()).await;
            }
            Turn::TooEarly => {}
        }
    }

    fn turn(&self, now: Timestamp) -> Turn {
        let mut state = self.lock();
        if state.fetching {
            return Turn::Other;
        }
        if state.rests_until.is_some_and(|until| now < until) {
            return Turn::TooEarly;
        }
        state.fetching = true;
        Turn::Mine
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Turn {
    /// This caller fetches.
    Mine,
    /// Another caller fetches.
    Other,
    /// The last fetch was too recent.
    TooEarly,
}

/// A running fetch; ended when dropped, also if its caller is gone.
struct Fetching<'a> {
    ring: &'a Keyring,
    now: Timestamp,
    fetched: Fetched,
}

impl Fetching<'_> {
    fn end(mut self, fetched: Fetched) {
        self.fetched = fetched;
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.ring.lock();
            state.fetching = false;
            let rest = match self.fetched.take() {
                Some((keys, max_age)) => {
                    let holds = max_age.unwrap_or(USUAL).clamp(HOLD.0, HOLD.1);
                    state.held = Some(Held {
                        keys: Arc::new(keys),
                        until: after(self.now, holds),
                    });
                    RETRY_INTERVAL
                }
                None => REST_AFTER_FAILURE,
            };
            state.rests_until = Some(after(self.now, rest));
        }
        self.ring.ended.send_modify(|count| *count += 1);
    }
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
