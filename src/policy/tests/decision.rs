//! Tests of the order of a decision, and of the meaning of each condition.

use std::net::{IpAddr, SocketAddr};

use super::*;

use Verdict::{Allow, Ask, Deny};

#[test]
fn deny_is_final_however_broad_the_allow_beside_it() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "exact"
        verdict = "allow"
        to.hosts = ["a.b.example.com"]
        [[rule]]
        id = "broad"
        verdict = "deny"
        to.hosts = ["*.example.com"]
        "#,
    );
    let decision = asking(&policy, "standard").connect("a.b.example.com:443");
    assert_eq!(said(&decision), (Deny, "denied", "broad"));
    assert_eq!(&*decision.rule.location, "test.toml:20");
}

#[test]
fn ask_stands_between_deny_and_allow() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "may"
        verdict = "allow"
        to.hosts = ["a.example.com", "b.example.com"]
        [[rule]]
        id = "first-ask"
        verdict = "ask"
        to.hosts = ["*.example.com"]
        [[rule]]
        id = "never"
        verdict = "deny"
        to.hosts = ["b.example.com"]
        "#,
    );
    let standard = asking(&policy, "standard");
    assert_eq!(
        said(&standard.connect("a.example.com:443")),
        (Ask, "needs_approval", "first-ask")
    );
    assert_eq!(
        said(&standard.connect("b.example.com:443")),
        (Deny, "denied", "never")
    );
}

#[test]
fn the_most_specific_host_of_the_winning_kind_is_named() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "category"
        verdict = "allow"
        to.categories = ["package-registry"]
        [[rule]]
        id = "short"
        verdict = "allow"
        to.hosts = ["*.packages.example"]
        [[rule]]
        id = "long"
        verdict = "allow"
        to.hosts = ["*.b.packages.example"]
        [[rule]]
        id = "exact"
        verdict = "allow"
        to.hosts = ["a.b.packages.example"]
        [[rule]]
        id = "exact-too"
        verdict = "allow"
        to.hosts = ["a.b.packages.example"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let named = |host: &str| standard.connect(host).rule.name.to_string();
    assert_eq!(named("a.b.packages.example:443"), "exact");
    assert_eq!(named("c.b.packages.example:443"), "long");
    assert_eq!(named("c.packages.example:443"), "short");
    assert_eq!(named("packages.example:443"), "category");
}

#[test]
fn a_tier_list_is_named_where_no_rule_is() {
    let policy = with_rules("");
    let standard = asking(&policy, "standard");
    let allowed = standard.connect("api.model.example:443");
    assert_eq!(said(&allowed), (Allow, "allowed", "tier.standard.allow"));
    let denied = standard.connect("report.example:443");
    assert_eq!(
        said(&denied),
        (Deny, "category_denied", "tier.standard.deny")
    );
    let nothing = standard.connect("example.com:443");
    assert_eq!(
        said(&nothing),
        (Deny, "not_allowed", "tier.standard.default")
    );
    assert_eq!(nothing.category, Category::Unknown);
    assert_eq!(nothing.basis, Basis::None);
}

#[test]
fn an_action_of_a_deny_or_ask_is_never_matched_by_what_is_opaque() {
    let policy = with_rules("");
    let standard = asking(&policy, "standard");
    let tunnel = standard.connect("packages.example:443");
    assert_eq!(said(&tunnel), (Allow, "allowed", "tier.standard.allow"));
    assert_eq!(tunnel.action, None);
    let write = standard.request("PUT", "https://packages.example/x");
    assert_eq!(said(&write), (Deny, "action_denied", "tier.standard.deny"));
    assert_eq!(write.action, Some(Action::Write));
    let read = standard.request("GET", "https://packages.example/x");
    assert_eq!(said(&read), (Allow, "allowed", "tier.standard.allow"));
    let push = standard.request(
        "GET",
        "https://forge.example/x/info/refs?service=git-receive-pack",
    );
    assert_eq!(said(&push), (Ask, "needs_approval", "tier.standard.ask"));
    let fetch = standard.request(
        "GET",
        "https://forge.example/x/info/refs?service=git-upload-pack",
    );
    assert_eq!(said(&fetch), (Deny, "not_allowed", "tier.standard.default"));
}

