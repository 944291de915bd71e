//! Tests that exceptions come between the floor and the denies, and end.

use std::sync::Arc;

use jiff::Timestamp;

use crate::ledger::{Allowance, Grant, Limit};

use super::*;

const RULES: &str = r#"
[[rule]]
id = "no"
verdict = "deny"
to.hosts = ["*.example.net", "10.0.0.7", "169.254.169.254", "8.8.4.4"]
[[rule]]
id = "granted"
verdict = "allow"
to.hosts = ["inside.example.net"]
grant.addresses = ["10.2.0.0/16"]
[group.platform]
members = []
"#;

const END: &str = "2026-12-01T18:00:00Z";

fn exception(id: &str, lines: &str) -> String {
    format!(
        "[[exception]]\nid = \"{id}\"\nreason = \"r\"\nreviewer = \"s@acme.example\"\n\
         expires = {END}\n{lines}\n"
    )
}

fn before(end: &str) -> Timestamp {
    let end: Timestamp = end.parse().unwrap();
    end - jiff::SignedDuration::from_secs(1)
}

fn with(text: &str) -> Policy {
    with_rules(&format!("{RULES}{text}"))
}

/// Returns the decision at a time, with the exceptions of the policy.
fn at(asking: &Asking<'_>, authority: &str, now: Timestamp) -> Decision {
    let target = Target::from_connect(authority.as_bytes()).unwrap();
    let query = Query {
        who: &asking.who,
        target: &target,
        attempt: Attempt::Connect,
    };
    let exceptions = Exceptions::new(asking.policy.exceptions().to_vec());
    let live = InForce {
        exceptions: &exceptions,
        now,
        is_open: false,
    };
    let decision = asking.policy.decide_with(&query, Some(live));
    let explained = explain_with(asking.policy, &query, Some(live));
    assert_eq!(decision, explained.decision);
    decision
}

#[test]
fn an_exception_overrides_a_deny_until_its_end() {
    let policy = with(&exception("E", "to.hosts = [\"a.example.net\"]"));
    let asking = asking(&policy, "standard");
    let said_at = |now| {
        let decision = at(&asking, "a.example.net:443", now);
        let (verdict, code, rule) = said(&decision);
        (verdict, code, rule.to_owned())
    };
    assert_eq!(
        said_at(before(END)),
        (Verdict::Allow, "allowed", "E".into())
    );
    let end = END.parse().unwrap();
    assert_eq!(said_at(end), (Verdict::Deny, "denied", "no".into()));
    let other = at(&asking, "b.example.net:443", before(END));
    assert_eq!(said(&other), (Verdict::Deny, "denied", "no"));
    let other_port = at(&asking, "a.example.net:444", before(END));
    assert_eq!(said(&other_port), (Verdict::Deny, "denied", "no"));
}

#[test]
fn an_exception_is_for_its_callers_only() {
    let lines = "to.hosts = [\"a.example.net\"]\nfrom.groups = [\"platform\"]\n\
                 from.repositories = [\"github.com/acme/app\"]";
    let policy = with(&exception("E", lines));
    let passes = |asking: &Asking<'_>| {
        at(asking, "a.example.net:443", before(END)).verdict == Verdict::Allow
    };
    let mut caller = asking(&policy, "standard").of("platform");
    assert!(!passes(&caller));
    // A repository that the caller only claims opens nothing.
    caller.who.claimed = vec!["github.com/acme/app".into()];
    assert!(!passes(&caller));
    caller.who.repository = Some("github.com/acme/app".into());
    assert!(passes(&caller));
    caller.who.groups = GroupSet::default();
    assert!(!passes(&caller));
}

#[test]
fn an_exception_never_lifts_the_floor() {
    let hosts = "to.hosts = [\"169.254.169.254\", \"10.0.0.7\", \"metadata.google.internal\"]";
    let policy = with(&exception("E", hosts));
    let asking = asking(&policy, "open");
    for authority in [
        "169.254.169.254:443",
        "10.0.0.7:443",
        "metadata.google.internal:443",
    ] {
        let decision = at(&asking, authority, before(END));
        assert_eq!(decision.verdict, Verdict::Deny, "{authority}");
        assert_eq!(decision, asking.connect(authority), "{authority}");
    }
}

