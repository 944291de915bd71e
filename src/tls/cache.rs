//! A bounded cache that keeps the keys used last.
//!
//! The cache has two halves. A key that is used moves into the young half. When the young half is
//! full, it becomes the old half, and the former old half is dropped.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// A bounded cache that makes each value once, however many threads need it at the same time.
pub(super) struct Cache<K, T> {
    halves: Mutex<[HashMap<K, Slot<T>>; 2]>,
    max_of_a_half: usize,
}

/// Locked while the value is made, so that no other thread makes the same one.
type Slot<T> = Arc<Mutex<Option<T>>>;

impl<K: Clone + Eq + Hash, T: Clone> Cache<K, T> {
    /// Keeps at most twice `max_of_a_half` keys.
    pub(super) fn new(max_of_a_half: usize) -> Self {
        Self {
            halves: Mutex::default(),
            max_of_a_half,
        }
    }

    /// Returns the value of a key if it is cached, is `good` and is not being made now. Never waits
    /// for another thread that makes a value.
    pub(super) fn find(&self, key: &K, good: impl Fn(&T) -> bool) -> Option<T> {
        let slot = self.slot(key);
        let kept = slot.try_lock().ok()?;
        kept.as_ref().filter(|kept| good(kept)).cloned()
    }

    /// Returns the value of a key if it is cached and `good`; otherwise the value that `fill`
    /// returns.
    pub(super) fn get<E>(
        &self,
        key: &K,
        good: impl Fn(&T) -> bool,
        fill: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let slot = self.slot(key);
        let mut kept = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_ref().filter(|kept| good(kept)) {
            return Ok(kept.clone());
        }
        let made = fill()?;
        *kept = Some(made.clone());
        Ok(made)
    }

    fn slot(&self, key: &K) -> Slot<T> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *halves;
        if let Some(slot) = young.get(key) {
            return slot.clone();
        }
        let slot = old.remove(key).unwrap_or_default();
        if young.len() >= self.max_of_a_half {
            *old = mem::take(young);
        }
        young.insert(key.clone(), slot.clone());
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(cache: &Cache<u32, u32>, key: u32) -> bool {
        let mut made = false;
        let value = cache.get(
            &key,
            |_| true,
            || {
                made = true;
                Ok::<_, ()>(key)
            },
        );
        assert_eq!(value, Ok(key));
        made
    }

    #[test]
    fn a_full_cache_keeps_what_was_asked_for_last() {
        let cache = Cache::new(2);
        for key in 0..4 {
            assert!(made(&cache, key), "{key}");
        }
        assert!(!made(&cache, 2) && !made(&cache, 3));
        assert!(made(&cache, 4) && made(&cache, 5) && made(&cache, 6));
        assert!(made(&cache, 0), "the first key is long gone");
    }

    #[test]
    fn a_value_that_is_no_longer_good_is_not_found_and_is_made_anew() {
        let cache = Cache::new(2);
        assert_eq!(cache.find(&1, |_| true), None);
        assert!(made(&cache, 1));
        assert_eq!(cache.find(&1, |_| true), Some(1));
        assert_eq!(cache.find(&1, |_| false), None);
        assert_eq!(cache.get(&1, |_| false, || Ok::<_, ()>(7)), Ok(7));
    }

    #[test]
    fn a_value_that_is_being_made_is_not_waited_for() {
        let cache = Cache::new(2);
        let value = cache.get(
            &1,
            |_| true,
            || {
                assert_eq!(cache.find(&1, |_| true), None);
                Ok::<_, ()>(1)
            },
        );
        assert_eq!(value, Ok(1));
    }
}
