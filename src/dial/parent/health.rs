//! The health of a parent. A parent that could not be reached is skipped for a growing time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first pause; each further pause is twice as long.
const SHORTEST: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// The recent failures of a parent.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pause: Duration,
    rests_until: Option<Instant>,
}

impl Health {
    /// Whether the parent is skipped at present.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.state().rests_until.is_some_and(|until| now < until)
    }

    /// Counts a failure. Concurrent failures count as one.
    pub(super) fn failed(&self, now: Instant) {
        let mut state = self.state();
        if state.rests_until.is_some_and(|until| now < until) {
            return;
        }
        state.pause = (state.pause * 2).clamp(SHORTEST, MAX_BACK_OFF);
        state.rests_until = now.checked_add(state.pause);
    }

    /// Resets the state after an answer.
    pub(super) fn answered(&self) {
        *self.state() = State::default();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::Clock;

    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute_and_an_answer_ends_them() {
        let (health, mut now) = (Health::default(), Clock::system().instant());
        assert!(!health.rests(now));
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            health.failed(now);
            health.failed(now);
            let pause = Duration::from_secs(seconds);
            assert!(health.rests(now + pause.mul_f32(0.99)), "{seconds}");
            now += pause;
            assert!(!health.rests(now), "{seconds}");
        }
        health.answered();
        health.failed(now);
        assert!(!health.rests(now + SHORTEST));
    }
}
