//! Tests of the meaning of a policy: one for each sentence of [`super::super`].

use std::net::IpAddr;
use std::time::Duration;

use super::*;

use Verdict::{Allow, Ask, Deny};

#[test]
fn a_rule_selects_by_labels_and_never_changes_them() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "theirs"
        verdict = "allow"
        to.hosts = ["report.example", "*.example.com"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let report = standard.connect("report.example:443");
    assert_eq!(
        said(&report),
        (Deny, "category_denied", "tier.standard.deny")
    );
    assert_eq!(report.category, Category::Telemetry);
    let unlabelled = standard.connect("a.example.com:443");
    assert_eq!(said(&unlabelled), (Allow, "allowed", "theirs"));
    assert_eq!(
        (unlabelled.category, unlabelled.basis),
        (Category::Unknown, Basis::None)
    );
}

#[test]
fn the_most_specific_destination_labels_before_the_catalogue() {
    let policy = with_rules(
        r#"
        [[destination]]
        category = "telemetry"
        hosts = ["*.acme.example"]
        [[destination]]
        category = "package-registry"
        hosts = ["npm.acme.example", "report.example", "192.0.2.0/24"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let category = |host: &str| standard.connect(host).category;
    assert_eq!(category("npm.acme.example:443"), Category::PackageRegistry);
    assert_eq!(category("x.acme.example:443"), Category::Telemetry);
    assert_eq!(category("report.example:443"), Category::PackageRegistry);
    assert_eq!(category("192.0.2.7:443"), Category::PackageRegistry);
    assert_eq!(category("acme.example:443"), Category::Unknown);
}

#[test]
fn rules_come_before_the_ask_list_of_a_tier_and_not_before_its_deny_list() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "reviewed"
        verdict = "allow"
        to.categories = ["source-control", "telemetry"]
        does.actions = ["write"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let push = standard.request("PUT", "https://forge.example/x");
    assert_eq!(said(&push), (Allow, "allowed", "reviewed"));
    let report = standard.request("PUT", "https://report.example/x");
    assert_eq!(said(&report).2, "tier.standard.deny");
    let asked = with_rules(
        "[[rule]]\nid = \"a\"\nverdict = \"allow\"\nto.hosts = [\"forge.example\"]\n\
         [[rule]]\nid = \"q\"\nverdict = \"ask\"\nto.categories = [\"source-control\"]\n",
    );
    let asked = asking(&asked, "standard").connect("forge.example:443");
    assert_eq!(said(&asked), (Ask, "needs_approval", "q"));
}

#[test]
fn a_tier_extends_another_key_by_key() {
    let policy = compiled(
        r#"
        [tiers]
        order = ["loose", "tight"]
        [tier.loose]
        default = "ask"
        allow = ["model-api", "auth"]
        deny = ["telemetry"]
        [tier.tight]
        extend = "loose"
        allow = ["model-api"]
        "#,
    );
    let tight = asking(&policy, "tight");
    assert_eq!(tight.connect("example.com:443").verdict, Ask);
    assert_eq!(
        said(&tight.connect("report.example:443")).2,
        "tier.tight.deny"
    );
    assert_eq!(
        said(&tight.connect("api.model.example:443")).2,
        "tier.tight.allow"
    );
}

#[test]
fn a_file_without_an_order_changes_built_in_tiers_or_has_one_tier() {
    let changed = compiled("[tier.standard]\ndefault = \"ask\"\n");
    let names: Vec<&str> = changed.tiers().iter().map(|name| &**name).collect();
    assert_eq!(names, ["open", "standard", "restricted"]);
    let standard = asking(&changed, "standard");
    assert_eq!(standard.connect("example.com:443").verdict, Ask);
    assert_eq!(
        said(&standard.connect("report.example:443")).1,
        "category_denied"
    );
    let alone = compiled("[tier.ours]\nallow = [\"auth\"]\n");
    let names: Vec<&str> = alone.tiers().iter().map(|name| &**name).collect();
    assert_eq!(names, ["ours"]);
}

#[test]
fn a_deny_of_a_path_holds_of_every_reading_of_it() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "no-admin"
        verdict = "deny"
        to.hosts = ["api.example.com"]
        does.paths = ["/admin/**"]
        grant.inspect = true
        [[rule]]
        id = "api"
        verdict = "allow"
        to.hosts = ["api.example.com"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let get = |path: &str| standard.request("GET", &format!("https://api.example.com{path}"));
    for path in [
        "/admin",
        "/admin/x",
        "/ADMIN/x",
        "/admin;v=1/x",
        "/admin/",
        "//admin//x",
    ] {
        assert_eq!(said(&get(path)), (Deny, "denied", "no-admin"), "{path}");
    }
    for path in ["/admin%2Fx", "/Admin%2fx", "/x/admin", "/administrators"] {
        let denied = path.to_lowercase().starts_with("/admin%2f");
        assert_eq!(get(path).verdict == Deny, denied, "{path}");
    }
}

#[test]
fn an_allow_of_a_path_holds_only_where_every_server_reads_it_so() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "projects"
        verdict = "allow"
        to.hosts = ["api.example.com"]
        does.paths = ["/projects/*/issues"]
        grant.inspect = true
        "#,
    );
    let standard = asking(&policy, "standard");
    let get = |path: &str| standard.request("GET", &format!("https://api.example.com{path}"));
    assert_eq!(get("/projects/7/issues").verdict, Allow);
    let two_readings = get("/projects/acme%2Fapp/issues");
    assert_eq!(
        said(&two_readings),
        (Deny, "bad_path", "tier.standard.default")
    );
    assert_eq!(said(&get("/PROJECTS/7/issues")).1, "action_denied");
}

