//! Tests of the texts of findings, and that all are reported at once.

use super::*;

/// Message, label and help.
type Said = (String, String, String);

fn said_of(finding: Diagnostic) -> Said {
    (
        finding.message,
        finding.label,
        finding.help.unwrap_or_default(),
    )
}

fn errors(text: &str) -> Vec<Said> {
    of_severity(text, Severity::Error)
        .into_iter()
        .map(said_of)
        .collect()
}

fn warnings(rules: &str) -> Vec<Said> {
    let text = format!("{TIERS}{rules}");
    of_severity(&text, Severity::Warning)
        .into_iter()
        .map(said_of)
        .collect()
}

fn rule_error(lines: &str) -> Said {
    let text = format!("{TIERS}[[rule]]\nid = \"x\"\n{lines}\n");
    let mut found = errors(&text);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn words(message: &str, label: &str, help: &str) -> Said {
    (message.into(), label.into(), help.into())
}

#[test]
fn tiers_and_their_order_agree() {
    assert_eq!(
        errors("[tier.a]\n[tier.b]\n"),
        [words(
            "tier `a` is not in the order",
            "no `[tiers]` says how strict it is",
            "write `[tiers]` with `order = [\"a\", \"b\"]`, loosest first"
        )]
    );
    assert_eq!(
        errors("[tiers]\norder = [\"open\", \"gone\"]\n[tier.open]\n[tier.opne]\n"),
        [
            words(
                "tier `opne` is not in the order",
                "no tier of that name",
                "did you mean `open`?"
            ),
            words(
                "tier `gone` is in the order, but there is no such table",
                "no table of that name",
                "write `[tier.gone]`"
            ),
        ]
    );
    let twice = errors("[tiers]\norder = [\"a\", \"a\"]\n[tier.a]\n");
    assert_eq!(twice[0].0, "tier `a` is in the order twice");
    let none = errors("[tiers]\norder = []\n");
    assert_eq!(none[0].0, "a policy needs at least one tier");
    let unattributed = errors("[tiers]\norder = [\"a\"]\nunattributed = \"b\"\n[tier.a]\n");
    assert_eq!(unattributed[0].0, "unknown tier `b`");
}

#[test]
fn there_are_at_most_16_tiers_and_128_groups() {
    let names: Vec<String> = (0..17).map(|at| format!("\"t{at}\"")).collect();
    let tables: Vec<String> = (0..17)
        .map(|at| format!("[tier.t{at}]\ndefault = \"allow\"\n"))
        .collect();
    let found = errors(&format!(
        "[tiers]\norder = [{}]\n{}",
        names.join(", "),
        tables.concat()
    ));
    assert_eq!(found[0].0, "there are more than 16 tiers");
    let groups: Vec<String> = (0..129)
        .map(|at| format!("[group.g{at}]\nfloor = \"open\"\n"))
        .collect();
    let found = errors(&format!("{TIERS}{}", groups.concat()));
    assert_eq!(found[0].0, "there are more than 128 groups");
}

#[test]
fn words_of_tiers_are_known_ones() {
    let found = errors(
        r#"
        [tiers]
        order = ["a"]
        [tier.a]
        mode = "observed"
        default = "reject"
        opaque = "ask"
        allow = ["model-apis", "auth:reed"]
        "#,
    );
    assert_eq!(
        found,
        [
            words(
                "unknown mode `observed`",
                "no mode of that name",
                "did you mean `observe`?"
            ),
            words(
                "unknown default `reject`",
                "no default of that name",
                "known here: `deny`, `ask`, `allow`"
            ),
            words(
                "unknown opaque `ask`",
                "no opaque of that name",
                "known here: `allow`, `deny`"
            ),
            words(
                "unknown category `model-apis`",
                "no category of that name",
                "did you mean `model-api`?"
            ),
            words(
                "unknown action `reed`",
                "no action of that name",
                "did you mean `read`?"
            ),
        ]
    );
}

#[test]
fn a_rule_that_would_allow_everything_is_refused() {
    assert_eq!(
        rule_error("verdict = \"allow\""),
        words(
            "rule `x` allows every host",
            "neither `to.hosts` nor `to.categories`",
            "name hosts, or set `default = \"allow\"` in a tier that may reach everything"
        )
    );
    for wide in ["*", "*.com", "com", "*.co.uk", "a*.b.com", "*.*.x.com"] {
        let (_, _, help) = rule_error(&format!("verdict = \"allow\"\nto.hosts = [\"{wide}\"]"));
        assert!(!help.is_empty(), "{wide}");
    }
    assert_eq!(
        rule_error("verdict = \"allow\"\nto.hosts = [\"*.co.uk\"]"),
        words(
            "`*.co.uk` is wider than any one owner",
            "a public suffix: anyone can register a name there",
            "name the domains that are meant, e.g. `*.example.com`"
        )
    );
}

#[test]
fn parts_of_rules_say_what_is_wrong_with_them() {
    let host = "to.hosts = [\"a.example.com\"]\nverdict = \"allow\"\n";
    assert_eq!(
        rule_error("to.hosts = [\"*.openai..com\"]\nverdict = \"allow\""),
        words(
            "`*.openai..com` is not a host pattern",
            "empty label between the dots",
            "write `*.openai.com` to match every host below openai.com"
        )
    );
    assert_eq!(
        rule_error("to.hosts = [\"a.example.com\"]\nverdict = \"permit\"").0,
        "unknown verdict `permit`"
    );
    assert_eq!(
        rule_error(&format!("{host}to.ports = [0]")),
        words("not a port", "out of range", "ports are 1 to 65535")
    );
    assert_eq!(
        rule_error(&format!("{host}to.ports = [65979]")).0,
        "not a port"
    );
    assert_eq!(
        rule_error(&format!("{host}to.ports = [80]\ndoes.methods = [\"get\"]")),
        words(
            "`get` is not a method",
            "methods are case-sensitive",
            "write `GET`"
        )
    );
    assert_eq!(
        rule_error(&format!("{host}to.ports = [80]\ndoes.paths = [\"/a**\"]")).1,
        "`**` stands alone, between slashes"
    );
    assert_eq!(
        rule_error(&format!("{host}grant.addresses = [\"169.254.0.0/16\"]")),
        words(
            "`169.254.0.0/16` cannot be granted",
            "lies in 169.254.0.0/16, which no rule can open",
            "take it out: the floor cannot be configured away"
        )
    );
    assert_eq!(
        rule_error(&format!("{host}from.tiers = [\"standart\"]")),
        words(
            "unknown tier `standart`",
            "no tier of that name",
            "did you mean `standard`?"
        )
    );
    assert_eq!(
        rule_error(&format!("{host}from.groups = [\"staff\"]")),
        words(
            "unknown group `staff`",
            "no group of that name",
            "no group is written"
        )
    );
    assert_eq!(
        rule_error(&format!("{host}to.categories = [\"models\"]")).0,
        "unknown category `models`"
    );
}

#[test]
fn ids_are_unique_and_sound() {
    let rule = |id: &str| {
        format!("[[rule]]\nid = \"{id}\"\nverdict = \"deny\"\nto.hosts = [\"a.example.com\"]\n")
    };
    let found = errors(&format!("{TIERS}{}{}", rule("one"), rule("one")));
    assert_eq!(found[0].0, "two rules have the id `one`");
    for id in ["", "floor", "tier.standard.allow", "a b", &"x".repeat(65)] {
        let found = errors(&format!("{TIERS}{}", rule(id)));
        assert_eq!(found[0].0, format!("`{id}` cannot name a rule"));
    }
}

#[test]
fn members_and_repositories_say_what_is_wrong_with_them() {
    let found = errors(&format!(
        "{TIERS}{}",
        r#"
        [group.a]
        floor = "open"
        members = ["ana", "user:ana", "claim:x", "subject:a*b", "subject:", "san:"]
        [[repository]]
        match = "https://github.com/acme/x.git"
        tier = "opne"
        "#
    ));
    let labels: Vec<&str> = found.iter().map(|(_, label, _)| label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "no kind in front",
            "not a kind of evidence",
            "no `=` behind the claim's name",
            "an empty pattern",
            "an empty pattern",
            "no tier of that name",
            "only host and path are matched",
        ]
    );
    assert_eq!(found[6].2, "write `github.com/acme/x`");
}

