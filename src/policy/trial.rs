//! Tests that travel with the policy: the examples of rules, and trials.

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
    /// Where it is written.
    pub place: Place,
    /// Who asked, e.g. `tier restricted`.
    pub caller: Arc<str>,
    /// What was expected.
    pub expected: Expected,
    /// The verdict (what it would be in `enforce` mode).
    pub got: Verdict,
    /// Why.
    pub reason: Reason,
    /// What decided.
    pub rule: Arc<Named>,
    /// Whether it held.
    pub ok: bool,
}

/// What an example or a trial demands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Expected {
    /// Anything but allow; allow is good enough where it is the tier's default that allows.
    NotAllowed,
    /// That verdict, by that rule where one is named.
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
    /// The finding about one that did not hold.
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
