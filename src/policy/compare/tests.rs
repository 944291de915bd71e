//! Parts against flows that are tried one by one.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::policy::facts::Inspect;
use crate::policy::regions::Point;
use crate::policy::regions::tests::{HOSTS, list, point, policy, some};
use crate::policy::rule::Fit;
use crate::policy::tests::{read, try_compile};
use crate::policy::verdict::{Decision, Verdict};
use crate::policy::{Attempt, Policy, Query, invariant_findings};

/// The cases of each property. CI sets the number when it builds.
fn cases() -> u32 {
    let set = option_env!("TIDEGATE_PROPERTY_CASES");
    set.and_then(|text| text.parse().ok()).unwrap_or(24)
}

/// What a policy says of a flow, with its tunnel counted. `None` for a request that is never seen.
pub(super) fn ruled(policy: &Policy, point: &Point) -> Option<(Verdict, Decision)> {
    let of = |decision: &Decision| decision.would.unwrap_or(decision.verdict);
    let tunnel = || {
        policy.decide(&Query {
            who: &point.who,
            target: &point.target,
            attempt: Attempt::Connect,
        })
    };
    let own = policy.decide(&point.query());
    let over_tls = point.request.as_ref().is_some_and(|request| request.tls);
    if !over_tls {
        return Some((of(&own), own));
    }
    let tunnel = tunnel();
    if tunnel.inspect != Inspect::Yes {
        return None;
    }
    if of(&tunnel) > of(&own) {
        return Some((of(&tunnel), tunnel));
    }
    Some((of(&own), own))
}

/// Whether there can be a request with these facts.
pub(super) fn is_possible(policy: &Policy, point: &Point) -> bool {
    let Some(request) = &point.request else {
        return true;
    };
    let facts = &request.facts;
    let services = &policy.catalogue.services;
    let named = [&facts.repository, &facts.package, &facts.reference];
    match policy.reader_of(&point.target, &request.path) {
        None => facts.operation.is_none() && named.iter().all(|fact| fact.is_none()),
        Some(service) => {
            let operation = facts.operation.as_deref();
            operation.is_none_or(|it| services.may_do(service, it, facts.action))
        }
    }
}

fn invariant() -> impl Strategy<Value = String> {
    let from = (
        some(0.3, &["one", "two"]),
        some(0.2, &["g", "h"]),
        some(0.2, &["github.com/acme/*"]),
        some(0.2, &["*@acme.example"]),
    );
    let to = (
        some(0.8, &HOSTS),
        some(0.2, &["package-registry", "telemetry", "unknown"]),
    );
    let does = (
        some(0.1, &["read", "write"]),
        some(0.2, &["POST"]),
        some(0.2, &["/x/**"]),
    );
    let what = (
        select(&["never", "always"][..]),
        select(&["allow", "ask", "deny"][..]),
    );
    (from, to, does, what).prop_map(|(from, to, does, (kind, verdict))| {
        let mut text = format!("[[{kind}]]\nverdict = \"{verdict}\"\n");
        text += &list("from.tiers", &from.0);
        text += &list("from.groups", &from.1);
        text += &list("from.repositories", &from.2);
        text += &list("from.subjects", &from.3);
        text += &list("to.hosts", &to.0);
        text += &list("to.categories", &to.1);
        text += &list("does.actions", &does.0);
        text += &list("does.methods", &does.1);
        text += &list("does.paths", &does.2);
        text
    })
}

/// A policy of which one tier is inspected, or none.
pub(super) fn inspecting(policy: String, inspected: bool) -> String {
    if inspected {
        policy.replacen("[tier.one]\n", "[tier.one]\ninspect = [\"all\"]\n", 1)
    } else {
        policy
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn no_flow_breaks_an_invariant_that_is_proved(
        text in policy(),
        invariant in invariant(),
        inspected in any::<bool>(),
        points in vec(point(), 24),
    ) {
        let text = inspecting(text, inspected) + &invariant;
        let (Some(policy), _) = try_compile(&text) else {
            return Err(TestCaseError::reject("no policy"));
        };
        let source = read(&text);
        let found = invariant_findings(&source, &policy);
        let (compiled, _) = crate::policy::compile::invariants::compile(&source, &policy);
        let Some((invariant, (rule, hosts))) = compiled.into_iter().next() else {
            return Err(TestCaseError::reject("no invariant"));
        };
        if !found.is_empty() {
            return Ok(());
        }
        for point in points.iter().filter(|point| is_possible(&policy, point)) {
            let host = &point.target.host;
            let named = rule.to.hosts == 0 || hosts.iter().any(|pattern| pattern.matches(host));
            let judgement = point.judge(&policy);
            if !named || rule.fit(&judgement.flow) != Fit::Matches {
                continue;
            }
            let Some((verdict, decision)) = ruled(&policy, point) else {
                continue;
            };
            let holds = match invariant.kind.as_str() {
                "[[never]]" => verdict != invariant.verdict,
                _ => verdict == invariant.verdict,
            };
            prop_assert!(holds, "{:#?}\n{:#?}\n{}", point, decision, text);
        }
    }
}
