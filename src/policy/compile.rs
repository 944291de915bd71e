//! From what was written to one immutable policy; every finding a diagnostic, all at once.

use std::sync::Arc;

use crate::diag::Diagnostic;

use super::catalogue::Catalogue;
use super::decide::{GroupSet, TierId, Who};
use super::source;

/// One compiled, immutable set of rules.
#[derive(Debug)]
pub struct Policy {}

/// Compiles `source` over `catalogue`. Errors mean no policy; warnings come with one.
///
/// Runs the examples of every rule and every trial: a policy whose trials fail does not compile.
pub fn compile(
    _source: &source::Policy,
    _catalogue: &Catalogue,
) -> (Option<Policy>, Vec<Diagnostic>) {
    todo!()
}

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
    /// The tier that the listener names.
    pub listener_tier: Option<&'a str>,
}

impl Policy {
    /// The tier, groups and repository of a caller: the strictest of the repository's tier, the
    /// floors of its groups and the listener's tier.
    pub fn who(&self, _facts: &Facts<'_>) -> Who {
        todo!()
    }

    /// The names of the tiers, loosest first.
    pub fn tiers(&self) -> &[Arc<str>] {
        todo!()
    }

    /// The tier of that name.
    pub fn tier(&self, _name: &str) -> Option<TierId> {
        todo!()
    }

    /// The name of a tier.
    pub fn tier_name(&self, _tier: TierId) -> &Arc<str> {
        todo!()
    }

    /// The names of the groups in a set.
    pub fn group_names(&self, _groups: GroupSet) -> impl Iterator<Item = &Arc<str>> {
        std::iter::empty()
    }

    /// How many rules were written.
    pub fn rule_count(&self) -> usize {
        todo!()
    }
}
