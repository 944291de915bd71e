//! Callers: the evidence on them, and `[group.NAME]` and `[[repository]]`.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use crate::name::hash_address;

use super::pattern::{Kind, Pattern, PatternError};
use super::query::{GroupId, GroupSet, TierId};
use super::within::Within;

/// The key by which limits count one caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CallerKey {
    /// The address of a caller that was not identified.
    Address(IpAddr),
    /// A session with evidence.
    Session(Arc<str>),
    /// A user.
    Subject(Arc<str>),
}

impl Hash for CallerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Address(address) => hash_address(*address, state),
            Self::Session(name) | Self::Subject(name) => name.hash(state),
        }
    }
}

/// The groups of one policy: a bit each in [`GroupSet`].
pub(super) const MAX_GROUPS: usize = 128;

/// The verified evidence on a caller, from which the policy makes a `Who`.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// `ana@acme.example`; empty for a caller without identity.
    pub subject: &'a str,
    /// Claims of a verified token.
    pub claims: &'a [(Arc<str>, Arc<str>)],
    /// Subject alternative names of a verified certificate.
    pub sans: &'a [Arc<str>],
    /// Groups that a credential or listener names directly.
    pub groups: &'a [Arc<str>],
    /// The repository, from verified evidence or the listener.
    pub repository: Option<&'a Arc<str>>,
    /// The tier of the repository in verified evidence.
    pub repository_tier: Option<&'a str>,
    /// The tier that the listener names.
    pub listener_tier: Option<&'a str>,
    /// Tiers that a session was narrowed to: its tier is never looser than any of them.
    pub narrow: &'a [Arc<str>],
    /// The most that a narrowed session may reach.
    pub within: Option<&'a Arc<Within>>,
}

/// `[group.NAME]` and `[[repository]]`: the groups and the tier of each caller.
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
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Member {
    Claim(Box<str>, Pattern),
    San(Pattern),
    Subject(Pattern),
}

impl Membership {
    /// Returns the strictest floor of some groups.
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

    pub(super) fn groups_of(&self, facts: &Facts<'_>) -> GroupSet {
        let mut set = GroupSet::default();
        for (id, group) in (0..).zip(&self.groups) {
            let named = facts.groups.contains(&group.name);
            if named || group.members.iter().any(|member| member.is(facts)) {
                set.insert(GroupId(id));
            }
        }
        set
    }

    pub(super) fn tier_of(&self, repository: &str) -> Option<TierId> {
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
