//! Tests of the difference of two policies, as text.

use super::*;

/// Returns each change in one line: direction, verdicts, hosts, ports, tiers, further changes.
fn lines(before: &str, after: &str) -> Vec<String> {
    let found = difference(&with_rules(before), &with_rules(after));
    assert!(found.not_compared.is_empty(), "{:?}", found.not_compared);
    found.changes.iter().map(line).collect()
}

fn line(change: &Change) -> String {
    let direction = match (change.widens, change.narrows) {
        (true, true) => "both",
        (true, false) => "widens",
        (false, true) => "narrows",
        (false, false) => "changes",
    };
    let tiers: Vec<&str> = change.tiers.iter().map(|tier| &**tier).collect();
    let callers = change.callers.join(" ");
    let besides = change.besides.join("; ");
    let text = format!(
        "{direction} {} by {} -> {} by {}: {} at {} in {} {callers}",
        change.before.verdict,
        change.before.rule,
        change.after.verdict,
        change.after.rule,
        change.hosts.join(" "),
        change.ports,
        tiers.join(" "),
    );
    let text = text.trim_end();
    if besides.is_empty() {
        text.to_owned()
    } else {
        format!("{text}; {besides}")
    }
}

const WEB: &str = "[[rule]]\nid = \"web\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
                   to.hosts = [\"docs.example\"]\n";

#[test]
fn the_same_policy_with_other_names_and_places_is_equal() {
    let other = format!("# moved\n\n{}", WEB.replace("\"web\"", "\"docs\""));
    let found = difference(&with_rules(WEB), &with_rules(&other));
    assert_eq!(found.relation, Relation::Equal, "{:#?}", found.changes);
    let split = "[[rule]]\nid = \"a\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
                 to.hosts = [\"docs.example\"]\nto.ports = [443]\n\
                 [[rule]]\nid = \"b\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
                 to.hosts = [\"docs.example\"]\nto.ports = [80]\n";
    // Rule `web` is for 443, and for 80 in plain HTTP; rules `a` and `b` are for both ports in
    // either.
    assert_eq!(
        lines(WEB, split),
        [
            "widens deny by tier.standard.default -> allow by a: docs.example at 443 in standard",
            "widens deny by tier.standard.default -> allow by b: docs.example at 80 in standard",
        ]
    );
}

#[test]
fn a_host_more_widens_and_a_host_less_narrows() {
    let more = WEB.replace("[\"docs.example\"]", "[\"docs.example\", \"wiki.example\"]");
    assert_eq!(
        lines(WEB, &more),
        [
            "widens deny by tier.standard.default -> allow by web: wiki.example at 80, 443 in standard"
        ]
    );
    assert_eq!(
        lines(&more, WEB),
        [
            "narrows allow by web -> deny by tier.standard.default: wiki.example at 80, 443 in standard"
        ]
    );
    let found = difference(&with_rules(WEB), &with_rules(&more));
    assert_eq!(found.relation, Relation::Wider);
    let witness = &found.changes[0].witness;
    assert_eq!(
        witness.command,
        "tidegate explain wiki.example:443 --tier standard"
    );
}

#[test]
fn grants_are_differences() {
    let with = |grant: &str| format!("{WEB}{grant}");
    let of = |grant: &str| lines(WEB, &with(grant));
    let addresses = of("grant.addresses = [\"10.2.0.0/16\"]\n");
    assert_eq!(
        addresses,
        [
            "widens allow by web -> allow by web: docs.example at 80, 443 in standard; \
          may reach private addresses in 10.2.0.0/16"
        ]
    );
    let raw = of("grant.raw = true\n");
    assert!(
        raw[0].ends_with("; may pass bytes that are not TLS"),
        "{raw:?}"
    );
    let upgrade = of("grant.upgrade = true\n");
    assert!(upgrade[0].contains("may pass an upgrade"), "{upgrade:?}");
    // Messages of MCP to a host that is no server are seen, and denied, if TLS is inspected.
    let inspect = of("grant.inspect = true\n");
    assert!(
        inspect.iter().all(|line| line.starts_with("narrows")),
        "{inspect:?}"
    );
    let sealed = "; may no longer pass TLS without inspection";
    assert!(
        inspect.iter().any(|line| line.ends_with(sealed)),
        "{inspect:?}"
    );
    let halves = with("grant.addresses = [\"10.2.0.0/17\", \"10.2.128.0/17\"]\n");
    let whole = with("grant.addresses = [\"10.2.0.0/16\"]\n");
    assert_eq!(lines(&halves, &whole), [""; 0]);
}

#[test]
fn a_request_that_a_tunnel_now_carries_is_wider() {
    let rule = format!("{WEB}does.methods = [\"GET\"]\ngrant.inspect = true\n");
    let opaque = rule.replace("grant.inspect = true\n", "");
    let found = lines(&rule, &opaque);
    let carried =
        "widens deny by tier.standard.default -> allow by web: docs.example at 443 in standard";
    assert!(found.contains(&carried.to_owned()), "{found:#?}");
}

#[test]
fn tiers_groups_and_repositories_are_differences() {
    let observe = compiled(&TIERS.replace(
        "[tier.restricted]\n",
        "[tier.restricted]\nmode = \"observe\"\n",
    ));
    let found = difference(&compiled(TIERS), &observe);
    assert_eq!(found.relation, Relation::Wider);
    assert!(
        found.changes.iter().all(|change| change.after.observed),
        "{:#?}",
        found.changes
    );

    let listed = "[[repository]]\nmatch = \"github.com/acme/payments\"\ntier = \"restricted\"\n";
    let found = lines("", listed);
    assert!(
        found
            .iter()
            .any(|line| line.contains("of github.com/acme/payments")),
        "{found:#?}"
    );
    assert!(
        found.iter().all(|line| line.contains("restricted")),
        "{found:#?}"
    );

    let group = |member: &str| {
        format!("[group.web]\nmembers = [\"subject:{member}\"]\n{WEB}from.groups = [\"web\"]\n")
    };
    let found = lines(&group("ana@acme.example"), &group("*@acme.example"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("widens deny by tier.standard.default -> allow by web"),
        "{found:?}"
    );
    assert!(found[0].contains("as x@acme.example"), "{found:?}");
}

#[test]
fn labels_are_differences() {
    let label = "[[destination]]\ncategory = \"model-api\"\nhosts = [\"m.example\"]\n";
    let found = lines("", label);
    assert!(
        found.contains(
            &"widens deny by tier.standard.default -> allow by tier.standard.allow: \
                         m.example at 443 in standard; category model-api instead of unknown, for \
                         sessions that are narrowed by category"
                .to_owned()
        ),
        "{found:#?}"
    );
}

#[test]
fn a_deny_of_a_network_narrows_what_names_may_resolve_into() {
    let deny =
        format!("{WEB}[[rule]]\nid = \"no\"\nverdict = \"deny\"\nto.hosts = [\"8.8.0.0/16\"]\n");
    let found = lines(WEB, &deny);
    assert!(
        found.iter().any(|line| line.contains("docs.example")
            && line.contains("may no longer resolve into 8.8.0.0/16")),
        "{found:#?}"
    );
}

#[test]
fn a_caller_has_its_tier_of_both_policies() {
    let listed = "[[repository]]\nmatch = \"github.com/acme/payments\"\ntier = \"restricted\"\n";
    let moved = listed.replace("restricted", "standard");
    let before = with_rules(&format!("{WEB}{listed}"));
    let found = difference(&before, &with_rules(&format!("{WEB}{moved}")));
    let wider = found.changes.iter().find(|change| change.widens);
    let wider = wider.unwrap_or_else(|| panic!("{found:#?}"));
    assert_eq!(wider.tiers, ["standard".into()], "{wider:#?}");
    assert_eq!(wider.tiers_before, ["restricted".into()], "{wider:#?}");
}

#[test]
fn reviewers_and_what_they_need_are_differences() {
    let tier = |keys: &str| {
        let written = "[tier.standard]\n";
        compiled(&TIERS.replace(written, &format!("{written}{keys}")))
    };
    let besides = |before: &str, after: &str| -> Vec<String> {
        let found = difference(&tier(before), &tier(after));
        let all = found.changes.into_iter().flat_map(|change| change.besides);
        let all: std::collections::BTreeSet<String> = all.collect();
        all.into_iter().collect()
    };
    let relation = |before: &str, after: &str| difference(&tier(before), &tier(after)).relation;
    let one = "reviewers = [\"uid:0\"]\n";
    let two = "reviewers = [\"uid:0\", \"group:sec\"]\n";
    assert_eq!(relation(one, one), Relation::Equal);
    assert_eq!(besides("", one), ["reviewers may allow it: uid:0"]);
    assert_eq!(relation("", one), Relation::Wider);
    assert_eq!(besides(one, two), ["reviewers may allow it: group:sec"]);
    assert_eq!(
        besides(two, one),
        ["reviewers may no longer allow it: group:sec"]
    );
    assert_eq!(relation(two, one), Relation::Narrower);
    let strict = format!("{one}approvals = 2\n");
    assert_eq!(besides(&strict, one), ["1 approvals instead of 2"]);
    assert_eq!(relation(&strict, one), Relation::Wider);
    let oneself = format!("{one}not-oneself = false\n");
    assert_eq!(besides(one, &oneself), ["may pass by one's own approval"]);
    let brief = format!("{one}longest-approval = \"1h\"\n");
    assert_eq!(
        besides(&brief, one),
        ["approvals of 28800 s instead of 3600"]
    );
    let patient = format!("{one}hold = \"20s\"\n");
    assert_eq!(relation(one, &patient), Relation::SameReach);
}

#[test]
fn another_member_of_a_group_that_reviews_is_a_difference() {
    let tiers = TIERS.replace(
        "[tier.standard]\n",
        "[tier.standard]\nreviewers = [\"group:sec\"]\n",
    );
    let group = |member: &str| {
        compiled(&format!(
            "{tiers}[group.sec]\nmembers = [\"subject:{member}\"]\n"
        ))
    };
    let found = difference(&group("ana@acme.example"), &group("*@acme.example"));
    assert!(
        found.changes.iter().any(|change| change.widens),
        "{found:#?}"
    );
}

#[test]
fn what_a_denied_flow_reaches_in_an_observing_tier_is_a_difference() {
    let observing = |rules: &str| {
        let tiers = TIERS.replace("[tier.standard]\n", "[tier.standard]\nmode = \"observe\"\n");
        compiled(&format!("{tiers}{rules}"))
    };
    let rule = |id: &str, verdict: &str, grant: &str| {
        format!(
            "[[rule]]\nid = \"{id}\"\nverdict = \"{verdict}\"\nfrom.tiers = [\"standard\"]\n\
             to.hosts = [\"*.corp.example\", \"10.2.0.7\"]\n{grant}"
        )
    };
    let deny = rule("no", "deny", "");
    for (grant, besides) in [
        (
            "grant.addresses = [\"10.2.0.0/16\"]\n",
            "may reach private addresses",
        ),
        (
            "grant.inspect = true\n",
            "may no longer pass TLS without inspection",
        ),
    ] {
        let with = format!("{deny}{}", rule("net", "allow", grant));
        let found = difference(&observing(&deny), &observing(&with));
        let mut all = found.changes.iter().flat_map(|change| &change.besides);
        assert!(
            all.any(|it| it.starts_with(besides)),
            "{:#?}",
            found.changes
        );
    }
    // The deny decides, and the address passes only where an allow grants it.
    let with = format!(
        "{deny}{}",
        rule("net", "allow", "grant.addresses = [\"10.2.0.0/16\"]\n")
    );
    let found = difference(&observing(&deny), &observing(&with));
    let opens = |change: &Change| change.widens && change.after.observed && !change.before.observed;
    assert!(found.changes.iter().any(opens), "{:#?}", found.changes);
}

#[test]
fn another_service_is_a_difference_where_rules_depend_on_what_it_reads() {
    let label = |service: &str| {
        format!(
            "[[destination]]\ncategory = \"package-registry\"\nhosts = [\"pkg.example\"]\n\
             service = \"{service}\"\n\
             [[rule]]\nid = \"look\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
             to.hosts = [\"pkg.example\"]\ndoes.actions = [\"read\"]\ngrant.inspect = true\n"
        )
    };
    // `POST /-/npm/v1/security/audits` reads at npm, and writes at any other service.
    let found = difference(&with_rules(&label("npm")), &with_rules(&label("pypi")));
    assert_eq!(found.relation, Relation::Both, "{:#?}", found.changes);
    let mut all = found.changes.iter().flat_map(|change| &change.besides);
    let told = "what requests do is read by pypi instead of npm";
    assert!(all.any(|it| it == told), "{:#?}", found.changes);

    // A rule that allows each request does not depend on it.
    let whole = |service: &str| label(service).replace("does.actions = [\"read\"]\n", "");
    let whole = |service: &str| {
        compiled(&format!(
            "[tiers]\norder = [\"standard\"]\n[tier.standard]\ndefault = \"deny\"\n{}",
            whole(service)
        ))
    };
    let found = difference(&whole("npm"), &whole("pypi"));
    assert_eq!(found.relation, Relation::Equal, "{:#?}", found.changes);
}

#[test]
fn the_program_that_reads_requests_first_is_a_difference() {
    let tier = |key: &str| {
        let tiers = TIERS.replace(
            "[tier.standard]\n",
            &format!("[tier.standard]\nreviewers = [\"uid:0\"]\n{key}"),
        );
        compiled(&tiers)
    };
    let reader = |program: &str| tier(&format!("first-reader = [\"{program}\"]\n"));
    let relation = |before: &Policy, after: &Policy| difference(before, after).relation;
    assert_eq!(
        relation(&reader("/bin/a"), &reader("/bin/a")),
        Relation::Equal
    );
    assert_eq!(relation(&reader("/bin/a"), &tier("")), Relation::Wider);
    // A program can only deny, but it runs as the user of the gate.
    assert_eq!(relation(&tier(""), &reader("/bin/a")), Relation::Both);
    assert_eq!(
        relation(&reader("/bin/a"), &reader("/bin/b")),
        Relation::Both
    );
}

#[test]
fn each_form_of_an_ipv4_address_is_compared() {
    let with = |network: &str, rule: &str| {
        format!(
            "[[rule]]\nid = \"net\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
             to.hosts = [\"{network}\"]\n{rule}"
        )
    };
    let deny = "[[rule]]\nid = \"no\"\nverdict = \"deny\"\nto.hosts = [\"8.8.8.8\"]\n";
    for network in [
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "2002::/16",
        "2a00:1:2:3::/64",
        "2a00:1:2:3:200:5efe::/96",
    ] {
        let found = difference(
            &with_rules(&with(network, deny)),
            &with_rules(&with(network, "")),
        );
        assert_eq!(
            found.relation,
            Relation::Wider,
            "{network}: {:#?}",
            found.changes
        );
    }
}

#[test]
fn an_invariant_holds_of_each_form_of_an_ipv4_address() {
    let text = format!(
        "{TIERS}[[rule]]\nid = \"net\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
         to.hosts = [\"2a00:1:2:3::/64\"]\n\
         [[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"8.8.8.8\"]\nverdict = \"allow\"\n"
    );
    let (policy, _) = try_compile(&text);
    let found = invariant_findings(&read(&text), &policy.expect("a policy"));
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[test]
fn members_by_claim_and_by_certificate_name_are_differences() {
    let group = |members: &str| {
        with_rules(&format!(
            "[group.deploy]\nmembers = [{members}]\n\
             [[rule]]\nid = \"deploy\"\nverdict = \"allow\"\nfrom.groups = [\"deploy\"]\n\
             to.hosts = [\"deploy.example\"]\n"
        ))
    };
    let relation = |before: &str, after: &str| difference(&group(before), &group(after)).relation;
    for kind in ["claim:team=", "san:spiffe://acme.example/"] {
        let (one, many) = (format!("\"{kind}a\""), format!("\"{kind}*\""));
        assert_eq!(relation(&one, &one), Relation::Equal, "{kind}");
        assert_eq!(relation(&one, &many), Relation::Wider, "{kind}");
        assert_eq!(relation(&many, &one), Relation::Narrower, "{kind}");
        assert_eq!(relation("", &one), Relation::Wider, "{kind}");
        let other = format!("\"{kind}b\"");
        assert_eq!(relation(&one, &other), Relation::Both, "{kind}");
    }
    // Another claim gives the group to other callers.
    let claims = ("\"claim:team=a\"", "\"claim:unit=a\"");
    assert_eq!(relation(claims.0, claims.1), Relation::Both);
    let kinds = ("\"claim:team=a\"", "\"san:a\"");
    assert_eq!(relation(kinds.0, kinds.1), Relation::Both);
    // More patterns than are compared letter by letter.
    let many = |from: usize| {
        let members = (from..from + 70).map(|it| format!("\"claim:team={it}\""));
        members.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(relation(&many(0), &many(0)), Relation::Equal);
    assert_eq!(relation(&many(0), &many(1)), Relation::Both);
}

/// Where no rule distinguishes actions, an operation has the action that its service gives it.
#[test]
fn an_operation_is_compared_without_a_rule_about_actions() {
    let with = |operations: &str| {
        compiled(&format!(
            "[tiers]\norder = [\"only\"]\n[tier.only]\ndefault = \"deny\"\n\
             [[rule]]\nid = \"forge\"\nverdict = \"allow\"\nto.hosts = [\"forge.example\"]\n\
             does.operations = [{operations}]\ngrant.inspect = true\n"
        ))
    };
    let found = difference(&with("\"fetch\""), &with("\"fetch\", \"push\""));
    assert_eq!(found.relation, Relation::Wider, "{:#?}", found.changes);
    let flow = &found.changes[0].witness.flow;
    assert!(flow.starts_with("POST https://forge.example/"), "{flow}");
    assert!(flow.contains("(write, operation push"), "{flow}");
    let back = difference(&with("\"fetch\", \"push\""), &with("\"fetch\""));
    assert_eq!(back.relation, Relation::Narrower, "{:#?}", back.changes);
}
