//! The descriptor budget of upstream connections, of which each caller has a share.
//!
//! An HTTP/2 stream costs its client no descriptor, but its tunnel costs the gate one. Upstream
//! connections are therefore counted separately, for the caller that causes them: one caller must
//! not use up the descriptors of another.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use rustix::process::{Resource, Rlimit, getrlimit};

use crate::policy::CallerKey;

/// Descriptors reserved for the log, the admin listener, name servers and files.
const RESERVED: usize = 256;
/// The minimum number of upstream connections, however few descriptors there are.
const MIN_DIALS: usize = 8;
/// A caller may hold at most this multiple of the free descriptors. One caller alone gets two
/// thirds of the budget; each further caller reduces the shares of the others, and gets some of the
/// free ones.
const SHARE: usize = 2;

/// The division of the descriptors between clients and upstreams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Split {
    /// Clients that may be connected at once.
    pub clients: usize,
    /// Descriptors for upstream connections.
    pub dials: usize,
}

impl Split {
    /// Splits `descriptors` for at most `flows` open flows.
    pub fn of(descriptors: usize, flows: usize) -> Self {
        let spare = descriptors.saturating_sub(RESERVED);
        let clients = (spare / 2).clamp(1, flows.max(1));
        Self {
            clients,
            dials: spare.saturating_sub(clients).max(MIN_DIALS),
        }
    }
}

/// The free part of the budget, and the descriptors held by each caller.
#[derive(Debug)]
pub struct Descriptors {
    total: usize,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    free: usize,
    callers: HashMap<CallerKey, usize>,
}

/// Descriptors taken from the budget; returned when dropped.
#[derive(Debug)]
pub struct Taken {
    home: Arc<Descriptors>,
    caller: Option<CallerKey>,
    count: usize,
}

impl Descriptors {
    /// A budget of `total` descriptors.
    pub fn new(total: usize) -> Self {
        let used = Used {
            free: total,
            callers: HashMap::new(),
        };
        Self {
            total,
            used: Mutex::new(used),
        }
    }

    /// The budget of this process, for at most `flows` open flows.
    pub fn of_process(flows: usize) -> Self {
        let Rlimit { current, .. } = getrlimit(Resource::Nofile);
        let current = current.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
        Self::new(Split::of(current, flows).dials)
    }

    /// Takes descriptors from the share of a caller; without a caller, for the gate itself.
    pub fn take(self: &Arc<Self>, caller: Option<&CallerKey>, count: usize) -> Option<Taken> {
        let mut used = self.used();
        if used.free < count {
            return None;
        }
        if let Some(caller) = caller {
            let most = used.free.saturating_mul(SHARE);
            let own = used.callers.get(caller).copied().unwrap_or_default();
            if own.saturating_add(count) > most {
                return None;
            }
            used.callers.insert(caller.clone(), own + count);
        }
        used.free -= count;
        drop(used);
        Some(Taken {
            home: self.clone(),
            caller: caller.cloned(),
            count,
        })
    }

    /// Takes descriptors for an optimisation: a quarter of the budget stays free.
    pub fn take_spare(self: &Arc<Self>, count: usize) -> Option<Taken> {
        let spare = self.used().free.saturating_sub(self.total / 4);
        if spare < count {
            return None;
        }
        self.take(None, count)
    }

    /// Whether no descriptor is free.
    pub fn is_spent(&self) -> bool {
        self.used().free == 0
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut used = self.home.used();
        used.free += self.count;
        let Some(caller) = &self.caller else { return };
        if let Some(own) = used.callers.get_mut(caller) {
            *own = own.saturating_sub(self.count);
            if *own == 0 {
                used.callers.remove(caller);
            }
        }
    }
}

/// The error of a dial whose caller has used up its share of the descriptors.
#[derive(Debug, thiserror::Error)]
#[error("the caller has used up its share of the descriptors")]
pub struct NoDescriptor;

impl NoDescriptor {
    /// Converts it to the error of a dial.
    pub(super) fn error() -> io::Error {
        io::Error::new(io::ErrorKind::QuotaExceeded, Self)
    }

    /// Whether a dial failed with this error.
    pub fn is_in(error: &io::Error) -> bool {
        let inner = error.get_ref();
        inner
            .and_then(|inner| inner.downcast_ref::<Self>())
            .is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> CallerKey {
        CallerKey::Subject(name.into())
    }

    fn take_all(budget: &Arc<Descriptors>, name: &str) -> Vec<Taken> {
        std::iter::from_fn(|| budget.take(Some(&caller(name)), 1)).collect()
    }

    #[test]
    fn clients_and_dials_leave_room_for_all_else() {
        let split = |clients, dials| Split { clients, dials };
        assert_eq!(Split::of(1024, 65_536), split(384, 384));
        assert_eq!(Split::of(1_000_000, 100), split(100, 999_644));
        assert_eq!(Split::of(0, 100), split(1, MIN_DIALS));
    }

    #[test]
    fn one_caller_leaves_a_third_and_each_further_caller_finds_some_free() {
        let budget = Arc::new(Descriptors::new(300));
        let first = take_all(&budget, "a");
        assert_eq!(first.len(), 200);
        let others: Vec<_> = (0..20)
            .map(|it| take_all(&budget, &it.to_string()))
            .collect();
        assert!(others.iter().take(4).all(|taken| !taken.is_empty()));
        drop(others);
        assert_eq!(take_all(&budget, "b").len(), 67);
    }

    #[test]
    fn what_is_given_back_is_free_for_its_caller_and_for_others() {
        let budget = Arc::new(Descriptors::new(30));
        let mut taken = take_all(&budget, "a");
        assert!(budget.take(Some(&caller("a")), 1).is_none());
        taken.pop();
        assert!(budget.take(Some(&caller("a")), 1).is_some());
        drop(taken);
        assert!(budget.used().callers.is_empty() && budget.used().free == 30);
    }

    #[test]
    fn the_gate_itself_may_take_what_is_left_and_what_is_spare_ends_before() {
        let budget = Arc::new(Descriptors::new(40));
        let spare: Vec<_> = std::iter::from_fn(|| budget.take_spare(2)).collect();
        assert_eq!(spare.len(), 15);
        let own: Vec<_> = std::iter::from_fn(|| budget.take(None, 1)).collect();
        assert_eq!((own.len(), budget.is_spent()), (10, true));
    }
}