#[test]
fn another_spelling_of_a_split_path_is_denied_as_what_it_may_be() {
    let policy = with_rules("");
    let standard = asking(&policy, "standard");
    for path in [
        "/events/batch",
        "/EVENTS/batch",
        "//events/batch",
        "/events;x/batch",
    ] {
        let url = format!("https://api.model.example{path}");
        assert_eq!(
            said(&standard.request("POST", &url)).2,
            "tier.standard.deny",
            "{path}"
        );
    }
}

#[test]
fn names_in_a_deny_hold_in_either_case() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "main"
        verdict = "deny"
        to.categories = ["source-control"]
        does.refs = ["main"]
        does.methods = ["POST"]
        "#,
    );
    let facts = |reference: &str| RequestFacts {
        action: Some(Action::Read),
        reference: Some(reference.into()),
        ..RequestFacts::default()
    };
    let asking = asking(&policy, "open");
    let url = "https://forge.example/a/b.git/git-receive-pack";
    for reference in ["refs/heads/main", "refs/heads/MAIN"] {
        let decision = asking.judge("POST", url, Some(&facts(reference)));
        assert_eq!(said(&decision), (Deny, "denied", "main"), "{reference}");
    }
    let other = asking.judge("POST", url, Some(&facts("refs/heads/agent/x")));
    assert_eq!(other.verdict, Allow);
}

#[test]
fn the_rules_own_reason_is_told_at_a_private_address_that_an_allow_grants() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "registry"
        verdict = "allow"
        from.tiers = ["standard"]
        to.hosts = ["10.2.0.7", "registry.internal"]
        to.ports = [8443]
        grant.addresses = ["10.2.0.0/16"]
        [[rule]]
        id = "no"
        verdict = "deny"
        to.hosts = ["10.2.0.8"]
        "#,
    );
    let standard = asking(&policy, "standard");
    for host in ["10.2.0.7", "registry.internal"] {
        let wrong_port = standard.connect(&format!("{host}:443"));
        assert_eq!(
            said(&wrong_port),
            (Deny, "port_denied", "tier.standard.default"),
            "{host}"
        );
        let restricted = asking(&policy, "restricted").connect(&format!("{host}:8443"));
        assert_eq!(
            said(&restricted),
            (Deny, "address_denied", "floor"),
            "{host}"
        );
        // A tier that allows by default grants no address.
        let open = asking(&policy, "open").connect(&format!("{host}:8443"));
        assert_eq!(said(&open).1, "address_denied", "{host}");
    }
    assert_eq!(
        said(&standard.connect("10.2.0.8:8443")),
        (Deny, "denied", "no")
    );
    assert_eq!(said(&standard.connect("10.3.0.1:8443")).1, "address_denied");
}

#[test]
fn observe_passes_what_rules_refuse_and_never_the_floor() {
    let policy = compiled(
        r#"
        [tiers]
        order = ["watch"]
        [tier.watch]
        mode = "observe"
        [[rule]]
        id = "registry"
        verdict = "allow"
        to.hosts = ["10.2.0.7"]
        to.ports = [8443]
        grant.addresses = ["10.2.0.0/16"]
        [[rule]]
        id = "no"
        verdict = "deny"
        to.hosts = ["10.9.0.9"]
        "#,
    );
    let watch = asking(&policy, "watch");
    let seen = watch.connect("10.2.0.7:443");
    assert_eq!(
        (seen.verdict, seen.would, seen.reason),
        (Allow, Some(Deny), Reason::PortDenied)
    );
    assert_eq!(
        seen.addresses.len(),
        1,
        "the address that an allow grants there"
    );
    assert!(!seen.raw && !seen.upgrade);
    let floored = watch.connect("10.9.0.9:443");
    assert_eq!((floored.verdict, floored.would), (Deny, None));
    assert_eq!(
        said(&floored),
        (Deny, "denied", "no"),
        "a matching deny is named"
    );
    assert_eq!(watch.connect("169.254.169.254:80").would, None);
}

