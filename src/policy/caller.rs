//! Callers: from verified evidence to tier, groups and repository.

use std::net::IpAddr;
use std::sync::Arc;

use super::compiled::Policy;
use super::pattern::{Kind, Pattern, PatternError};
use super::query::{GroupId, GroupSet, TierId, Who};
use super::verdict::{Mode, TierBasis};
use super::within::Within;

/// What the limits on one caller count by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum CallerKey {
    /// The address of a caller that was not identified.
    Address(IpAddr),
    /// A session that evidence shows.
    Session(Arc<str>),
    /// A user.
    Subject(Arc<str>),
}

/// The groups of one policy: a bit each in [`GroupSet`].
pub(super) const MAX_GROUPS: usize = 128;

/// The verified evidence on a caller, from which the policy makes a [`Who`].
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// `ana@acme.example`; empty for a caller without identity.
    pub subject: &'a str,
    /// Claims of a verified token.
    pub claims: &'a [(Arc<str>, Arc<str>)],
    /// Subject alternative names of a verified certificate.
    pub sans: &'a [Arc<str>],
    /// Groups that a credential or listener names outright.
    pub groups: &'a [Arc<str>],
    /// The repository, from verified evidence or the listener.
    pub repository: Option<&'a Arc<str>>,
    /// The tier of the repository, as verified evidence says it.
    pub repository_tier: Option<&'a str>,
    /// The tier that the listener names.
    pub listener_tier: Option<&'a str>,
    /// Tiers that a session was narrowed to: it is no looser than any of them.
    pub narrow: &'a [Arc<str>],
    /// What a session was narrowed to reach at most.
    pub within: Option<&'a Arc<Within>>,
}

/// `[group.NAME]` and `[[repository]]`: which caller belongs to which group and tier.
#[derive(Debug, Default)]
pub(super) struct Membership {
    pub(super) groups: Vec<Group>,
    pub(super) repositories: Vec<(Pattern, TierId)>,
}

/// `[group.NAME]`.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) floor: Option<TierId>,
    pub(super) members: Vec<Member>,
}

/// The evidence that makes a caller a member.
#[derive(Debug)]
pub(super) enum Member {
    Claim(Box<str>, Pattern),
    San(Pattern),
    Subject(Pattern),
}

impl Policy {
    /// Whether what the policy does not let a caller do is denied, not only observed.
    pub fn enforces(&self, who: &Who) -> bool {
        who.enforced || self.tiers.tier(who.tier).mode == Mode::Enforce
    }

    /// Whether an opaque tunnel of a tier may begin with an encrypted client hello (RFC 9849).
    pub fn allows_ech(&self, tier: TierId) -> bool {
        self.tiers.tier(tier).ech
    }

    /// The tier, groups and repository of a caller: the strictest of the repository's tier, the
    /// floors of its groups, the listener's tier and what its session was narrowed to.
    ///
    /// Where no tier of a repository is known, `tiers.unattributed` stands for it. Groups and tiers
    /// that the policy does not know are no groups, and the strictest tier.
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
        // A session that could narrow itself to a tier that only observes would be let out by it.
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
        }
    }
}

/// The last of equal ones wins: what says most about the caller.
fn strictest<'e>(
    evidence: impl IntoIterator<Item = &'e (Option<TierId>, TierBasis)>,
) -> Option<(TierId, TierBasis)> {
    let known = evidence.into_iter();
    known
        .filter_map(|(tier, basis)| Some(((*tier)?, *basis)))
        .max_by_key(|(tier, _)| *tier)
}

impl Membership {
    /// The strictest floor of some groups.
    pub(super) fn floor(&self, groups: GroupSet) -> Option<TierId> {
        groups
            .ids()
            .filter_map(|id| self.groups.get(usize::from(id.0))?.floor)
            .max()
    }

    pub(super) fn find(&self, name: &str) -> Option<GroupId> {
        let at = self.groups.iter().position(|group| *group.name == *name)?;
        u8::try_from(at).ok().map(GroupId)
    }

    fn groups_of(&self, facts: &Facts<'_>) -> GroupSet {
        let mut set = GroupSet::default();
        for (id, group) in (0..).zip(&self.groups) {
            let named = facts.groups.contains(&group.name);
            if named || group.members.iter().any(|member| member.is(facts)) {
                set.insert(GroupId(id));
            }
        }
        set
    }

    fn tier_of(&self, repository: &str) -> Option<TierId> {
        let matching = self
            .repositories
            .iter()
            .filter(|(pattern, _)| pattern.matches(repository));
        matching.map(|(_, tier)| *tier).max()
    }
}

impl Member {
    pub(super) fn parse(member: &str) -> Result<Self, String> {
        let text = |value: &str| {
            Pattern::parse(value, Kind::Text).map_err(|error: PatternError| error.to_string())
        };
        let (kind, value) = member.split_once(':').ok_or("no kind in front")?;
        match kind {
            "subject" => Ok(Self::Subject(text(value)?)),
            "san" => Ok(Self::San(text(value)?)),
            "claim" => {
                let (name, value) = value
                    .split_once('=')
                    .ok_or("no `=` behind the claim's name")?;
                match name {
                    "" => Err("no name of the claim".into()),
                    _ => Ok(Self::Claim(name.into(), text(value)?)),
                }
            }
            _ => Err("not a kind of evidence".into()),
        }
    }

    fn is(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Claim(name, text) => facts
                .claims
                .iter()
                .any(|(known, value)| **known == **name && text.matches(value)),
            Self::San(text) => facts.sans.iter().any(|san| text.matches(san)),
            Self::Subject(text) => !facts.subject.is_empty() && text.matches(facts.subject),
        }
    }
}