#[test]
fn private_addresses_of_an_exception_are_those_that_an_allow_grants() {
    let hosts = "to.hosts = [\"inside.example.net\", \"a.example.net\"]";
    let policy = with(&exception("E", hosts));
    let asking = asking(&policy, "standard");
    let inside = at(&asking, "inside.example.net:443", before(END));
    assert_eq!(said(&inside), (Verdict::Allow, "allowed", "E"));
    let guard = Guard::default();
    let dials = |decision: &Decision, address: &str| {
        let address = address.parse().unwrap();
        policy.judge_address(decision, address, 443, &guard).is_ok()
    };
    assert!(dials(&inside, "10.2.0.7"));
    assert!(!dials(&inside, "10.3.0.7"));
    assert!(!dials(&inside, "169.254.169.254"));
    let other = at(&asking, "a.example.net:443", before(END));
    assert!(dials(&other, "8.8.8.8") && !dials(&other, "10.2.0.7"));
    // A denied network stays denied for the addresses of a name.
    assert!(!dials(&other, "8.8.4.4"));
}

#[test]
fn an_exception_for_requests_opens_no_tunnel_that_is_not_inspected() {
    let lines = "to.hosts = [\"a.example.net\"]\nto.ports = [80, 443]\ndoes.methods = [\"GET\"]";
    let policy = with(&exception("E", lines));
    // Tier `standard` lets allows with `does` match opaque tunnels.
    let asking = asking(&policy, "standard");
    let tunnel = at(&asking, "a.example.net:443", before(END));
    assert_eq!(tunnel.verdict, Verdict::Deny);
}

#[test]
fn a_limit_without_an_allowance_and_a_spent_one_let_nothing_pass() {
    let lines = "to.hosts = [\"a.example.net\"]\nlimit.requests = 8";
    let policy = with(&exception("E", lines));
    let asking = asking(&policy, "standard");
    let spent = at(&asking, "a.example.net:443", before(END));
    assert_eq!(said(&spent), (Verdict::Deny, "exception_spent", "no"));
    let limit = Limit {
        requests: Some(8),
        ..Limit::default()
    };
    policy.exceptions()[0].set_allowance(Arc::new(Allowance::full(limit)));
    let passes = at(&asking, "a.example.net:443", before(END));
    assert_eq!(said(&passes), (Verdict::Allow, "allowed", "E"));
    let [limited] = policy.exceptions() else {
        panic!("one exception")
    };
    assert!(limited.allowance().is_some() && !limited.is_granted());
    assert!(!limited.has_no_bytes(), "only requests are limited");
}

#[test]
fn an_open_flow_has_no_bytes_left_where_its_exception_has_none() {
    let limited = |limit: &str| {
        let lines = format!("to.hosts = [\"a.example.net\"]\n{limit}");
        with(&exception("E", &lines)).exceptions()[0].clone()
    };
    let limit = Limit {
        bytes_out: Some(1024),
        ..Limit::default()
    };
    assert!(!limited("").has_no_bytes());
    assert!(limited("limit.bytes-out = \"1 KiB\"").has_no_bytes());
    let full = limited("limit.bytes-out = \"1 KiB\"");
    full.set_allowance(Arc::new(Allowance::full(limit)));
    assert!(!full.has_no_bytes());
    let spent = Allowance::new(limit, Arc::default());
    spent.note(limit);
    let empty = limited("limit.bytes-out = \"1 KiB\"");
    empty.set_allowance(Arc::new(spent));
    assert!(empty.has_no_bytes());
}

#[test]
fn a_granted_exception_that_is_not_in_force_has_its_reason() {
    let reasons = [("G".to_owned(), Arc::from("no group"))].into();
    let none = Exceptions::new(Vec::new()).without(reasons);
    assert_eq!(none.why_not("G").map(|it| &**it), Some("no group"));
    assert_eq!(none.why_not("H"), None);
}

