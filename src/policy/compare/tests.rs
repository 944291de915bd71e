//! Compares parts with flows that are tried one by one.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::name::Host;
use crate::policy::facts::Inspect;
use crate::policy::floor::Guard;
use crate::policy::invariant::{Broken, first_broken};
use crate::policy::regions::Point;
use crate::policy::regions::tests::{HOSTS, list, point, policy, rule, some};
use crate::policy::rule::Fit;
use crate::policy::tests::{read, try_compile};
use crate::policy::verdict::{Decision, Verdict};
use crate::policy::{
    Attempt, Difference, Exceptions, InForce, Policy, Query, Relation, difference_within,
    invariant_findings,
};

use super::{Incomplete, Selectors, Space};

/// The cases of each property where `PROPTEST_CASES` does not say how many (`CONTRIBUTING.md`).
const CASES: u32 = 2000;

/// The branches of the tree of parts that one case may have where `PROPTEST_CASES` does not say how many
/// cases there are: one case in ten has more, and takes longer than the other nine.
const MAX_BRANCHES: usize = 1500;

/// The conditions that a case may use in its rules. The parts of a policy are the product of the parts
/// by each condition: a policy with all of them has a hundred times the parts of one with two.
const KEYS: [&str; 11] = [
    "from.tiers",
    "from.groups",
    "from.repositories",
    "from.subjects",
    "to.ports",
    "does.actions",
    "does.methods",
    "does.paths",
    "does.operations",
    "does.repositories",
    "does.refs",
];

fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config.max_global_rejects = config.cases.saturating_mul(10).max(1024);
    config
}

fn max_branches() -> usize {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => usize::MAX,
        None => MAX_BRANCHES,
    }
}

/// Compares two policies; rejects a case with too many parts.
fn compared(before: &Policy, after: &Policy) -> Result<Difference, TestCaseError> {
    let found = difference_within(before, after, max_branches());
    if found.not_compared.contains(&Incomplete::Rest.to_string()) {
        return Err(TestCaseError::reject("too many parts"));
    }
    prop_assert!(found.not_compared.is_empty(), "{:?}", found.not_compared);
    Ok(found)
}

/// Returns the conditions of one case: mostly a few, so that each pair and triple of conditions occurs
/// in many cases; sometimes all.
fn keys() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        511 => subsequence(&KEYS[..], 0..=3),
        1 => Just(KEYS.to_vec()),
    ]
}

/// Returns the rules of a text with these conditions alone.
fn only(keys: &[&str], text: &str) -> String {
    let is_kept = |line: &&str| {
        let key = line.split(" = ").next().unwrap_or_default();
        !KEYS.contains(&key) || keys.contains(&key)
    };
    let lines = text.lines().filter(is_kept);
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Returns a rule that names hosts: each rule for every host changes flows to some fifty sets of hosts.
fn with_hosts(rule: &str) -> String {
    if rule.contains("to.hosts") {
        return rule.to_owned();
    }
    format!("{rule}{}", list("to.hosts", &HOSTS[..3]))
}

/// Returns the decision on a flow and its tunnel: the tunnel decides on a request through it if the
/// tunnel is not inspected.
fn effective(policy: &Policy, point: &Point) -> Decision {
    excepted(policy, point, &Exceptions::default())
}

fn in_force(exceptions: &Exceptions) -> InForce<'_> {
    InForce {
        exceptions,
        now: jiff::Timestamp::UNIX_EPOCH,
        is_open: false,
    }
}

/// Whether a passing flow breaks the first invariant of a policy.
fn breaks_first_invariant(policy: &Policy, point: &Point, decision: &Decision) -> bool {
    let Some((invariant, (rule, hosts))) = policy.invariants.first() else {
        return false;
    };
    let host = &point.target.host;
    let named = rule.to.hosts == 0 || hosts.iter().any(|pattern| pattern.matches(host));
    let about = named && rule.fit(&point.judge(policy).flow) == Fit::Matches;
    let passes = decision.would.unwrap_or(decision.verdict) == Verdict::Allow;
    about && passes && invariant.forbids()
}

/// Returns the decision on a flow and its tunnel, with exceptions in force.
fn excepted(policy: &Policy, point: &Point, exceptions: &Exceptions) -> Decision {
    let live = in_force(exceptions);
    let own = policy.decide_with(&point.query(), Some(live));
    let over_tls = point.request.as_ref().is_some_and(|request| request.tls);
    if !over_tls {
        return own;
    }
    let tunnel = Query {
        who: &point.who,
        target: &point.target,
        attempt: Attempt::Connect,
    };
    let tunnel = policy.decide_with(&tunnel, Some(live));
    let ruled = |it: &Decision| it.would.unwrap_or(it.verdict);
    let decides = tunnel.inspect != Inspect::Yes || ruled(&tunnel) > ruled(&own);
    if decides { tunnel } else { own }
}

