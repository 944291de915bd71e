//! Callers: from what identity knows to tier, groups and repository.

use std::net::IpAddr;
use std::sync::Arc;

use toml::Spanned;

use crate::diag::Diagnostic;

use super::compile::{Findings, Policy, unknown};
use super::decide::{GroupId, GroupSet, TierId, Who};
use super::repository::RepositoryPattern;
use super::source::{self, Placed};
use super::tiers::Tiers;
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

/// As many groups as a policy can have.
pub(super) const MOST_GROUPS: usize = 128;

/// What identity knows of a caller, for the policy to make a [`Who`] of.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// `ana@acme.example`; empty where nobody was identified.
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

/// Who belongs where.
#[derive(Debug, Default)]
pub(super) struct Callers {
    pub(super) groups: Vec<Group>,
    repositories: Vec<(RepositoryPattern, TierId)>,
}

/// `[group.NAME]`.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) floor: Option<TierId>,
    members: Vec<Member>,
}

/// One way to be a member.
#[derive(Debug)]
enum Member {
    Claim(Box<str>, Text),
    San(Text),
    Subject(Text),
}

/// A text, or the beginning of one.
#[derive(Debug)]
enum Text {
    Prefix(Box<str>),
    Whole(Box<str>),
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
            repository: facts.repository.cloned(),
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

impl Callers {
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

    /// The group that a name stands for, or a finding.
    pub(super) fn resolve<T>(
        &self,
        placed: &Placed<T>,
        name: &Spanned<String>,
        findings: &mut Findings,
    ) -> Option<GroupId> {
        let found = self.find(name.get_ref());
        if found.is_none() {
            let known = self.groups.iter().map(|group| &*group.name);
            findings.push(unknown("group", placed.at(name), name.get_ref(), known));
        }
        found
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
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (kind, value) = text.split_once(':').ok_or("no kind in front")?;
        match kind {
            "subject" => Ok(Self::Subject(Text::parse(value)?)),
            "san" => Ok(Self::San(Text::parse(value)?)),
            "claim" => {
                let (name, value) = value
                    .split_once('=')
                    .ok_or("no `=` behind the claim's name")?;
                match name {
                    "" => Err("no name of the claim"),
                    _ => Ok(Self::Claim(name.into(), Text::parse(value)?)),
                }
            }
            _ => Err("not a kind of evidence"),
        }
    }

    fn is(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Claim(name, text) => facts
                .claims
                .iter()
                .any(|(known, value)| **known == **name && text.is(value)),
            Self::San(text) => facts.sans.iter().any(|san| text.is(san)),
            Self::Subject(text) => !facts.subject.is_empty() && text.is(facts.subject),
        }
    }
}

impl Text {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.strip_suffix('*') {
            _ if text.is_empty() => Err("nothing to match"),
            Some(front) if front.contains('*') => Err("`*` stands only at the end"),
            Some(front) => Ok(Self::Prefix(front.into())),
            None if text.contains('*') => Err("`*` stands only at the end"),
            None => Ok(Self::Whole(text.into())),
        }
    }

    fn is(&self, text: &str) -> bool {
        match self {
            Self::Prefix(front) => text.starts_with(&**front),
            Self::Whole(whole) => text == &**whole,
        }
    }
}

/// Compiles `[group.NAME]` and `[[repository]]`.
pub(super) fn compile(source: &source::Policy, tiers: &Tiers, findings: &mut Findings) -> Callers {
    let mut callers = Callers::default();
    for (name, group) in &source.groups {
        if let Some(first) = callers.find(name.get_ref()) {
            let related = source.groups.get(usize::from(first.0));
            let finding = Diagnostic::error(
                "group-twice",
                group.at(name),
                format!("group `{}` is written twice", name.get_ref()),
            )
            .label("again here");
            findings.push(match related {
                Some((first, place)) => finding.related(place.at(first), "first here"),
                None => finding,
            });
            continue;
        }
        if callers.groups.len() == MOST_GROUPS {
            findings.push(
                Diagnostic::error(
                    "too-many-groups",
                    group.at(name),
                    "there are more than 128 groups",
                )
                .label("one too many")
                .help("groups that reach the same destinations can be one group"),
            );
            break;
        }
        callers.groups.push(Group {
            name: name.get_ref().as_str().into(),
            floor: group
                .value
                .floor
                .as_ref()
                .and_then(|floor| tiers.resolve(group, floor, findings)),
            members: members(group, findings),
        });
    }
    for repository in &source.repositories {
        let pattern = &repository.value.r#match;
        let tier = tiers.resolve(repository, &repository.value.tier, findings);
        match RepositoryPattern::parse(pattern.get_ref()) {
            Ok(parsed) => callers.repositories.extend(tier.map(|tier| (parsed, tier))),
            Err((label, help)) => findings.push(
                Diagnostic::error(
                    "bad-repository",
                    repository.at(pattern),
                    format!("`{}` matches no repository", pattern.get_ref()),
                )
                .label(label)
                .help(help),
            ),
        }
    }
    callers
}

fn members(group: &Placed<source::Group>, findings: &mut Findings) -> Vec<Member> {
    let mut members = Vec::new();
    for text in &group.value.members {
        match Member::parse(text.get_ref()) {
            Ok(member) => members.push(member),
            Err(label) => findings.push(
                Diagnostic::error(
                    "bad-member",
                    group.at(text),
                    format!("`{}` names nobody", text.get_ref()),
                )
                .label(label)
                .help("write `subject:NAME`, `claim:NAME=VALUE` or `san:NAME`; `*` may end it"),
            ),
        }
    }
    members
}
