//! Compiles `[group.NAME]` and `[[repository]]` into memberships.

use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::caller::{Group, MAX_GROUPS, Member, Membership};
use crate::policy::query::GroupId;
use crate::policy::repository::repository_pattern;
use crate::policy::source;
use crate::policy::tiers::Tiers;

use crate::policy::findings::{Findings, unknown};
use crate::policy::source::Placed;

/// Compiles `[group.NAME]` and `[[repository]]`.
pub(super) fn compile(
    source: &source::Policy,
    tiers: &Tiers,
    findings: &mut Findings,
) -> Membership {
    let mut callers = Membership::default();
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
        if callers.groups.len() == MAX_GROUPS {
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
        let tier = tiers.resolve(repository, &repository.value.tier, findings);
        for text in &repository.value.r#match.0 {
            match repository_pattern(text.get_ref()) {
                Ok(parsed) => callers.repositories.extend(tier.map(|tier| (parsed, tier))),
                Err((label, help)) => findings.push(
                    Diagnostic::error(
                        "bad-repository",
                        repository.at(text),
                        format!("`{}` matches no repository", text.get_ref()),
                    )
                    .label(label)
                    .help(help),
                ),
            }
        }
    }
    callers
}

impl Membership {
    /// Returns the group of that name, or adds a finding.
    pub(in crate::policy) fn resolve<T>(
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
                    format!("`{}` is not a kind of member", text.get_ref()),
                )
                .label(label)
                .help("write `subject:NAME`, `claim:NAME=VALUE` or `san:NAME`; `*` may begin or end it"),
            ),
        }
    }
    members
}
