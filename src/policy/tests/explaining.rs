//! Tests of the text of an explanation.

use super::*;

const RULES: &str = r#"
[group.staff]
members = ["subject:s"]
[[destination]]
category = "webfetch"
hosts = ["docs.example.com", "*.pages.example.org"]
[[rule]]
id = "docs"
verdict = "allow"
from.tiers = ["standard"]
to.hosts = ["docs.example.com", "*.pages.example.org"]
[[rule]]
id = "staff"
verdict = "allow"
from.groups = ["staff"]
to.hosts = ["intra.example.net"]
[[rule]]
id = "restricted-only"
verdict = "allow"
from.tiers = ["restricted"]
to.hosts = ["special.example.net"]
[[rule]]
id = "box"
verdict = "allow"
to.hosts = ["box.internal"]
[[rule]]
id = "no"
verdict = "deny"
to.hosts = ["bad.example.com"]
"#;

fn policy() -> Policy {
    with_rules(RULES)
}

#[test]
fn a_refusal_names_what_was_nearest() {
    let policy = policy();
    let nearest = |host: &str| asking(&policy, "standard").explain(host).nearest;
    assert_eq!(
        nearest("www.example.com:443"),
        "nearest rule docs: host docs.example.com"
    );
    assert_eq!(
        nearest("docs.example.com:8443"),
        "nearest rule docs: port 8443 not in 443"
    );
    assert_eq!(
        nearest("intra.example.net:443"),
        "nearest rule staff: groups staff"
    );
    assert_eq!(
        nearest("special.example.net:443"),
        "nearest rule restricted-only: not for tier standard"
    );
    let owner = "nearest rule docs: host *.pages.example.org";
    assert_eq!(nearest("x.example.org:443"), owner);
    assert_eq!(
        nearest("x.other.org:443"),
        "",
        "no owner has the name that these share"
    );
    let private = nearest("box.internal:443");
    assert_eq!(private, "nearest rule box: addresses do not name it");
    assert_eq!(
        nearest("y.pages.example.org:22"),
        "nearest rule docs: port 22 not in 443"
    );
    assert_eq!(nearest("unheard.example:443"), "");
    assert_eq!(
        nearest("docs.example.com:443"),
        "",
        "nothing to explain about what passes"
    );
    let restricted = asking(&policy, "restricted")
        .explain("packages.example:443")
        .nearest;
    assert_eq!(
        restricted,
        "nearest tier.restricted.allow: not seen in a tunnel"
    );
    let other = asking(&policy, "restricted")
        .explain("api.model.example:443")
        .nearest;
    assert_eq!(
        other,
        "nearest tier.standard.allow: not for tier restricted"
    );
}

#[test]
fn what_is_nearest_is_short_ascii() {
    let long = "a".repeat(60);
    let policy = with_rules(&format!(
        "[[rule]]\nid = \"{long}\"\nverdict = \"allow\"\n\
         to.hosts = [\"{long}.{long}.{long}.example.com\"]\n"
    ));
    let nearest = asking(&policy, "standard")
        .explain("x.example.com:443")
        .nearest;
    assert_eq!(nearest.len(), 160);
    assert!(nearest.is_ascii());
}

#[test]
fn the_stage_category_and_tier_are_told() {
    let policy = policy();
    let standard = asking(&policy, "standard");
    let docs = standard.explain("docs.example.com:443");
    assert_eq!(docs.stage, Stage::Allow);
    assert_eq!(docs.category_from, "destination test.toml:18");
    assert_eq!(&*docs.tier, "standard");
    assert_eq!(docs.looked_at[0].miss, None);
    assert_eq!(docs.nearest_allow, None);
    assert_eq!(docs.suggestion, None);
    let model = standard.explain("api.model.example:443");
    assert_eq!(model.category_from, "catalogue small.toml:5");
    assert_eq!(standard.explain("bad.example.com:443").stage, Stage::Deny);
    assert_eq!(standard.explain("10.0.0.1:443").stage, Stage::Floor);
    let unknown = standard.explain("unheard.example:443");
    assert_eq!(
        (unknown.stage, unknown.category_from.as_str()),
        (Stage::Default, "")
    );
}

#[test]
fn rules_looked_at_say_the_first_condition_that_failed() {
    let policy = policy();
    let explained = asking(&policy, "standard").explain("www.example.com:443");
    let shown: Vec<String> = explained
        .looked_at
        .iter()
        .map(|looked| {
            let miss = looked.miss.as_deref().unwrap_or("matches");
            format!("{} {}: {miss}", looked.verdict, looked.rule.name)
        })
        .collect();
    assert_eq!(
        shown[0],
        "allow docs: host docs.example.com \u{2260} www.example.com"
    );
    assert_eq!(
        shown[1],
        "deny no: host bad.example.com \u{2260} www.example.com"
    );
    assert_eq!(shown.len(), 5);
    assert_eq!(explained.others, policy.rules.len() - 5);
}

#[test]
fn what_is_suggested_would_let_the_flow_pass() {
    for (tier, host) in [
        ("standard", "cdn.example.net:443"),
        ("standard", "cdn.example.net:8443"),
        ("standard", "10.1.2.3:443"),
        ("restricted", "api.model.example:443"),
        ("standard", "[fd12::1]:443"),
    ] {
        let policy = policy();
        let suggestion = asking(&policy, tier).explain(host).suggestion.expect(host);
        let better = with_rules(&format!("{RULES}{suggestion}"));
        assert_eq!(
            asking(&better, tier).connect(host).verdict,
            Verdict::Allow,
            "{suggestion}"
        );
    }
}

#[test]
fn nothing_is_suggested_where_nothing_helps() {
    let policy = policy();
    for host in [
        "bad.example.com:443",
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
    ] {
        assert_eq!(
            asking(&policy, "standard").explain(host).suggestion,
            None,
            "{host}"
        );
    }
}

#[test]
fn a_suggestion_is_as_narrow_as_the_flow() {
    let policy = policy();
    let mut who = asking(&policy, "standard").who;
    who.repository = Some("github.com/acme/app".into());
    let url = Url::parse(b"http://cdn.example.net:8080/x").unwrap();
    let attempt = Attempt::Request {
        method: "POST",
        path: &url.path,
        upgrade: false,
        tls: false,
        request_facts: None,
    };
    let query = |who| Query {
        who,
        target: &url.target,
        attempt,
    };
    let suggestion = explain(&policy, &query(&who)).suggestion.expect("a rule");
    for line in [
        "from.tiers = [\"standard\"]",
        "from.repositories = [\"github.com/acme/app\"]",
        "to.hosts = [\"cdn.example.net\"]",
        "to.ports = [8080]",
        "does.methods = [\"POST\"]",
    ] {
        assert!(
            suggestion.lines().any(|found| found == line),
            "{line}: {suggestion}"
        );
    }
    let better = with_rules(&format!("{RULES}{suggestion}"));
    assert_eq!(
        better.decide(&query(&who)).verdict,
        Verdict::Allow,
        "{suggestion}"
    );
    let mut other = who.clone();
    other.repository = Some("github.com/acme/other".into());
    assert_eq!(
        better.decide(&query(&other)).verdict,
        Verdict::Deny,
        "{suggestion}"
    );
}
