//! Conditions with a deadline: a test looks again until it is so, and never waits a fixed time.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test says that it did not happen. Generous: tests run
/// beside builds on small machines.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Looks until `probe` finds something; panics with `what` at the deadline.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, probe)
}

/// As [`eventually`], with another deadline.
#[track_caller]
pub(crate) fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Looks until `condition` holds; panics with `what` at the deadline.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}
