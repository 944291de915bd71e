//! The callers that evidence can make in each of some policies.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::caller::{Group, Member};
use crate::policy::compiled::Policy;
use crate::policy::pattern::{Pattern, TooComplex, atoms};
use crate::policy::query::{GroupId, GroupSet, TierId};
use crate::policy::rule::Rule;

use super::classes::classes;

/// Maximum number of sets of groups that are distinguished.
const MAX_GROUP_SETS: usize = 4096;

/// The groups of a caller, for each policy.
pub(super) type Groups = Vec<GroupSet>;
/// The tier of a caller, for each policy.
pub(super) type TierIds = Vec<TierId>;

/// A repository, and the tier in which each policy lists it.
type Listed = (Option<String>, Vec<Option<TierId>>);

/// The possible callers.
#[derive(Debug)]
pub(super) struct Callers<'p> {
    policies: Vec<&'p Policy>,
    /// Groups that one piece of evidence gives, besides the user name.
    evidence: Vec<Groups>,
    /// Tiers in evidence: one name, with its tier in each policy.
    named: Vec<TierIds>,
    /// A user of each kind, and none, with the groups of the name.
    subjects: Vec<(Option<String>, Groups)>,
    /// A repository of each kind, and none, with the tier in which each policy lists it.
    repositories: Vec<Listed>,
    /// Whether every policy makes the same caller of the same evidence.
    alike: bool,
}

impl<'p> Callers<'p> {
    /// `selectors`: rules that are distinguished besides those of the policies.
    pub(super) fn new(policies: &[&'p Policy], selectors: &[&Rule]) -> Result<Self, TooComplex> {
        let alike = policies.windows(2).all(|pair| match pair {
            [one, other] => are_alike(one, other),
            _ => true,
        });
        let mut evidence: BTreeSet<Vec<u128>> = names_of_groups(policies)
            .into_iter()
            .map(|name| groups_named(policies, &name))
            .collect();
        if !alike {
            evidence.extend(by_members(policies)?);
        }
        evidence.remove(&vec![0; policies.len()]);
        let of = |bits: Vec<u128>| bits.into_iter().map(GroupSet).collect();
        let written = policies.iter().flat_map(|policy| &policy.rules);
        let rules: Vec<&Rule> = written.chain(selectors.iter().copied()).collect();
        Ok(Self {
            subjects: subjects(policies, &rules)?,
            repositories: repositories(policies, &rules)?,
            policies: policies.to_vec(),
            evidence: evidence.into_iter().map(of).collect(),
            named: named_tiers(policies),
            alike,
        })
    }

    /// Whether every policy makes the same caller of the same evidence.
    pub(super) fn are_alike(&self) -> bool {
        self.alike
    }

    /// Returns the tiers that a caller may have in each policy. Some may need impossible evidence:
    /// see [`Callers::exists`].
    pub(super) fn tiers(&self) -> Vec<TierIds> {
        if self.alike {
            let first = self.policies.first();
            let ids = first.into_iter().flat_map(|policy| policy.tiers.ids());
            return ids.map(|tier| vec![tier; self.policies.len()]).collect();
        }
        let mut all: Vec<TierIds> = vec![Vec::new()];
        for policy in &self.policies {
            let with = |tiers: &TierIds| -> Vec<TierIds> {
                let ids = policy.tiers.ids();
                ids.map(|id| [tiers.as_slice(), &[id]].concat()).collect()
            };
            all = all.iter().flat_map(with).collect();
        }
        all
    }

    /// Returns a user of each kind that the rules distinguish, and none, with the groups of the
    /// name.
    pub(super) fn subjects(&self, rules: &[Vec<&Rule>]) -> Vec<(Option<&str>, &Groups)> {
        let all = self.subjects.iter();
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (text, groups) in all {
            let named = |rule: &&Rule| match text {
                Some(text) => matches(&rule.from.subjects, text),
                None => false,
            };
            let with_subjects = rules
                .iter()
                .flatten()
                .filter(|it| !it.from.subjects.is_empty());
            let named: Vec<bool> = with_subjects.map(named).collect();
            let relevant = |(side, set): (usize, &GroupSet)| {
                let masks = rules.get(side).into_iter().flatten();
                set.0 & masks.fold(0, |mask, rule| mask | rule.from.groups)
            };
            let given: Vec<u128> = groups.iter().enumerate().map(relevant).collect();
            if seen.insert((named, given, self.floors(groups))) {
                found.push((text.as_deref(), groups));
            }
        }
        found
    }

    /// Returns each set of groups that the rules distinguish, of callers that are at least in
    /// `least` and whose groups permit these tiers.
    pub(super) fn groups(
        &self,
        tiers: &TierIds,
        least: &Groups,
        rules: &[Vec<&Rule>],
    ) -> Result<Vec<Groups>, TooComplex> {
        if !self.floors_permit(tiers, least) {
            return Ok(Vec::new());
        }
        let sets: BTreeSet<(usize, u128)> = rules
            .iter()
            .enumerate()
            .flat_map(|(side, rules)| rules.iter().map(move |rule| (side, rule.from.groups)))
            .filter(|(_, set)| *set != 0)
            .collect();
        let met = |groups: &Groups| -> Vec<bool> {
            let meets = |(side, set): &(usize, u128)| {
                groups.get(*side).is_some_and(|groups| groups.0 & set != 0)
            };
            sets.iter().map(meets).collect()
        };
        // If policies read the same evidence differently, floors alone can make a difference.
        let key = |groups: &Groups| {
            let floors = (!self.alike).then(|| self.floors(groups));
            (met(groups), floors)
        };
        let mut found = BTreeMap::from([(key(least), least.clone())]);
        for more in &self.evidence {
            let matters = !self.alike || met(more).contains(&true);
            if !matters || !self.floors_permit(tiers, more) {
                continue;
            }
            let known: Vec<Groups> = found.values().cloned().collect();
            for groups in known {
                let both: Groups = groups
                    .iter()
                    .zip(more)
                    .map(|(one, other)| GroupSet(one.0 | other.0))
                    .collect();
                found.entry(key(&both)).or_insert(both);
            }
            if found.len() > MAX_GROUP_SETS {
                return Err(TooComplex);
            }
        }
        Ok(found.into_values().collect())
    }

    /// Returns a repository of each kind that the rules distinguish, and none, that permits these
    /// tiers.
    pub(super) fn repositories(
        &self,
        tiers: &TierIds,
        groups: &Groups,
        rules: &[Vec<&Rule>],
    ) -> Vec<Option<&str>> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (text, listed) in &self.repositories {
            if !self.exists(tiers, groups, listed) {
                continue;
            }
            let named = |rule: &&Rule| match text {
                Some(text) => matches(&rule.from.repositories, text),
                None => false,
            };
            let all = rules.iter().flatten();
            let named: Vec<bool> = all
                .filter(|rule| !rule.from.repositories.is_empty())
                .map(named)
                .collect();
            if seen.insert(named) {
                found.push(text.as_deref());
            }
        }
        found
    }

