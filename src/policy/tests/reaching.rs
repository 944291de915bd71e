//! Tests of rules that decide nothing, and of rules that tunnels bypass.

use super::*;

/// Returns the codes of the warnings of some rules over [`TIERS`], with their messages.
fn warned(rules: &str) -> Vec<(&'static str, String)> {
    let found = of_severity(&format!("{TIERS}{rules}"), Severity::Warning);
    let said = |finding: Diagnostic| (finding.code, finding.label);
    found.into_iter().map(said).collect()
}

fn rule(id: &str, lines: &str) -> String {
    format!("[[rule]]\nid = \"{id}\"\n{lines}\n")
}

#[test]
fn a_rule_that_another_one_covers_is_shadowed() {
    let wide = rule(
        "wide",
        "verdict = \"allow\"\nto.hosts = [\"a.example.com\"]",
    );
    let narrow = |more: &str| {
        rule(
            "narrow",
            &format!("verdict = \"allow\"\nto.hosts = [\"a.example.com\"]\n{more}"),
        )
    };
    let shadowed = warned(&format!("{wide}{}", narrow("from.tiers = [\"open\"]")));
    assert_eq!(shadowed.len(), 1, "{shadowed:?}");
    assert_eq!(shadowed[0].0, "shadowed");
    assert!(
        shadowed[0].1.starts_with("wide (test.toml:"),
        "{shadowed:?}"
    );
    assert_eq!(
        warned(&format!("{wide}{}", narrow("to.ports = [8443]"))),
        []
    );
    assert_eq!(
        warned(&format!("{}{wide}", narrow("from.tiers = [\"open\"]"))),
        []
    );
}

#[test]
fn a_rule_for_a_private_network_without_a_grant_never_matches() {
    let network = |grant: &str| {
        rule(
            "net",
            &format!("verdict = \"allow\"\nto.hosts = [\"10.0.0.0/8\"]\n{grant}"),
        )
    };
    let found = of_severity(&format!("{TIERS}{}", network("")), Severity::Warning);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code, "never-matches");
    let help = found[0].help.as_deref();
    assert_eq!(
        help,
        Some("write `grant.addresses = [\"10.0.0.0/8\"]` beside `to.hosts`")
    );
    assert_eq!(warned(&network("grant.addresses = [\"10.0.0.0/8\"]")), []);
    assert_eq!(warned(&network("grant.addresses = [\"10.2.0.0/16\"]")), []);
}

#[test]
fn a_deny_without_hosts_is_seen_to_come_first() {
    let deny = rule("no", "verdict = \"deny\"\nto.categories = [\"unknown\"]");
    let allow = rule("yes", "verdict = \"allow\"\nto.hosts = [\"a.example.com\"]");
    let found = warned(&format!("{deny}{allow}"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "never-matches");
    assert!(
        found[0].1.starts_with("denied first by no (test.toml:"),
        "{found:?}"
    );
    let of_open = deny.replace("to.categories", "from.tiers = [\"open\"]\nto.categories");
    assert_eq!(warned(&format!("{of_open}{allow}")), []);
}

#[test]
fn conditions_that_exclude_each_other_never_match() {
    let found = warned(&rule(
        "none",
        "verdict = \"allow\"\nto.hosts = [\"packages.example\"]\nto.categories = [\"telemetry\"]",
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "never-matches");
}

#[test]
fn a_rule_is_not_enforced_where_tunnels_pass_uninspected() {
    let deny = |more: &str| {
        rule(
            "no-push",
            &format!(
                "verdict = \"deny\"\nto.categories = [\"source-control\"]\n\
                 does.actions = [\"write\"]\n{more}"
            ),
        )
    };
    let policy = with_rules(&deny(""));
    let tiers = |policy: &Policy| -> Vec<String> {
        let all = unenforced(policy).into_iter();
        let of_rule = all.filter(|it| &*it.rule.name == "no-push");
        of_rule.map(|it| it.tier.to_string()).collect()
    };
    // In the other tiers no tunnel to a forge passes.
    assert_eq!(tiers(&policy), ["open"]);
    assert!(tiers(&with_rules(&deny("grant.inspect = true"))).is_empty());
    let standard = with_rules(&deny("from.tiers = [\"restricted\"]"));
    assert!(tiers(&standard).is_empty());
}

#[test]
fn a_tier_list_that_tunnels_escape_is_told_with_its_name() {
    let policy = with_rules("");
    let found: Vec<String> = unenforced(&policy)
        .iter()
        .map(|it| format!("{} {}", it.tier, it.rule.name))
        .collect();
    assert!(
        found.contains(&"standard tier.standard.deny".to_owned()),
        "{found:?}"
    );
}

#[test]
fn hosts_of_allow_rules_that_nothing_labels_are_listed() {
    let policy = with_rules(
        r#"
        [[destination]]
        category = "webfetch"
        hosts = ["handbook.acme.example", "*.docs.acme.example"]
        [[rule]]
        id = "allowed"
        verdict = "allow"
        to.hosts = ["handbook.acme.example", "a.docs.acme.example", "*.docs.acme.example",
          "wiki.acme.example", "*.apps.acme.example", "api.model.example", "10.2.0.0/16"]
        grant.addresses = ["10.2.0.0/16"]
        [[rule]]
        id = "denied"
        verdict = "deny"
        to.hosts = ["paste.example"]
        "#,
    );
    let found = policy.unlabelled();
    assert_eq!(found.hosts, ["*.apps.acme.example", "wiki.acme.example"]);
    assert_eq!(found.count, 2);
    // The output of `check` labels them.
    let labelled = with_rules(&format!(
        "{}[[rule]]\nid = \"allowed\"\nverdict = \"allow\"\n\
         to.hosts = [\"wiki.acme.example\", \"*.apps.acme.example\"]\n",
        found.destination()
    ));
    assert_eq!(labelled.unlabelled(), Unlabelled::default());
}

/// Returns the rules and lists that tunnels bypass.
fn unenforced(policy: &Policy) -> Vec<Unenforced> {
    reach_findings(&source::Policy::default(), policy).1
}

#[test]
fn rules_are_compared_in_a_policy_of_many_hosts() {
    let rule = |id: &str, hosts: &mut dyn Iterator<Item = usize>| {
        let hosts: Vec<String> = hosts.map(|at| format!("\"h{at}.acme.example\"")).collect();
        format!(
            "[[rule]]\nid = \"{id}\"\nverdict = \"allow\"\nto.hosts = [{}]\n",
            hosts.join(",")
        )
    };
    let many = rule("many", &mut (0..50_001));
    let text = format!("{TIERS}{many}{}", rule("again", &mut (7..9)));
    let (policy, _) = try_compile(&text);
    let (found, _) = reach_findings(&read(&text), &policy.expect("a policy"));
    let told: Vec<_> = found
        .iter()
        .map(|it| (it.code, it.message.as_str()))
        .collect();
    assert_eq!(told, [("shadowed", "rule `again` makes no difference")]);
}