#[test]
fn a_denied_network_denies_the_names_that_resolve_into_it() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "inside"
        verdict = "allow"
        to.hosts = ["*.example.com"]
        grant.addresses = ["127.0.0.0/8", "10.0.0.0/8"]
        [[rule]]
        id = "no-loopback"
        verdict = "deny"
        from.tiers = ["standard"]
        to.hosts = ["127.0.0.0/8", "8.8.8.0/24"]
        "#,
    );
    let guard = Guard::default();
    let dial = |tier: &str, address: &str| {
        let decision = asking(&policy, tier).connect("a.example.com:443");
        assert_eq!(decision.verdict, Allow);
        let address: IpAddr = address.parse().unwrap();
        let judged = policy.judge_address(&decision, address, 443, &guard);
        judged.map_err(|refusal| match refusal {
            AddressRefusal::Floor => "floor".to_owned(),
            AddressRefusal::Denied(rule) => rule.name.to_string(),
        })
    };
    assert_eq!(dial("standard", "127.0.0.1"), Err("no-loopback".into()));
    assert_eq!(
        dial("standard", "::ffff:127.0.0.1"),
        Err("no-loopback".into())
    );
    assert_eq!(dial("standard", "8.8.8.8"), Err("no-loopback".into()));
    assert_eq!(dial("standard", "10.0.0.1"), Ok(()));
    assert_eq!(dial("restricted", "127.0.0.1"), Ok(()));
    assert_eq!(dial("standard", "192.168.0.1"), Err("floor".into()));
}

#[test]
fn several_facts_of_one_request_have_the_grants_that_each_has() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "read"
        verdict = "allow"
        to.hosts = ["api.example.com"]
        does.actions = ["read"]
        grant.addresses = ["10.0.0.0/8", "192.168.0.0/16"]
        grant.upgrade = true
        [[rule]]
        id = "write"
        verdict = "allow"
        to.hosts = ["api.example.com"]
        does.actions = ["write"]
        grant.addresses = ["10.2.0.0/16"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let read = standard.request("GET", "http://api.example.com/");
    let write = standard.request("PUT", "http://api.example.com/");
    for both in [read.clone().and(write.clone()), write.and(read)] {
        let networks: Vec<String> = both.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.2.0.0/16"]);
        assert!(!both.upgrade);
        assert_eq!(both.verdict, Allow);
    }
}

const YOUNG: &str = r#"
[[destination]]
category = "package-registry"
hosts = ["npm.example.com"]
service = "npm"
[[rule]]
id = "no-young-packages"
verdict = "deny"
from.tiers = ["open", "standard"]
to.categories = ["package-registry"]
unless.min-age = "7 days"
reason = "malicious releases are found within days"
[[rule]]
id = "not-today"
verdict = "deny"
from.tiers = ["open"]
to.hosts = ["npm.example.com"]
unless.min-age = "36 h"
"#;

#[test]
fn a_deny_matches_unless_the_package_is_old_enough() {
    let policy = with_rules(YOUNG);
    let url = "https://npm.example.com/left-pad/-/left-pad-1.3.1.tgz";
    let pending = asking(&policy, "open").request("GET", url);
    assert_eq!(pending.verdict, Allow);
    let age = pending.min_age.expect("an age to ask the registry for");
    assert_eq!(age.least, Duration::from_hours(7 * 24));
    assert_eq!(&*age.rule.name, "no-young-packages");
    assert_eq!(
        age.why.as_deref(),
        Some("malicious releases are found within days")
    );
    // No allow beside it overrides it, and a refusal needs no age.
    let write = asking(&policy, "standard").request("PUT", "https://npm.example.com/left-pad");
    assert_eq!((write.verdict, write.min_age), (Deny, None));
    let other = asking(&policy, "restricted").request("GET", url);
    assert_eq!(other.min_age, None);
}

