//! The memory budget for bodies that are read before the decision: a limit for each caller, and for
//! all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::CallerKey;

/// The bytes held for one caller, and for all callers, at most.
const MAX_BYTES_PER_CALLER: usize = 64 * 1024 * 1024;
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// The memory held for each caller and in all.
#[derive(Debug, Default)]
pub struct Held(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    all: usize,
    callers: HashMap<CallerKey, usize>,
}

/// The memory held by one flow; released when dropped.
#[derive(Debug)]
pub struct Hold {
    held: Arc<Held>,
    caller: CallerKey,
    bytes: usize,
}

impl Hold {
    /// A hold of zero bytes.
    pub fn new(held: &Arc<Held>, caller: CallerKey) -> Self {
        Self {
            held: held.clone(),
            caller,
            bytes: 0,
        }
    }

    /// The bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves more bytes; `false` if the budget is exhausted.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let mut sums = self.held.sums();
        let of_caller = sums.callers.get(&self.caller).copied().unwrap_or_default();
        if of_caller.saturating_add(more) > MAX_BYTES_PER_CALLER
            || sums.all.saturating_add(more) > MAX_BYTES
        {
            return false;
        }
        sums.all += more;
        sums.callers.insert(self.caller.clone(), of_caller + more);
        self.bytes += more;
        true
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut sums = self.held.sums();
        sums.all = sums.all.saturating_sub(self.bytes);
        let left = sums.callers.get(&self.caller).copied().unwrap_or_default();
        match left.saturating_sub(self.bytes) {
            0 => sums.callers.remove(&self.caller),
            left => sums.callers.insert(self.caller.clone(), left),
        };
    }
}

impl Held {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(last: u8) -> CallerKey {
        CallerKey::Address([192, 0, 2, last].into())
    }

    #[test]
    fn one_caller_cannot_hold_what_others_need() {
        let held = Arc::default();
        let mut first = Hold::new(&held, caller(1));
        assert!(first.grow(MAX_BYTES_PER_CALLER));
        let mut second = Hold::new(&held, caller(1));
        assert!(!second.grow(1), "of the same caller");
        let mut other = Hold::new(&held, caller(2));
        assert!(other.grow(1));
        drop(first);
        assert!(second.grow(MAX_BYTES_PER_CALLER), "it was given back");
        drop((second, other));
        assert!(held.sums().callers.is_empty() && held.sums().all == 0);
    }

    #[test]
    fn all_of_them_hold_no_more_than_there_is() {
        let held = Arc::default();
        let mut holds: Vec<_> = (0..5).map(|at| Hold::new(&held, caller(at))).collect();
        let granted = holds
            .iter_mut()
            .filter_map(|hold| hold.grow(MAX_BYTES_PER_CALLER).then_some(()));
        assert_eq!(granted.count(), MAX_BYTES / MAX_BYTES_PER_CALLER);
    }
}
