//! Cases that mutation testing found untested: details beside the tests of the meaning of a policy.

use std::net::IpAddr;
use std::time::Duration;

use super::*;

use Verdict::{Allow, Deny};

/// A caller with claims.
fn claimed(claims: &[(Arc<str>, Arc<str>)]) -> Facts<'_> {
    Facts {
        claims,
        ..Facts::default()
    }
}

/// A caller with a verified name.
fn named(subject: &str) -> Facts<'_> {
    Facts {
        subject,
        ..Facts::default()
    }
}

fn target(authority: &str) -> Target {
    Target::from_connect(authority.as_bytes()).expect("host:port")
}

/// Returns a policy whose tier `standard` observes.
fn observing(rules: &str) -> Policy {
    let tiers = TIERS.replace("[tier.standard]\n", "[tier.standard]\nmode = \"observe\"\n");
    compiled(&format!("{tiers}{rules}"))
}

#[test]
fn an_address_in_a_denied_network_is_dialled_only_where_the_tier_observes() {
    let rules = "[[rule]]\nid = \"names\"\nverdict = \"allow\"\nto.hosts = [\"*.example.com\"]\n\
                 [[rule]]\nid = \"no\"\nverdict = \"deny\"\nto.hosts = [\"8.8.8.0/24\", \"10.0.0.0/8\"]\n";
    let policy = observing(rules);
    let guard = Guard::default();
    let dials = |tier: &str, address: &str| {
        let decision = asking(&policy, tier).connect("a.example.com:443");
        let address: IpAddr = address.parse().expect("an address");
        policy.lets_dial(&decision, address, 443, &guard)
    };
    assert!(dials("standard", "8.8.8.8"));
    assert!(!dials("restricted", "8.8.8.8"));
    assert!(dials("restricted", "8.8.4.4"));
    // No allow grants a private address.
    assert!(!dials("standard", "10.0.0.1"));
    assert!(!dials("standard", "192.168.0.1"));
}

#[test]
fn a_policy_is_enforced_where_the_tier_or_the_caller_is() {
    let mut policy = observing("");
    let enforces = |policy: &Policy, tier: &str, enforced: bool| {
        let who = Who {
            enforced,
            ..asking(policy, tier).who
        };
        policy.enforces(&who)
    };
    assert!(!enforces(&policy, "standard", false));
    assert!(enforces(&policy, "standard", true));
    assert!(enforces(&policy, "restricted", false));
    policy.observe();
    assert!(!enforces(&policy, "restricted", false));
}

#[test]
fn an_unseen_path_meets_the_paths_of_allows_or_those_of_denies() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "site"
        verdict = "allow"
        to.hosts = ["a.example.com"]
        does.methods = ["GET"]
        [[rule]]
        id = "files"
        verdict = "allow"
        to.hosts = ["b.example.com"]
        does.paths = ["/files/**"]
        [[rule]]
        id = "no"
        verdict = "deny"
        to.hosts = ["a.example.com"]
        does.paths = ["/secret/**"]
        "#,
    );
    let judged = |host: &str, lenient: bool| {
        let facts = RequestFacts {
            unseen_path: Some(UnseenPath {
                category: None,
                lenient,
            }),
            ..RequestFacts::default()
        };
        let url = format!("https://{host}.example.com/");
        let decision = asking(&policy, "standard").judge("GET", &url, Some(&facts));
        (decision.verdict, decision.rule.name.to_string())
    };
    assert_eq!(judged("a", true), (Allow, "site".to_owned()));
    assert_eq!(judged("a", false), (Deny, "no".to_owned()));
    assert_eq!(judged("b", true), (Allow, "files".to_owned()));
    assert_eq!(judged("b", false).0, Deny);
}

