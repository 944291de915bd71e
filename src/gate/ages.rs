//! When versions of packages were published, as their registries told in this generation.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Semaphore;

/// How many times are kept.
const MOST: usize = 8192;
/// How many registries are asked at once: a document may be long.
const AT_ONCE: usize = 4;

/// Times that were told, oldest answer first to go.
#[derive(Debug)]
pub struct Ages {
    told: Mutex<Told>,
    /// Whoever asks a registry holds one.
    pub turns: Semaphore,
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
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

impl Ages {
    /// What was told of a version.
    pub fn get(&self, version: &str) -> Option<Timestamp> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.times.get(version).copied()
    }

    /// Keeps what was told; it does not change.
    pub fn put(&self, version: &str, time: Timestamp) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.times.insert(version.into(), time).is_some() {
            return;
        }
        told.order.push_back(version.into());
        if told.order.len() > MOST
            && let Some(oldest) = told.order.pop_front()
        {
            told.times.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_may_be() {
        let ages = Ages::default();
        for at in 0..=MOST {
            ages.put(&at.to_string(), Timestamp::UNIX_EPOCH);
            ages.put(&at.to_string(), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(ages.get("0"), None);
        assert_eq!(ages.get("1"), Some(Timestamp::UNIX_EPOCH));
        let told = ages.told.lock().unwrap();
        assert_eq!((told.times.len(), told.order.len()), (MOST, MOST));
    }
}
