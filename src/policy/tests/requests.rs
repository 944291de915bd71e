//! Tests of conditions of rules on inspected requests.

use std::time::Duration;

use crate::name::Path;

use super::*;

const RULES: &str = r#"
[mcp.issues]
url = "https://mcp.example.com/mcp"
[mcp.other]
url = "https://mcp.example.com/other"

[[destination]]
category = "source-control"
hosts = ["git.example.com"]
[[rule]]
id = "git"
verdict = "allow"
to.hosts = ["git.example.com"]
grant.inspect = true
does.actions = ["read"]

[[rule]]
id = "push"
verdict = "allow"
to.hosts = ["git.example.com"]
does.repositories = ["acme/*"]
does.operations = ["push"]
does.refs = ["agent/**", "refs/tags/v*"]

[[destination]]
category = "package-registry"
hosts = ["registry.example.com"]
service = "npm"
[[rule]]
id = "npm"
verdict = "allow"
to.hosts = ["registry.example.com"]
grant.inspect = true
does.actions = ["read"]
does.packages = ["@acme/*", "left-pad"]
[[rule]]
id = "npm-age"
verdict = "deny"
to.hosts = ["registry.example.com"]
does.packages = ["@acme/*", "left-pad"]
grant.inspect = true
unless.min-age = "7d"

[[rule]]
id = "issues"
verdict = "allow"
does.servers = ["issues"]
does.tools = ["search_*", "get_*"]
[[rule]]
id = "issues-tools"
verdict = "deny"
does.servers = ["issues"]
does.tools = ["get_secret*"]

[[rule]]
id = "pinned"
verdict = "allow"
to.hosts = ["pinned.example.com"]
grant.inspect = false
"#;

fn request_facts(policy: &Policy, method: &str, url: &str) -> RequestFacts {
    let url = Url::parse(url.as_bytes()).unwrap();
    policy.read(&url.target, method, &url.path)
}

fn judged(
    policy: &Policy,
    tier: &str,
    method: &str,
    url: &str,
    request_facts: &RequestFacts,
) -> Decision {
    asking(policy, tier).judge(method, url, Some(request_facts))
}

fn pushed(policy: &Policy, repository: &str, reference: &str) -> Decision {
    let url = format!("https://git.example.com/{repository}.git/git-receive-pack");
    let mut done = request_facts(policy, "POST", &url);
    assert_eq!((done.seen, done.body), (Seen::Head, Some(Body::GitPush)));
    done.reference = Some(reference.into());
    (done.seen, done.body) = (Seen::Whole, None);
    judged(policy, "restricted", "POST", &url, &done)
}

#[test]
fn a_tunnel_is_inspected_where_a_rule_says_so() {
    let policy = with_rules(RULES);
    let connect = |host: &str| asking(&policy, "restricted").connect(host);
    let git = connect("git.example.com:443");
    // `opaque = "deny"` does not stop flows whose requests will be judged one by one.
    assert_eq!(said(&git), (Verdict::Allow, "allowed", "git"));
    assert_eq!(git.inspect, Inspect::Yes);
    assert_eq!(connect("git.example.com:22").inspect, Inspect::No);
    assert_eq!(connect("pinned.example.com:443").inspect, Inspect::No);
    assert_eq!(connect("mcp.example.com:443").inspect, Inspect::Yes);
    assert_eq!(connect("mcp.example.com:8443").verdict, Verdict::Deny);
}

#[test]
fn a_rule_that_says_no_is_named_where_something_else_inspects() {
    let text = format!("{TIERS}inspect = [\"all\"]\n{RULES}");
    let policy = compiled(&text);
    let pinned = asking(&policy, "restricted").connect("pinned.example.com:443");
    assert_eq!(pinned.inspect, Inspect::Passed("pinned".into()));
    let other = asking(&policy, "restricted").connect("packages.example:443");
    assert_eq!(other.inspect, Inspect::Yes);
    let elsewhere = asking(&policy, "standard").connect("packages.example:443");
    assert_eq!(elsewhere.inspect, Inspect::No);
}