#[test]
fn nothing_of_unless_holds_in_a_tunnel_that_is_not_inspected() {
    let policy = with_rules(YOUNG);
    let tunnel = asking(&policy, "standard").connect("npm.example.com:443");
    assert_eq!(
        said(&tunnel),
        (Deny, "package_too_new", "no-young-packages")
    );
    let text = format!(
        "{YOUNG}\n[[rule]]\nid = \"look\"\nverdict = \"allow\"\nto.hosts = [\"npm.example.com\"]\n\
         grant.inspect = true\n"
    );
    let inspected = with_rules(&text);
    let tunnel = asking(&inspected, "standard").connect("npm.example.com:443");
    assert_eq!((tunnel.verdict, tunnel.inspect), (Allow, Inspect::Yes));
}

#[test]
fn a_deny_with_does_never_reaches_an_opaque_tunnel() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "no-writes"
        verdict = "deny"
        to.hosts = ["api.example.com"]
        does.actions = ["write"]
        "#,
    );
    let open = asking(&policy, "open");
    assert_eq!(open.connect("api.example.com:443").verdict, Allow);
    let seen = open.request("PUT", "https://api.example.com/");
    assert_eq!(said(&seen), (Deny, "denied", "no-writes"));
}

#[test]
fn a_rule_is_for_its_callers_by_repository_and_user() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "ledger"
        verdict = "allow"
        from.repositories = ["github.com/acme/ledger*"]
        from.subjects = ["*@acme.example", "ci-*"]
        to.hosts = ["db.example.com"]
        [[rule]]
        id = "no-drafts"
        verdict = "deny"
        from.repositories = ["**/drafts"]
        to.hosts = ["db.example.com"]
        "#,
    );
    let of = |repository: Option<&str>, claimed: &[&str], subject: Option<&str>| {
        let mut asking = asking(&policy, "standard");
        asking.who.repository = repository.map(Into::into);
        asking.who.claimed = claimed.iter().map(|it| Arc::from(*it)).collect();
        asking.who.subject = subject.map(Into::into);
        asking.connect("db.example.com:443").rule.name.to_string()
    };
    let (ledger, ana) = (Some("github.com/acme/ledger-api"), Some("ana@acme.example"));
    let default = "tier.standard.default";
    assert_eq!(of(ledger, &[], ana), "ledger");
    assert_eq!(
        of(Some("GitHub.com/Acme/Ledger"), &[], Some("ci-7")),
        "ledger"
    );
    assert_eq!(of(ledger, &[], Some("ana@acme.example.net")), default);
    assert_eq!(of(ledger, &[], None), default);
    assert_eq!(of(Some("github.com/acme/other"), &[], ana), default);
    // A claim opens nothing, and counts against the caller.
    assert_eq!(of(None, &["github.com/acme/ledger"], ana), default);
    assert_eq!(of(ledger, &["gitlab.com/x/drafts"], ana), "no-drafts");
}

#[test]
fn a_refusal_has_the_reason_that_the_rule_gives() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "paste"
        verdict = "deny"
        to.hosts = ["paste.example"]
        reason = "code does not leave by paste sites"
        "#,
    );
    let standard = asking(&policy, "standard");
    let refused = standard.connect("paste.example:443");
    assert_eq!(
        refused.why.as_deref(),
        Some("code does not leave by paste sites")
    );
    assert_eq!(standard.connect("example.com:443").why, None);
}

#[test]
fn agents_that_are_not_in_use_have_no_destinations_of_their_own() {
    let (catalogue, findings) = Catalogue::parse(&[(
        "small.toml",
        r#"
        dated = "2026-11-29"
        [[destination]]
        category = "model-api"
        domain = "model.example"
        hosts = ["one"]
        agents = ["first"]
        source = "test"
        [[destination]]
        category = "model-api"
        domain = "model.example"
        hosts = ["two"]
        agents = ["second"]
        source = "test"
        "#,
    )]);
    assert!(findings.is_empty(), "{findings:?}");
    let mut source = read(TIERS);
    let agent = toml::Spanned::new(0..0, "first".to_owned());
    source.catalogue = Some(source::Placed {
        source: Arc::new(Source::new("c.toml", "")),
        span: 0..0,
        value: source::CatalogueUse {
            agents: vec![agent],
        },
    });
    let (policy, findings) = compile(&source, &catalogue);
    let policy = policy.unwrap_or_else(|| panic!("{findings:?}"));
    let standard = asking(&policy, "standard");
    assert_eq!(standard.connect("one.model.example:443").verdict, Allow);
    let other = standard.connect("two.model.example:443");
    assert_eq!((other.verdict, other.category), (Deny, Category::Unknown));
}
