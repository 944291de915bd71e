//! Whether a principal may settle what a tier asks.

use std::sync::Arc;

use super::asking::{Asking, ReviewerKind};
use super::caller::Facts;
use super::compiled::Policy;
use super::query::TierId;

impl Policy {
    /// Whether some tier names a reviewer.
    pub fn has_reviewers(&self) -> bool {
        let mut tiers = self.tiers.ids();
        tiers.any(|tier| self.asking(tier).has_reviewers())
    }

    /// How a tier asks.
    pub fn asking(&self, tier: TierId) -> &Asking {
        &self.tiers.tier(tier).asking
    }

    /// The entry of `reviewers` that names a principal: the user of a process at a Unix socket, or
    /// the verified evidence of a certificate or token. `None`: it may not settle what this tier asks.
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
