//! Tiers: their order and their modes.

use std::sync::Arc;

use super::asking::Asking;
use super::category::Categories;
use super::query::TierId;
use super::verdict::{Mode, Named, Verdict};

/// The tiers of one policy: a bit each in [`TierId::bit`].
pub(super) const MAX_TIERS: usize = 16;

/// The tiers, loosest first. There is always a strictest one: an unknown tier counts as that one.
#[derive(Debug)]
pub(super) struct Tiers {
    pub(super) names: Vec<Arc<str>>,
    pub(super) unattributed: TierId,
    pub(super) looser: Vec<Tier>,
    pub(super) strictest: Tier,
}

/// One tier without its lists.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) name: Arc<str>,
    pub(super) mode: Mode,
    pub(super) default: Verdict,
    /// The name and location in a record when the default decides.
    pub(super) named: Arc<Named>,
    /// Whether an allow with `does` matches a tunnel that is not inspected.
    pub(super) opaque: bool,
    /// Whether an opaque tunnel may begin with an encrypted client hello (RFC 9849).
    pub(super) ech: bool,
    /// The categories that are inspected.
    pub(super) inspect: Categories,
    /// How approvals of the tier are settled.
    pub(super) asking: Asking,
}

impl Tiers {
    pub(super) fn tier(&self, id: TierId) -> &Tier {
        self.looser
            .get(usize::from(id.0))
            .unwrap_or(&self.strictest)
    }

    /// Sets every tier to observe.
    pub(super) fn observe(&mut self) {
        for tier in self.looser.iter_mut().chain([&mut self.strictest]) {
            tier.mode = Mode::Observe;
        }
    }

    /// Sets every tier to refuse at once each flow that needs an approval.
    pub(super) fn remove_reviewers(&mut self) {
        for tier in self.looser.iter_mut().chain([&mut self.strictest]) {
            tier.asking = Asking::default();
        }
    }

    pub(super) fn strictest(&self) -> TierId {
        TierId(u8::try_from(self.looser.len()).unwrap_or(u8::MAX))
    }

    pub(super) fn find(&self, name: &str) -> Option<TierId> {
        let at = self.names.iter().position(|known| **known == *name)?;
        u8::try_from(at).ok().map(TierId)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = TierId> {
        (0..=self.strictest().0).map(TierId)
    }
}
