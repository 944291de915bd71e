//! Caches the handles of metric series: labels are resolved once, then an index is enough.

use std::sync::OnceLock;

use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

/// A value made when it is first needed.
pub(super) type Lazy<T> = OnceLock<T>;

pub(super) type Counters = IntCounterVec;
pub(super) type Gauges = IntGaugeVec;
pub(super) type Histograms = HistogramVec;

/// A family of series that differ in the values of their labels.
pub(super) trait Family {
    /// The handle of one series.
    type Series;

    /// Returns the series with these label values, in the order of their declaration.
    fn series(&self, values: &[&str]) -> Self::Series;

    /// Drops a series; it may be absent.
    fn forget(&self, values: &[&str]);
}

impl<B: MetricVecBuilder> Family for MetricVec<B> {
    type Series = B::M;

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that resolves handles"
    )]
    fn series(&self, values: &[&str]) -> Self::Series {
        self.with_label_values(values)
    }

    fn forget(&self, values: &[&str]) {
        let _ = self.remove_label_values(values);
    }
}

/// Handles of one family, by index; each is resolved at its first use.
#[derive(Debug)]
pub(super) struct Table<F: Family> {
    family: F,
    cells: Box<[Lazy<F::Series>]>,
    spare: Lazy<F::Series>,
}

impl<F: Family> Table<F> {
    /// Returns a table for `size` handles.
    pub(super) fn new(family: F, size: usize) -> Self {
        Self {
            family,
            cells: (0..size).map(|_| Lazy::new()).collect(),
            spare: Lazy::new(),
        }
    }

    /// Returns the handle at `index`; `labels` gives its labels at the first use.
    pub(super) fn at<'a, const N: usize>(
        &self,
        index: usize,
        labels: impl FnOnce() -> [&'a str; N],
    ) -> &F::Series {
        let cell = self.cells.get(index).unwrap_or(&self.spare);
        cell.get_or_init(|| self.family.series(&labels()))
    }
}