#[test]
fn another_reading_of_a_request_meets_denies_and_no_allow() {
    let policy = with_rules(
        r#"
        [[rule]]
        id = "look"
        verdict = "allow"
        to.hosts = ["a.example.com"]
        does.operations = ["look"]
        [[rule]]
        id = "no"
        verdict = "deny"
        to.hosts = ["b.example.com"]
        does.operations = ["look"]
        [[rule]]
        id = "rest"
        verdict = "allow"
        to.hosts = ["b.example.com"]
        "#,
    );
    let facts = |operation: &str, others: Vec<RequestFacts>| RequestFacts {
        operation: Some(operation.into()),
        other_readings: others.into(),
        ..RequestFacts::default()
    };
    let verdict = |host: &str, done: RequestFacts| {
        let url = format!("https://{host}.example.com/");
        let decision = asking(&policy, "standard").judge("GET", &url, Some(&done));
        decision.verdict
    };
    let look = || facts("look", Vec::new());
    assert_eq!(verdict("a", look()), Allow);
    assert_eq!(verdict("a", facts("drop", vec![look()])), Deny);
    assert_eq!(verdict("b", facts("drop", Vec::new())), Allow);
    assert_eq!(verdict("b", facts("drop", vec![look()])), Deny);
}

#[test]
fn facts_are_the_same_where_rules_cannot_tell_them_apart() {
    let facts = |operation: &str, repository: Option<&str>, package: Option<&str>| RequestFacts {
        operation: Some(operation.into()),
        repository: repository.map(Into::into),
        package: package.map(Into::into),
        ..RequestFacts::default()
    };
    let one = facts("push", Some("Acme/App"), None);
    assert!(one.names_the_same(&facts("push", Some("acme/app"), None)));
    assert!(!one.names_the_same(&facts("fetch", Some("acme/app"), None)));
    assert!(!one.names_the_same(&facts("push", Some("acme/web"), None)));
    assert!(!one.names_the_same(&facts("push", None, None)));
    assert!(!one.names_the_same(&facts("push", Some("acme/app"), Some("p"))));
}

#[test]
fn a_path_is_needed_where_it_can_change_the_category() {
    let policy = with_rules("");
    let needs = |authority: &str, category| policy.needs_path(&target(authority), category);
    assert!(!needs("api.model.example:443", Category::ModelApi));
    assert!(!needs("api.model.example:443", Category::Telemetry));
    assert!(needs("api.model.example:443", Category::SourceControl));
    assert!(!needs("forge.example:443", Category::ModelApi));
    assert!(!needs("unknown.example:443", Category::ModelApi));
}

#[test]
fn a_listed_server_is_found_by_its_place_and_its_name() {
    let policy = with_rules("[mcp.issues]\nurl = \"https://mcp.example.com/mcp\"\n");
    assert!(policy.has_server(&target("mcp.example.com:443")));
    assert!(!policy.has_server(&target("mcp.example.com:8443")));
    assert!(!policy.has_server(&target("www.example.com:443")));
    assert_eq!(policy.server_path("issues"), Some("/mcp"));
    assert_eq!(policy.server_path("other"), None);
}

#[test]
fn the_longest_age_of_several_denies_counts_and_the_first_is_named() {
    let deny = |id: &str, age: &str| {
        format!(
            "[[rule]]\nid = \"{id}\"\nverdict = \"deny\"\nto.hosts = [\"npm.example.com\"]\n\
             unless.min-age = \"{age}\"\n"
        )
    };
    let rules = format!(
        "[[destination]]\ncategory = \"package-registry\"\nhosts = [\"npm.example.com\"]\n\
         service = \"npm\"\n{}{}{}",
        deny("day", "24 h"),
        deny("week", "168 h"),
        deny("also-week", "168 h")
    );
    let policy = with_rules(&rules);
    let url = "https://npm.example.com/left-pad/-/left-pad-1.3.1.tgz";
    let pending = asking(&policy, "open").request("GET", url);
    let age = pending.min_age.expect("an age to ask the registry for");
    assert_eq!(age.least, Duration::from_hours(168));
    assert_eq!(&*age.rule.name, "week");
}

#[test]
fn a_listener_is_closed_at_its_own_address_also_where_no_interface_is_known() {
    let own = Guard {
        listeners: vec!["8.8.8.8:3128".parse().expect("an address")],
        interfaces: Vec::new(),
    };
    let granted = ["0.0.0.0/0".parse().expect("a network")];
    let dials =
        |address: &str, port| own.lets_dial(address.parse().expect("an address"), port, &granted);
    assert!(!dials("8.8.8.8", 3128));
    assert!(dials("8.8.8.8", 443));
    assert!(dials("8.8.4.4", 3128));
}