#[test]
fn bytes_that_need_not_be_tls_are_not_inspected_by_a_list() {
    let text = format!(
        "{TIERS}inspect = [\"all\"]\n[[rule]]\nid = \"ssh\"\nverdict = \"allow\"\n\
         to.hosts = [\"git.example.com\"]\nto.ports = [22]\ngrant.raw = true\n"
    );
    let policy = compiled(&text);
    let ssh = asking(&policy, "restricted").connect("git.example.com:22");
    assert_eq!(
        (ssh.raw, ssh.inspect),
        (true, Inspect::Passed("ssh".into()))
    );
}

#[test]
fn a_push_passes_to_the_branches_that_are_named() {
    let policy = with_rules(RULES);
    for (repository, reference, verdict) in [
        ("acme/app", "refs/heads/agent/x", Verdict::Allow),
        ("ACME/App", "refs/heads/agent/x/y", Verdict::Allow),
        ("acme/app", "refs/tags/v1", Verdict::Allow),
        ("acme/app", "refs/heads/main", Verdict::Deny),
        ("acme/app", "refs/heads/Agent/x", Verdict::Deny),
        ("acme/app", "agent/x", Verdict::Deny),
        ("acme/app", "refs/tags/v/1", Verdict::Deny),
        ("evil/app", "refs/heads/agent/x", Verdict::Deny),
        ("acme/app/sub", "refs/heads/agent/x", Verdict::Deny),
    ] {
        let decision = pushed(&policy, repository, reference);
        assert_eq!(decision.verdict, verdict, "{repository} {reference}");
    }
}

#[test]
fn what_only_the_body_tells_waits_for_the_body() {
    let policy = with_rules(RULES);
    let url = "https://git.example.com/acme/app.git/git-receive-pack";
    let head = request_facts(&policy, "POST", url);
    let decision = judged(&policy, "restricted", "POST", url, &head);
    assert_eq!(said(&decision), (Verdict::Allow, "allowed", "push"));
    // Without a ref, a fully read push is no push to a named branch.
    let mut whole = head.clone();
    (whole.seen, whole.body) = (Seen::Whole, None);
    let decision = judged(&policy, "restricted", "POST", url, &whole);
    assert_eq!(decision.reason, Reason::ActionDenied);
    // Another repository is refused by its path.
    let evil = "https://git.example.com/evil/app.git/git-receive-pack";
    let head = request_facts(&policy, "POST", evil);
    let decision = judged(&policy, "restricted", "POST", evil, &head);
    assert_eq!(decision.reason, Reason::ActionDenied);
}

#[test]
fn a_deny_waits_for_the_body_too() {
    let policy = with_rules(&format!(
        "{RULES}\n[[rule]]\nid = \"main\"\nverdict = \"deny\"\nto.hosts = [\"git.example.com\"]\n\
         does.refs = [\"main\"]\n"
    ));
    let url = "https://git.example.com/acme/app.git/git-receive-pack";
    let head = request_facts(&policy, "POST", url);
    let open = judged(&policy, "open", "POST", url, &head);
    assert_eq!(open.verdict, Verdict::Allow);
    let main = pushed(&policy, "acme/app", "refs/heads/main");
    assert_eq!(said(&main), (Verdict::Deny, "denied", "main"));
}

#[test]
fn git_may_ask_where_it_may_push_before_it_names_a_ref() {
    let policy = with_rules(RULES);
    let ask = |repository: &str| {
        let url =
            format!("https://git.example.com/{repository}/info/refs?service=git-receive-pack");
        let head = request_facts(&policy, "GET", &url);
        judged(&policy, "restricted", "GET", &url, &head).verdict
    };
    assert_eq!(ask("acme/app.git"), Verdict::Allow);
    assert_eq!(ask("evil/app.git"), Verdict::Deny);
    let other = "https://git.example.com/acme/app/raw";
    let mut write = request_facts(&policy, "PUT", other);
    write.repository = Some("acme/app".into());
    assert_eq!(
        judged(&policy, "restricted", "PUT", other, &write).verdict,
        Verdict::Deny
    );
}