    /// Whether evidence can make a caller of these groups and this repository that has these tiers.
    fn exists(&self, tiers: &TierIds, groups: &Groups, listed: &[Option<TierId>]) -> bool {
        let floors = self.floors(groups);
        let sides = || self.policies.iter().zip(listed);
        let without: TierIds = sides()
            .map(|(policy, listed)| listed.unwrap_or(policy.tiers.unattributed))
            .collect();
        // A verified token names a tier of the repository, or none.
        let with = self.named.iter().map(|named| {
            let both = named.iter().zip(listed);
            both.map(|(named, listed)| (*named).max(listed.unwrap_or(TierId(0))))
                .collect::<TierIds>()
        });
        let loosest = vec![TierId(0); self.policies.len()];
        let mut bases = with.chain([without]);
        // A listener, or a narrowed session, names another tier.
        bases.any(|base| {
            let listeners = self.named.iter().chain([&loosest]);
            { listeners }.any(|named| {
                let made = base.iter().zip(named).zip(&floors);
                let made = made.map(|((base, named), floor)| (*base).max(*named).max(*floor));
                made.eq(tiers.iter().copied())
            })
        })
    }

    /// Returns the strictest floor of groups in each policy; the loosest tier if there is none.
    fn floors(&self, groups: &Groups) -> TierIds {
        let sides = self.policies.iter().zip(groups);
        let floors = sides.map(|(policy, groups)| policy.callers.floor(*groups));
        floors.map(|floor| floor.unwrap_or(TierId(0))).collect()
    }

    fn floors_permit(&self, tiers: &TierIds, groups: &Groups) -> bool {
        let sides = self.policies.iter().zip(groups).zip(tiers);
        { sides }.all(|((policy, groups), tier)| {
            policy
                .callers
                .floor(*groups)
                .is_none_or(|floor| floor <= *tier)
        })
    }
}