/// Whether a reviewer may let a flow pass.
fn is_asked(policy: &Policy, point: &Point) -> bool {
    let decision = effective(policy, point);
    decision.would.unwrap_or(decision.verdict) == Verdict::Ask
}

/// Whether a request with these facts can exist.
fn is_possible(policy: &Policy, point: &Point) -> bool {
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
            let acts = |action| facts.action == Some(action);
            operation.is_none_or(|it| services.may_do(service, it, acts))
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
        some(0.2, &["push", "fetch"]),
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
        text += &list("does.operations", &does.3);
        text
    })
}

/// Returns an exception with the conditions of a rule.
fn exception((id, rule): (usize, String)) -> String {
    let rule = rule.lines();
    let lines = rule.filter(|line| !line.starts_with("verdict") && !line.starts_with("grant"));
    let mut text = lines.collect::<Vec<_>>().join("\n");
    if !text.contains("to.hosts") {
        text += &list("\nto.hosts", &HOSTS[..2]);
    }
    format!(
        "[[exception]]\nid = \"EXC-{id}\"\nreason = \"r\"\nreviewer = \"r\"\n\
         expires = 2026-12-01T18:00:00Z\n{text}\n"
    )
}

/// Returns a policy in which one tier is inspected, or none.
fn inspecting(policy: String, inspected: bool) -> String {
    if inspected {
        policy.replacen("[tier.one]\n", "[tier.one]\ninspect = [\"all\"]\n", 1)
    } else {
        policy
    }
}