#[test]
fn opaque_deny_makes_seeing_a_condition_of_passing() {
    let policy = with_rules("");
    let restricted = asking(&policy, "restricted");
    let tunnel = restricted.connect("packages.example:443");
    assert_eq!(
        said(&tunnel),
        (Deny, "action_denied", "tier.restricted.default")
    );
    let seen = restricted.request("GET", "https://packages.example/x");
    assert_eq!(said(&seen), (Allow, "allowed", "tier.restricted.allow"));
    let written = restricted.request("PUT", "https://packages.example/x");
    assert_eq!(
        said(&written),
        (Deny, "action_denied", "tier.restricted.default")
    );
}

#[test]
fn a_path_that_is_seen_splits_a_host() {
    let policy = with_rules("");
    let standard = asking(&policy, "standard");
    let call = standard.request("POST", "https://api.model.example/v1/messages");
    assert_eq!(
        (call.category, call.basis),
        (Category::ModelApi, Basis::Host)
    );
    assert_eq!(call.action, Some(Action::Call));
    let event = standard.request("POST", "https://api.model.example/events/batch");
    assert_eq!(
        (event.category, event.basis),
        (Category::Telemetry, Basis::Path)
    );
    assert_eq!(
        said(&event),
        (Deny, "category_denied", "tier.standard.deny")
    );
    let tunnel = standard.connect("api.model.example:443");
    assert_eq!(
        (tunnel.category, tunnel.basis),
        (Category::ModelApi, Basis::Host)
    );
}

#[test]
fn a_rule_with_hosts_changes_no_category() {
    let policy = with_rules(
        r#"
        [[destination]]
        category = "package-registry"
        hosts = ["*.acme.example", "api.model.example"]
        ports = [8443]
        [[rule]]
        id = "ours"
        verdict = "deny"
        from.tiers = ["restricted"]
        to.hosts = ["*.acme.example", "api.model.example"]
        to.ports = [8443]
        [[destination]]
        category = "telemetry"
        hosts = ["t.acme.example"]
        [[rule]]
        id = "theirs"
        verdict = "ask"
        from.tiers = ["restricted"]
        to.hosts = ["t.acme.example"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let ours = standard.connect("a.acme.example:8443");
    assert_eq!(
        (ours.category, ours.basis),
        (Category::PackageRegistry, Basis::Rule)
    );
    assert_eq!(said(&ours), (Allow, "allowed", "tier.standard.allow"));
    // The ports of the tier's list are those of the rule that gave the category.
    let elsewhere = standard.connect("a.acme.example:443");
    assert_eq!(
        said(&elsewhere),
        (Deny, "port_denied", "tier.standard.default")
    );
    let theirs = standard.connect("t.acme.example:443");
    assert_eq!(
        (theirs.category, theirs.basis),
        (Category::Telemetry, Basis::Rule)
    );
    let split = standard.request("POST", "https://api.model.example/events/x");
    assert_eq!(
        (split.category, split.basis),
        (Category::PackageRegistry, Basis::Rule)
    );
}

#[test]
fn a_rule_with_a_category_alone_selects_its_flows() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "forges"
        verdict = "allow"
        to.categories = ["source-control"]
        from.tiers = ["standard"]
        "#,
    );
    let allowed = asking(&policy, "standard").connect("forge.example:443");
    assert_eq!(said(&allowed), (Allow, "allowed", "forges"));
    assert_eq!(allowed.basis, Basis::Host);
    let denied = asking(&policy, "restricted").connect("forge.example:443");
    assert_eq!(
        said(&denied),
        (Deny, "not_allowed", "tier.restricted.default")
    );
}

#[test]
fn no_port_means_443_for_tunnels_and_80_for_plain_http() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "docs"
        verdict = "allow"
        to.hosts = ["docs.example.com"]
        "#,
    );
    let standard = asking(&policy, "standard");
    assert_eq!(standard.connect("docs.example.com:443").verdict, Allow);
    assert_eq!(
        standard.request("GET", "http://docs.example.com/").verdict,
        Allow
    );
    assert_eq!(
        standard.request("GET", "https://docs.example.com/").verdict,
        Allow
    );
    for refused in [
        standard.connect("docs.example.com:22"),
        standard.connect("docs.example.com:80"),
        standard.connect("docs.example.com:8443"),
        standard.request("GET", "http://docs.example.com:443/"),
        standard.request("GET", "http://docs.example.com:8080/"),
    ] {
        assert_eq!(
            said(&refused),
            (Deny, "port_denied", "tier.standard.default")
        );
    }
}

