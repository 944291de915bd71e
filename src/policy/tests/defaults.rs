//! Tests of a gate without tiers: the embedded default over the built-in catalogue.

use super::*;

use Verdict::{Allow, Ask, Deny};

fn policy() -> Policy {
    let (policy, findings) = compile(&source::Policy::default(), &built_in());
    assert!(findings.is_empty(), "{findings:#?}");
    policy.unwrap()
}

#[test]
fn the_default_has_three_tiers_and_unattributed_callers_are_not_in_the_loosest() {
    let policy = policy();
    let names: Vec<&str> = policy.tiers().iter().map(|name| &**name).collect();
    assert_eq!(names, ["open", "standard", "restricted"]);
    let who = policy.who(&Facts::default());
    assert_eq!(&**policy.tier_name(who.tier), "standard");
    assert_eq!(policy.rule_count(), 0);
}

#[test]
fn the_standard_tier_lets_work_go_on() {
    let policy = policy();
    let standard = asking(&policy, "standard");
    for (host, category) in [
        ("api.anthropic.com:443", Category::ModelApi),
        ("github.com:443", Category::SourceControl),
        ("rubygems.org:443", Category::PackageRegistry),
        ("proxy.golang.org:443", Category::PackageRegistry),
    ] {
        let decision = standard.connect(host);
        assert_eq!(
            said(&decision),
            (Allow, "allowed", "tier.standard.allow"),
            "{host}"
        );
        assert_eq!(
            (decision.category, decision.basis),
            (category, Basis::Host),
            "{host}"
        );
    }
}

#[test]
fn the_standard_tier_refuses_what_it_does_not_know_and_what_reports_home() {
    let policy = policy();
    let standard = asking(&policy, "standard");
    let unknown = standard.connect("example.com:443");
    assert_eq!(
        said(&unknown),
        (Deny, "not_allowed", "tier.standard.default")
    );
    assert_eq!(&*unknown.rule.location, "built-in/default.toml:14");
    let plain = standard.request("GET", "http://example.com/");
    assert_eq!(said(&plain), (Deny, "not_allowed", "tier.standard.default"));
    let event = standard.request("POST", "https://api.anthropic.com/api/event_logging/batch");
    assert_eq!(
        said(&event),
        (Deny, "category_denied", "tier.standard.deny")
    );
    let publish = standard.request("PUT", "https://rubygems.org/x");
    assert_eq!(
        said(&publish),
        (Deny, "action_denied", "tier.standard.deny")
    );
    let push = standard.request("POST", "https://github.com/a/b.git/git-receive-pack");
    assert_eq!(said(&push), (Ask, "needs_approval", "tier.standard.ask"));
}

#[test]
fn the_open_tier_allows_all_but_the_floor() {
    let policy = policy();
    let open = asking(&policy, "open");
    assert_eq!(open.connect("example.com:443").verdict, Allow);
    assert_eq!(
        said(&open.connect("169.254.169.254:80")),
        (Deny, "address_denied", "floor")
    );
}

#[test]
fn the_restricted_tier_has_no_documentation() {
    let policy = policy();
    let restricted = asking(&policy, "restricted");
    assert_eq!(restricted.connect("api.anthropic.com:443").verdict, Allow);
    assert_eq!(
        restricted.connect("docs.rs:443").category,
        Category::Webfetch
    );
    assert_eq!(said(&restricted.connect("docs.rs:443")).1, "not_allowed");
}

#[test]
fn rules_alone_keep_the_default_tiers_and_tiers_replace_them_whole() {
    let policy =
        compiled("[[rule]]\nid = \"x\"\nverdict = \"allow\"\nto.hosts = [\"example.com\"]\n");
    assert_eq!(policy.tiers().len(), 3);
    assert_eq!(
        said(&asking(&policy, "standard").connect("example.com:443")).2,
        "x"
    );
    let policy = compiled("[tiers]\norder = [\"one\"]\n[tier.one]\nallow = [\"auth\"]\n");
    assert_eq!(policy.tiers().len(), 1);
}
