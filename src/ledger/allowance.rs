//! The remaining budget of an exception, at one gate.
//!
//! A gate reserves a part of the budget in the ledger before it uses that part. So gates that share
//! a ledger never exceed the limit together, and a killed gate wastes at most its reserved part.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::grant::Limit;

/// The number of parts of a limit; one part is reserved at once.
const PARTS: u64 = 8;
/// Minimum number of bytes that are reserved at once.
const MIN_BYTES: u64 = 64 * 1024;

/// The remaining budget of an exception, at one gate.
#[derive(Debug)]
pub struct Allowance {
    limit: Limit,
    bytes: AtomicI64,
    requests: AtomicI64,
    /// Whether all bytes are reserved, by this gate and others.
    no_more_bytes: AtomicBool,
    /// Whether all requests are reserved.
    no_more_requests: AtomicBool,
    /// Wakers of flows that wait for bytes; each with a reference that lives as long as its flow.
    waiting: Mutex<Vec<(Weak<()>, Waker)>>,
    /// Notifies the keeper of the allowances that more should be reserved.
    low: Arc<Notify>,
    requests_changed: Notify,
}

impl Allowance {
    /// Returns an allowance with nothing reserved.
    pub fn new(limit: Limit, low: Arc<Notify>) -> Self {
        Self {
            limit,
            bytes: AtomicI64::new(0),
            requests: AtomicI64::new(0),
            no_more_bytes: AtomicBool::new(false),
            no_more_requests: AtomicBool::new(false),
            waiting: Mutex::default(),
            low,
            requests_changed: Notify::new(),
        }
    }

    /// Returns an allowance with the whole limit, for a policy that is only examined.
    pub fn full(limit: Limit) -> Self {
        let all = Self::new(limit, Arc::default());
        all.add(limit);
        all
    }

    /// Returns the whole limit, which all gates share.
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// Whether there is no budget for a new flow, here or in the ledger.
    pub fn is_spent(&self) -> bool {
        let no_request = self.limit.requests.is_some()
            && self.no_more_requests.load(Ordering::Acquire)
            && self.requests.load(Ordering::Acquire) <= 0;
        no_request || self.has_no_bytes()
    }

    /// Whether there is no byte for an open flow, here or in the ledger.
    pub fn has_no_bytes(&self) -> bool {
        self.limit.bytes_out.is_some()
            && self.no_more_bytes.load(Ordering::Acquire)
            && self.bytes.load(Ordering::Acquire) <= 0
    }

    /// Counts bytes that were sent.
    pub fn spend(&self, bytes: u64) {
        if self.limit.bytes_out.is_none() {
            return;
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before.saturating_sub(bytes) < self.low_water().0 {
            self.low.notify_one();
        }
    }

    /// Ready if bytes may be sent; otherwise waits until more is reserved. If the budget is spent,
    /// waits until the flow is ended. The flow keeps `alive`: wakers of ended flows are dropped.
    pub fn poll_ready(&self, cx: &mut Context<'_>, alive: &Arc<()>) -> Poll<()> {
        let may_go = || self.limit.bytes_out.is_none() || self.bytes.load(Ordering::Acquire) > 0;
        if may_go() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        waiting.retain(|(flow, waker)| flow.strong_count() > 0 && !waker.will_wake(cx.waker()));
        waiting.push((Arc::downgrade(alive), cx.waker().clone()));
        drop(waiting);
        // More may have been reserved meanwhile.
        if may_go() {
            return Poll::Ready(());
        }
        self.low.notify_one();
        Poll::Pending
    }

    /// Takes one request, once one is reserved. `false` if the budget is spent.
    pub async fn take_request(&self) -> bool {
        if self.limit.requests.is_none() {
            return !self.is_spent();
        }
        loop {
            let mut granted = std::pin::pin!(self.requests_changed.notified());
            granted.as_mut().enable();
            let take = |left: i64| (left > 0).then(|| left - 1);
            let taken = self
                .requests
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
            if taken.is_ok_and(|left| left > self.low_water().1) {
                return true;
            }
            self.low.notify_one();
            if taken.is_ok() {
                return true;
            }
            if self.no_more_requests.load(Ordering::Acquire) {
                return false;
            }
            granted.await;
        }
    }

    /// Returns the amount to reserve now, given the reservations of all gates; `None` if the
    /// allowance is sufficient.
    pub fn wanted(&self, reserved: Limit) -> Option<Limit> {
        let (bytes, requests) = self.low_water();
        let part = |bound: Option<u64>, left: &AtomicI64, low: i64, least: u64, reserved: u64| {
            let bound = bound?;
            let wants = left.load(Ordering::Acquire) <= low;
            let part = (bound / PARTS)
                .max(least)
                .min(bound.saturating_sub(reserved));
            (wants && part > 0).then_some(part)
        };
        let limit = self.limit;
        let taken = |sum: Option<u64>| sum.unwrap_or(0);
        let wanted = Limit {
            bytes_out: part(
                limit.bytes_out,
                &self.bytes,
                bytes,
                MIN_BYTES,
                taken(reserved.bytes_out),
            ),
            requests: part(
                limit.requests,
                &self.requests,
                requests,
                1,
                taken(reserved.requests),
            ),
        };
        (!wanted.is_empty()).then_some(wanted)
    }

    /// Adds an amount that was reserved for this gate.
    pub fn add(&self, reserved: Limit) {
        let add = |left: &AtomicI64, more: Option<u64>| {
            let more = i64::try_from(more.unwrap_or(0)).unwrap_or(i64::MAX);
            left.fetch_add(more, Ordering::AcqRel);
        };
        add(&self.bytes, reserved.bytes_out);
        add(&self.requests, reserved.requests);
        self.wake();
    }

    /// Records whether the whole limit is reserved.
    pub fn note(&self, reserved: Limit) {
        let is_over = |bound: Option<u64>, sum: Option<u64>| {
            bound.is_some_and(|bound| sum.unwrap_or(0) >= bound)
        };
        let bytes = is_over(self.limit.bytes_out, reserved.bytes_out);
        let requests = is_over(self.limit.requests, reserved.requests);
        self.no_more_bytes.store(bytes, Ordering::Release);
        self.no_more_requests.store(requests, Ordering::Release);
        if requests {
            self.requests_changed.notify_waiters();
        }
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting());
        for (_, waker) in waiting {
            waker.wake();
        }
        self.requests_changed.notify_waiters();
    }

