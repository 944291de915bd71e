//! Publication times of package versions, as reported by their registries in this generation.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::name::Target;

/// The number of times kept.
const MAX_VERSIONS: usize = 8192;
/// Documents fetched at once, from all registries: a document may be long.
const MAX_FETCHES: usize = 8;
/// Documents fetched at once from one registry, so that a slow registry does not block the others.
const MAX_FETCHES_PER_REGISTRY: usize = 2;

/// Reported times; the oldest report is dropped first.
#[derive(Debug)]
pub struct Ages {
    told: Mutex<Told>,
    /// One permit for each fetch.
    turns: Semaphore,
    /// One permit for each fetch of a registry. A registry without a fetch has no entry.
    registries: Mutex<HashMap<Target, Arc<Semaphore>>>,
}

/// The right to fetch one document of a registry.
#[derive(Debug)]
pub struct Turn<'a> {
    _all: SemaphorePermit<'a>,
    _registry: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Told {
    times: HashMap<Box<str>, Timestamp>,
    order: VecDeque<Box<str>>,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            told: Mutex::default(),
            turns: Semaphore::new(MAX_FETCHES),
            registries: Mutex::default(),
        }
    }
}

impl Ages {
    /// Waits for the right to fetch a document of a registry; the caller bounds the time.
    ///
    /// Returns `None` only if the gate ends.
    pub async fn turn(&self, registry: &Target) -> Option<Turn<'_>> {
        let own = self.turns_of(registry);
        // The registry's permit first: a fetch that waits for a slow registry holds no permit of
        // the others.
        let registry = own.acquire_owned().await.ok()?;
        Some(Turn {
            _all: self.turns.acquire().await.ok()?,
            _registry: registry,
        })
    }

    fn turns_of(&self, registry: &Target) -> Arc<Semaphore> {
        let registries = self.registries.lock();
        let mut registries = registries.unwrap_or_else(PoisonError::into_inner);
        registries.retain(|_, turns| {
            Arc::strong_count(turns) > 1 || turns.available_permits() < MAX_FETCHES_PER_REGISTRY
        });
        let new = || Arc::new(Semaphore::new(MAX_FETCHES_PER_REGISTRY));
        registries
            .entry(registry.clone())
            .or_insert_with(new)
            .clone()
    }

    /// The reported time of a version.
    pub fn get(&self, version: &str) -> Option<Timestamp> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.times.get(version).copied()
    }

    /// Keeps a reported time.
    pub fn put(&self, version: &str, time: Timestamp) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.times.insert(version.into(), time).is_some() {
            return;
        }
        told.order.push_back(version.into());
        if told.order.len() > MAX_VERSIONS
            && let Some(oldest) = told.order.pop_front()
        {
            told.times.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_registry_leaves_turns_to_the_others() {
        let ages = Ages::default();
        let target = |text: &str| Target::from_connect(text.as_bytes()).expect("a target");
        let slow = target("slow.example:443");
        let _held = (ages.turn(&slow).await, ages.turn(&slow).await);
        let mut waiting = std::pin::pin!(ages.turn(&slow));
        assert!(futures_pending(waiting.as_mut()), "a third one waits");
        for number in 0..20 {
            let other = target(&format!("r{number}.example:443"));
            assert!(ages.turn(&other).await.is_some());
        }
        assert_eq!(
            ages.registries.lock().unwrap().len(),
            2,
            "the slow one, and the last"
        );
    }

    /// Whether a future is pending at its first poll.
    fn futures_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.poll(&mut context).is_pending()
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let ages = Ages::default();
        for at in 0..=MAX_VERSIONS {
            ages.put(&at.to_string(), Timestamp::UNIX_EPOCH);
            ages.put(&at.to_string(), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(ages.get("0"), None);
        assert_eq!(ages.get("1"), Some(Timestamp::UNIX_EPOCH));
        let told = ages.told.lock().unwrap();
        assert_eq!(
            (told.times.len(), told.order.len()),
            (MAX_VERSIONS, MAX_VERSIONS)
        );
    }
}