#[test]
fn a_grant_for_a_session_is_for_its_token_and_its_children() {
    let policy = with("");
    let granted = |verified| {
        let text = format!(
            "{{\"id\": \"G\", \"reason\": \"r\", \"reviewer\": [\"uid:0\"], \
             \"expires\": \"{END}\", \"to\": {{\"hosts\": [\"a.example.net\"]}}, \
             \"from\": {{\"session\": {{\"id\": \"s\", \"verified\": {verified}}}}}}}"
        );
        let grant: Grant = serde_json::from_str(&text).unwrap();
        policy.compile_grant(&grant, "ledger:7").unwrap()
    };
    let passes = |session: Option<(&str, Option<&str>, bool)>, verified: bool| {
        let mut asking = asking(&policy, "standard");
        asking.who.session = session.map(|(id, root, verified)| SessionEvidence {
            id: id.into(),
            root: root.map(Into::into),
            verified,
        });
        let target = Target::from_connect(b"a.example.net:443").unwrap();
        let query = Query {
            who: &asking.who,
            target: &target,
            attempt: Attempt::Connect,
        };
        let exceptions = Exceptions::new(vec![Arc::new(granted(verified))]);
        let live = InForce {
            exceptions: &exceptions,
            now: before(END),
            is_open: false,
        };
        let decision = policy.decide_with(&query, Some(live));
        assert!(decision.verdict == Verdict::Deny || *decision.rule.location == *"ledger:7");
        decision.verdict == Verdict::Allow
    };
    assert!(passes(Some(("s", None, true)), true));
    assert!(passes(Some(("child", Some("s"), true)), true));
    assert!(!passes(Some(("s", None, false)), true));
    assert!(passes(Some(("s", None, false)), false));
    assert!(!passes(Some(("other", None, true)), true));
    assert!(!passes(None, true));
}

#[test]
fn a_grant_that_the_policy_cannot_read_is_refused() {
    let policy = with("");
    let text = format!(
        "{{\"id\": \"G\", \"reason\": \"r\", \"reviewer\": [\"uid:0\"], \"expires\": \"{END}\", \
         \"to\": {{\"hosts\": [\"a.example.net\"]}}, \"from\": {{\"groups\": [\"nosuch\"]}}}}"
    );
    let mut grant: Grant = serde_json::from_str(&text).unwrap();
    assert!(policy.compile_grant(&grant, "ledger:1").is_err());
    grant.from.groups.clear();
    assert!(policy.compile_grant(&grant, "ledger:1").is_ok());
    for hosts in [vec![], vec!["*.com".to_owned()], vec!["*".to_owned()]] {
        grant.to.hosts = hosts;
        assert!(
            policy.compile_grant(&grant, "ledger:1").is_err(),
            "{grant:?}"
        );
    }
}

#[test]
fn exceptions_for_one_host_are_found_by_their_callers() {
    let one = |at: usize, from: &str| {
        let lines = format!("to.hosts = [\"a.example.net\"]\n{from}");
        exception(&format!("E{at}"), &lines)
    };
    let many: String = (0..2_000)
        .map(|at| match at % 2 {
            0 => one(
                at,
                &format!("from.repositories = [\"github.com/Acme/app-{at}\"]"),
            ),
            _ => one(at, &format!("from.subjects = [\"user-{at}@acme.example\"]")),
        })
        .collect();
    let wild = one(2_000, "from.repositories = [\"github.com/acme/x-*\"]");
    let policy = with(&format!("{many}{wild}"));
    let exceptions = Exceptions::new(policy.exceptions().to_vec());
    let of = |repository: Option<&str>, subject: Option<&str>| {
        let mut asking = asking(&policy, "standard");
        asking.who.repository = repository.map(Into::into);
        asking.who.subject = subject.map(Into::into);
        let (found, asked) = exceptions.found_and_asked("a.example.net", &asking.who);
        assert!(asked <= 3, "{asked} exceptions were looked at");
        found
    };
    assert_eq!(
        of(Some("github.com/acme/app-10"), None).as_deref(),
        Some("E10")
    );
    assert_eq!(
        of(None, Some("user-11@acme.example")).as_deref(),
        Some("E11")
    );
    let both = of(Some("github.com/acme/app-12"), Some("user-11@acme.example"));
    assert_eq!(both.as_deref(), Some("E11"), "the first that was written");
    assert_eq!(
        of(Some("github.com/acme/x-1"), None).as_deref(),
        Some("E2000")
    );
    assert_eq!(of(Some("github.com/acme/app-11"), None), None);
    assert_eq!(of(None, None), None);
}
