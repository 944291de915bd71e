//! Counts the bytes of one direction of a flow, and charges them to budgets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use super::allowance::Allowance;

/// Counts the bytes of one direction, and charges them to budgets.
#[derive(Debug, Default)]
pub struct Meter {
    bytes: AtomicU64,
    charged: OnceLock<Charged>,
}

#[derive(Debug)]
struct Charged {
    budgets: Box<[Arc<Allowance>]>,
    /// Lives as long as the meter; afterwards its waker in a budget is dropped.
    alive: Arc<()>,
}

impl Meter {
    /// Charges the bytes to budgets from now on.
    pub fn charge<'b>(&self, budgets: impl Iterator<Item = &'b Arc<Allowance>>) {
        let budgets = budgets.filter(|it| it.limit().bytes_out.is_some());
        let budgets: Box<[_]> = budgets.cloned().collect();
        if !budgets.is_empty() {
            let alive = Arc::default();
            let _ = self.charged.set(Charged { budgets, alive });
        }
    }

    /// Counts bytes that moved.
    pub fn fetch_add(&self, bytes: u64, order: Ordering) {
        self.bytes.fetch_add(bytes, order);
        self.spend(bytes);
    }

    /// Charges bytes that do not count as moved: the head of a request.
    pub fn spend(&self, bytes: u64) {
        let charged = self.charged.get().into_iter();
        for budget in charged.flat_map(|it| &it.budgets) {
            budget.spend(bytes);
        }
    }

    /// Returns the number of bytes that moved.
    pub fn load(&self, order: Ordering) -> u64 {
        self.bytes.load(order)
    }

    /// Returns the number of bytes that moved in all.
    pub fn into_inner(self) -> u64 {
        self.bytes.into_inner()
    }

    /// Ready if each budget has bytes left.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Charged { budgets, alive }) = self.charged.get() else {
            return Poll::Ready(());
        };
        let mut budgets = budgets.iter();
        if budgets.any(|budget| budget.poll_ready(cx, alive).is_pending()) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}