#[test]
fn everything_is_inspected_only_where_unknown_hosts_are() {
    let inspected = |category: &str| {
        let text = format!(
            "[[rule]]\nid = \"look\"\nverdict = \"allow\"\nto.categories = [\"{category}\"]\n\
             grant.inspect = true\n"
        );
        with_rules(&text).inspected_names()
    };
    let registry = inspected("package-registry");
    assert!(!registry.everything);
    assert!(registry.names.contains(&"packages.example".to_owned()));
    assert!(inspected("unknown").everything);
    // A path of the host has the category.
    let telemetry = inspected("telemetry");
    assert!(
        telemetry.names.contains(&"api.model.example".to_owned()),
        "{telemetry:?}"
    );
}

#[test]
fn a_reviewer_is_found_by_uid_subject_or_group_and_by_nothing_less() {
    let reviewed = TIERS.replace(
        "[tier.standard]\n",
        "[tier.standard]\n\
         reviewers = [\"uid:0\", \"subject:*@sec.example\", \"group:sec\", \"group:tokens\"]\n",
    );
    let policy = compiled(&format!(
        "{reviewed}[group.sec]\nmembers = [\"claim:team=sec\"]\n"
    ));
    let standard = policy.tier("standard").expect("a tier");
    let found = |uid: Option<u32>, facts: &Facts<'_>| {
        policy
            .reviewer(standard, uid, facts)
            .map(ToString::to_string)
    };
    let nobody = Facts::default();
    assert_eq!(found(Some(0), &nobody).as_deref(), Some("uid:0"));
    assert_eq!(found(Some(1000), &nobody), None);
    assert_eq!(found(None, &nobody), None);
    assert_eq!(
        found(None, &named("ana@sec.example")).as_deref(),
        Some("subject:*@sec.example")
    );
    assert_eq!(found(None, &named("ana@dev.example")), None);
    let claims = |team: &str| [("team".into(), team.into())];
    let (sec, dev) = (claims("sec"), claims("dev"));
    assert_eq!(found(None, &claimed(&sec)).as_deref(), Some("group:sec"));
    assert_eq!(found(None, &claimed(&dev)), None);
    // A group that only a token names.
    let groups: [Arc<str>; 1] = ["tokens".into()];
    let token = Facts {
        groups: &groups,
        ..Facts::default()
    };
    assert_eq!(found(None, &token).as_deref(), Some("group:tokens"));
    let open = policy.tier("open").expect("a tier");
    assert_eq!(policy.reviewer(open, Some(0), &nobody), None);
    // Every subject is named by `*`, but a principal without a subject is not one.
    let all = TIERS.replace(
        "[tier.standard]\n",
        "[tier.standard]\nreviewers = [\"subject:*\"]\n",
    );
    let all = compiled(&all);
    let standard = all.tier("standard").expect("a tier");
    assert_eq!(all.reviewer(standard, Some(0), &nobody), None);
    assert!(all.reviewer(standard, None, &named("x")).is_some());
}

#[test]
fn the_credentials_that_a_deny_spares_are_compared() {
    let policy = |digits: &[&str]| {
        let hashes = digits
            .iter()
            .map(|it| format!("\"hmac-sha256:{}\"", it.repeat(64)));
        let hashes = hashes.collect::<Vec<_>>().join(", ");
        with_rules(&format!(
            "[[rule]]\nid = \"look\"\nverdict = \"allow\"\nto.hosts = [\"p.example.com\"]\n\
             grant.inspect = true\n\
             [[rule]]\nid = \"ours\"\nverdict = \"deny\"\nto.hosts = [\"p.example.com\"]\n\
             unless.credentials = [{hashes}]\n"
        ))
    };
    let relation = |before: &[&str], after: &[&str]| {
        let found = difference(&policy(before), &policy(after));
        found.relation
    };
    assert_eq!(relation(&["a"], &["a"]), Relation::Equal);
    assert_eq!(relation(&["a"], &["a", "b"]), Relation::Wider);
    assert_eq!(relation(&["a", "b"], &["b"]), Relation::Narrower);
    assert_eq!(relation(&["a"], &["b"]), Relation::Both);
}

