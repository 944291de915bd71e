//! `[[never]]` and `[[always]]`: from text to the flows that they are about.

use std::fmt;

use toml::Spanned;

use crate::diag::Place;
use crate::policy::compiled::Policy;
use crate::policy::findings::{Findings, unknown};
use crate::policy::pattern::HostPattern;
use crate::policy::rule::Rule;
use crate::policy::source::{self, Placed};
use crate::policy::verdict::Verdict;

use super::rules::{Known, compile_one};

/// What no flow, or each flow, of some has to be.
#[derive(Debug)]
pub(in crate::policy) struct Invariant {
    pub(in crate::policy) kind: Kind,
    pub(in crate::policy) verdict: Verdict,
    /// What it says, where the operator wrote that.
    pub(in crate::policy) name: Option<String>,
    pub(in crate::policy) place: Place,
}

/// The rule that matches the flows of an invariant, and its hosts.
pub(in crate::policy) type Selector = (Rule, Vec<HostPattern>);

/// Whether no flow has the verdict, or each has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::policy) enum Kind {
    Never,
    Always,
}

/// Findings that hold of rules alone: an invariant may be as wide as it likes.
const OF_RULES: [&str; 3] = ["allows-everything", "many-tenants", "too-wide"];

impl Invariant {
    /// Whether a flow breaks it because it passes.
    pub(in crate::policy) fn forbids(&self) -> bool {
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
    pub(in crate::policy) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "[[always]]",
            Self::Never => "[[never]]",
        }
    }
}

/// Compiles `[[never]]` and `[[always]]` over the names of a policy.
pub(in crate::policy) fn compile(
    source: &source::Policy,
    policy: &Policy,
    findings: &mut Findings,
) -> Vec<(Invariant, Selector)> {
    let known = Known {
        tiers: &policy.tiers,
        callers: &policy.callers,
        servers: &policy.servers,
        routing: &policy.routing,
    };
    let never = source.never.iter().map(|it| (Kind::Never, it));
    let always = source.always.iter().map(|it| (Kind::Always, it));
    let mut invariants = Vec::new();
    for (kind, written) in never.chain(always) {
        invariants.extend(invariant(kind, written, &known, findings));
    }
    invariants
}

fn invariant(
    kind: Kind,
    written: &Placed<source::Invariant>,
    known: &Known<'_>,
    findings: &mut Findings,
) -> Option<(Invariant, Selector)> {
    let value = &written.value;
    let verdict = verdict(written, findings)?;
    let name = value.name.clone();
    let id = name.clone();
    let id = id.unwrap_or_else(|| Spanned::new(value.verdict.span(), kind.as_str().to_owned()));
    let rule = source::Rule {
        id,
        verdict: Spanned::new(value.verdict.span(), reading(kind, verdict).to_string()),
        from: value.from.clone(),
        to: value.to.clone(),
        does: value.does.clone(),
        unless: source::Unless::default(),
        grant: source::Grant::default(),
        reason: None,
        allows: Vec::new(),
        denies: Vec::new(),
    };
    let rule = Placed {
        source: written.source.clone(),
        span: written.span.clone(),
        value: rule,
    };
    let mut of_rule = Findings::default();
    let compiled = compile_one(&rule, known, &mut of_rule);
    for finding in of_rule.into_inner() {
        if !OF_RULES.contains(&finding.code) {
            findings.push(finding);
        }
    }
    let invariant = Invariant {
        kind,
        verdict,
        name: name.map(Spanned::into_inner),
        place: written.place(),
    };
    Some((invariant, (compiled.rule, compiled.hosts)))
}

/// The verdict of the rule whose conditions match the flows. Where flows have to pass, they are
/// those that an allow with these words would match; else those that a deny would match, in every
/// spelling and at every port.
fn reading(kind: Kind, verdict: Verdict) -> Verdict {
    match (kind, verdict) {
        (Kind::Always, verdict) => verdict,
        (Kind::Never, Verdict::Deny) => Verdict::Allow,
        (Kind::Never, Verdict::Allow | Verdict::Ask) => Verdict::Deny,
    }
}

fn verdict(written: &Placed<source::Invariant>, findings: &mut Findings) -> Option<Verdict> {
    let word = &written.value.verdict;
    match word.get_ref().as_str() {
        "allow" => Some(Verdict::Allow),
        "ask" => Some(Verdict::Ask),
        "deny" => Some(Verdict::Deny),
        other => {
            let place = written.at(word);
            findings.push(unknown("verdict", place, other, ["allow", "ask", "deny"]));
            None
        }
    }
}