#[test]
fn the_catalogue_says_which_ports_a_tier_list_opens() {
    let policy = with_rules("");
    let standard = asking(&policy, "standard");
    assert_eq!(standard.connect("packages.example:8443").verdict, Allow);
    assert_eq!(standard.connect("packages.example:443").verdict, Allow);
    let refused = standard.connect("packages.example:22");
    assert_eq!(
        said(&refused),
        (Deny, "port_denied", "tier.standard.default")
    );
}

#[test]
fn a_deny_without_ports_denies_on_every_port() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "wide"
        verdict = "allow"
        to.hosts = ["*.example.com"]
        to.ports = [443, 8443]
        [[rule]]
        id = "narrow"
        verdict = "deny"
        to.hosts = ["bad.example.com"]
        "#,
    );
    let standard = asking(&policy, "standard");
    assert_eq!(
        said(&standard.connect("bad.example.com:8443")),
        (Deny, "denied", "narrow")
    );
    assert_eq!(
        said(&standard.connect("good.example.com:8443")),
        (Allow, "allowed", "wide")
    );
    let telemetry = standard.connect("report.example:8443");
    assert_eq!(
        said(&telemetry),
        (Deny, "category_denied", "tier.standard.deny")
    );
}

#[test]
fn methods_and_paths_are_conditions_on_what_is_seen() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "docs"
        verdict = "allow"
        to.hosts = ["docs.example.com"]
        to.ports = [80]
        does.methods = ["GET"]
        does.paths = ["/crate/*/docs/**"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let get = |url| standard.request("GET", url);
    assert_eq!(get("http://docs.example.com/crate/x/docs").verdict, Allow);
    assert_eq!(
        get("http://docs.example.com/crate/x/docs/y?q=1").verdict,
        Allow
    );
    let head = standard.request("HEAD", "http://docs.example.com/crate/x/docs");
    assert_eq!(head.verdict, Allow, "GET implies HEAD");
    for refused in [
        get("http://docs.example.com/crate/x/docsevil"),
        standard.request("PUT", "http://docs.example.com/crate/x/docs"),
        standard.request("get", "http://docs.example.com/crate/x/docs"),
    ] {
        assert_eq!(
            said(&refused),
            (Deny, "action_denied", "tier.standard.default")
        );
    }
    // A tunnel passes whole if the tier allows it.
    assert_eq!(
        said(&standard.connect("docs.example.com:80")),
        (Allow, "allowed", "docs")
    );
    let strict = asking(&policy, "restricted").connect("docs.example.com:80");
    assert_eq!(
        said(&strict),
        (Deny, "action_denied", "tier.restricted.default")
    );
}

#[test]
fn a_rule_for_a_group_is_for_its_members_alone() {
    let policy = with_rules(
        r#"
        [group.staff]
        members = ["subject:ana@acme.example"]
        [group.other]
        members = ["subject:bob@acme.example"]
        [[rule]]
        id = "staff-only"
        verdict = "allow"
        from.groups = ["staff"]
        to.hosts = ["intra.example.com"]
        [[rule]]
        id = "not-others"
        verdict = "deny"
        from.groups = ["other"]
        "#,
    );
    let host = "intra.example.com:443";
    assert_eq!(
        asking(&policy, "standard")
            .of("staff")
            .connect(host)
            .verdict,
        Allow
    );
    assert_eq!(asking(&policy, "standard").connect(host).verdict, Deny);
    let both = asking(&policy, "standard")
        .of("staff")
        .of("other")
        .connect(host);
    assert_eq!(said(&both), (Deny, "denied", "not-others"));
}

