//! The only module that reads the time.
//!
//! All code that needs the time of day or a duration uses a [`Clock`]. A test can set the clock by
//! hand, so that no decision depends on when the test runs.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::time::error::Elapsed;

/// A clock: the machine's, or one that a test sets by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stays at `at` until [`Clock::advance`] moves it.
    pub fn by_hand(at: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicI64::new(at.as_microsecond()))))
    }

    /// The time of day, to the microsecond.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that reads time"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => Timestamp::now(),
            Some(micros) => Timestamp::from_microsecond(micros.load(Ordering::Acquire))
                .unwrap_or(Timestamp::MAX),
        }
    }

    /// A point on the monotonic clock, for durations. Always the machine's.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that reads time"
    )]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Moves a clock that is set by hand; does nothing to the machine's clock.
    pub fn advance(&self, by: SignedDuration) {
        if let Some(micros) = &self.0 {
            let step = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            micros.fetch_add(step, Ordering::AcqRel);
        }
    }
}
/// Like [`tokio::time::timeout`], without a timer if `work` is done at its first poll.
pub(crate) async fn within<T>(
    longest: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let mut work = pin!(work);
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => tokio::time::timeout(longest, work).await,
    }
}
