//! The timer of a connection, reused for one wait after the other.

use std::pin::Pin;
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

/// A timer that stays set from one wait to the next.
///
/// A connection waits many times, and nearly every wait ends long before its deadline. The
/// runtime's timer is therefore set to the earliest deadline and left unchanged; if it fires before
/// the deadline of the present wait, it is set again.
#[derive(Default)]
pub(in crate::proxy) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Waits until `at`.
    pub(in crate::proxy) async fn until(&mut self, at: Instant) {
        let at = at.into();
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            sleep.as_mut().await;
            if sleep.deadline() >= at {
                return;
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn no_wait_ends_before_its_time() {
        let clock = Clock::system();
        let mut timer = Timer::default();
        // The second wait finds the timer set too early, the third too late.
        for millis in [20, 60, 10, 40] {
            let at = clock.instant() + Duration::from_millis(millis);
            timer.until(at).await;
            assert!(clock.instant() >= at);
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_does_not_shorten_the_next() {
        let clock = Clock::system();
        let mut timer = Timer::default();
        let soon = clock.instant() + Duration::from_millis(20);
        let given_up = tokio::time::timeout(Duration::ZERO, timer.until(soon)).await;
        assert!(given_up.is_err());
        let later = soon + Duration::from_millis(40);
        timer.until(later).await;
        assert!(clock.instant() >= later);
    }
}
