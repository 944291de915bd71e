//! The timer of a connection, reused for one wait after the other.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// What stands for a time that no clock reaches.
const FAR: Duration = Duration::from_hours(24 * 365);

/// A timer that stays set from one wait to the next.
///
/// A connection waits many times, and nearly every wait ends long before its deadline. The
/// runtime's timer is therefore set to the earliest deadline and left unchanged; if it fires before
/// the deadline of the present wait, it is set again.
#[derive(Default)]
pub(in crate::proxy) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Waits until `longest` after `now`.
    pub(in crate::proxy) async fn wait(&mut self, now: Instant, longest: Duration) {
        let at = now.checked_add(longest).unwrap_or(now + FAR).into();
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
            let (now, longest) = (clock.instant(), Duration::from_millis(millis));
            timer.wait(now, longest).await;
            assert!(now.elapsed() >= longest);
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_does_not_shorten_the_next() {
        let clock = Clock::system();
        let mut timer = Timer::default();
        let soon = Duration::from_millis(20);
        let waiting = timer.wait(clock.instant(), soon);
        let given_up = tokio::time::timeout(Duration::ZERO, waiting).await;
        assert!(given_up.is_err());
        let (now, longest) = (clock.instant(), Duration::from_millis(60));
        timer.wait(now, longest).await;
        assert!(now.elapsed() >= longest);
    }

    #[tokio::test]
    async fn a_time_that_no_clock_reaches_is_waited_for() {
        let mut timer = Timer::default();
        let waiting = timer.wait(Clock::system().instant(), Duration::MAX);
        let ended = tokio::time::timeout(Duration::from_millis(20), waiting).await;
        assert!(ended.is_err());
    }
}
