//! One `[[never]]` or `[[always]]`, compiled.

use std::fmt;

use crate::diag::Place;

use super::pattern::HostPattern;
use super::rule::Rule;
use super::verdict::Verdict;

/// A verdict that no flow of a set may have, or that each has to have.
#[derive(Debug)]
pub(super) struct Invariant {
    pub(super) kind: Kind,
    pub(super) verdict: Verdict,
    /// The name, if the operator wrote one.
    pub(super) name: Option<String>,
    pub(super) place: Place,
}

/// The rule that matches the flows of an invariant, and the hosts of that rule.
pub(super) type Selector = (Rule, Vec<HostPattern>);

/// Whether no flow may have the verdict, or each has to have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Never,
    Always,
}

impl Invariant {
    /// Whether a flow breaks the invariant by passing.
    pub(super) fn forbids(&self) -> bool {
        match self.kind {
            Kind::Never => self.verdict == Verdict::Allow,
            Kind::Always => self.verdict != Verdict::Allow,
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.kind.as_str())?;
        match &self.name {
            Some(name) => write!(f, " \"{name}\""),
            None => Ok(()),
        }
    }
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "[[always]]",
            Self::Never => "[[never]]",
        }
    }
}