#[test]
fn messages_to_a_server_are_compared_at_its_own_destination() {
    let policy = |tools: &str| {
        with_rules(&format!(
            "[mcp.issues]\nurl = \"https://mcp.example.com/mcp\"\n\
             [mcp.other]\nurl = \"https://other.example.com/mcp\"\n\
             [[rule]]\nid = \"tools\"\nverdict = \"allow\"\nfrom.tiers = [\"restricted\"]\n\
             does.servers = [\"issues\"]\ndoes.tools = [{tools}]\n"
        ))
    };
    let found = difference(&policy("\"list\""), &policy("\"list\", \"close\""));
    assert_eq!(found.relation, Relation::Wider, "{:#?}", found.changes);
    let mut flows = found.changes.iter().map(|it| &it.witness.flow);
    assert!(
        flows.all(|it| it.contains("https://mcp.example.com/mcp")),
        "{:#?}",
        found.changes
    );
}

#[test]
fn an_ended_exception_is_retested_at_each_of_its_hosts_as_its_caller() {
    let policy = with_rules(
        "[[rule]]\nid = \"files\"\nverdict = \"allow\"\nfrom.tiers = [\"open\"]\n\
         to.hosts = [\"*.files.example\"]\n\
         [[rule]]\nid = \"web\"\nverdict = \"allow\"\nfrom.subjects = [\"ana\"]\n\
         to.hosts = [\"web.example\"]\n",
    );
    let grant = |from: &str| -> crate::ledger::Grant {
        let text = format!(
            "{{\"id\": \"G\", \"reason\": \"r\", \"reviewer\": [\"uid:0\"], \
             \"expires\": \"2026-12-01T18:00:00Z\", \"from\": {from}, \"to\": {{\"hosts\": \
             [\"*.files.example\", \"web.example\", \"8.8.0.0/16\", \"2a00:1::/32\"]}}}}"
        );
        serde_json::from_str(&text).expect("a grant")
    };
    let told = |from: &str| {
        let retested = policy.retest(&grant(from));
        let told = retested
            .iter()
            .map(|it| format!("{} {}", it.target, it.verdict));
        told.collect::<Vec<_>>()
    };
    assert_eq!(
        told("{\"tiers\": [\"standard\"], \"subjects\": [\"a*\", \"ana\"]}"),
        [
            "any.files.example:443 deny",
            "web.example:443 allow",
            "8.8.0.0:443 deny",
            "[2a00:1::]:443 deny",
        ]
    );
    assert_eq!(
        told("{\"tiers\": [\"open\"], \"subjects\": [\"bo\"]}"),
        [
            "any.files.example:443 allow",
            "web.example:443 allow",
            "8.8.0.0:443 allow",
            "[2a00:1::]:443 allow",
        ]
    );
}

#[test]
fn an_asserted_repository_makes_a_tier_stricter_and_never_looser() {
    let policy = with_rules(
        "[[repository]]\nmatch = \"github.com/acme/site\"\ntier = \"open\"\n\
         [[repository]]\nmatch = \"github.com/acme/vault\"\ntier = \"restricted\"\n",
    );
    let tier = |name: &str| policy.tier(name).expect("a tier");
    let mut who = asking(&policy, "standard").who;
    let basis = who.tier_basis;
    policy.tighten(&mut who, &"github.com/acme/site".into(), &[]);
    policy.tighten(
        &mut who,
        &"github.com/acme/vault".into(),
        &[TierBasis::Listener],
    );
    assert_eq!((who.tier, who.tier_basis), (tier("standard"), basis));
    policy.tighten(&mut who, &"github.com/acme/vault".into(), &[]);
    let stricter = (tier("restricted"), TierBasis::Repository);
    assert_eq!((who.tier, who.tier_basis), stricter);
    assert_eq!(who.claimed.len(), 3);
}