#[test]
fn packages_are_told_by_the_service_of_the_host() {
    let policy = with_rules(RULES);
    let get = |path: &str| {
        let url = format!("https://registry.example.com{path}");
        let head = request_facts(&policy, "GET", &url);
        judged(&policy, "restricted", "GET", &url, &head)
    };
    let acme = get("/@acme%2fui");
    assert_eq!(said(&acme), (Verdict::Allow, "allowed", "npm"));
    let least = acme.min_age.map(|age| age.least);
    assert_eq!(least, Some(Duration::from_hours(7 * 24)));
    assert_eq!(get("/left-pad").verdict, Verdict::Allow);
    // In this tier the list of categories allows the rest to be read.
    assert_eq!(&*get("/@evil%2fui").rule.name, "tier.restricted.allow");
    let url = "https://registry.example.com/@acme%2fui";
    let publish = request_facts(&policy, "PUT", url);
    let decision = judged(&policy, "restricted", "PUT", url, &publish);
    assert_eq!(decision.reason, Reason::ActionDenied);
}

fn called(policy: &Policy, tier: &str, url: &str, method: &str, tool: Option<&str>) -> Decision {
    let mut done = request_facts(policy, "POST", url);
    let call = done.mcp.get_or_insert_default();
    call.method = Some(method.into());
    call.tool = tool.map(Into::into);
    done.action = Some(Action::Call);
    (done.seen, done.body) = (Seen::Whole, None);
    judged(policy, tier, "POST", url, &done)
}

#[test]
fn tools_of_a_listed_server_are_allowed_and_denied_by_name() {
    let policy = with_rules(RULES);
    let url = "https://mcp.example.com/mcp";
    let tool = |name: &str| {
        let decision = called(&policy, "restricted", url, "tools/call", Some(name));
        (
            decision.verdict,
            decision.reason.code(),
            decision.rule.name.to_string(),
        )
    };
    let default = "tier.restricted.default";
    for (name, expected) in [
        ("search_issues", (Verdict::Allow, "allowed", "issues")),
        (
            "get_secret",
            (Verdict::Deny, "mcp_tool_denied", "issues-tools"),
        ),
        ("delete_all", (Verdict::Deny, "mcp_tool_denied", default)),
    ] {
        let (verdict, reason, rule) = tool(name);
        assert_eq!((verdict, reason, rule.as_str()), expected, "{name}");
    }
    let other = called(&policy, "restricted", url, "tools/list", None);
    assert_eq!(said(&other), (Verdict::Allow, "allowed", "issues"));
    assert_eq!((other.category, other.basis), (Category::Mcp, Basis::Rule));
    // A tool that is denied stays denied if everything else is allowed.
    let open = called(&policy, "open", url, "tools/call", Some("get_secret_x"));
    assert_eq!(
        said(&open),
        (Verdict::Deny, "mcp_tool_denied", "issues-tools")
    );
}

#[test]
fn a_server_is_allowed_only_by_rules_that_name_it() {
    let policy = with_rules(&format!(
        "{RULES}\n[[rule]]\nid = \"host\"\nverdict = \"allow\"\nto.hosts = [\"mcp.example.com\"]\n"
    ));
    let other = "https://mcp.example.com/other";
    let decision = called(&policy, "restricted", other, "tools/call", Some("search_x"));
    assert_eq!(decision.reason, Reason::NotAllowed);
    // A query does not change the server.
    let query = "https://mcp.example.com/mcp?x=y";
    let decision = called(&policy, "restricted", query, "tools/call", Some("search_x"));
    assert_eq!(&*decision.rule.name, "issues");
    // A request without a message is judged by the host.
    let plain = "https://mcp.example.com/about";
    let head = request_facts(&policy, "GET", plain);
    let decision = judged(&policy, "restricted", "GET", plain, &head);
    assert_eq!(&*decision.rule.name, "host");
}

