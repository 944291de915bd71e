//! Derives tier, groups and repository of a caller from its verified evidence.

use std::sync::Arc;

use super::caller::Facts;
use super::compiled::Policy;
use super::query::{TierId, Who};
use super::verdict::{Mode, TierBasis};

impl Policy {
    /// Returns the tier, groups and repository of a caller: the strictest of the repository's tier,
    /// the floors of its groups, the listener's tier and the tiers that its session was narrowed
    /// to.
    ///
    /// If the repository has no tier, `tiers.unattributed` applies. Unknown groups are ignored, and
    /// an unknown tier counts as the strictest.
    pub fn who(&self, facts: &Facts<'_>) -> Who {
        let groups = self.callers.groups_of(facts);
        let named = |name: &str| {
            self.tiers
                .find(name)
                .unwrap_or_else(|| self.tiers.strictest())
        };
        let listed = facts.repository.and_then(|name| self.callers.tier_of(name));
        let repository = listed.max(facts.repository_tier.map(named));
        let listener = facts.listener_tier.map(named);
        let narrow = facts.narrow.iter().map(|name| named(name)).max();
        let unattributed = repository.is_none().then_some(self.tiers.unattributed);
        let evidence = [
            (unattributed, TierBasis::Unattributed),
            (narrow, TierBasis::Session),
            (listener, TierBasis::Listener),
            (self.callers.floor(groups), TierBasis::Group),
            (repository, TierBasis::Repository),
        ];
        let whole = strictest(
            evidence
                .iter()
                .filter(|(_, basis)| *basis != TierBasis::Session),
        );
        let unknown = (self.tiers.strictest(), TierBasis::Unattributed);
        let (tier, tier_basis) = strictest(&evidence).unwrap_or(unknown);
        // Otherwise a session could narrow itself to a tier that only observes, and so be let out.
        let narrowed = tier_basis == TierBasis::Session;
        let enforced =
            narrowed && whole.is_some_and(|(tier, _)| self.tiers.tier(tier).mode == Mode::Enforce);
        Who {
            enforced,
            tier,
            tier_basis,
            groups,
            subject: Some(facts.subject)
                .filter(|it| !it.is_empty())
                .map(Into::into),
            repository: facts.repository.cloned(),
            claimed: Vec::new(),
            within: facts.within.cloned(),
            session: None,
        }
    }

    /// Returns a caller in exactly that tier, as for an example of a rule.
    pub(super) fn in_tier(&self, facts: &Facts<'_>, tier: TierId) -> Who {
        Who {
            tier,
            tier_basis: TierBasis::Unattributed,
            ..self.who(facts)
        }
    }
}

impl Policy {
    /// Adds a repository that only the session itself asserts, or a second repository: it can make
    /// the caller's tier stricter, never looser. If `only` is not empty, only a tier with one of
    /// these bases counts.
    pub fn tighten(&self, who: &mut Who, said: &Arc<str>, only: &[TierBasis]) {
        let other = self.who(&Facts {
            repository: Some(said),
            ..Facts::default()
        });
        let counts = only.is_empty() || only.contains(&other.tier_basis);
        if counts && other.tier > who.tier {
            who.enforced |= self.enforces(who);
            who.tier = other.tier;
            who.tier_basis = other.tier_basis;
        }
        who.claimed.push(said.clone());
    }

    /// Returns a caller with exactly this evidence and at least that tier.
    pub(super) fn who_in(&self, facts: &Facts<'_>, tier: TierId) -> Who {
        let who = self.who(facts);
        let known = facts.repository.is_some().then_some(who.tier);
        let tier = [known, self.callers.floor(who.groups)]
            .into_iter()
            .flatten()
            .fold(tier, TierId::max);
        Who { tier, ..who }
    }

    /// Returns the strictest of some tiers; an unknown name counts as the strictest.
    pub fn strictest<'t>(&self, names: impl Iterator<Item = &'t Arc<str>>) -> Option<Arc<str>> {
        let known = |name: &Arc<str>| {
            self.tiers
                .find(name)
                .unwrap_or_else(|| self.tiers.strictest())
        };
        let tier = names.map(known).max()?;
        Some(self.tier_name(tier).clone())
    }
}

impl Who {
    /// Whether the tier comes from a listener or from narrowing the session.
    pub fn is_given(&self) -> bool {
        matches!(self.tier_basis, TierBasis::Listener | TierBasis::Session)
    }
}

/// Returns the strictest evidence; of equal ones the last, which is the most specific.
fn strictest<'e>(
    evidence: impl IntoIterator<Item = &'e (Option<TierId>, TierBasis)>,
) -> Option<(TierId, TierBasis)> {
    let known = evidence.into_iter();
    known
        .filter_map(|(tier, basis)| Some(((*tier)?, *basis)))
        .max_by_key(|(tier, _)| *tier)
}
