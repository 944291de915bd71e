//! The compiled policy says what an interpreter says that looks at every rule in turn.

use std::cmp::Reverse;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::name::Path;

use super::*;

const HOSTS: [&str; 12] = [
    "a.example.com",
    "b.a.example.com",
    "*.a.example.com",
    "*.example.com",
    "packages.example",
    "*.packages.example",
    "box.internal",
    "8.8.8.8",
    "8.8.0.0/16",
    "10.0.0.0/8",
    "10.0.0.7",
    "api.model.example",
];
const TARGETS: [&str; 12] = [
    "a.example.com",
    "b.a.example.com",
    "c.b.a.example.com",
    "example.com",
    "packages.example",
    "x.packages.example",
    "api.model.example",
    "box.internal",
    "8.8.8.8",
    "8.8.4.4",
    "10.0.0.7",
    "169.254.169.254",
];
const WORDS: [&str; 3] = ["allow", "ask", "deny"];
const NAMES: [&str; 2] = ["one", "two"];
const CATEGORIES: [&str; 4] = ["model-api", "package-registry", "telemetry", "unknown"];
const ITEMS: [&str; 8] = [
    "model-api",
    "model-api:call",
    "package-registry",
    "package-registry:read",
    "package-registry:write",
    "telemetry",
    "unknown",
    "unknown:read",
];

const SECRETS: [&str; 2] = [
    "hmac-sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "hmac-sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
];

#[derive(Clone, Debug)]
struct Rule {
    id: usize,
    verdict: &'static str,
    category: Option<&'static str>,
    tiers: Vec<&'static str>,
    groups: Vec<&'static str>,
    hosts: Vec<&'static str>,
    ports: Vec<u16>,
    methods: Vec<&'static str>,
    path: Option<&'static str>,
    addresses: bool,
    inspect: Option<bool>,
    actions: Vec<&'static str>,
    repository: Option<&'static str>,
    reference: Option<&'static str>,
    credential: Option<&'static str>,
}