/// Patterns, each with a value for the texts that it matches.
struct Index<'p, T> {
    literals: BTreeMap<String, Vec<(&'p Pattern, T)>>,
    wild: Vec<(&'p Pattern, T)>,
}

impl<'p, T: Copy> Index<'p, T> {
    fn new(patterns: impl Iterator<Item = (&'p Pattern, T)>) -> Self {
        let (mut literals, mut wild) = (BTreeMap::<String, Vec<_>>::new(), Vec::new());
        for (pattern, gives) in patterns {
            if pattern.as_str().contains('*') {
                wild.push((pattern, gives));
            } else {
                let text = pattern.as_str().to_ascii_lowercase();
                literals.entry(text).or_default().push((pattern, gives));
            }
        }
        Self { literals, wild }
    }

    /// Returns the values of the patterns that match a text.
    fn find(&self, text: &str) -> Vec<T> {
        let literals = self.literals.get(&text.to_ascii_lowercase());
        let all = literals.into_iter().flatten().chain(&self.wild);
        let found = all.filter(|(pattern, _)| pattern.matches(text));
        found.map(|(_, gives)| *gives).collect()
    }
}

/// Returns a user of each kind, and none, with the groups of the name.
fn subjects(
    policies: &[&Policy],
    rules: &[&Rule],
) -> Result<Vec<(Option<String>, Groups)>, TooComplex> {
    let none = || vec![GroupSet::default(); policies.len()];
    let members = policies.iter().enumerate().flat_map(|(side, policy)| {
        let groups = (0..).zip(&policy.callers.groups);
        groups.flat_map(move |(id, group)| {
            subjects_of(group).map(move |pattern| (pattern, (side, GroupId(id))))
        })
    });
    let members: Vec<_> = members.collect();
    let by_member = Index::new(members.iter().copied());
    let of_rules = rules.iter().enumerate().flat_map(|(at, rule)| {
        let patterns = rule.from.subjects.iter();
        patterns.map(move |pattern| (pattern, at))
    });
    let of_rules: Vec<_> = of_rules.collect();
    let by_rule = Index::new(of_rules.iter().copied());
    let groups_of = |text: &str| {
        let mut groups = none();
        for (side, group) in by_member.find(text) {
            if let Some(set) = groups.get_mut(side) {
                set.insert(group);
            }
        }
        groups
    };
    let key = |text: &str| {
        let groups: Vec<u128> = groups_of(text).iter().map(|set| set.0).collect();
        let rules: BTreeSet<usize> = by_rule.find(text).into_iter().collect();
        (groups, rules)
    };
    let patterns = members.iter().map(|(pattern, _)| *pattern);
    let patterns = distinct(patterns.chain(of_rules.iter().map(|(pattern, _)| *pattern)));
    let texts = classes(&patterns, key)?.into_iter();
    let known = texts.map(|text| {
        let groups = groups_of(&text);
        (Some(text), groups)
    });
    Ok(std::iter::once((None, none())).chain(known).collect())
}

/// Returns a repository of each kind, and none, with the tier in which each policy lists it.
fn repositories(policies: &[&Policy], rules: &[&Rule]) -> Result<Vec<Listed>, TooComplex> {
    let listed = policies.iter().enumerate().flat_map(|(side, policy)| {
        let listed = policy.callers.repositories.iter();
        listed.map(move |(pattern, tier)| (pattern, (side, *tier)))
    });
    let listed: Vec<_> = listed.collect();
    let by_list = Index::new(listed.iter().copied());
    let of_rules = rules.iter().enumerate().flat_map(|(at, rule)| {
        let patterns = rule.from.repositories.iter();
        patterns.map(move |pattern| (pattern, at))
    });
    let of_rules: Vec<_> = of_rules.collect();
    let by_rule = Index::new(of_rules.iter().copied());
    let tiers_of = |text: &str| {
        let mut tiers: Vec<Option<TierId>> = vec![None; policies.len()];
        for (side, tier) in by_list.find(text) {
            if let Some(strictest) = tiers.get_mut(side) {
                *strictest = (*strictest).max(Some(tier));
            }
        }
        tiers
    };
    let key = |text: &str| {
        let rules: BTreeSet<usize> = by_rule.find(text).into_iter().collect();
        (tiers_of(text), rules)
    };
    let patterns = listed.iter().map(|(pattern, _)| *pattern);
    let patterns = distinct(patterns.chain(of_rules.iter().map(|(pattern, _)| *pattern)));
    let texts = classes(&patterns, key)?.into_iter();
    let known = texts.map(|text| {
        let tiers = tiers_of(&text);
        (Some(text), tiers)
    });
    let none = (None, vec![None; policies.len()]);
    Ok(std::iter::once(none).chain(known).collect())
}

/// Returns each pattern once.
fn distinct<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Vec<&'p Pattern> {
    let mut seen = BTreeSet::new();
    patterns.filter(|it| seen.insert(it.as_str())).collect()
}

fn matches(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

fn subjects_of(group: &Group) -> impl Iterator<Item = &Pattern> {
    group.members.iter().filter_map(|member| match member {
        Member::Subject(pattern) => Some(pattern),
        Member::Claim(..) | Member::San(_) => None,
    })
}

/// Whether two policies make the same caller of the same evidence.
fn are_alike(one: &Policy, other: &Policy) -> bool {
    let (tiers, others) = (&one.tiers, &other.tiers);
    let groups = one.callers.groups.iter();
    let same_groups =
        one.callers.groups.len() == other.callers.groups.len() && { groups }.all(|group| {
            let same = |it: &&Group| {
                it.name == group.name && it.floor == group.floor && it.members == group.members
            };
            other.callers.groups.iter().any(|it| same(&it))
        });
    tiers.names == others.names
        && tiers.unattributed == others.unattributed
        && same_groups
        && one.callers.repositories == other.callers.repositories
}

fn names_of_groups(policies: &[&Policy]) -> BTreeSet<String> {
    let groups = policies.iter().flat_map(|policy| &policy.callers.groups);
    groups.map(|group| group.name.to_string()).collect()
}

/// Returns the group of that name, a bit for each policy.
fn groups_named(policies: &[&Policy], name: &str) -> Vec<u128> {
    let bit = |policy: &&Policy| policy.callers.find(name).map_or(0, GroupId::bit);
    policies.iter().map(bit).collect()
}

/// Returns the groups of each claim or certificate name, if policies differ in them.
fn by_members(policies: &[&Policy]) -> Result<Vec<Vec<u128>>, TooComplex> {
    let mut kinds: BTreeMap<Option<&str>, Vec<&Pattern>> = BTreeMap::new();
    let groups = policies.iter().flat_map(|policy| &policy.callers.groups);
    for member in groups.flat_map(|group| &group.members) {
        match member {
            Member::Claim(name, pattern) => {
                kinds.entry(Some(name)).or_default().push(pattern);
            }
            Member::San(pattern) => kinds.entry(None).or_default().push(pattern),
            Member::Subject(_) => {}
        }
    }
    let mut found = Vec::new();
    for (kind, patterns) in kinds {
        let given = |text: &str| -> Vec<u128> {
            let is = |member: &Member| match (member, kind) {
                (Member::Claim(name, pattern), Some(kind)) => {
                    **name == *kind && pattern.matches(text)
                }
                (Member::San(pattern), None) => pattern.matches(text),
                _ => false,
            };
            let of = |policy: &&Policy| {
                let groups = (0..).zip(&policy.callers.groups);
                let given = groups.filter(|(_, group)| group.members.iter().any(is));
                given.fold(0, |bits, (id, _)| bits | GroupId(id).bit())
            };
            policies.iter().map(of).collect()
        };
        let texts = if patterns.len() > 64 {
            classes(&patterns, given)?
        } else {
            let found = atoms(&patterns)?.into_iter();
            found.map(|atom| atom.witness).collect()
        };
        found.extend(texts.iter().map(|text| given(text)));
    }
    Ok(found)
}

/// Returns, for each tier name, its tier in each policy: the strictest one in a policy without that
/// name.
fn named_tiers(policies: &[&Policy]) -> Vec<TierIds> {
    let names = policies.iter().flat_map(|policy| &policy.tiers.names);
    let names: BTreeSet<&str> = names.map(|name| &**name).collect();
    let of = |name: &str| -> TierIds {
        let tiers = policies.iter().map(|policy| &policy.tiers);
        tiers
            .map(|tiers| tiers.find(name).unwrap_or_else(|| tiers.strictest()))
            .collect()
    };
    names.into_iter().map(of).collect()
}
