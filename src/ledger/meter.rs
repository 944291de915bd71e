//! Bytes of one direction of a flow, and the budgets that they are charged to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use super::allowance::Allowance;

/// Counts the bytes of one direction, and charges them to budgets.
#[derive(Debug, Default)]
pub struct Meter {
    bytes: AtomicU64,
    budgets: OnceLock<Box<[Arc<Allowance>]>>,
}

impl Meter {
    /// Charges the bytes to budgets from now on.
    pub fn charge<'b>(&self, budgets: impl Iterator<Item = &'b Arc<Allowance>>) {
        let budgets = budgets.filter(|it| it.limit().bytes_out.is_some());
        let budgets: Box<[_]> = budgets.cloned().collect();
        if !budgets.is_empty() {
            let _ = self.budgets.set(budgets);
        }
    }

    /// Counts bytes that moved.
    pub fn fetch_add(&self, bytes: u64, order: Ordering) {
        self.bytes.fetch_add(bytes, order);
        self.spend(bytes);
    }

    /// Charges bytes that are not counted as moved: the head of a request.
    pub fn spend(&self, bytes: u64) {
        for budget in self.budgets.get().into_iter().flatten() {
            budget.spend(bytes);
        }
    }

    /// How many bytes moved.
    pub fn load(&self, order: Ordering) -> u64 {
        self.bytes.load(order)
    }

    /// How many bytes moved in all.
    pub fn into_inner(self) -> u64 {
        self.bytes.into_inner()
    }

    /// Ready where each budget has bytes left.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut budgets = self.budgets.get().into_iter().flatten();
        if budgets.any(|budget| budget.poll_ready(cx).is_pending()) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}