#[test]
fn every_finding_comes_at_once_and_points_at_its_place() {
    let text = format!(
        "{TIERS}{}",
        r#"
        [[rule]]
        id = "a"
        verdict = "allow"
        to.hosts = ["*", "ok.example.com", "x:1"]
        to.ports = [70000]
        [[rule]]
        id = "b"
        verdict = "alow"
        from.tiers = ["nope"]
        "#
    );
    let found = of_severity(&text, Severity::Error);
    let places: Vec<&str> = found
        .iter()
        .map(|finding| &text[finding.place.as_ref().unwrap().span.clone()])
        .collect();
    assert_eq!(
        places,
        ["\"*\"", "\"x:1\"", "70000", "\"alow\"", "\"nope\""]
    );
    assert_eq!(found[0].related[0].1, "in this rule");
}

#[test]
fn what_is_open_to_many_tenants_is_a_warning() {
    let rules = "[[rule]]\nid = \"x\"\nverdict = \"allow\"\nto.hosts = [\"*.github.io\"]\n";
    assert_eq!(
        warnings(rules),
        [words(
            "`*.github.io` is wider than any one owner",
            "multi-tenant suffix: anyone can get a name there",
            "name the hosts that are meant, each by its whole name"
        )]
    );
    let exact = "[[rule]]\nid = \"x\"\nverdict = \"allow\"\nto.hosts = [\"acme.github.io\"]\n";
    assert_eq!(warnings(exact), []);
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let found = warnings(
        r#"
        [group.unused]
        members = ["subject:x"]
        [[rule]]
        id = "no"
        verdict = "deny"
        to.hosts = ["a.example.com"]
        grant.addresses = ["10.0.0.0/8"]
        grant.raw = true
        grant.upgrade = false
        [[rule]]
        id = "public"
        verdict = "allow"
        to.hosts = ["b.example.com"]
        grant.addresses = ["8.8.8.0/24"]
        "#,
    );
    let messages: Vec<&str> = found
        .iter()
        .map(|(message, _, _)| message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "`8.8.8.0/24` needs no grant",
            "`grant.addresses` has no effect in a rule that says deny",
            "`grant.raw` has no effect in a rule that says deny",
            "group `unused` makes no difference",
        ]
    );
}