#[test]
fn observe_lets_would_be_refusals_pass_and_says_so() {
    let policy = compiled(
        r#"
        [tiers]
        order = ["watch"]
        [tier.watch]
        mode = "observe"
        default = "ask"
        deny = ["telemetry"]
        "#,
    );
    let watch = asking(&policy, "watch");
    let denied = watch.connect("report.example:443");
    assert_eq!(said(&denied), (Allow, "category_denied", "tier.watch.deny"));
    assert_eq!((denied.would, denied.mode), (Some(Deny), Mode::Observe));
    let asked = watch.connect("example.com:443");
    assert_eq!((asked.verdict, asked.would), (Allow, Some(Ask)));
    let floor = watch.connect("169.254.169.254:80");
    assert_eq!((floor.verdict, floor.would), (Deny, None));
    assert_eq!(said(&floor), (Deny, "address_denied", "floor"));
}

#[test]
fn no_rule_reaches_metadata_or_names_that_are_none() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "all"
        verdict = "allow"
        to.hosts = ["*.internal", "metadata.google.internal", "169.254.0.0/16", "x.onion", "10.0.0.0/8"]
        grant.addresses = ["10.0.0.0/8"]
        to.ports = [80, 443]
        "#,
    );
    for tier in ["open", "standard", "restricted"] {
        for host in [
            "metadata.google.internal:80",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[::ffff:a9fe:a9fe]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[2002:a9fe:a9fe::]:80",
            "[fd00:ec2::254]:80",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "x.onion:443",
            "0.0.0.0:443",
            "[::]:443",
            "224.0.0.1:443",
        ] {
            let decision = asking(&policy, tier).connect(host);
            assert_eq!(
                said(&decision),
                (Deny, "address_denied", "floor"),
                "{tier} {host}"
            );
            assert_eq!(&*decision.rule.location, "");
        }
    }
}

#[test]
fn private_addresses_need_an_allow_that_names_them() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "named"
        verdict = "allow"
        to.hosts = ["10.2.0.0/16", "registry.internal"]
        grant.addresses = ["10.2.0.0/24", "::1"]
        [[rule]]
        id = "unnamed"
        verdict = "allow"
        to.hosts = ["192.168.0.0/16", "other.internal", "localhost"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let named = standard.connect("10.2.0.7:443");
    assert_eq!(said(&named), (Allow, "allowed", "named"));
    assert_eq!(named.addresses.len(), 2);
    assert_eq!(standard.connect("registry.internal:443").verdict, Allow);
    for host in [
        "10.2.1.7:443",
        "192.168.0.1:443",
        "other.internal:443",
        "localhost:443",
        "127.0.0.1:443",
    ] {
        for tier in ["open", "standard"] {
            let decision = asking(&policy, tier).connect(host);
            assert_eq!(
                said(&decision),
                (Deny, "address_denied", "floor"),
                "{tier} {host}"
            );
        }
    }
}

#[test]
fn an_allow_with_addresses_does_not_outdo_a_deny() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "named"
        verdict = "allow"
        to.hosts = ["10.2.0.7"]
        grant.addresses = ["10.2.0.7"]
        [[rule]]
        id = "no"
        verdict = "deny"
        to.hosts = ["10.0.0.0/8"]
        "#,
    );
    let decision = asking(&policy, "standard").connect("10.2.0.7:443");
    assert_eq!(said(&decision), (Deny, "denied", "no"));
}

#[test]
fn a_public_address_is_matched_by_no_name() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "resolver"
        verdict = "allow"
        to.hosts = ["9.9.9.9", "dns.example.com"]
        "#,
    );
    let standard = asking(&policy, "standard");
    assert_eq!(standard.connect("9.9.9.9:443").verdict, Allow);
    assert_eq!(standard.connect("[::ffff:9.9.9.9]:443").verdict, Allow);
    assert_eq!(standard.connect("1.1.1.1:443").verdict, Deny);
}

#[test]
fn grants_come_from_the_deciding_allow_alone() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "broad"
        verdict = "allow"
        to.hosts = ["*.example.com"]
        grant.raw = true
        grant.upgrade = true
        grant.addresses = ["10.0.0.0/8"]
        [[rule]]
        id = "exact"
        verdict = "allow"
        to.hosts = ["a.example.com"]
        "#,
    );
    let standard = asking(&policy, "standard");
    let broad = standard.connect("b.example.com:443");
    assert!(broad.raw && broad.upgrade && broad.addresses.len() == 1);
    let exact = standard.connect("a.example.com:443");
    assert!(!exact.raw && !exact.upgrade && exact.addresses.is_empty());
    let list = standard.connect("api.model.example:443");
    assert!(!list.raw && !list.upgrade && list.addresses.is_empty());
    let default = asking(&policy, "open").connect("example.org:443");
    assert_eq!(said(&default), (Allow, "allowed", "tier.open.default"));
    assert!(!default.raw && default.addresses.is_empty());
}