    /// Returns half of a part: below it, more is reserved.
    fn low_water(&self) -> (i64, i64) {
        let half = |bound: Option<u64>, least: u64| {
            let part = bound.map_or(0, |bound| (bound / PARTS).max(least));
            i64::try_from(part / 2).unwrap_or(i64::MAX)
        };
        (
            half(self.limit.bytes_out, MIN_BYTES),
            half(self.limit.requests, 1),
        )
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<(Weak<()>, Waker)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_passes_before_it_is_reserved_and_nothing_beyond_the_limit() {
        let limit = Limit {
            bytes_out: Some(1 << 20),
            requests: Some(2),
        };
        let allowance = Allowance::new(limit, Arc::default());
        let (mut cx, alive) = (Context::from_waker(Waker::noop()), Arc::new(()));
        assert!(allowance.poll_ready(&mut cx, &alive).is_pending());
        assert!(!allowance.is_spent());

        let mut reserved = Limit::default();
        let mut requests = 0;
        while let Some(part) = allowance.wanted(reserved) {
            let add =
                |sum: Option<u64>, part: Option<u64>| Some(sum.unwrap_or(0) + part.unwrap_or(0));
            reserved = Limit {
                bytes_out: add(reserved.bytes_out, part.bytes_out),
                requests: add(reserved.requests, part.requests),
            };
            allowance.add(part);
            allowance.note(reserved);
            allowance.spend(part.bytes_out.unwrap_or(0));
            if part.requests.is_some() {
                assert!(allowance.take_request().await);
                requests += 1;
            }
        }
        assert_eq!(reserved, limit);
        assert_eq!(requests, 2);
        assert!(allowance.is_spent());
        assert!(!allowance.take_request().await);
        assert!(allowance.poll_ready(&mut cx, &alive).is_pending());
    }

    #[test]
    fn a_flow_that_ended_while_it_waited_leaves_no_waker() {
        struct Ignored;
        impl std::task::Wake for Ignored {
            fn wake(self: Arc<Self>) {}
        }
        let limit = Limit {
            bytes_out: Some(1),
            requests: None,
        };
        let allowance = Allowance::new(limit, Arc::default());
        for _ in 0..100 {
            // Each flow is a separate task, with a waker that differs from all others.
            let (waker, alive) = (Waker::from(Arc::new(Ignored)), Arc::new(()));
            let mut cx = Context::from_waker(&waker);
            assert!(allowance.poll_ready(&mut cx, &alive).is_pending());
            assert!(allowance.poll_ready(&mut cx, &alive).is_pending());
            assert_eq!(allowance.waiting().len(), 1);
        }
    }
}
