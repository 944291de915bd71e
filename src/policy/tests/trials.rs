//! Tests of examples and trials.

use super::*;

fn errors(rules: &str) -> Vec<(String, String)> {
    let findings = of_severity(&format!("{TIERS}{rules}"), Severity::Error);
    findings
        .into_iter()
        .map(|finding| (finding.message, finding.label))
        .collect()
}

#[test]
fn examples_that_hold_are_listed_for_each_tier_of_their_rule() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "docs"
        verdict = "allow"
        from.tiers = ["open", "standard"]
        to.hosts = ["docs.example.com"]
        allows = ["https://docs.example.com/x", "docs.example.com:443", "http://docs.example.com/"]
        denies = ["https://docs.example.com.evil.example/", "docs.example.com:22"]
        "#,
    );
    let results = run_trials(&policy);
    assert!(results.iter().all(|result| result.ok), "{results:#?}");
    let shown: Vec<String> = results
        .iter()
        .take(3)
        .map(|result| {
            format!(
                "{}: {} {} in {}",
                result.name, result.entry, result.got, result.caller
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "rule docs: https://docs.example.com/x allow in tier open",
            "rule docs: https://docs.example.com/x allow in tier standard",
            "rule docs: docs.example.com:443 allow in tier open",
        ]
    );
    assert_eq!(results.len(), 10);
}

#[test]
fn an_example_that_does_not_hold_is_an_error_with_its_verdict_rule_and_reason() {
    let found = errors(
        r#"
        [[rule]]
        id = "docs"
        verdict = "allow"
        from.tiers = ["standard"]
        to.hosts = ["docs.example.com"]
        allows = ["docs.example.com:8443"]
        denies = ["api.model.example:443"]
        "#,
    );
    assert_eq!(
        found,
        [
            (
                "rule docs: `docs.example.com:8443` is not allowed".into(),
                "deny in tier standard: port_denied by tier.standard.default (test.toml:7)".into()
            ),
            (
                "rule docs: `api.model.example:443` is not refused".into(),
                "allow in tier standard: allowed by tier.standard.allow (test.toml:8)".into()
            ),
        ]
    );
}

#[test]
fn a_rule_with_groups_is_tried_with_each_alone() {
    let found = errors(
        r#"
        [group.a]
        members = ["subject:a"]
        [group.b]
        members = ["subject:b"]
        [[rule]]
        id = "not-b"
        verdict = "deny"
        from.groups = ["b"]
        to.hosts = ["x.example.com"]
        [[rule]]
        id = "both"
        verdict = "allow"
        from.tiers = ["standard"]
        from.groups = ["a", "b"]
        to.hosts = ["x.example.com"]
        allows = ["x.example.com:443"]
        "#,
    );
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].1,
        "deny in tier standard, group b: denied by not-b (test.toml:20)"
    );
}

#[test]
fn the_default_of_a_tier_may_allow_what_an_example_denies() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "docs"
        verdict = "allow"
        to.hosts = ["docs.example.com"]
        denies = ["other.example.com:443"]
        "#,
    );
    assert_eq!(run_trials(&policy).len(), 3);
    let found = errors(
        r#"
        [[rule]]
        id = "docs"
        verdict = "allow"
        from.tiers = ["open"]
        to.hosts = ["*.example.com"]
        denies = ["docs.example.com:443"]
        "#,
    );
    assert_eq!(
        found[0].1,
        "allow in tier open: allowed by docs (test.toml:16)"
    );
}

#[test]
fn observe_is_tried_as_if_it_were_enforced() {
    let policy = compiled(
        r#"
        [tiers]
        order = ["watch"]
        [tier.watch]
        mode = "observe"
        allow = ["auth"]
        [[trial]]
        name = "nothing else"
        denies = ["example.com:443"]
        rule = "tier.watch.default"
        "#,
    );
    assert!(run_trials(&policy).iter().all(|result| result.ok));
}

#[test]
fn a_trial_says_who_by_repository_tier_or_group() {
    let policy = with_rules(
        r#"
        [[repository]]
        match = "github.com/acme/payments*"
        tier = "restricted"
        [group.contractors]
        members = ["subject:c"]
        floor = "restricted"
        [[trial]]
        name = "by repository"
        from.repositories = ["git@github.com:acme/payments.git"]
        denies = ["pastebin.example:443"]
        rule = "tier.restricted.default"
        [[trial]]
        name = "by tier"
        from.tiers = ["standard"]
        allows = ["api.model.example:443"]
        asks = ["POST https://forge.example/", "POST http://forge.example/"]
        [[trial]]
        name = "by group"
        from.tiers = ["open"]
        from.groups = ["contractors"]
        denies = ["example.com:443"]
        rule = "tier.restricted.default"
        [[trial]]
        name = "unattributed"
        denies = ["169.254.169.254:80"]
        rule = "floor"
        "#
        .replace("\"POST https://forge.example/\", ", "")
        .as_str(),
    );
    assert_eq!(run_trials(&policy).len(), 5);
    assert_eq!(
        &*run_trials(&policy)[0].caller,
        "tier restricted, repository github.com/acme/payments"
    );
}

#[test]
fn a_trial_asserts_the_rule_and_not_only_the_verdict() {
    let found = errors(
        r#"
        [[trial]]
        name = "telemetry"
        from.tiers = ["standard"]
        denies = ["report.example:443"]
        rule = "tier.standard.default"
        "#,
    );
    assert_eq!(
        found,
        [(
            "telemetry: `report.example:443` is not denied by tier.standard.default".into(),
            "deny in tier standard: category_denied by tier.standard.deny (test.toml:10)".into()
        )]
    );
}

#[test]
fn what_is_no_flow_rule_tier_or_group_is_said_at_the_place() {
    let found = errors(
        r#"
        [[trial]]
        name = "wrong"
        from.tiers = ["standart"]
        from.groups = ["nobody"]
        rule = "tier.standard.defualt"
        allows = ["example.com", "get http://example.com/", "GET example.com:443", "ftp://example.com/"]
        "#,
    );
    let messages: Vec<&str> = found.iter().map(|(message, _)| message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "unknown group `nobody`",
            "unknown tier `standart`",
            "unknown rule `tier.standard.defualt`",
            "`example.com` is not a flow",
            "`get http://example.com/` is not a flow",
            "`GET example.com:443` is not a flow",
            "`ftp://example.com/` is not a flow",
        ]
    );
}

#[test]
fn a_policy_whose_trials_fail_does_not_compile() {
    let (policy, _) = try_compile(&format!(
        "{TIERS}[[trial]]\nname = \"x\"\nfrom.tiers = [\"standard\"]\n\
         allows = [\"example.com:443\"]\n"
    ));
    assert!(policy.is_none());
}