#[test]
fn addresses_are_judged_again_when_they_are_known() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "named"
        verdict = "allow"
        to.hosts = ["*.example.com"]
        grant.addresses = ["10.2.0.0/16", "127.0.0.0/8"]
        "#,
    );
    let guard = Guard {
        listeners: vec![
            "0.0.0.0:3128".parse().unwrap(),
            "10.2.0.9:3130".parse().unwrap(),
        ],
        interfaces: vec![
            "10.2.0.9/32".parse().unwrap(),
            "203.0.113.9/32".parse().unwrap(),
            "8.8.8.8/32".parse().unwrap(),
            "45.77.1.0/24".parse().unwrap(),
        ],
    };
    let named = asking(&policy, "standard").connect("a.example.com:443");
    let plain = asking(&policy, "open").connect("example.org:443");
    let judge = |decision: &Decision, address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        policy
            .judge_address(decision, address.ip(), address.port(), &guard)
            .is_ok()
    };
    assert!(judge(&plain, "9.9.9.9:443"));
    assert!(judge(&plain, "[2606:4700::1111]:443"));
    assert!(judge(&named, "9.9.9.9:443"));
    for private in [
        "10.2.0.7:443",
        "127.0.0.1:443",
        "192.168.1.1:443",
        "[fd12::1]:443",
        "[::1]:443",
    ] {
        assert!(!judge(&plain, private), "{private}");
    }
    assert!(judge(&named, "10.2.0.7:443"));
    assert!(judge(&named, "127.0.0.1:443"));
    assert!(judge(&named, "[::ffff:10.2.0.7]:443"));
    assert!(!judge(&named, "192.168.1.1:443"));
    assert!(
        !judge(&named, "[64:ff9b::10.2.0.7]:443"),
        "the gateway is not named"
    );
    for never in [
        "169.254.169.254:80",
        "[fe80::1]:80",
        "0.0.0.0:80",
        "[64:ff9b::a9fe:a9fe]:80",
    ] {
        assert!(!judge(&named, never), "{never}");
    }
    // The proxy's listeners are unreachable even if the network is named.
    assert!(!judge(&named, "127.0.0.1:3128"));
    assert!(!judge(&named, "10.2.0.9:3128"));
    assert!(!judge(&named, "[::ffff:127.0.0.1]:3128"));
    assert!(!judge(&named, "10.2.0.9:3130"));
    assert!(!judge(&named, "8.8.8.8:3128"));
    // The proxy's interfaces are reached only if they are named, public or not.
    assert!(judge(&named, "10.2.0.9:443"));
    assert!(!judge(&named, "8.8.8.8:443"));
    assert!(!judge(&plain, "8.8.8.8:443"));
    // A network that a route makes local belongs to the same machine.
    assert!(!judge(&plain, "45.77.1.200:443"));
    assert!(judge(&plain, "45.77.2.1:443"));
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    let refused = policy.judge_address(&plain, address, 443, &guard);
    assert_eq!(refused, Err(AddressRefusal::Floor));
}

#[test]
fn unknown_is_a_category_like_any_other() {
    let policy = compiled(
        r#"
        [tiers]
        order = ["only"]
        [tier.only]
        allow = ["unknown:read"]
        "#,
    );
    let only = asking(&policy, "only");
    assert_eq!(only.request("GET", "http://example.com/").verdict, Allow);
    assert_eq!(only.connect("example.com:443").verdict, Allow);
    assert_eq!(
        said(&only.request("PUT", "http://example.com/")).1,
        "action_denied"
    );
}

#[test]
fn a_tier_that_no_policy_has_is_the_strictest() {
    let policy = with_rules("");
    let mut asking = asking(&policy, "open");
    asking.who.tier = TierId(200);
    assert_eq!(
        said(&asking.connect("example.com:443")).2,
        "tier.restricted.default"
    );
}
