//! Policies that repositories write for themselves (`[[repository-policy]]`): read from a commit of
//! the operator's clone, proved to narrow the operator's policy, and made a part of it.
//!
//! A file that does not load, or would widen, is refused with the reason. The last good file of the
//! repository stays in force, if it still narrows.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::config::{
    self, Config, MAX_REPOSITORY_FILE, Owners, REPOSITORY_FILE, RepositoryPolicy,
    narrowing_as_policy, read_narrowing,
};
use crate::diag::{self, Diagnostic, Severity, Source};
use crate::policy::{self, Catalogue, Difference, Policy, Relation};
use crate::vcs::{self, Commit, Repository};

/// Digits of a commit id in messages and names.
const SHORT: usize = 12;

/// The policies of repositories of one generation.
#[derive(Clone, Debug, Default)]
pub struct RepositoryPolicies(Vec<Kept>);

/// The policy of one repository.
#[derive(Clone, Debug)]
struct Kept {
    repository: Arc<str>,
    /// The commit that was read last, good or not.
    tried: Option<String>,
    /// The file in force.
    good: Option<Good>,
    /// Why the file of `tried` is not in force.
    refused: Option<String>,
}

/// A file that is proved to narrow the policy.
#[derive(Clone, Debug)]
struct Good {
    commit: String,
    text: Arc<str>,
}

/// The operator's configuration and policy, with the catalogue.
struct Base<'a> {
    config: &'a mut Config,
    policy: Policy,
    catalogue: &'a Catalogue,
}

impl RepositoryPolicies {
    /// Reads the files of the repositories, and adds each file to the policy that is proved to
    /// narrow it. `before`: the policies of the last generation. Each refused file is a warning.
    pub(super) fn narrow(
        config: &mut Config,
        policy: Policy,
        catalogue: &Catalogue,
        before: &Self,
    ) -> (Policy, Self, Vec<Diagnostic>) {
        let wanted = config.repository_policies.clone();
        let read = wanted.iter().map(|wanted| {
            let tried = vcs::branch_commit(&wanted.clone, &wanted.branch);
            let read = match &tried {
                Some(commit) => read(wanted, commit),
                None => Err(format!(
                    "{}: no commit of a branch `{}`",
                    wanted.clone.display(),
                    wanted.branch
                )),
            };
            (tried, read)
        });
        let read: Vec<_> = read.collect();
        let mut base = Base {
            config,
            policy,
            catalogue,
        };
        let (mut kept, mut findings) = (Vec::new(), Vec::new());
        for (wanted, (tried, read)) in wanted.iter().zip(read) {
            let last = before.of(&wanted.repository);
            let adopted = read.and_then(|good| match good {
                Some(good) => base.add(&wanted.repository, &good).map(|()| Some(good)),
                None => Ok(None),
            });
            let (good, refused) = match adopted {
                Ok(good) => (good, None),
                Err(why) => {
                    let stays = last.filter(|last| base.add(&wanted.repository, last).is_ok());
                    findings.push(refusal(wanted, tried.as_deref(), &why, stays));
                    (stays.cloned(), Some(why))
                }
            };
            kept.push(Kept {
                repository: wanted.repository.clone(),
                tried,
                good,
                refused,
            });
        }
        (base.policy, Self(kept), findings)
    }

    fn of(&self, repository: &str) -> Option<&Good> {
        let kept = self.0.iter().find(|it| *it.repository == *repository)?;
        kept.good.as_ref()
    }

    /// The commits of the branches, as they were read.
    pub(super) fn commits(&self) -> Vec<Option<String>> {
        self.0.iter().map(|kept| kept.tried.clone()).collect()
    }

    /// The repositories whose file was refused in this generation and not in the one before, each
    /// with the reason.
    pub(super) fn newly_refused(&self, before: &Self) -> Vec<String> {
        let old = |kept: &&Kept| {
            let mut known = before.0.iter();
            known.any(|it| it.repository == kept.repository && it.refused == kept.refused)
        };
        let new = self.0.iter().filter(|kept| !old(kept));
        new.filter_map(|kept| {
            let why = kept.refused.as_ref()?;
            Some(format!("{} of {}: {why}", REPOSITORY_FILE, kept.repository))
        })
        .collect()
    }

    /// The files in force, with their digests: `github.com/acme/web@1a2b…:.tidegate.toml sha256:…`.
    pub fn names(&self) -> Vec<Box<str>> {
        let good = self.0.iter().filter_map(|kept| {
            let good = kept.good.as_ref()?;
            Some(named_with_digest(&kept.repository, good).into())
        });
        good.collect()
    }
}

/// The commits of the branches, as they are now.
pub(super) fn branch_commits(config: &Config) -> Vec<Option<String>> {
    let wanted = config.repository_policies.iter();
    wanted
        .map(|wanted| vcs::branch_commit(&wanted.clone, &wanted.branch))
        .collect()
}

