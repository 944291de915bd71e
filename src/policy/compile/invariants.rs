//! Compiles `[[never]]` and `[[always]]` to selectors of flows.

use toml::Spanned;

use crate::policy::compiled::Policy;
use crate::policy::findings::{Findings, unknown};
use crate::policy::invariant_rule::{Invariant, Kind, Selector};
use crate::policy::source::{self, Placed};
use crate::policy::verdict::Verdict;

use super::rules::{Known, compile_one};

/// Findings for rules only: the width of an invariant is not limited.
const OF_RULES: [&str; 3] = ["allows-everything", "many-tenants", "too-wide"];

/// Compiles `[[never]]` and `[[always]]` with the names of a policy.
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

/// Returns the verdict of the rule whose conditions match the flows. Flows that have to pass are
/// matched as by an allow; other flows as by a deny, in every spelling and at every port.
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
