//! Tests that no exception breaks an invariant.

use std::sync::Arc;

use super::*;

const RULES: &str = r#"
[group.platform]
members = ["subject:*@acme.example"]
[[rule]]
id = "no"
verdict = "deny"
to.hosts = ["*.example.net"]
[[rule]]
id = "api"
verdict = "deny"
to.hosts = ["api.example.org"]
does.methods = ["POST"]
[[rule]]
id = "inspected"
verdict = "allow"
to.hosts = ["api.example.org"]
does.methods = ["GET"]
grant.inspect = true
"#;

const NEVER: &str = "[[never]]\nname = \"no files\"\nverdict = \"allow\"\n";

fn exception(id: &str, lines: &str) -> String {
    format!(
        "[[exception]]\nid = \"{id}\"\nreason = \"r\"\nreviewer = \"s@acme.example\"\n\
         expires = 2026-12-01T18:00:00Z\n{lines}\n"
    )
}

/// Returns the findings for the exceptions of a policy, in the order of their ids.
fn forbidden(text: &str) -> Vec<String> {
    let text = format!("{TIERS}{RULES}{text}");
    let found = invariant_findings(&read(&text), &compiled(&text));
    let mut messages: Vec<String> = found.into_iter().map(|finding| finding.message).collect();
    messages.sort();
    messages
}

#[test]
fn an_exception_that_a_never_forbids_is_named_with_a_flow() {
    let never =
        format!("{NEVER}to.hosts = [\"files.example.net\"]\nfrom.tiers = [\"restricted\"]\n");
    let of = |lines: &str| forbidden(&format!("{never}{}", exception("E", lines)));
    let found = of("to.hosts = [\"*.example.net\"]");
    let said = "exception `E` lets pass what `[[never]]` \"no files\" forbids: callers in tier \
                restricted would reach files.example.net:443";
    assert_eq!(found, [said]);
    for harmless in [
        "to.hosts = [\"other.example.net\"]",
        "to.hosts = [\"*.files.example.net\"]",
        "to.hosts = [\"files.example.net\"]\nfrom.tiers = [\"open\", \"standard\"]",
    ] {
        assert_eq!(of(harmless), [""; 0], "{harmless}");
    }
}

#[test]
fn each_exception_is_named_also_those_behind_another() {
    let never = format!("{NEVER}to.hosts = [\"files.example.net\"]\n");
    let wide = exception("A", "to.hosts = [\"*.example.net\"]\nlimit.requests = 3");
    let narrow = exception("B", "to.hosts = [\"files.example.net\"]");
    let other = exception("C", "to.hosts = [\"other.example.net\"]");
    let found = forbidden(&format!("{never}{wide}{narrow}{other}"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("exception `A`") && found[1].starts_with("exception `B`"));
}

#[test]
fn an_exception_that_an_always_forbids_is_named() {
    let of = |verdict: &str, host: &str| {
        let text = format!(
            "[[always]]\nto.hosts = [\"{host}\"]\nverdict = \"{verdict}\"\n{}",
            exception("E", "to.hosts = [\"a.example.net\"]")
        );
        forbidden(&text)
    };
    assert_eq!(of("deny", "b.example.net"), [""; 0]);
    let found = of("deny", "a.example.net");
    assert!(
        found[0].contains("lets pass what `[[always]]` forbids"),
        "{found:?}"
    );
}

#[test]
fn a_tunnel_that_only_an_exception_opens_carries_each_request() {
    let never = format!("{NEVER}to.hosts = [\"files.example.net\"]\ndoes.methods = [\"PUT\"]\n");
    let found = forbidden(&format!(
        "{never}{}",
        exception("E", "to.hosts = [\"files.example.net\"]\nto.ports = [8443]")
    ));
    assert!(
        found[0].ends_with("would reach files.example.net:8443"),
        "{found:?}"
    );
}

#[test]
fn requests_in_an_inspected_tunnel_are_told_apart() {
    let never = format!(
        "{NEVER}to.hosts = [\"api.example.org\"]\ndoes.methods = [\"PUT\"]\n\
                 from.tiers = [\"standard\"]\n"
    );
    let of = |method: &str| {
        let lines = format!("to.hosts = [\"api.example.org\"]\ndoes.methods = [\"{method}\"]");
        forbidden(&format!("{never}{}", exception("E", &lines)))
    };
    assert_eq!(of("POST"), [""; 0]);
    let found = of("PUT");
    assert!(
        found[0].contains("PUT https://api.example.org/"),
        "{found:?}"
    );
}

#[test]
fn a_name_that_an_exception_opens_may_resolve_into_a_forbidden_network() {
    let rule = "[[rule]]\nid = \"inside\"\nverdict = \"allow\"\nfrom.tiers = [\"open\"]\n\
                to.hosts = [\"box.example.net\"]\ngrant.addresses = [\"10.2.0.0/16\"]\n";
    let of = |network: &str, tier: &str| {
        let never = format!("{NEVER}to.hosts = [\"{network}\"]\n");
        let lines = format!("to.hosts = [\"box.example.net\"]\nfrom.tiers = [\"{tier}\"]");
        forbidden(&format!("{rule}{never}{}", exception("E", &lines)))
    };
    assert_eq!(of("10.2.0.0/16", "open").len(), 1);
    assert_eq!(of("10.3.0.0/16", "open"), [""; 0]);
    // No allow grants the address to callers in this tier.
    assert_eq!(of("10.2.0.0/16", "standard"), [""; 0]);
}

#[test]
fn the_floor_stays_and_breaks_no_invariant() {
    let never = format!("{NEVER}to.hosts = [\"169.254.0.0/16\", \"10.0.0.0/8\"]\n");
    let lines = "to.hosts = [\"169.254.169.254\", \"10.0.0.7\"]";
    assert_eq!(
        forbidden(&format!("{never}{}", exception("E", lines))),
        [""; 0]
    );
}

#[test]
fn exceptions_that_were_proved_are_not_named_again() {
    let never = format!("{NEVER}to.hosts = [\"files.example.net\"]\n");
    let text = format!(
        "{TIERS}{RULES}{never}{}{}",
        exception("A", "to.hosts = [\"other.example.net\"]"),
        exception(
            "B",
            "to.hosts = [\"files.example.net\", \"other.example.net\"]"
        ),
    );
    let policy = compiled(&text);
    let (known, new) = policy.exceptions().split_at(1);
    let found = policy.forbidden(known, new).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(*found[0].id, *"B");
    let said = found[0].to_string();
    assert!(
        said.contains("(test.toml:") && said.contains("see `tidegate explain"),
        "{said}"
    );
    assert!(policy.forbidden(new, known).unwrap().is_empty());
    let without = compiled(&format!("{TIERS}{RULES}"));
    let all: Vec<Arc<Exception>> = policy.exceptions().to_vec();
    assert!(without.forbidden(&[], &all).unwrap().is_empty());
}
