//! One `[[never]]` or `[[always]]`, compiled.

use std::fmt;

use crate::diag::Place;

use super::pattern::HostPattern;
use super::rule::Rule;
use super::verdict::Verdict;

/// What no flow, or each flow, of some has to be.
#[derive(Debug)]
pub(super) struct Invariant {
    pub(super) kind: Kind,
    pub(super) verdict: Verdict,
    /// What it says, where the operator wrote that.
    pub(super) name: Option<String>,
    pub(super) place: Place,
}

/// The rule that matches the flows of an invariant, and its hosts.
pub(super) type Selector = (Rule, Vec<HostPattern>);

/// Whether no flow has the verdict, or each has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Never,
    Always,
}

impl Invariant {
    /// Whether a flow breaks it because it passes.
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