#[test]
fn messages_to_a_server_that_is_not_listed_are_a_category_of_their_own() {
    let policy = with_rules(
        "[[rule]]\nid = \"host\"\nverdict = \"allow\"\nto.hosts = [\"api.example.com\"]\n\
         [[destination]]\ncategory = \"mcp\"\nhosts = [\"tools.example.com\"]\n[[rule]]\n\
         id = \"mcp\"\nverdict = \"allow\"\nto.hosts = [\"tools.example.com\"]\n\
         grant.inspect = true\n",
    );
    let hidden = "https://api.example.com/rpc";
    let decision = called(&policy, "restricted", hidden, "tools/call", Some("x"));
    assert_eq!(
        said(&decision),
        (Verdict::Deny, "not_allowed", "tier.restricted.default")
    );
    assert_eq!(
        (decision.category, decision.basis),
        (Category::Mcp, Basis::Content)
    );
    let known = "https://tools.example.com/rpc";
    let decision = called(&policy, "restricted", known, "tools/call", Some("x"));
    assert_eq!(said(&decision), (Verdict::Allow, "allowed", "mcp"));
}

#[test]
fn a_foreign_credential_is_refused() {
    let hash = |digit: &str| format!("hmac-sha256:{}", digit.repeat(64));
    let text = format!(
        "[[destination]]\ncategory = \"package-registry\"\nhosts = [\"p.example.com\"]\n\
         [[rule]]\nid = \"ours\"\nverdict = \"deny\"\nto.hosts = [\"p.example.com\"]\n\
         unless.credentials = [\"{}\", \"{}\"]\n",
        hash("a"),
        hash("b")
    );
    let policy = with_rules(&text);
    assert!(policy.asks_credentials());
    assert!(!with_rules(RULES).asks_credentials());
    let url = "https://p.example.com/x";
    let shown = |digits: &[&str]| {
        let mut done = request_facts(&policy, "GET", url);
        done.credentials = digits.iter().map(|digit| hash(digit).into()).collect();
        let decision = judged(&policy, "restricted", "GET", url, &done);
        (decision.reason.code(), decision.rule.name.to_string())
    };
    let allowed = ("allowed", "tier.restricted.allow".to_owned());
    let refused = ("credential_denied", "ours".to_owned());
    assert_eq!(shown(&[]), allowed);
    assert_eq!(shown(&["a"]), allowed);
    assert_eq!(shown(&["a", "b"]), allowed);
    assert_eq!(shown(&["c"]), refused);
    assert_eq!(shown(&["a", "c"]), refused);
    // In an opaque tunnel no credential is seen.
    let tunnel = asking(&policy, "open").connect("p.example.com:443");
    assert_eq!(said(&tunnel), (Verdict::Deny, "credential_denied", "ours"));
}