#[test]
fn a_rule_that_can_never_match_is_a_warning() {
    let found = warnings(
        r#"
        [[rule]]
        id = "no"
        verdict = "deny"
        to.hosts = ["*.example.com"]
        from.tiers = ["standard", "restricted"]
        [[rule]]
        id = "dead"
        verdict = "allow"
        to.hosts = ["a.example.com", "*.b.example.com"]
        from.tiers = ["standard"]
        [[rule]]
        id = "alive-elsewhere"
        verdict = "allow"
        to.hosts = ["a.example.com"]
        [[rule]]
        id = "alive-there"
        verdict = "allow"
        to.hosts = ["a.example.com", "example.com"]
        from.tiers = ["standard"]
        [[rule]]
        id = "dead-category"
        verdict = "allow"
        to.categories = ["telemetry"]
        from.tiers = ["standard"]
        "#,
    );
    assert_eq!(
        found,
        [
            words(
                "rule `dead` can never match",
                "denied first by no (test.toml:16)",
                "a deny is final: narrow it, or leave this rule out"
            ),
            words(
                "rule `dead-category` can never match",
                "denied first by tier.standard.deny (test.toml:10)",
                "a deny is final: narrow it, or leave this rule out"
            ),
        ]
    );
}

#[test]
fn a_rule_that_says_what_an_earlier_one_says_is_a_warning() {
    let rule = |id: &str, tier: &str| {
        format!(
            "[[rule]]\nid = \"{id}\"\nverdict = \"allow\"\nfrom.tiers = [\"{tier}\"]\n\
             to.hosts = [\"a.example.com\"]\n"
        )
    };
    let found = warnings(&[rule("a", "open"), rule("b", "standard"), rule("c", "open")].concat());
    assert_eq!(
        found,
        [words(
            "rule `c` says what rule `a` says",
            "never named in a record",
            "leave one of them out"
        )]
    );
}

#[test]
fn methods_and_paths_of_tunnels_are_a_warning() {
    let rule = |lines: &str| {
        format!(
            "[[rule]]\nid = \"x\"\nto.hosts = [\"a.example.com\"]\ndoes.methods = [\"GET\"]\n\
             {lines}\n"
        )
    };
    assert_eq!(
        warnings(&rule("verdict = \"allow\"")),
        [words(
            "`does.methods` are not seen in a tunnel: a CONNECT passes whole",
            "holds for plain HTTP only",
            "write `grant.inspect = true`, or `to.ports = [80]` where plain HTTP is meant"
        )]
    );
    assert_eq!(warnings(&rule("verdict = \"allow\"\nto.ports = [80]")), []);
    assert_eq!(
        warnings(&rule("verdict = \"allow\"\nfrom.tiers = [\"restricted\"]")),
        []
    );
    assert_eq!(
        warnings(&rule("verdict = \"deny\""))[0].0,
        "rule `x` is not enforced in tier `open`"
    );
}

#[test]
fn a_tier_in_which_nothing_can_pass_is_a_warning() {
    let text = "[tiers]\norder = [\"a\"]\n[tier.a]\n";
    let found: Vec<Said> = of_severity(text, Severity::Warning)
        .into_iter()
        .map(said_of)
        .collect();
    assert_eq!(
        found,
        [words(
            "nothing can pass in tier `a`",
            "denies by default, and nothing allows",
            "write e.g. `allow = [\"model-api\", \"auth\"]`"
        )]
    );
}

#[test]
fn reading_from_unknown_hosts_through_tunnels_is_a_warning() {
    let text = |opaque: &str| {
        format!(
            "[tiers]\norder = [\"a\"]\n[tier.a]\nopaque = \"{opaque}\"\nallow = [\"unknown:read\"]\n"
        )
    };
    let found = of_severity(&text("allow"), Severity::Warning);
    assert_eq!(found[0].message, "`unknown:read` lets every tunnel pass");
    assert!(of_severity(&text("deny"), Severity::Warning).is_empty());
}
