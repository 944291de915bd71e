//! Tests of `[[never]]` and `[[always]]`.

use super::*;

/// Returns the findings for the invariants of a policy over [`TIERS`]: message and label.
fn broken(text: &str) -> Vec<(String, String)> {
    let text = format!("{TIERS}{text}");
    let found = invariant_findings(&read(&text), &compiled(&text));
    found
        .into_iter()
        .map(|finding| (finding.message, finding.label))
        .collect()
}

fn messages(text: &str) -> Vec<String> {
    broken(text)
        .into_iter()
        .map(|(message, _)| message)
        .collect()
}

const WEB: &str = "
[group.contractors]
members = [\"subject:*@partner.example\"]
floor = \"standard\"
[[rule]]
id = \"web\"
verdict = \"allow\"
from.tiers = [\"standard\", \"restricted\"]
to.hosts = [\"x.example\", \"*.docs.example\"]
";

#[test]
fn a_flow_that_breaks_an_invariant_is_named_with_its_rule() {
    let found = broken(&format!(
        "{WEB}[[never]]\nname = \"partners stay inside\"\nfrom.groups = [\"contractors\"]\n\
         to.hosts = [\"x.example\"]\nverdict = \"allow\"\n"
    ));
    let message = "`[[never]]` \"partners stay inside\" does not hold: callers in tier standard, in \
                   group contractors reach x.example:443 by web";
    assert_eq!(found, [(message.into(), "it says never `allow`".into())]);
}

#[test]
fn an_invariant_that_holds_says_nothing() {
    for invariant in [
        "[[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"y.example\"]\nverdict = \"allow\"\n",
        "[[never]]\nfrom.tiers = [\"restricted\"]\nto.categories = [\"model-api\"]\nverdict = \"allow\"\n",
        "[[always]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"x.example\"]\nverdict = \"allow\"\n",
        "[[always]]\nto.hosts = [\"169.254.0.0/16\"]\nverdict = \"deny\"\n",
        "[[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"x.example\"]\nverdict = \"deny\"\n",
    ] {
        assert_eq!(
            messages(&format!("{WEB}{invariant}")),
            [""; 0],
            "{invariant}"
        );
    }
}

#[test]
fn callers_that_no_evidence_makes_break_nothing() {
    let of = |repository: &str| {
        messages(&format!(
            "{WEB}[[repository]]\nmatch = \"github.com/acme/payments*\"\ntier = \"restricted\"\n\
             [[never]]\nfrom.repositories = [\"{repository}\"]\nto.hosts = [\"*.open.example\"]\n\
             verdict = \"allow\"\n"
        ))
    };
    // The tier `open` allows every host: no caller of the ledger is in that tier.
    assert_eq!(of("github.com/acme/payments-ledger"), [""; 0]);
    let found = of("github.com/acme/**");
    assert!(
        found[0].contains("callers in tier open, of github.com/acme/"),
        "{found:?}"
    );

    let floor = "[[never]]\nfrom.subjects = [\"*@partner.example\"]\nto.hosts = [\"z.example\"]\n\
                 verdict = \"allow\"\n";
    assert_eq!(messages(&format!("{WEB}{floor}")), [""; 0]);
}

#[test]
fn every_spelling_and_every_port_counts_for_a_never() {
    let rule = "[[rule]]\nid = \"files\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
                to.hosts = [\"files.example\"]\nto.ports = [80, 8080]\ndoes.paths = [\"/ADMIN/x\"]\n";
    let never = "[[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"files.example\"]\n\
                 does.paths = [\"/admin/**\"]\nverdict = \"allow\"\n";
    let found = messages(&format!("{rule}{never}"));
    assert!(found[0].contains("files.example"), "{found:?}");
    assert!(found[0].ends_with("by files"), "{found:?}");
}

#[test]
fn a_tunnel_that_is_not_inspected_counts_as_each_request() {
    let rule = "[[rule]]\nid = \"api\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
                to.hosts = [\"api.example\"]\ndoes.methods = [\"GET\"]\n";
    let never = "[[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"api.example\"]\n\
                 does.methods = [\"POST\"]\nverdict = \"allow\"\n";
    let found = broken(&format!("{rule}{never}"));
    assert!(
        found[0].0.contains("reach api.example:443 by api"),
        "{found:?}"
    );
    assert!(found[0].1.contains("is not inspected"), "{found:?}");
    let inspected = messages(&format!("{rule}grant.inspect = true\n{never}"));
    assert_eq!(inspected, [""; 0]);
}

#[test]
fn a_path_of_another_category_counts_in_a_tunnel_that_is_not_inspected() {
    let never = "[[never]]\nfrom.tiers = [\"standard\"]\nto.categories = [\"telemetry\"]\n\
                 verdict = \"allow\"\n";
    let found = broken(never);
    assert!(
        found[0].0.contains("reach api.model.example:443"),
        "{found:?}"
    );
    assert!(found[0].1.contains("is not inspected"), "{found:?}");
}

#[test]
fn a_network_stands_for_the_names_that_may_resolve_into_it() {
    let rule = "[[rule]]\nid = \"ledger\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
                to.hosts = [\"ledger.example\"]\ngrant.addresses = [\"10.2.0.0/16\"]\n";
    let never = |network: &str| {
        format!(
            "[[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"{network}\"]\nverdict = \"allow\"\n"
        )
    };
    let found = broken(&format!("{rule}{}", never("10.0.0.0/8")));
    assert!(
        found[0].0.contains("reach ledger.example:443 by ledger"),
        "{found:?}"
    );
    assert_eq!(
        found[0].1,
        "that name may resolve into a network that this names"
    );
    assert_eq!(
        messages(&format!("{rule}{}", never("10.3.0.0/16"))),
        [""; 0]
    );
    // The granted network is larger, and a deny covers the part of it that the invariant names.
    let part = "[[rule]]\nid = \"part\"\nverdict = \"deny\"\nto.hosts = [\"10.2.3.0/24\"]\n";
    assert_eq!(broken(&format!("{rule}{}", never("10.2.3.0/24"))).len(), 1);
    assert_eq!(
        messages(&format!("{rule}{part}{}", never("10.2.3.0/24"))),
        [""; 0]
    );
    let deny = "[[rule]]\nid = \"no\"\nverdict = \"deny\"\nto.hosts = [\"10.0.0.0/8\"]\n";
    assert_eq!(
        messages(&format!("{rule}{deny}{}", never("10.0.0.0/8"))),
        [""; 0]
    );
}

/// Each host of the catalogue is a name, and has tiers, ports and requests: only those that may
/// resolve into the network are split into them.
#[test]
fn a_network_that_no_name_is_dialled_in_is_proved_over_the_whole_catalogue() {
    let closed = "[[always]]\nto.hosts = [\"169.254.0.0/16\"]\nverdict = \"deny\"\n\
                  [[always]]\nto.hosts = [\"10.0.0.0/8\", \"192.168.0.0/16\"]\nverdict = \"deny\"\n";
    let granted = "[[rule]]\nid = \"registry\"\nverdict = \"allow\"\nto.hosts = [\"npm.home.example\"]\n\
                   grant.addresses = [\"192.168.1.0/24\"]\n";
    let found = |text: &str| {
        let source = read(text);
        let (policy, findings) = compile(&source, &built_in());
        let policy = policy.unwrap_or_else(|| panic!("{findings:?}"));
        let found = invariant_findings(&source, &policy);
        found.into_iter().map(|it| it.message).collect::<Vec<_>>()
    };
    assert_eq!(found(closed), [""; 0]);
    let broken = found(&format!("{granted}{closed}"));
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(
        broken[0].contains("npm.home.example:443 by registry"),
        "{broken:?}"
    );
}

#[test]
fn operations_and_actions_of_a_service_belong_together() {
    let text = "[[destination]]\ncategory = \"package-registry\"\nhosts = [\"npm.example\"]\n\
                service = \"npm\"\n";
    let never = "[[never]]\nfrom.tiers = [\"restricted\"]\nto.hosts = [\"npm.example\"]\n\
                 does.operations = [\"publish\"]\nverdict = \"allow\"\n";
    let inspected = format!("{text}{never}");
    // `restricted` allows reading: a publish does not read.
    assert_eq!(messages(&inspected), [""; 0]);
}

const INSPECTED_FORGE: &str = "
[[rule]]
id = \"forge\"
verdict = \"allow\"
from.tiers = [\"standard\"]
to.hosts = [\"forge.example\"]
does.repositories = [\"acme/*\"]
grant.inspect = true
";

/// Refs are in the body of a push, operations follow from method and path.
#[test]
fn the_witness_of_words_of_a_body_is_a_request_that_git_sends() {
    let never = "[[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"forge.example\"]\n\
                 does.refs = [\"main\"]\nverdict = \"allow\"\n";
    let found = broken(&format!("{INSPECTED_FORGE}{never}"));
    let message = &found[0].0;
    assert!(
        message.contains("reach POST https://forge.example/acme/"),
        "{found:?}"
    );
    assert!(
        message.contains("/git-receive-pack (write, operation push"),
        "{found:?}"
    );
    assert!(message.contains("ref refs/heads/main"), "{found:?}");
    assert_eq!(found[0].1, "it says never `allow`");
}

#[test]
fn the_witness_of_an_operation_has_its_method_and_path() {
    let rules = "[[destination]]\ncategory = \"plugin\"\nhosts = [\"npm.example\"]\n\
                 service = \"npm\"\n[[rule]]\nid = \"npm\"\nverdict = \"allow\"\n\
                 from.tiers = [\"standard\"]\nto.hosts = [\"npm.example\"]\ngrant.inspect = true\n";
    let never = |does: &str| {
        format!(
            "{rules}[[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"npm.example\"]\n\
             {does}verdict = \"allow\"\n"
        )
    };
    let found = messages(&never("does.operations = [\"unpublish\"]\n"));
    assert!(
        found[0].contains("reach DELETE https://npm.example/"),
        "{found:?}"
    );
    assert!(found[0].contains("operation unpublish"), "{found:?}");
    let found = messages(&never("does.actions = [\"write\"]\n"));
    assert!(!found[0].contains("reach GET"), "{found:?}");
}

/// `create` is a push of a new branch: the rule for pushes allows it.
#[test]
fn an_operation_below_another_counts_where_only_the_category_names_the_service() {
    let rule = "[[rule]]\nid = \"forge\"\nverdict = \"allow\"\nfrom.tiers = [\"standard\"]\n\
                to.hosts = [\"forge.example\"]\ndoes.operations = [\"push\"]\ngrant.inspect = true\n";
    let never = "[[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"forge.example\"]\n\
                 does.operations = [\"create\"]\nverdict = \"allow\"\n";
    let found = messages(&format!("{rule}{never}"));
    assert!(found[0].contains("operation create"), "{found:?}");
    assert!(found[0].contains("/git-receive-pack"), "{found:?}");
}

/// The two hosts have the same rules, and only the second one the category of the rule.
#[test]
fn hosts_of_different_categories_are_proved_apart() {
    let text = "[tiers]\norder = [\"only\"]\n[tier.only]\ndefault = \"deny\"\nopaque = \"deny\"\n\
                [[destination]]\ncategory = \"webfetch\"\nhosts = [\"b.example\"]\n\
                [[rule]]\nid = \"web\"\nverdict = \"allow\"\nto.hosts = [\"a.example\", \"b.example\"]\n\
                to.ports = [80]\nto.categories = [\"webfetch\"]\ndoes.methods = [\"GET\"]\n\
                [[never]]\nto.hosts = [\"a.example\", \"b.example\"]\nto.ports = [80]\n\
                does.methods = [\"GET\"]\nverdict = \"allow\"\n";
    let found = invariant_findings(&read(text), &compiled(text));
    let messages: Vec<&str> = found.iter().map(|it| &*it.message).collect();
    let said =
        "`[[never]]` does not hold: callers in tier only reach GET http://b.example/ (read) by web";
    assert_eq!(messages, [said]);
}

#[test]
fn a_finding_says_where_no_request_with_its_facts_is_known() {
    let rules = "[[destination]]\ncategory = \"plugin\"\nhosts = [\"npm.example\"]\n\
                 service = \"npm\"\n[[rule]]\nid = \"ping\"\nverdict = \"allow\"\n\
                 from.tiers = [\"standard\"]\nto.hosts = [\"npm.example\"]\n\
                 does.paths = [\"/-/ping\"]\ngrant.inspect = true\n";
    let never = "[[never]]\nfrom.tiers = [\"standard\"]\nto.hosts = [\"npm.example\"]\n\
                 does.operations = [\"unpublish\"]\nverdict = \"allow\"\n";
    let found = broken(&format!("{rules}{never}"));
    assert!(
        found[0].1.starts_with("no method and path are known"),
        "{found:?}"
    );
}

#[test]
fn always_names_a_flow_that_has_another_verdict() {
    let text = "[[always]]\nfrom.tiers = [\"restricted\"]\nto.hosts = [\"x.example\"]\n\
                verdict = \"allow\"\n";
    let found = messages(text);
    let said = "`[[always]]` does not hold: callers in tier restricted do not reach x.example:443 by \
                tier.restricted.default";
    assert_eq!(found, [said]);
}

#[test]
fn what_is_wrong_with_the_words_of_an_invariant_is_said_at_its_place() {
    let wrong = |verdict: &str| {
        let never = format!("[[never]]\nfrom.tiers = [\"strict\"]\nverdict = \"{verdict}\"\n");
        let (policy, findings) = try_compile(&format!("{TIERS}{never}"));
        assert!(policy.is_none(), "{findings:?}");
        findings
            .into_iter()
            .map(|it| it.message)
            .collect::<Vec<_>>()
    };
    assert_eq!(wrong("allowed"), ["unknown verdict `allowed`"]);
    let found = wrong("allow");
    assert!(
        found.contains(&"unknown tier `strict`".to_owned()),
        "{found:?}"
    );
}