#[derive(Clone, Debug)]
struct Tier {
    observe: bool,
    default: &'static str,
    opaque: bool,
    inspect: Vec<&'static str>,
    lists: [Vec<&'static str>; 3],
}

#[derive(Clone, Debug)]
struct Ask {
    tier: usize,
    groups: Vec<&'static str>,
    host: &'static str,
    port: u16,
    /// Method, path, whether over TLS.
    seen: Option<(&'static str, &'static str, bool)>,
    done: Done,
}

/// What a request does, where it was read from more than method and path.
#[derive(Clone, Debug)]
struct Done {
    unread: bool,
    action: Option<&'static str>,
    repository: Option<&'static str>,
    reference: Option<&'static str>,
    credential: Option<&'static str>,
}

fn rule() -> impl Strategy<Value = Rule> {
    let selection = (
        select(&WORDS[..]),
        option::of(select(&CATEGORIES[..])),
        subsequence(&NAMES[..], 0..=2),
        prop_oneof![3 => Just(vec![]), 1 => subsequence(&NAMES[..], 1..=2)],
        subsequence(&HOSTS[..], 0..=3),
    );
    let conditions = (
        prop_oneof![3 => Just(vec![]), 1 => subsequence(vec![80, 443, 8443], 1..=2)],
        prop_oneof![3 => Just(vec![]), 1 => subsequence(vec!["GET", "POST"], 1..=1)],
        option::weighted(0.2, select(&["/x", "/x/**", "/*"][..])),
        any::<bool>(),
    );
    let asks = (
        option::weighted(0.4, any::<bool>()),
        prop_oneof![3 => Just(vec![]), 1 => subsequence(&["read", "write"][..], 1..=2)],
        option::weighted(0.2, select(&["acme/*", "acme/app"][..])),
        option::weighted(0.2, select(&["agent/**", "refs/tags/*"][..])),
        option::weighted(0.2, select(&SECRETS[..])),
    );
    (selection, conditions, asks).prop_map(|(selection, conditions, asks)| {
        let (verdict, category, tiers, groups, mut hosts) = selection;
        let (ports, methods, path, addresses) = conditions;
        let (inspect, actions, repository, reference, credential) = asks;
        if verdict == "allow" && category.is_none() && hosts.is_empty() {
            hosts = vec!["a.example.com"];
        }
        Rule {
            id: 0,
            verdict,
            category,
            tiers,
            groups,
            hosts,
            ports,
            methods,
            path,
            addresses,
            inspect,
            actions,
            repository,
            reference,
            credential,
        }
    })
}

fn tier() -> impl Strategy<Value = Tier> {
    let list = || subsequence(&ITEMS[..], 0..=3);
    (
        prop::bool::weighted(0.2),
        select(&WORDS[..]),
        any::<bool>(),
        subsequence(&CATEGORIES[..], 0..=2),
        [list(), list(), list()],
    )
        .prop_map(|(observe, default, opaque, inspect, lists)| Tier {
            observe,
            default,
            opaque,
            inspect,
            lists,
        })
}

fn ask() -> impl Strategy<Value = Ask> {
    let seen = (
        select(&["GET", "HEAD", "POST", "PUT"][..]),
        select(&["/", "/x", "/x/y", "/events/z"][..]),
        any::<bool>(),
    );
    let done = (
        any::<bool>(),
        option::of(select(&["read", "write"][..])),
        option::of(select(&["acme/app", "ACME/other.git", "evil/app"][..])),
        option::of(select(
            &["refs/heads/agent/x", "refs/heads/main", "refs/tags/v1"][..],
        )),
        option::of(select(&SECRETS[..])),
    );
    let done = done.prop_map(|(unread, action, repository, reference, credential)| Done {
        unread,
        action,
        repository,
        reference,
        credential,
    });
    (
        0..2_usize,
        subsequence(&NAMES[..], 0..=2),
        select(&TARGETS[..]),
        select(&[80, 443, 8443][..]),
        option::of(seen),
        done,
    )
        .prop_map(|(tier, groups, host, port, seen, done)| Ask {
            tier,
            groups,
            host,
            port,
            seen,
            done,
        })
}

fn policies() -> impl Strategy<Value = (Vec<Rule>, [Tier; 2])> {
    (vec(rule(), 0..7), [tier(), tier()]).prop_map(|(mut rules, tiers)| {
        for (id, rule) in rules.iter_mut().enumerate() {
            rule.id = id;
        }
        (rules, tiers)
    })
}

fn written(rules: &[Rule], tiers: &[Tier; 2]) -> String {
    let mut lines = vec!["[tiers]".to_owned(), "order = [\"one\", \"two\"]".into()];
    for (name, tier) in NAMES.iter().zip(tiers) {
        let mode = if tier.observe { "observe" } else { "enforce" };
        let opaque = if tier.opaque { "allow" } else { "deny" };
        lines.push(format!(
            "[tier.{name}]\nmode = \"{mode}\"\nopaque = \"{opaque}\""
        ));
        lines.push(format!("inspect = {:?}", tier.inspect));
        lines.push(format!("default = \"{}\"", tier.default));
        for (word, list) in WORDS.iter().zip(&tier.lists) {
            lines.push(format!("{word} = {list:?}"));
        }
    }
    lines.push("[group.one]\n[group.two]".into());
    for rule in rules {
        lines.push(format!(
            "[[rule]]\nid = \"r{}\"\nverdict = \"{}\"",
            rule.id, rule.verdict
        ));
        lines.extend(rule.category.map(|word| format!("category = \"{word}\"")));
        lines.push(format!(
            "tiers = {:?}\ngroups = {:?}",
            rule.tiers, rule.groups
        ));
        lines.push(format!(
            "hosts = {:?}\nports = {:?}",
            rule.hosts, rule.ports
        ));
        lines.push(format!("methods = {:?}", rule.methods));
        lines.extend(rule.path.map(|path| format!("paths = [\"{path}\"]")));
        lines.extend(rule.inspect.map(|inspect| format!("inspect = {inspect}")));
        lines.push(format!("actions = {:?}", rule.actions));
        let lists = [
            ("repositories", rule.repository),
            ("refs", rule.reference),
            ("credentials", rule.credential),
        ];
        for (key, word) in lists {
            lines.extend(word.map(|word| format!("{key} = [\"{word}\"]")));
        }
        if rule.addresses {
            lines.push("addresses = [\"10.0.0.0/16\"]".into());
        }
    }
    lines.join("\n")
}

/// Verdict, reason, name of what decides, category.
type Answer = (String, String, String, String);

/// How specific a host pattern is for a host; `None` where it does not match.
fn specific(pattern: &str, host: &str) -> Option<usize> {
    if pattern == host {
        return Some(1000);
    }
    if let Ok(network) = pattern.parse::<ipnet::IpNet>() {
        let address: std::net::IpAddr = host.parse().ok()?;
        return network
            .contains(&address)
            .then(|| usize::from(network.prefix_len()) + 1);
    }
    let suffix = pattern.strip_prefix('*')?;
    host.ends_with(suffix).then_some(suffix.len())
}

fn naive(rules: &[Rule], tiers: &[Tier; 2], ask: &Ask) -> Answer {
    let tier = &tiers[ask.tier];
    let on_host = |rule: &Rule| {
        rule.hosts
            .iter()
            .filter_map(|host| specific(host, ask.host))
            .max()
    };

    // What the destination is for, and on which ports.
    let split = ask
        .seen
        .is_some_and(|(_, path, _)| path.starts_with("/events/"));
    let assigned = rules
        .iter()
        .filter(|rule| rule.category.is_some())
        .filter_map(|rule| Some((on_host(rule)?, Reverse(rule.id), rule)))
        .max_by_key(|(specific, id, _)| (*specific, *id));
    let (category, ports) = match (assigned, ask.host) {
        (Some((_, _, rule)), _) => (rule.category.unwrap(), rule.ports.clone()),
        (None, "api.model.example") if split => ("telemetry", vec![]),
        (None, "api.model.example") => ("model-api", vec![]),
        (None, host) if host.ends_with("packages.example") => ("package-registry", vec![443, 8443]),
        _ => ("unknown", vec![]),
    };
    let action = ask.seen.and(ask.done.action);
    let default_port = if ask.seen.is_some_and(|(_, _, tls)| !tls) {
        80
    } else {
        443
    };
    let open = |ports: &[u16]| match ports {
        [] => ask.port == default_port,
        ports => ports.contains(&ask.port),
    };

    // Whether TLS is ended: the most specific rule that says so, else the tier, by the host alone.
    let by_host = match (assigned, ask.host) {
        (None, "api.model.example") => "model-api",
        _ => category,
    };
    let about = |rule: &Rule| {
        (rule.tiers.is_empty() || rule.tiers.contains(&NAMES[ask.tier]))
            && (rule.groups.is_empty()
                || rule.groups.iter().any(|group| ask.groups.contains(group)))
            && ((rule.verdict == "deny" && rule.ports.is_empty()) || open(&rule.ports))
    };
    let says = rules
        .iter()
        .filter(|rule| about(rule))
        .filter_map(|rule| {
            let specific = match (rule.hosts.is_empty(), rule.category) {
                (true, Some(selected)) if selected != by_host => None,
                (true, _) => Some(0),
                (false, _) => on_host(rule).map(|specific| specific + 1),
            };
            Some((specific?, Reverse(rule.id), rule.inspect?))
        })
        .max_by_key(|(specific, id, _)| (*specific, *id));
    let inspected =
        ask.seen.is_none() && says.map_or(tier.inspect.contains(&by_host), |(_, _, says)| says);
    let unseen = |verdict: &str| verdict == "allow" && (tier.opaque || inspected);

    // Everything that fits, with how specific it is; rules before lists.
    let mut fits: Vec<(&str, usize, usize, String, &str, bool)> = Vec::new();
    let (mut near_port, mut near_request, mut near_credential) = (false, false, false);
    let (mut foreign, mut vouched) = (Vec::new(), false);
    let private = ask.host == "10.0.0.7" || ask.host == "box.internal";
    for rule in rules {
        let specific = if rule.hosts.is_empty() {
            Some(0)
        } else {
            on_host(rule)
        };
        let Some(specific) = specific else { continue };
        let selected = rule.hosts.is_empty().then_some(rule.category).flatten();
        let reached = (rule.tiers.is_empty() || rule.tiers.contains(&NAMES[ask.tier]))
            && (rule.groups.is_empty()
                || rule.groups.iter().any(|group| ask.groups.contains(group)))
            && selected.is_none_or(|selected| selected == category);
        let port = (rule.verdict == "deny" && rule.ports.is_empty()) || open(&rule.ports);
        let request = match ask.seen {
            _ if asks_nothing(rule) => true,
            None => unseen(rule.verdict),
            Some((method, path, _)) => {
                let method = if method == "HEAD" && !rule.methods.contains(&"HEAD") {
                    "GET"
                } else {
                    method
                };
                (rule.methods.is_empty() || rule.methods.contains(&method))
                    && match rule.path {
                        None => true,
                        Some("/x/**") => path == "/x" || path.starts_with("/x/"),
                        // `/x`, or `/*`: no other path has one segment.
                        Some(_) => path == "/x",
                    }
                    && does(rule, &ask.done)
            }
        };
        let named = rule.credential.is_none() || rule.credential == ask.done.credential;
        let shown =
            ask.seen.is_some() && rule.credential.is_some() && ask.done.credential.is_some();
        let strange = rule.verdict == "allow" && shown && !named;
        let request = request && (rule.verdict == "allow" || ask.seen.is_none() || named);
        if rule.verdict == "allow" && reached {
            near_port |= !port && request && !strange;
            near_request |= port && !request;
        }
        if reached && port && request && strange {
            // What waits for the body is refused, but does not stop what another rule allows.
            if surely(rule, &ask.done) {
                foreign.push((specific + 1, Reverse(rule.id), format!("r{}", rule.id)));
            } else {
                near_credential = true;
            }
            continue;
        }
        if reached && port && request {
            vouched |= rule.verdict == "allow"
                && rule.credential.is_some()
                && (!private || rule.addresses);
            let reason = match rule.verdict {
                "allow" => "allowed",
                "ask" => "needs_approval",
                _ => "denied",
            };
            let name = format!("r{}", rule.id);
            fits.push((
                rule.verdict,
                specific + 1,
                rule.id,
                name,
                reason,
                rule.addresses,
            ));
        }
    }
    for (word, list) in WORDS.iter().zip(&tier.lists) {
        for (at, item) in list.iter().enumerate() {
            let (of, wanted) = item
                .split_once(':')
                .map_or((*item, None), |(of, it)| (of, Some(it)));
            if of != category {
                continue;
            }
            let port = *word == "deny" || open(&ports);
            let request = wanted.is_none()
                || match (ask.seen, action) {
                    (None, _) => unseen(word),
                    (Some(_), None) => *word == "allow" && ask.done.unread,
                    (Some(_), action) => wanted == action,
                };
            if *word == "allow" {
                near_port |= !port && request;
                near_request |= port && !request;
            }
            let reason = match (*word, wanted) {
                ("allow", _) => "allowed",
                ("ask", _) => "needs_approval",
                (_, None) => "category_denied",
                _ => "action_denied",
            };
            if port && request {
                let name = format!("tier.{}.{word}", NAMES[ask.tier]);
                fits.push((word, 0, at, name, reason, false));
            }
        }
    }

    let best = |verdict: &str| {
        fits.iter()
            .filter(|fit| fit.0 == verdict && (verdict != "allow" || !private || fit.5))
            .max_by_key(|fit| (fit.1, Reverse(fit.2)))
    };
    let answer = |verdict: &str, reason: &str, name: &str| {
        (
            verdict.to_owned(),
            reason.to_owned(),
            name.to_owned(),
            category.to_owned(),
        )
    };
    if ask.host == "169.254.169.254" || (private && best("allow").is_none()) {
        return answer("deny", "address_denied", "floor");
    }
    let decided = ["deny", "ask", "allow"].into_iter().find_map(best);
    let foreign = foreign.iter().max().filter(|_| !vouched);
    let default = format!("tier.{}.default", NAMES[ask.tier]);
    let (verdict, reason, name) = match (decided, tier.default) {
        (decided, _) if foreign.is_some() && decided.is_none_or(|fit| fit.0 != "deny") => {
            let (_, _, name) = foreign.unwrap();
            ("deny", "credential_denied", name.as_str())
        }
        (Some(fit), _) => (fit.0, fit.4, fit.3.as_str()),
        (None, "allow") => ("allow", "allowed", default.as_str()),
        (None, "ask") => ("ask", "needs_approval", default.as_str()),
        _ if near_port => ("deny", "port_denied", default.as_str()),
        _ if near_credential => ("deny", "credential_denied", default.as_str()),
        _ if near_request => ("deny", "action_denied", default.as_str()),
        _ => ("deny", "not_allowed", default.as_str()),
    };
    if tier.observe && verdict != "allow" {
        return answer(&format!("allow, would {verdict}"), reason, name);
    }
    answer(verdict, reason, name)
}

fn asks_nothing(rule: &Rule) -> bool {
    rule.methods.is_empty()
        && rule.path.is_none()
        && rule.actions.is_empty()
        && rule.repository.is_none()
        && rule.reference.is_none()
        && rule.credential.is_none()
}

/// What a rule asks of that which is done, each as `Some(holds)`; `None` where only the body tells.
fn parts(rule: &Rule, done: &Done) -> [Option<bool>; 3] {
    let known = |holds: Option<bool>| holds.or((!done.unread).then_some(false));
    let action = done.action.map(|action| rule.actions.contains(&action));
    let repository = done.repository.map(|repository| match rule.repository {
        Some("acme/app") => repository == "acme/app",
        _ => repository != "evil/app",
    });
    let reference = done.reference.map(|reference| match rule.reference {
        Some("agent/**") => reference == "refs/heads/agent/x",
        _ => reference == "refs/tags/v1",
    });
    [
        if rule.actions.is_empty() {
            Some(true)
        } else {
            known(action)
        },
        rule.repository.map_or(Some(true), |_| known(repository)),
        rule.reference.map_or(Some(true), |_| known(reference)),
    ]
}

fn surely(rule: &Rule, done: &Done) -> bool {
    parts(rule, done).iter().all(|part| *part == Some(true))
}

fn does(rule: &Rule, done: &Done) -> bool {
    let possible = parts(rule, done).iter().all(|part| *part != Some(false));
    surely(rule, done) || (rule.verdict == "allow" && possible)
}

fn decided(policy: &Policy, ask: &Ask) -> Answer {
    let done = Deed {
        seen: if ask.done.unread {
            Seen::Head
        } else {
            Seen::Whole
        },
        body: ask.done.unread.then_some(Body::GitPush),
        action: ask.done.action.and_then(Action::from_word),
        repository: ask.done.repository.map(Into::into),
        reference: ask.done.reference.map(Into::into),
        credentials: ask.done.credential.map(Into::into).into_iter().collect(),
        ..Deed::default()
    };
    let mut who = asking(policy, NAMES[ask.tier]).who;
    for group in &ask.groups {
        who.groups.insert(policy.group(group).unwrap());
    }
    let target = Target::from_connect(format!("{}:{}", ask.host, ask.port).as_bytes()).unwrap();
    let path = ask
        .seen
        .map(|(_, path, _)| Path::parse(path.as_bytes()).unwrap());
    let attempt = match (ask.seen, &path) {
        (Some((method, _, tls)), Some(path)) => Attempt::Request {
            method,
            path,
            upgrade: false,
            tls,
            deed: Some(&done),
        },
        _ => Attempt::Connect,
    };
    let decision = policy.decide(&Query {
        who: &who,
        target: &target,
        attempt,
    });
    let verdict = match decision.would {
        None => decision.verdict.to_string(),
        Some(would) => format!("{}, would {would}", decision.verdict),
    };
    (
        verdict,
        decision.reason.code().to_owned(),
        decision.rule.name.to_string(),
        decision.category.to_string(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_and_naive_say_the_same((rules, tiers) in policies(), asks in vec(ask(), 24)) {
        let text = written(&rules, &tiers);
        let policy = compiled(&text);
        for ask in &asks {
            prop_assert_eq!(decided(&policy, ask), naive(&rules, &tiers, ask), "{:?}\n{}", ask, text);
        }
    }

    #[test]
    fn the_order_of_rules_never_matters_to_the_verdict(
        (rules, tiers) in policies(),
        asks in vec(ask(), 24),
    ) {
        // Which of several rules names a category may depend on their order: leave one at most.
        let mut rules = rules;
        for rule in rules.iter_mut().filter(|rule| !rule.hosts.is_empty()).skip(1) {
            rule.category = None;
        }
        // So may which of them says whether a tunnel is inspected.
        for rule in rules.iter_mut().filter(|rule| rule.inspect.is_some()).skip(1) {
            rule.inspect = None;
        }
        let forward = compiled(&written(&rules, &tiers));
        rules.reverse();
        let backward = compiled(&written(&rules, &tiers));
        for ask in &asks {
            prop_assert_eq!(decided(&forward, ask).0, decided(&backward, ask).0, "{:?}", ask);
        }
    }
}