#[test]
fn a_tier_is_given_by_a_listener_or_a_session_and_by_nothing_else() {
    let policy = with_rules("");
    let given = |tier_basis| {
        let who = asking(&policy, "standard").who;
        Who { tier_basis, ..who }.is_given()
    };
    assert!(given(TierBasis::Listener) && given(TierBasis::Session));
    assert!(!given(TierBasis::Repository) && !given(TierBasis::Unattributed));
}

#[test]
fn a_listed_server_on_loopback_is_granted_over_plain_http_alone() {
    let policy = with_rules(
        "[mcp.local]\nurl = \"http://127.0.0.1:8811/mcp\"\n\
         [mcp.inside]\nurl = \"https://10.0.0.5/mcp\"\n\
         [[rule]]\nid = \"tools\"\nverdict = \"allow\"\ndoes.servers = [\"local\", \"inside\"]\n",
    );
    let standard = asking(&policy, "standard");
    let local = standard.request("GET", "http://127.0.0.1:8811/mcp");
    assert_eq!(said(&local), (Allow, "allowed", "tools"));
    let inside = standard.request("GET", "https://10.0.0.5/mcp");
    assert_eq!(
        (inside.verdict, inside.reason.code()),
        (Deny, "address_denied")
    );
    let other = standard.request("GET", "http://127.0.0.1:8812/mcp");
    assert_eq!(other.verdict, Deny);
}

#[test]
fn what_an_ask_may_let_pass_is_inspected_and_held_to_denied_networks() {
    let policy = with_rules(
        "[[rule]]\nid = \"look\"\nverdict = \"allow\"\nto.hosts = [\"*.example.com\"]\n\
         grant.inspect = true\n\
         [[rule]]\nid = \"q\"\nverdict = \"ask\"\nto.hosts = [\"a.example.com\"]\n\
         [[rule]]\nid = \"no\"\nverdict = \"deny\"\nto.hosts = [\"b.example.com\", \"8.8.8.0/24\"]\n",
    );
    let standard = asking(&policy, "standard");
    let seen = |authority: &str| {
        let decision = standard.connect(authority);
        let networks = decision.denied.iter().flat_map(|it| it.iter()).count();
        (decision.verdict, decision.inspect, networks)
    };
    assert_eq!(seen("a.example.com:443"), (Verdict::Ask, Inspect::Yes, 1));
    assert_eq!(seen("b.example.com:443"), (Deny, Inspect::No, 0));
    assert_eq!(seen("c.example.com:443"), (Allow, Inspect::Yes, 1));
}

#[test]
fn an_upgrade_that_the_catalogue_expects_is_granted_at_its_path() {
    let (catalogue, findings) = Catalogue::parse(&[(
        "small.toml",
        r#"
        dated = "2026-11-30"
        [[destination]]
        category = "model-api"
        domain = "model.example"
        hosts = ["api"]
        paths = [{ category = "model-api", match = "/v1/stream", upgrade = true }]
        source = "test"
        "#,
    )]);
    assert!(findings.is_empty(), "{findings:?}");
    let (policy, findings) = compile(&read(TIERS), &catalogue);
    let policy = policy.unwrap_or_else(|| panic!("{findings:?}"));
    let granted = |path: &str, unseen: Option<bool>| {
        let url = format!("https://api.model.example{path}");
        let url = Url::parse(url.as_bytes()).expect("a URL");
        let facts = RequestFacts {
            unseen_path: unseen.map(|lenient| UnseenPath {
                category: None,
                lenient,
            }),
            ..RequestFacts::default()
        };
        let attempt = Attempt::Request {
            method: "GET",
            path: &url.path,
            upgrade: true,
            tls: true,
            request_facts: Some(&facts),
        };
        let decision = asking(&policy, "standard").decide(&url.target, attempt);
        decision.upgrade
    };
    assert!(granted("/v1/stream", None));
    assert!(!granted("/v1/other", None));
    assert!(granted("/", Some(true)));
    assert!(!granted("/", Some(false)));
}