/// Reads the file of a commit; `None` if the commit has none.
fn read(wanted: &RepositoryPolicy, commit: &str) -> Result<Option<Good>, String> {
    let repository = Repository::at(&wanted.clone);
    let text = repository.file(
        &Commit(commit.to_owned()),
        REPOSITORY_FILE,
        MAX_REPOSITORY_FILE,
    );
    let text = text.map_err(|error| error.to_string())?;
    Ok(text.map(|text| Good {
        commit: commit.to_owned(),
        text: text.into(),
    }))
}

impl Base<'_> {
    /// Narrows the policy by one file. `Err`: why it is not added, with the place or a witness.
    fn add(&mut self, repository: &str, good: &Good) -> Result<(), String> {
        let name = name(repository, &good.commit);
        let source = Arc::new(Source::new(&name, &*good.text));
        let narrowing = read_narrowing(repository, &source).map_err(|found| first(&found))?;
        let mut next = self.config.policy.clone();
        next.repositories.extend(narrowing.tier);
        next.rules.extend(narrowing.rules);
        let (compiled, mut found) = policy::compile(&next, self.catalogue);
        found.retain(|finding| finding.severity == Severity::Error);
        let compiled = compiled.filter(|_| found.is_empty());
        let policy = compiled.ok_or_else(|| first(&found))?;
        let broken = policy::invariant_findings(&next, &policy);
        if !broken.is_empty() {
            return Err(first(&broken));
        }
        let difference = policy::difference(&self.policy, &policy);
        if let Some(why) = why_no_narrowing(&difference) {
            return Err(why);
        }
        let copy = narrowing_as_policy(repository, &good.text);
        let config = &mut *self.config;
        config.policy = next;
        config.sources.push(Arc::new(Source::new(name, copy)));
        let one = [named_with_digest(repository, good)];
        config.digest = config::with_narrowings(&config.digest, &one);
        config.narrowed_by.extend(one);
        self.policy = policy;
        Ok(())
    }
}

/// Returns why a policy is not proved to be narrower than the one before or equal to it.
fn why_no_narrowing(difference: &Difference) -> Option<String> {
    if let Some(open) = difference.not_compared.first() {
        return Some(format!("it could not be compared with the policy: {open}"));
    }
    let is_other = |change: &&policy::Change| change.widens || !change.besides.is_empty();
    let is_narrower = match difference.relation {
        Relation::Equal | Relation::Narrower => true,
        Relation::SameReach => !difference.changes.iter().any(|it| is_other(&it)),
        Relation::Wider | Relation::Both => false,
    };
    if is_narrower {
        return None;
    }
    let change = difference.changes.iter().find(is_other)?;
    let witness = &change.witness;
    Some(format!(
        "it widens: {} of {} ({}): {} by {}, before {} by {}",
        witness.flow,
        witness.callers,
        witness.command,
        change.after.verdict,
        change.after.rule,
        change.before.verdict,
        change.before.rule
    ))
}

/// The finding for a file that is refused.
fn refusal(
    wanted: &RepositoryPolicy,
    commit: Option<&str>,
    why: &str,
    stays: Option<&Good>,
) -> Diagnostic {
    let name = name(&wanted.repository, commit.unwrap_or("?"));
    let message = format!("{name} is refused: {why}");
    let mut finding = Diagnostic::unplaced("repository-policy", message);
    finding.severity = Severity::Warning;
    finding.help(match stays {
        Some(good) => format!("the one of {} stays in force", short(&good.commit)),
        None => format!(
            "the policy of the operator alone is in force for {}",
            wanted.repository
        ),
    })
}

/// Returns a finding for each file of the clones that another user could change.
pub(super) fn exposures(config: &Config, owners: &Owners) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let mut paths: Vec<PathBuf> = Vec::new();
    for wanted in &config.repository_policies {
        match vcs::stored_in(&wanted.clone, &wanted.branch) {
            Ok(stored) => paths.extend(stored),
            Err(why) => {
                let finding = Diagnostic::unplaced("repository-policy", why);
                let help = "name a clone of its own that agents cannot write: `git clone --bare`";
                findings.push(finding.help(help));
            }
        }
    }
    findings.extend(config::exposed_files(&paths, owners));
    findings
}

/// `github.com/acme/web@1a2b3c4d5e6f:.tidegate.toml`, as git names a file of a commit.
fn name(repository: &str, commit: &str) -> String {
    format!("{repository}@{}:{REPOSITORY_FILE}", short(commit))
}

fn named_with_digest(repository: &str, good: &Good) -> String {
    let sum = HEXLOWER.encode(digest(&SHA256, good.text.as_bytes()).as_ref());
    format!("{} sha256:{sum}", name(repository, &good.commit))
}

fn short(commit: &str) -> &str {
    commit.get(..SHORT).unwrap_or(commit)
}

fn first(found: &[Diagnostic]) -> String {
    let text = diag::first_error(found);
    if text.is_empty() {
        "it does not load".to_owned()
    } else {
        text
    }
}
