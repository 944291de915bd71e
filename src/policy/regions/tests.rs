//! Tests regions against flows that are tried one by one.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::name::Host;
use crate::policy::query::GroupId;
use crate::policy::tests::try_compile;
use crate::policy::{Action, Verdict};

/// Maximum number of regions of each policy that are visited from their witness.
const MAX_REGIONS: usize = 24;

pub(in crate::policy) const HOSTS: [&str; 9] = [
    "a.example.com",
    "*.example.com",
    "packages.example",
    "forge.example",
    "box.internal",
    "*.internal",
    "10.0.0.0/8",
    "10.2.0.7",
    "8.8.0.0/16",
];
const TARGETS: [&str; 13] = [
    "a.example.com",
    "b.a.example.com",
    "example.com",
    "packages.example",
    "forge.example",
    "api.model.example",
    "box.internal",
    "other.internal",
    "10.0.0.7",
    "10.2.0.7",
    "8.8.8.8",
    "169.254.169.254",
    "[::ffff:10.2.0.7]",
];
const PATHS: [&str; 9] = [
    "/",
    "/x",
    "/x/y",
    "/X/",
    "/x;a",
    "/x%2Fy",
    "//x",
    "/events/z",
    "/EVENTS/z",
];

pub(in crate::policy) fn list(key: &str, values: &[&str]) -> String {
    if values.is_empty() {
        String::new()
    } else {
        format!("{key} = {values:?}\n")
    }
}

/// Returns one condition in a share of the rules.
pub(in crate::policy) fn some(
    weight: f64,
    values: &'static [&'static str],
) -> impl Strategy<Value = Vec<&'static str>> {
    option::weighted(weight, subsequence(values, 1..=2.min(values.len())))
        .prop_map(Option::unwrap_or_default)
}

pub(in crate::policy) fn rule() -> impl Strategy<Value = String> {
    let from = (
        some(0.4, &["one", "two"]),
        some(0.3, &["g", "h"]),
        some(0.2, &["github.com/acme/*", "**/infra"]),
        some(0.2, &["*@acme.example", "ana@*"]),
    );
    let to = (
        some(0.8, &HOSTS),
        some(
            0.3,
            &[
                "package-registry",
                "telemetry",
                "model-api",
                "unknown",
                "mcp",
            ],
        ),
        option::weighted(0.3, subsequence(vec![80_u16, 443, 8443], 1..=2)),
    );
    let does = (
        some(0.2, &["read", "write"]),
        some(0.2, &["GET", "POST"]),
        some(0.3, &["/x", "/x/**", "/*", "/events/*"]),
        some(0.2, &["publish", "push", "fetch", "x*"]),
        some(0.2, &["acme/*", "acme/app"]),
        some(0.2, &["agent/**", "refs/tags/*"]),
    );
    let rest = (select(&["allow", "ask", "deny"][..]), any::<bool>());
    (from, to, does, rest).prop_map(|(from, to, does, (verdict, addresses))| {
        let mut text = format!("verdict = \"{verdict}\"\n");
        text += &list("from.tiers", &from.0);
        text += &list("from.groups", &from.1);
        text += &list("from.repositories", &from.2);
        text += &list("from.subjects", &from.3);
        let open = to.0.is_empty() && to.1.is_empty();
        text += &list(
            "to.hosts",
            if open && verdict == "allow" {
                &HOSTS[..2]
            } else {
                &to.0
            },
        );
        text += &list("to.categories", &to.1);
        if let Some(ports) = to.2 {
            let _ = writeln!(text, "to.ports = {ports:?}");
        }
        text += &list("does.actions", &does.0);
        text += &list("does.methods", &does.1);
        text += &list("does.paths", &does.2);
        text += &list("does.operations", &does.3);
        text += &list("does.repositories", &does.4);
        text += &list("does.refs", &does.5);
        if addresses && verdict == "allow" {
            text += "grant.addresses = [\"10.2.0.0/16\"]\n";
        }
        text
    })
}

fn tier() -> impl Strategy<Value = String> {
    let tier = (
        select(&["allow", "ask", "deny"][..]),
        select(&["allow", "deny"][..]),
        some(0.5, &["package-registry:read", "model-api", "unknown"]),
        some(0.3, &["telemetry", "package-registry:write", "mcp"]),
    );
    tier.prop_map(|(default, opaque, allow, deny)| {
        let lists = list("allow", &allow) + &list("deny", &deny);
        format!("default = \"{default}\"\nopaque = \"{opaque}\"\n{lists}")
    })
}

pub(in crate::policy) fn policy() -> impl Strategy<Value = String> {
    ([tier(), tier()], vec(rule(), 0..6)).prop_map(|([one, two], rules)| {
        let mut text = format!(
            "[tiers]\norder = [\"one\", \"two\"]\n[tier.one]\n{one}[tier.two]\n{two}\
             [group.g]\nfloor = \"one\"\nmembers = [\"subject:g\"]\n\
             [group.h]\nfloor = \"one\"\nmembers = [\"subject:h\"]\n"
        );
        for (id, rule) in rules.iter().enumerate() {
            let _ = write!(text, "[[rule]]\nid = \"rule-{id}\"\n{rule}");
        }
        text
    })
}

