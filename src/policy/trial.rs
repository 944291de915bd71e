//! Tests that belong to the policy: the examples of rules, and trials.

use std::fmt;
use std::sync::Arc;

use crate::diag::{Diagnostic, Place};

use super::example::Example;
use super::query::Who;
use super::verdict::{Named, Reason, Verdict};

/// The result of one example or one entry of a trial.
#[derive(Clone, Debug)]
pub struct TrialResult {
    /// `rule docs`, or the name of the trial.
    pub name: Arc<str>,
    /// The flow as written, e.g. `pastebin.com:443`.
    pub entry: Arc<str>,
    /// The location in the text.
    pub place: Place,
    /// The caller, e.g. `tier restricted`.
    pub caller: Arc<str>,
    /// The expectation.
    pub expected: Expected,
    /// The verdict (of `enforce` mode).
    pub got: Verdict,
    /// The reason.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Arc<Named>,
    /// Whether the expectation held.
    pub ok: bool,
}

/// The expectation of an example or a trial.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Expected {
    /// Any verdict but allow; an allow by the tier's default is accepted.
    NotAllowed,
    /// That verdict, by that rule if one is named.
    Verdict(Verdict, Option<Arc<str>>),
}

/// One flow to judge for some callers.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) name: Arc<str>,
    pub(super) entry: Arc<str>,
    pub(super) place: Place,
    pub(super) flow: Example,
    pub(super) callers: Vec<Who>,
    pub(super) expected: Expected,
    /// The rule whose example it is.
    pub(super) rule: Option<Arc<str>>,
}

impl TrialResult {
    /// The finding about a result that does not hold.
    pub fn finding(&self) -> Diagnostic {
        let message = format!("{}: `{}` is not {}", self.name, self.entry, self.expected);
        let location = match &*self.rule.location {
            "" => String::new(),
            location => format!(" ({location})"),
        };
        let label = format!(
            "{} in {}: {} by {}{location}",
            self.got,
            self.caller,
            self.reason.code(),
            self.rule.name,
        );
        Diagnostic::error("trial-failed", self.place.clone(), message).label(label)
    }
}

/// `allowed`, `denied by docs`, `refused`.
impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed => f.write_str("refused"),
            Self::Verdict(verdict, rule) => {
                f.write_str(match verdict {
                    Verdict::Allow => "allowed",
                    Verdict::Ask => "to be asked for",
                    Verdict::Deny => "denied",
                })?;
                rule.as_ref().map_or(Ok(()), |rule| write!(f, " by {rule}"))
            }
        }
    }
}
