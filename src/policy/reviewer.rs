//! Whether a principal may settle the asks of a tier.

use std::sync::Arc;

use super::asking::{Asking, ReviewerKind};
use super::caller::{Facts, Member};
use super::compiled::Policy;
use super::query::TierId;

/// An entry of `reviewers`, and the members of the group that it names.
pub(super) type NamedReviewer<'p> = (&'p str, Option<&'p [Member]>);

impl Policy {
    /// Whether some tier names a reviewer.
    pub fn has_reviewers(&self) -> bool {
        let mut tiers = self.tiers.ids();
        tiers.any(|tier| self.asking(tier).has_reviewers())
    }

    /// Returns the approval settings of a tier.
    pub fn asking(&self, tier: TierId) -> &Asking {
        &self.tiers.tier(tier).asking
    }

    /// Returns the entries of `reviewers` of a tier, each with the members of its group in this
    /// policy.
    pub(super) fn reviewers(&self, tier: TierId) -> impl Iterator<Item = NamedReviewer<'_>> {
        let reviewers = self.asking(tier).reviewers.iter();
        reviewers.map(|reviewer| {
            let group = match &reviewer.kind {
                ReviewerKind::Group(name) => self.callers.find(name),
                ReviewerKind::Uid(_) | ReviewerKind::Subject(_) => None,
            };
            let group = group.and_then(|id| self.callers.groups.get(usize::from(id.0)));
            (&*reviewer.written, group.map(|group| &*group.members))
        })
    }

    /// The entry of `reviewers` that names a principal: the user of a process at a Unix socket, or
    /// the verified evidence of a certificate or token. `None`: the principal may not settle asks
    /// of this tier.
    pub fn reviewer(&self, tier: TierId, uid: Option<u32>, facts: &Facts<'_>) -> Option<&Arc<str>> {
        let groups = self.callers.groups_of(facts);
        let is_in = |name: &Arc<str>| {
            let known = self.callers.find(name);
            known.is_some_and(|group| groups.contains(group)) || facts.groups.contains(name)
        };
        let mut reviewers = self.asking(tier).reviewers.iter();
        let named = reviewers.find(|reviewer| match &reviewer.kind {
            ReviewerKind::Uid(named) => uid == Some(*named),
            ReviewerKind::Subject(named) => {
                !facts.subject.is_empty() && named.matches(facts.subject)
            }
            ReviewerKind::Group(name) => is_in(name),
        });
        named.map(|reviewer| &reviewer.written)
    }
}