#[test]
fn upstreams_are_chosen_by_rule_then_host_then_category() {
    let mut source = read(&format!(
        "{TIERS}[[rule]]\nid = \"r\"\nverdict = \"allow\"\n\
         to.hosts = [\"a.example.com\", \"b.example.com\"]\n\
         grant.upstream = \"one\"\n[[rule]]\nid = \"s\"\nverdict = \"allow\"\n\
         to.hosts = [\"*.example.com\"]\n"
    ));
    let word = |text: &str| toml::Spanned::new(0..0, text.to_owned());
    let placed = |value| source::Placed {
        source: Arc::new(Source::new("u.toml", "")),
        span: 0..0,
        value,
    };
    for (name, hosts, categories) in [
        ("one", vec![], vec![]),
        ("two", vec!["*.example.com"], vec![]),
        ("three", vec!["c.example.com"], vec!["package-registry"]),
    ] {
        let upstream = source::Upstream {
            hosts: hosts.into_iter().map(word).collect(),
            categories: categories.into_iter().map(word).collect(),
        };
        source.upstreams.push((word(name), placed(upstream)));
    }
    let (policy, findings) = compile(&source, &catalogue());
    let policy = policy.unwrap_or_else(|| panic!("{findings:?}"));
    let upstream = |host: &str| {
        let decision = asking(&policy, "standard").connect(host);
        decision.upstream.as_deref().map(str::to_owned)
    };
    for (host, expected) in [
        ("a.example.com:443", Some("one")),
        ("c.example.com:443", Some("three")),
        ("d.example.com:443", Some("two")),
        ("packages.example:443", Some("three")),
        ("api.model.example:443", None),
    ] {
        assert_eq!(upstream(host).as_deref(), expected, "{host}");
    }
}