/// Returns a policy in which one tier observes, or none.
fn observing(policy: String, observes: bool) -> String {
    if observes {
        policy.replacen("[tier.two]\n", "[tier.two]\nmode = \"observe\"\n", 1)
    } else {
        policy
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_flow_breaks_an_invariant_that_is_proved(
        keys in keys(),
        text in policy(),
        invariant in invariant(),
        inspected in any::<bool>(),
        points in vec(point(), 24),
    ) {
        let text = only(&keys, &(inspecting(text, inspected) + &invariant));
        let (Some(policy), _) = try_compile(&text) else {
            return Err(TestCaseError::reject("no policy"));
        };
        let source = read(&text);
        let found = invariant_findings(&source, &policy);
        let Some((invariant, (rule, hosts))) = policy.invariants.first() else {
            return Err(TestCaseError::reject("no invariant"));
        };
        let holds = |point: &Point| {
            let decision = effective(&policy, point);
            let verdict = decision.would.unwrap_or(decision.verdict);
            match invariant.kind.as_str() {
                "[[never]]" => verdict != invariant.verdict,
                _ => verdict == invariant.verdict,
            }
        };
        if !found.is_empty() {
            let broken = first_broken(&policy);
            let asked = |it: &Broken| invariant.forbids() && is_asked(&policy, &it.point);
            let shown = broken.is_none_or(|it| !holds(&it.point) || asked(&it));
            prop_assert!(shown, "{:#?}\n{}", first_broken(&policy), text);
            return Ok(());
        }
        for point in points.iter().filter(|point| is_possible(&policy, point)) {
            let host = &point.target.host;
            let named = rule.to.hosts == 0 || hosts.iter().any(|pattern| pattern.matches(host));
            let judgement = point.judge(&policy);
            if !named || rule.fit(&judgement.flow) != Fit::Matches {
                continue;
            }
            prop_assert!(holds(point), "{:#?}\n{:#?}\n{}", point, effective(&policy, point), text);
        }
    }

    #[test]
    fn exceptions_touch_neither_the_floor_nor_what_an_invariant_forbids(
        keys in keys(),
        text in policy(),
        invariant in invariant(),
        written in vec(rule(), 1..4),
        inspected in any::<bool>(),
        points in vec(point(), 24),
    ) {
        let text = inspecting(text, inspected) + &invariant;
        let excepted_text: String = written.into_iter().enumerate().map(exception).collect();
        let text = only(&keys, &(text + &excepted_text));
        let (Some(policy), _) = try_compile(&text) else {
            return Err(TestCaseError::reject("no policy"));
        };
        let all = policy.exceptions().to_vec();
        let Ok(forbidden) = policy.forbidden(&[], &all) else {
            return Err(TestCaseError::reject("not proved"));
        };
        let left = all.iter().filter(|it| !forbidden.iter().any(|no| no.id == it.named.name));
        let sound = Exceptions::new(left.cloned().collect());
        let (none, all) = (Exceptions::default(), Exceptions::new(all.clone()));
        for point in points.iter().filter(|point| is_possible(&policy, point)) {
            let (query, target) = (point.query(), &point.target);
            let ruled = policy.decide(&query);
            prop_assert_eq!(&policy.decide_with(&query, Some(in_force(&none))), &ruled);
            let decision = policy.decide_with(&query, Some(in_force(&all)));
            if decision.exceptions.is_empty() {
                prop_assert_eq!(&decision, &ruled);
            }
            if let (Verdict::Allow, Host::Address(address)) = (decision.verdict, &target.host) {
                let dials = Guard::default().lets_dial(*address, target.port, &decision.addresses);
                prop_assert!(dials, "{:#?}\n{}", point, text);
            }
            let decision = excepted(&policy, point, &sound);
            let breaks = |it: &Decision| breaks_first_invariant(&policy, point, it);
            let was_broken = breaks(&effective(&policy, point));
            prop_assert!(!breaks(&decision) || was_broken, "{:#?}\n{:#?}\n{}", point, decision, text);
        }
    }

    #[test]
    fn a_difference_has_each_flow_that_changes_and_no_other(
        keys in keys(),
        text in policy(),
        rules in [rule(), rule()],
        inspected in any::<(bool, bool)>(),
        is_for_all in prop::bool::weighted(0.02),
        observed in any::<bool>(),
        points in vec(point(), 24),
    ) {
        let text = inspecting(text, inspected.0 && inspected.1);
        let text = observing(text, observed);
        let [before, after] = rules.map(|rule| {
            let rule = if is_for_all { rule } else { with_hosts(&rule) };
            only(&keys, &format!("{text}[[rule]]
id = \"extra\"
{rule}"))
        });
        check_difference(&before, &after, &points)?;
    }

    #[test]
    fn a_policy_is_equal_to_itself_and_no_wider_with_a_deny(
        keys in keys(),
        text in policy(),
        deny in rule(),
        inspected in any::<bool>(),
        is_for_all in prop::bool::weighted(0.02),
    ) {
        let text = only(&keys, &inspecting(text, inspected));
        let deny = only(&keys, &if is_for_all { deny } else { with_hosts(&deny) });
        let (Some(policy), _) = try_compile(&text) else {
            return Err(TestCaseError::reject("no policy"));
        };
        prop_assert_eq!(compared(&policy, &policy)?.relation, Relation::Equal, "{}", text);
        let deny = deny.lines().filter(|line| !line.starts_with("verdict") && !line.starts_with("grant"));
        let deny = deny.collect::<Vec<_>>().join("\n");
        let more = format!("{text}[[rule]]\nid = \"deny\"\nverdict = \"deny\"\n{deny}\n");
        let (Some(stricter), _) = try_compile(&more) else {
            return Err(TestCaseError::reject("no policy"));
        };
        let found = compared(&policy, &stricter)?;
        let widens = found.changes.iter().find(|change| change.widens);
        prop_assert!(widens.is_none(), "{:#?}\n{}", widens, more);
    }
}

fn check_difference(before: &str, after: &str, points: &[Point]) -> Result<(), TestCaseError> {
    let (Some(one), Some(other)) = (try_compile(before).0, try_compile(after).0) else {
        return Err(TestCaseError::reject("no policy"));
    };
    let found = compared(&one, &other)?;
    let is_real = |point: &&Point| is_possible(&one, point) && is_possible(&other, point);
    for point in points.iter().filter(is_real) {
        let (was, is) = (effective(&one, point), effective(&other, point));
        let widens = found.changes.iter().any(|change| change.widens);
        let narrows = found.changes.iter().any(|change| change.narrows);
        let passes = |it: &Decision| it.verdict != Verdict::Deny;
        let both_pass = passes(&was) && passes(&is);
        let gains = |one: &Decision, other: &Decision| {
            let mut addresses = other.addresses.iter();
            both_pass && addresses.any(|net| !one.addresses.contains(net))
        };
        let granted = !gains(&was, &is) || widens;
        let kept = !gains(&is, &was) || narrows;
        prop_assert!(granted && kept, "{:#?}\n{}\n---\n{}", point, before, after);
        prop_assert!(
            is.verdict >= was.verdict || widens,
            "{:#?}\n{}\n---\n{}",
            point,
            before,
            after
        );
        prop_assert!(
            is.verdict <= was.verdict || narrows,
            "{:#?}\n{}\n---\n{}",
            point,
            before,
            after
        );
    }
    // The decision on each part equals the decision on its witness.
    let selectors = Selectors::default();
    let space = Space::new(&[&one, &other], &selectors).expect("patterns that can be compared");
    let parts = space.parts(usize::MAX, |part| !space.is_same(part));
    for part in parts.take(60) {
        let part = part.expect("patterns that can be compared");
        for (side, policy) in [&one, &other].into_iter().enumerate() {
            let outcome = space.outcome(&part, side).expect("a policy");
            let decision = effective(policy, &space.point(&part, side));
            let said = |it: &Decision| {
                (
                    it.verdict,
                    it.would,
                    it.rule.name.clone(),
                    it.addresses.clone(),
                )
            };
            prop_assert_eq!(
                said(&outcome.decision),
                said(&decision),
                "{:#?}\n{}\n---\n{}",
                part,
                before,
                after
            );
        }
    }
    Ok(())
}
