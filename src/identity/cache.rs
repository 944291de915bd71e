//! A cache of verified credentials, so that their verification is not repeated for each request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{hmac, rand};

/// The mark of a credential: its hash under a key of this process.
pub(super) type Mark = [u8; 32];

/// A value for each verified credential, by its mark; bounded.
///
/// The cache keeps keyed hashes, so that a later reader of this memory learns no credential.
#[derive(Debug)]
pub(super) struct Verified<T> {
    /// `None` if the system has no random bytes: then nothing is cached.
    key: Option<hmac::Key>,
    most: usize,
    known: Mutex<HashMap<Mark, T>>,
}

impl<T: Clone> Verified<T> {
    /// Room for `most` credentials.
    pub(super) fn new(most: usize) -> Self {
        Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok(),
            most,
            known: Mutex::default(),
        }
    }

    /// The mark of a credential with these parts.
    pub(super) fn mark(&self, parts: &[&[u8]]) -> Option<Mark> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        Some(mark)
    }

    /// The value of a credential that was verified before.
    pub(super) fn get(&self, mark: Option<Mark>) -> Option<T> {
        self.lock().get(&mark?).cloned()
    }

    /// Stores a verified credential.
    pub(super) fn put(&self, mark: Option<Mark>, value: T) {
        let Some(mark) = mark else { return };
        let mut known = self.lock();
        if known.len() >= self.most {
            // Clear the whole cache when it is full: to drop single entries would show a client
            // which other credentials are in use.
            known.clear();
        }
        known.insert(mark, value);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Mark, T>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let cache = Verified::<()>::new(4);
        assert_ne!(cache.mark(&[b"ab", b"c"]), cache.mark(&[b"a", b"bc"]));
        assert_eq!(cache.mark(&[b"ab", b"c"]), cache.mark(&[b"ab", b"c"]));
        assert_ne!(
            cache.mark(&[b"ab"]),
            Verified::<()>::new(4).mark(&[b"ab"]),
            "each process has a key of its own"
        );
    }

    #[test]
    fn there_is_room_for_so_many() {
        let cache = Verified::new(2);
        for value in 0..5_u8 {
            cache.put(cache.mark(&[&[value]]), value);
            assert_eq!(cache.get(cache.mark(&[&[value]])), Some(value));
            assert!(cache.len() <= 2);
        }
        assert_eq!(cache.get(None), None);
    }
}