#[test]
fn examples_are_judged_as_the_tunnel_and_then_as_the_request() {
    let policy = with_rules(&format!(
        "{RULES}
[[trial]]
name = \"what an agent may do\"
from.tiers = [\"restricted\"]
allows = [
    \"https://git.example.com/acme/app.git/info/refs?service=git-upload-pack\",
    \"CLONE https://git.example.com/any/thing.git\",
    \"PUSH https://git.example.com/acme/app.git agent/x\",
    \"PUSH https://git.example.com/acme/app refs/tags/v1\",
    \"https://registry.example.com/@acme%2fui\",
    \"TOOL https://mcp.example.com/mcp search_issues\",
    \"POST https://mcp.example.com/mcp\",
    \"https://pinned.example.com/any\",
]
denies = [
    \"PUSH https://git.example.com/acme/app.git main\",
    \"PUT https://registry.example.com/@acme%2fui\",
    \"TOOL https://mcp.example.com/mcp get_secret\",
    \"TOOL https://mcp.example.com/other search_issues\",
    \"PUSH https://unheard.example/acme/app.git agent/x\",
]"
    ));
    assert_eq!(run_trials(&policy).len(), 13);
    let found = of_severity(
        &format!("{TIERS}[[trial]]\nname = \"x\"\ndenies = [\"PUSH https://a.example.com/x\"]\n"),
        Severity::Error,
    );
    assert_eq!(found[0].label, "a push needs a ref behind the URL");
}

#[test]
fn what_has_a_narrower_reach_stays_inside_it_in_a_tunnel_too() {
    let policy = with_rules(RULES);
    let mut asking = asking(&policy, "restricted");
    asking.who.within = Some(Arc::new(Within::parse(["source-control:read"]).unwrap()));
    assert_eq!(
        asking.connect("git.example.com:443").verdict,
        Verdict::Allow
    );
    let push = asking.request("PUT", "https://git.example.com/x");
    assert_eq!(push.reason, Reason::CategoryDenied);
}

#[test]
fn a_plain_request_is_not_inspected() {
    let policy = with_rules(RULES);
    let asking = asking(&policy, "restricted");
    let path = Path::parse(b"/").unwrap();
    let target = Target::from_connect(b"git.example.com:80").unwrap();
    let decision = policy.decide(&Query {
        who: &asking.who,
        target: &target,
        attempt: Attempt::Request {
            method: "GET",
            path: &path,
            upgrade: false,
            tls: false,
            request_facts: None,
        },
    });
    assert_eq!(
        (decision.verdict, decision.inspect),
        (Verdict::Allow, Inspect::No)
    );
}

#[test]
fn a_deny_names_the_tools_it_is_about() {
    let policy = with_rules(
        "[mcp.a]\nurl = \"https://m.example.com/a\"\n[mcp.b]\nurl = \"https://m.example.com/b\"\n\
         [[rule]]\nid = \"both\"\nverdict = \"allow\"\ndoes.servers = [\"a\", \"b\"]\n\
         [[rule]]\nid = \"no\"\nverdict = \"deny\"\ndoes.servers = [\"b\"]\n\
         does.tools = [\"rm*\"]\n\
         [[rule]]\nid = \"quiet\"\nverdict = \"deny\"\ndoes.servers = [\"b\"]\n\
         does.mcp-methods = [\"prompts/*\"]\n",
    );
    let rule = |url: &str, method: &str, tool: Option<&str>| {
        let decision = called(&policy, "restricted", url, method, tool);
        decision.rule.name.to_string()
    };
    let (a, b) = ("https://m.example.com/a", "https://m.example.com/b");
    assert_eq!(rule(a, "tools/call", Some("rm")), "both");
    assert_eq!(rule(b, "tools/call", Some("rm_all")), "no");
    assert_eq!(rule(b, "tools/call", Some("ls")), "both");
    assert_eq!(rule(b, "prompts/list", None), "quiet");
    assert_eq!(rule(a, "prompts/list", None), "both");
    let connect = asking(&policy, "restricted").connect("m.example.com:443");
    assert_eq!(said(&connect), (Verdict::Allow, "allowed", "both"));
}

#[test]
fn a_rule_without_hosts_inspects_its_category() {
    let policy = with_rules(
        "[[rule]]\nid = \"look\"\nverdict = \"deny\"\nto.categories = [\"package-registry\"]\n\
         grant.inspect = true\ndoes.actions = [\"write\"]\nfrom.tiers = [\"restricted\"]\n",
    );
    let inspect = |tier: &str, host: &str| asking(&policy, tier).connect(host).inspect;
    assert_eq!(inspect("restricted", "packages.example:443"), Inspect::Yes);
    assert_eq!(inspect("standard", "packages.example:443"), Inspect::No);
    assert_eq!(inspect("restricted", "forge.example:443"), Inspect::No);
    let names = policy.inspected_names();
    assert!(names.names.contains(&"packages.example".to_owned()));
}

#[test]
fn what_a_rule_asks_is_checked() {
    let found = of_severity(
        r#"
        [tiers]
        order = ["one"]
        [tier.one]
        inspect = ["package-registy"]
        allow = ["auth"]
        [mcp.plain]
        url = "http://mcp.example.com/mcp"
        [mcp.issues]
        url = "https://mcp.example.com/mcp"
        [mcp.later]
        url = "https://MCP.example.com:443/mcp"
        [[destination]]
        category = "unknown"
        hosts = ["a.example.com"]
        service = "nmp"
        [[rule]]
        id = "words"
        verdict = "allow"
        to.hosts = ["a.example.com"]
        does.actions = ["reed"]
        does.refs = ["/main"]
        does.repositories = ["https://git.example.com/acme/app"]
        does.packages = [""]
        grant.upstream = "internal"
        unless.min-age = "7 days"
        [[rule]]
        id = "unless"
        verdict = "deny"
        to.hosts = ["a.example.com"]
        unless.credentials = ["hunter2"]
        unless.min-age = "7"
        [[rule]]
        id = "blind"
        verdict = "allow"
        to.hosts = ["b.example.com"]
        grant.raw = true
        grant.inspect = true
        does.tools = ["x"]
        [[rule]]
        id = "servers"
        verdict = "deny"
        to.hosts = ["c.example.com"]
        does.servers = ["issue", "issues"]
        grant.inspect = false
        does.tools = ["x"]
        "#,
        Severity::Error,
    );
    let mut codes: Vec<_> = found.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [
            "bad-age",
            "bad-credential",
            "bad-pattern",
            "bad-pattern",
            "bad-pattern",
            "bad-url",
            "blind-servers",
            "no-servers",
            "raw-inspect",
            "said-twice",
            "server-twice",
            "unknown-name",
            "unknown-name",
            "unknown-name",
            "unknown-name",
            "unknown-name",
            "unless-in-allow",
        ]
    );
    assert!(found.iter().all(|finding| finding.help.is_some()));
    let shown = crate::diag::render(&found, false);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_server_of_this_machine_needs_no_tls_and_its_rule_grants_its_address() {
    for (url, accepted) in [
        ("http://127.0.0.1:4000/mcp", true),
        ("http://[::1]:4000/mcp", true),
        ("http://localhost:4000/mcp", true),
        ("http://mcp.example.com/mcp", false),
        ("http://10.0.0.1/mcp", false),
        ("http://localhost.example.com/mcp", false),
    ] {
        let text = format!("{TIERS}[mcp.own]\nurl = \"{url}\"\n");
        let found = of_severity(&text, Severity::Error);
        assert_eq!(found.is_empty(), accepted, "{url}: {found:?}");
    }
    let rule = "[[rule]]\nid = \"own\"\nverdict = \"allow\"\ndoes.servers = [\"own\"]\n";
    let policy = compiled(&format!(
        "{TIERS}[mcp.own]\nurl = \"http://localhost:4000/mcp\"\n{rule}"
    ));
    let target = |text: &str| Target::from_authority(text.as_bytes(), 80).unwrap();
    assert!(policy.has_plain_server(&target("127.0.0.1:4000")));
    assert!(!policy.has_plain_server(&target("127.0.0.1:4001")));
}

#[test]
fn a_condition_that_tunnels_hide_is_reported() {
    let warned = |rule: &str| {
        let text = format!("{TIERS}[[rule]]\nid = \"x\"\nto.hosts = [\"a.example.com\"]\n{rule}");
        let found = of_severity(&text, Severity::Warning);
        found.iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    let deny = "verdict = \"deny\"\ndoes.actions = [\"write\"]\n";
    assert_eq!(warned(deny), ["not-enforced"]);
    assert!(warned(&format!("{deny}grant.inspect = true\n")).is_empty());
    assert!(warned(&format!("{deny}to.ports = [80]\n")).is_empty());
    let allow = "verdict = \"allow\"\ndoes.packages = [\"x\"]\n";
    assert_eq!(warned(allow), ["unseen"]);
    let strict = format!("{allow}from.tiers = [\"restricted\"]\n");
    assert_eq!(warned(&strict), ["never-seen"]);
    let word = "verdict = \"deny\"\ngrant.inspect = true\ndoes.operations = [\"publsh\"]\n";
    assert_eq!(warned(word), ["unknown-operation"]);
}

const DENIED_NAMES: &str = r#"
[[destination]]
category = "source-control"
hosts = ["git.example.com"]
[[destination]]
category = "package-registry"
hosts = ["registry.example.com"]
service = "npm"

[[rule]]
id = "all"
verdict = "allow"
to.hosts = ["git.example.com", "registry.example.com"]
grant.inspect = true
does.actions = ["read", "write"]
[[rule]]
id = "secret"
verdict = "deny"
does.repositories = ["acme/secret"]
[[rule]]
id = "evil"
verdict = "deny"
does.packages = ["evil"]
[[rule]]
id = "no-push"
verdict = "deny"
to.hosts = ["git.example.com"]
does.operations = ["push"]
"#;

#[test]
fn a_deny_by_name_holds_of_each_reading_of_the_path() {
    let policy = with_rules(DENIED_NAMES);
    let verdict = |method: &str, url: &str| {
        let done = request_facts(&policy, method, url);
        judged(&policy, "restricted", method, url, &done).verdict
    };
    let fetch = "/info/refs?service=git-upload-pack";
    for front in [
        "/acme/secret",
        "/Acme/SECRET.git",
        "//acme/secret",
        "/acme//secret.git",
        "/acme%2Fsecret",
        "/acme%2fsecret.git",
        "/acme/secret;v=1",
        "/acme;v=1/secret.git",
    ] {
        let url = format!("https://git.example.com{front}{fetch}");
        assert_eq!(verdict("GET", &url), Verdict::Deny, "{url}");
        let url = format!("https://git.example.com{front}/git-upload-pack");
        assert_eq!(verdict("POST", &url), Verdict::Deny, "{url}");
    }
    for path in [
        "/evil",
        "/evil/-/evil-1.0.0.tgz",
        "//evil/-/evil-1.0.0.tgz",
        "/evil//-/evil-1.0.0.tgz",
        "/evil;a=b",
        "/evil;a=b/-/evil-1.0.0.tgz",
        "/evil%2F-%2Fevil-1.0.0.tgz",
    ] {
        let url = format!("https://registry.example.com{path}");
        assert_eq!(verdict("GET", &url), Verdict::Deny, "{url}");
    }
    for path in ["/evil", "//evil", "/evil/", "/EVIL", "/evil;a=b"] {
        let url = format!("https://registry.example.com{path}");
        assert_eq!(verdict("PUT", &url), Verdict::Deny, "{url}");
    }
    for front in ["/acme/web", "//acme/web", "/acme%2Fweb", "/acme/web;v=1"] {
        let url = format!("https://git.example.com{front}/git-receive-pack");
        assert_eq!(verdict("POST", &url), Verdict::Deny, "{url}");
        let url = format!("https://git.example.com{front}{fetch}");
        assert_eq!(verdict("GET", &url), Verdict::Allow, "{url}");
    }
}

#[test]
fn an_allow_by_name_does_not_choose_between_readings() {
    let policy = with_rules(
        r#"
[[destination]]
category = "source-control"
hosts = ["git.example.com"]
[[rule]]
id = "mirrors"
verdict = "allow"
to.hosts = ["git.example.com"]
grant.inspect = true
does.repositories = ["*/acme/web"]
"#,
    );
    let reason = |front: &str| {
        let url = format!("https://git.example.com{front}/info/refs?service=git-upload-pack");
        let done = request_facts(&policy, "GET", &url);
        judged(&policy, "restricted", "GET", &url, &done).reason
    };
    assert_eq!(reason("/mirror/acme/web"), Reason::Allowed);
    assert_eq!(reason("/mirror//acme/web"), Reason::Allowed);
    assert_eq!(reason("/;a/acme/web"), Reason::BadPath);
    assert_eq!(reason("/acme/web"), Reason::ActionDenied);
}

#[test]
fn a_deny_of_an_mcp_server_holds_of_each_spelling_of_its_endpoint() {
    let policy = compiled(&format!(
        "{TIERS}{}",
        r#"
[mcp.issues]
url = "https://mcp.example.com/mcp"
[[rule]]
id = "tools"
verdict = "deny"
does.servers = ["issues"]
does.tools = ["delete_*"]
"#
    ));
    let called = |path: &str, tool: &str| {
        let url = format!("https://mcp.example.com{path}");
        let mut done = request_facts(&policy, "POST", &url);
        let server = done.mcp.take().and_then(|call| call.server);
        done.mcp = Some(McpCall {
            server,
            method: Some("tools/call".into()),
            tool: Some(tool.into()),
            tool_use_id: None,
        });
        (done.seen, done.body) = (Seen::Whole, None);
        judged(&policy, "open", "POST", &url, &done).verdict
    };
    for path in [
        "/mcp", "/mcp?x=1", "//mcp", "/mcp/", "/MCP", "/mcp;v=1", "/%2Fmcp",
    ] {
        assert_eq!(called(path, "delete_all"), Verdict::Deny, "{path}");
        assert_eq!(called(path, "search"), Verdict::Allow, "{path}");
    }
    assert_eq!(called("/other", "delete_all"), Verdict::Allow);
}