pub(in crate::policy) fn point() -> impl Strategy<Value = Point> {
    let who = (
        0..2_u8,
        subsequence(vec![0_u8, 1], 0..=2),
        option::of(select(&["ana@acme.example", "ana@x", "eve"][..])),
        option::of(select(
            &["github.com/acme/app", "github.com/x/infra", "x/y"][..],
        )),
    );
    let target = (select(&TARGETS[..]), select(&[80_u16, 443, 8443, 9][..]));
    let facts = (
        option::of(select(&[Action::Read, Action::Write, Action::Call][..])),
        option::of(select(&["publish", "push", "fetch", "xyz", "delete"][..])),
        option::of(select(&["acme/app", "ACME/other.git", "evil/app"][..])),
        option::of(select(
            &["refs/heads/agent/x", "refs/heads/main", "refs/tags/v1"][..],
        )),
        any::<bool>(),
    );
    let request = (
        any::<bool>(),
        select(&["GET", "HEAD", "POST", "get"][..]),
        select(&PATHS[..]),
        facts,
    );
    (who, target, option::weighted(0.8, request)).prop_map(|(who, (host, port), request)| Point {
        who: Who {
            tier: TierId(who.0),
            groups: who
                .1
                .into_iter()
                .fold(GroupSet::default(), |mut set, group| {
                    set.insert(GroupId(group));
                    set
                }),
            subject: who.2.map(Into::into),
            repository: who.3.map(Into::into),
            ..anyone()
        },
        target: Target {
            host: Host::parse(host.as_bytes()).expect("a host"),
            port,
        },
        request: request.map(|(tls, method, path, facts)| Request {
            tls,
            method: method.into(),
            path: Path::parse(path.as_bytes()).expect("a path"),
            facts: RequestFacts {
                action: facts.0,
                operation: facts.1.map(Into::into),
                repository: facts.2.map(Into::into),
                reference: facts.3.map(Into::into),
                mcp: facts.4.then(McpCall::default),
                ..RequestFacts::default()
            },
        }),
    })
}

/// Returns the decision of a policy about a flow, as far as regions determine it.
fn decided(policy: &Policy, point: &Point) -> (Verdict, Option<Verdict>, String, Vec<String>) {
    let decision = policy.decide(&point.query());
    let grants = decision.addresses.iter().map(ToString::to_string).collect();
    (
        decision.verdict,
        decision.would,
        decision.rule.name.to_string(),
        grants,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_flow_is_in_one_region_and_decided_as_its_witness(
        text in policy(),
        points in vec(point(), 16),
    ) {
        let (Some(policy), _) = try_compile(&text) else {
            return Err(TestCaseError::reject("no policy"));
        };
        let groups = policy.host_groups();
        for point in &points {
            let scope = Scope { point: Some(point), ..Scope::default() };
            let found: Result<Vec<Region>, TooComplex> = policy.regions(&groups, scope).collect();
            let found = found.expect("patterns that can be compared");
            prop_assert_eq!(found.len(), 1, "{:#?}\n{}", point, text);
            let region = &found[0];
            prop_assert!(region.contains(&policy, &groups, point), "{:#?}\n{}", point, text);
            prop_assert_eq!(
                decided(&policy, point),
                decided(&policy, &region.witness),
                "{:#?}\n{:#?}\n{}", point, region.witness, text
            );
        }
        for region in policy.regions(&groups, Scope::default()).take(MAX_REGIONS).flatten() {
            let (witness, of) = (&region.witness, region.contains(&policy, &groups, &region.witness));
            prop_assert!(of, "{:#?}\n{}", region, text);
            let scope = Scope { point: Some(witness), ..Scope::default() };
            prop_assert_eq!(policy.regions(&groups, scope).count(), 1, "{:#?}\n{}", region, text);
        }
    }
}

#[test]
fn facts_of_a_witness_are_held_against_the_reader() {
    let text = "[tiers]\norder = [\"one\"]\n[tier.one]\ndefault = \"allow\"\n";
    let policy = try_compile(text).0.expect("a policy");
    let feasible = |method: &str, path: &str, facts: RequestFacts| {
        let point = Point {
            who: anyone(),
            target: Target {
                host: Host::parse(b"forge.example").expect("a host"),
                port: 443,
            },
            request: Some(Request {
                tls: true,
                method: method.into(),
                path: Path::parse(path.as_bytes()).expect("a path"),
                facts,
            }),
        };
        point.feasible(&policy)
    };
    let push = RequestFacts {
        repository: Some("acme/app".into()),
        reference: Some("refs/heads/main".into()),
        operation: Some("push".into()),
        action: Some(Action::Write),
        ..RequestFacts::default()
    };
    let receive = "/acme/app/git-receive-pack";
    assert_eq!(feasible("POST", receive, push.clone()), Feasible::InBody);
    assert_eq!(feasible("POST", "/", push.clone()), Feasible::Unproved);
    let other = RequestFacts {
        repository: Some("acme/other".into()),
        ..push
    };
    assert_eq!(feasible("POST", receive, other), Feasible::Unproved);
    let target = Target {
        host: Host::parse(b"forge.example").expect("a host"),
        port: 443,
    };
    let path = Path::parse(b"/acme/app/raw/x").expect("a path");
    let read = policy.read(&target, "GET", &path);
    assert_eq!(feasible("GET", "/acme/app/raw/x", read), Feasible::Yes);
}
