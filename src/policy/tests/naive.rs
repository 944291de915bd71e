//! Tests that the compiled policy decides like an interpreter that checks each rule of the text in
//! turn.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
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
const PATTERNS: [&str; 4] = ["/x", "/x/**", "/*", "/x/*"];
/// Paths, some of them other spellings of `/x`, `/x/y` and `/events/z`.
const PATHS: [&str; 10] = [
    "/",
    "/x",
    "/X",
    "/x/",
    "/x;p",
    "/x/;p",
    "/x/y",
    "/x/Y",
    "/events/z",
    "/Events/z",
];

#[derive(Clone, Debug)]
struct Rule {
    id: usize,
    verdict: &'static str,
    tiers: Vec<&'static str>,
    groups: Vec<&'static str>,
    own: Option<&'static str>,
    hosts: Vec<&'static str>,
    categories: Vec<&'static str>,
    ports: Vec<u16>,
    methods: Vec<&'static str>,
    path: Option<&'static str>,
    actions: Vec<&'static str>,
    repository: Option<&'static str>,
    reference: Option<&'static str>,
    /// Only in a deny.
    credential: Option<&'static str>,
    addresses: bool,
    inspect: Option<bool>,
}

#[derive(Clone, Debug)]
struct Tier {
    observe: bool,
    default: &'static str,
    opaque: bool,
    inspect: Vec<&'static str>,
    lists: [Vec<&'static str>; 3],
}

/// A whole policy: its labels are a category and ports for each host pattern.
#[derive(Clone, Debug)]
struct Written {
    labels: BTreeMap<&'static str, (&'static str, Vec<u16>)>,
    rules: Vec<Rule>,
    tiers: [Tier; 2],
}

#[derive(Clone, Debug)]
struct Ask {
    tier: usize,
    groups: Vec<&'static str>,
    own: Option<&'static str>,
    claimed: Option<&'static str>,
    host: &'static str,
    port: u16,
    /// Method, path, whether over TLS.
    seen: Option<(&'static str, &'static str, bool)>,
    done: Done,
}

/// The request facts besides method and path.
#[derive(Clone, Debug)]
struct Done {
    unread: bool,
    action: Option<&'static str>,
    repository: Option<&'static str>,
    reference: Option<&'static str>,
    credential: Option<&'static str>,
}

fn rule() -> impl Strategy<Value = Rule> {
    let from = (
        select(&WORDS[..]),
        subsequence(&NAMES[..], 0..=2),
        prop_oneof![3 => Just(vec![]), 1 => subsequence(&NAMES[..], 1..=2)],
        option::weighted(
            0.2,
            select(&["git.example/acme/*", "git.example/acme/app"][..]),
        ),
    );
    let to = (
        subsequence(&HOSTS[..], 0..=3),
        prop_oneof![2 => Just(vec![]), 1 => subsequence(&CATEGORIES[..], 1..=2)],
        prop_oneof![3 => Just(vec![]), 1 => subsequence(vec![80, 443, 8443], 1..=2)],
    );
    let does = (
        prop_oneof![3 => Just(vec![]), 1 => subsequence(vec!["GET", "POST"], 1..=1)],
        option::weighted(0.3, select(&PATTERNS[..])),
        prop_oneof![3 => Just(vec![]), 1 => subsequence(&["read", "write"][..], 1..=2)],
        option::weighted(0.2, select(&["acme/*", "acme/app"][..])),
        option::weighted(0.2, select(&["agent/**", "refs/tags/*"][..])),
    );
    let rest = (
        option::weighted(0.3, select(&SECRETS[..])),
        any::<bool>(),
        option::weighted(0.4, any::<bool>()),
    );
    (from, to, does, rest).prop_map(|(from, to, does, rest)| {
        let (verdict, tiers, groups, own) = from;
        let (mut hosts, categories, ports) = to;
        let (methods, path, actions, repository, reference) = does;
        let (credential, addresses, inspect) = rest;
        if verdict == "allow" && categories.is_empty() && hosts.is_empty() {
            hosts = vec!["a.example.com"];
        }
        Rule {
            id: 0,
            verdict,
            tiers,
            groups,
            own,
            hosts,
            categories,
            ports,
            methods,
            path,
            actions,
            repository,
            reference,
            credential: credential.filter(|_| verdict == "deny"),
            addresses,
            inspect,
        }
    })
}

fn tier() -> impl Strategy<Value = Tier> {
    let list = || subsequence(&ITEMS[..], 0..=3);
    let lists = [list(), list(), list()];
    let words = (select(&WORDS[..]), any::<bool>());
    (
        prop::bool::weighted(0.2),
        words,
        subsequence(&CATEGORIES[..], 0..=2),
        lists,
    )
        .prop_map(|(observe, (default, opaque), inspect, lists)| Tier {
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
        select(&PATHS[..]),
        any::<bool>(),
    );
    let done = (
        any::<bool>(),
        option::of(select(&["read", "write"][..])),
        option::of(select(&["acme/app", "ACME/other.git", "evil/app"][..])),
        option::of(select(
            &[
                "refs/heads/agent/x",
                "refs/heads/Agent/x",
                "refs/heads/main",
                "refs/tags/v1",
            ][..],
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
    let own = || {
        option::weighted(
            0.4,
            select(&["git.example/acme/app", "git.example/b/c"][..]),
        )
    };
    let who = (0..2_usize, subsequence(&NAMES[..], 0..=2), own(), own());
    let to = (select(&TARGETS[..]), select(&[80, 443, 8443][..]));
    (who, to, option::of(seen), done).prop_map(|(who, to, seen, done)| {
        let (tier, groups, own, claimed) = who;
        let (host, port) = to;
        Ask {
            tier,
            groups,
            own,
            claimed,
            host,
            port,
            seen,
            done,
        }
    })
}

fn policies() -> impl Strategy<Value = Written> {
    let label = (
        select(&CATEGORIES[..]),
        prop_oneof![2 => Just(vec![]), 1 => subsequence(vec![80, 443, 8443], 1..=2)],
    );
    let labels = btree_map(select(&HOSTS[..]), label, 0..4);
    (labels, vec(rule(), 0..7), [tier(), tier()]).prop_map(|(labels, mut rules, tiers)| {
        for (id, rule) in rules.iter_mut().enumerate() {
            rule.id = id;
        }
        Written {
            labels,
            rules,
            tiers,
        }
    })
}

impl Written {
    fn text(&self) -> String {
        let mut lines = vec!["[tiers]".to_owned(), "order = [\"one\", \"two\"]".into()];
        for (name, tier) in NAMES.iter().zip(&self.tiers) {
            let mode = if tier.observe { "observe" } else { "enforce" };
            let opaque = if tier.opaque { "allow" } else { "deny" };
            lines.push(format!(
                "[tier.{name}]\nmode = \"{mode}\"\nopaque = \"{opaque}\""
            ));
            lines.push(format!(
                "inspect = {:?}\ndefault = \"{}\"",
                tier.inspect, tier.default
            ));
            for (word, list) in WORDS.iter().zip(&tier.lists) {
                lines.push(format!("{word} = {list:?}"));
            }
        }
        lines.push("[group.one]\n[group.two]".into());
        for (host, (category, ports)) in &self.labels {
            lines.push(format!(
                "[[destination]]\nhosts = [\"{host}\"]\nports = {ports:?}"
            ));
            lines.push(format!("category = \"{category}\""));
        }
        lines.extend(self.rules.iter().map(Rule::text));
        lines.join("\n")
    }
}

impl Rule {
    fn text(&self) -> String {
        let mut lines = vec![
            format!(
                "[[rule]]\nid = \"r{}\"\nverdict = \"{}\"",
                self.id, self.verdict
            ),
            format!(
                "from.tiers = {:?}\nfrom.groups = {:?}",
                self.tiers, self.groups
            ),
            format!(
                "to.hosts = {:?}\nto.categories = {:?}",
                self.hosts, self.categories
            ),
            format!(
                "to.ports = {:?}\ndoes.methods = {:?}",
                self.ports, self.methods
            ),
            format!("does.actions = {:?}", self.actions),
        ];
        let lists = [
            ("from.repositories", self.own),
            ("does.paths", self.path),
            ("does.repositories", self.repository),
            ("does.refs", self.reference),
            ("unless.credentials", self.credential),
            ("grant.addresses", self.addresses.then_some("10.0.0.0/16")),
        ];
        for (key, word) in lists {
            lines.extend(word.map(|word| format!("{key} = [\"{word}\"]")));
        }
        lines.extend(
            self.inspect
                .map(|inspect| format!("grant.inspect = {inspect}")),
        );
        lines.join("\n")
    }

    fn is_wide(&self) -> bool {
        self.verdict != "allow"
    }

    /// How specific the rule's best host is for a host, 0 for a rule without hosts.
    fn rank(&self, host: &str) -> Option<usize> {
        if self.hosts.is_empty() {
            return Some(0);
        }
        let ranks = self
            .hosts
            .iter()
            .filter_map(|pattern| specific(pattern, host));
        ranks.max().map(|rank| rank + 1)
    }

    fn is_for(&self, ask: &Ask) -> bool {
        let owns = |own: &&str| match self.own {
            Some("git.example/acme/*") => own.starts_with("git.example/acme/"),
            Some(named) => *own == named,
            None => true,
        };
        let claimed = ask.claimed.filter(|_| self.is_wide());
        let own = ask.own.iter().chain(&claimed).any(owns) || self.own.is_none();
        (self.tiers.is_empty() || self.tiers.contains(&NAMES[ask.tier]))
            && (self.groups.is_empty() || self.groups.iter().any(|it| ask.groups.contains(it)))
            && own
    }

    fn selects(&self, place: &Place) -> bool {
        let of = |category: &&str| {
            *category == place.category || (self.is_wide() && place.others.contains(category))
        };
        self.categories.is_empty() || self.categories.iter().any(of)
    }

    fn opens(&self, place: &Place, ask: &Ask) -> bool {
        match (self.ports.as_slice(), self.verdict) {
            ([], "deny") => true,
            ([], _) => place.opens(ask, self.hosts.is_empty()),
            (ports, _) => ports.contains(&ask.port),
        }
    }

    fn asks_nothing(&self) -> bool {
        self.methods.is_empty()
            && self.path.is_none()
            && self.actions.is_empty()
            && self.repository.is_none()
            && self.reference.is_none()
    }
}

/// The label of a destination.
struct Place {
    category: &'static str,
    /// Other categories, by other readings of the path.
    others: Vec<&'static str>,
    ports: Vec<u16>,
}

impl Place {
    fn of(written: &Written, ask: &Ask) -> Self {
        let labels = written.labels.iter();
        let named = labels.filter_map(|(host, label)| Some((specific(host, ask.host)?, label)));
        if let Some((_, (category, ports))) = named.max_by_key(|(rank, _)| *rank) {
            return Self {
                category,
                others: vec![],
                ports: ports.clone(),
            };
        }
        let path = ask.seen.map_or("", |(_, path, _)| path);
        let (category, others, ports) = match ask.host {
            "api.model.example" if path.starts_with("/events/") => ("telemetry", vec![], vec![]),
            "api.model.example" if path.starts_with("/Events/") => {
                ("model-api", vec!["telemetry"], vec![])
            }
            "api.model.example" => ("model-api", vec![], vec![]),
            host if host.ends_with("packages.example") => {
                ("package-registry", vec![], vec![443, 8443])
            }
            _ => ("unknown", vec![], vec![]),
        };
        Self {
            category,
            others,
            ports,
        }
    }

    /// Whether an allow or ask without ports applies to the port; one without hosts does not apply
    /// to plain HTTP to a known destination.
    fn opens(&self, ask: &Ask, hostless: bool) -> bool {
        let plain = ask.seen.is_some_and(|(_, _, tls)| !tls);
        match self.ports.as_slice() {
            [] if hostless && self.category != "unknown" => ask.port == 443 && !plain,
            [] => ask.port == if plain { 80 } else { 443 },
            ports => ports.contains(&ask.port),
        }
    }
}

/// Verdict, reason, name of the deciding rule, category.
type Answer = (String, String, String, String);

/// Returns how specific a host pattern is for a host; `None` if it does not match.
fn specific(pattern: &str, host: &str) -> Option<usize> {
    if pattern == host {
        return Some(1000);
    }
    if let Ok(network) = pattern.parse::<ipnet::IpNet>() {
        let address: std::net::IpAddr = host.parse().ok()?;
        let rank = usize::from(network.prefix_len()) + 1;
        return network.contains(&address).then_some(rank);
    }
    let suffix = pattern.strip_prefix('*')?;
    host.ends_with(suffix).then_some(suffix.len())
}

/// Returns the readings of a path, without parameters and with them.
fn readings(path: &str) -> [String; 2] {
    let cut = |segment: &str| segment.split(';').next().unwrap_or_default().to_owned();
    let join = |segments: Vec<String>| {
        let kept: Vec<_> = segments.into_iter().filter(|it| !it.is_empty()).collect();
        format!("/{}", kept.join("/").to_lowercase())
    };
    let segments = || path.split('/');
    [
        join(segments().map(cut).collect()),
        join(segments().map(str::to_owned).collect()),
    ]
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let segments: Vec<&str> = path[1..].split('/').collect();
    match (pattern, segments.as_slice()) {
        ("/x", ["x"]) | ("/x/**", ["x", ..]) => true,
        ("/*", [one]) | ("/x/*", ["x", one]) => !one.is_empty(),
        _ => false,
    }
}

/// Returns whether a request meets the conditions of a rule: `Err(true)` if only the path's reading
/// differs.
fn does(rule: &Rule, tier: &Tier, inspected: bool, ask: &Ask) -> Result<(), bool> {
    let Some((method, path, _)) = ask.seen else {
        let seen = tier.opaque || inspected;
        return if rule.asks_nothing() || (!rule.is_wide() && seen) {
            Ok(())
        } else {
            Err(false)
        };
    };
    let named = |method: &str| rule.methods.contains(&method);
    let method = rule.methods.is_empty() || named(method) || (method == "HEAD" && named("GET"));
    let parts = [
        match ask.done.action {
            _ if rule.actions.is_empty() => Some(true),
            action => action.map(|action| rule.actions.contains(&action)),
        },
        match (rule.repository, ask.done.repository) {
            (None, _) => Some(true),
            (Some("acme/app"), found) => found.map(|it| it == "acme/app"),
            (Some(_), found) => found.map(|it| it != "evil/app"),
        },
        match (rule.reference, ask.done.reference) {
            (None, _) => Some(true),
            (Some("agent/**"), found) => found.map(|it| {
                let spelt = if rule.is_wide() {
                    it.to_lowercase()
                } else {
                    it.to_owned()
                };
                spelt == "refs/heads/agent/x"
            }),
            (Some(_), found) => found.map(|it| it == "refs/tags/v1"),
        },
    ];
    let waits = ask.done.unread && !rule.is_wide();
    if !method || !parts.iter().all(|part| part.unwrap_or(waits)) {
        return Err(false);
    }
    let Some(pattern) = rule.path else {
        return Ok(());
    };
    let reads = |reading: &String| path_matches(pattern, reading);
    if rule.is_wide() {
        return if readings(path).iter().any(reads) {
            Ok(())
        } else {
            Err(false)
        };
    }
    match path_matches(pattern, path) {
        false => Err(false),
        true if path.contains(';') && !readings(path).iter().all(reads) => Err(true),
        true => Ok(()),
    }
}

/// A match: rank, position in the text, name, reason.
type Fit = (usize, Reverse<usize>, String, &'static str);

fn naive(written: &Written, ask: &Ask) -> Answer {
    let (tier, name) = (&written.tiers[ask.tier], NAMES[ask.tier]);
    let place = Place::of(written, ask);
    let private = ["10.0.0.7", "box.internal"].contains(&ask.host);
    let never = ask.host == "169.254.169.254";
    let reaching: Vec<(usize, &Rule)> = written
        .rules
        .iter()
        .filter(|rule| rule.is_for(ask) && rule.selects(&place))
        .filter_map(|rule| Some((rule.rank(ask.host)?, rule)))
        .collect();

    // Whether TLS is intercepted: by the most specific rule that sets it, otherwise by the tier.
    let says = reaching.iter().filter(|(_, rule)| rule.opens(&place, ask));
    let says = says.filter_map(|(rank, rule)| Some((*rank, Reverse(rule.id), rule.inspect?)));
    let says = says.max_by_key(|(rank, id, _)| (*rank, *id));
    let inspected = says.map_or(tier.inspect.contains(&place.category), |(_, _, says)| says);

    // Everything that matches, and the nearest allows.
    let mut fits: BTreeMap<(&str, bool), Vec<Fit>> = BTreeMap::new();
    let (mut near_port, mut near_path, mut near_request, mut lifts) = (false, false, false, false);
    for (rank, rule) in reaching {
        let lifted = !never && (!private || rule.addresses);
        lifts |= rule.verdict == "allow" && lifted;
        let (port, request) = (rule.opens(&place, ask), does(rule, tier, inspected, ask));
        if rule.verdict == "allow" {
            near_port |= !port && request.is_ok();
            near_path |= port && request == Err(true);
            near_request |= port && request == Err(false);
        }
        let foreign = rule.credential.is_none()
            || match ask.seen {
                None => !inspected,
                Some(_) => ask
                    .done
                    .credential
                    .is_some_and(|it| Some(it) != rule.credential),
            };
        if port && request.is_ok() && foreign && (rule.verdict != "allow" || lifted) {
            let reason = match rule.verdict {
                "allow" => "allowed",
                "ask" => "needs_approval",
                _ if rule.credential.is_some() => "credential_denied",
                _ => "denied",
            };
            let fit = (rank, Reverse(rule.id), format!("r{}", rule.id), reason);
            fits.entry((rule.verdict, false)).or_default().push(fit);
        }
    }
    for (word, list) in WORDS.iter().zip(&tier.lists) {
        for (at, item) in list.iter().enumerate() {
            let (of, wanted) = item
                .split_once(':')
                .map_or((*item, None), |(of, it)| (of, Some(it)));
            let is_other_reading = *word != "allow" && place.others.contains(&of);
            if of != place.category && !is_other_reading {
                continue;
            }
            let port = *word == "deny" || place.opens(ask, true);
            let action = ask.done.action;
            let request = match (wanted, ask.seen) {
                (None, _) => true,
                (Some(_), None) => *word == "allow" && (tier.opaque || inspected),
                (Some(_), Some(_)) if action.is_none() => *word == "allow" && ask.done.unread,
                (Some(_), Some(_)) => wanted == action,
            };
            let lifted = !private && !never;
            lifts |= *word == "allow" && lifted;
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
            if port && request && (*word != "allow" || lifted) {
                // A category of the path itself comes before that of another reading.
                let order = at + if of == place.category { 1000 } else { 2000 };
                let fit = (0, Reverse(order), format!("tier.{name}.{word}"), reason);
                let is_list = *word != "deny";
                fits.entry((word, is_list)).or_default().push(fit);
            }
        }
    }

    let best = |key| Some((key, fits.get(&key)?.iter().max()?));
    let answer = |verdict: &str, reason: &str, name: &str| {
        let words = [verdict, reason, name, place.category];
        let [verdict, reason, name, category] = words.map(str::to_owned);
        (verdict, reason, name, category)
    };
    let floored = never || (private && !lifts);
    let order = [
        ("ask", false),
        ("allow", false),
        ("ask", true),
        ("allow", true),
    ];
    let denied = best(("deny", false));
    let decided = match denied {
        None if floored => return answer("deny", "address_denied", "floor"),
        None => order.into_iter().find_map(best),
        denied => denied,
    };
    let default = format!("tier.{name}.default");
    let (verdict, reason, name) = match (decided, tier.default) {
        (Some(((verdict, _), fit)), _) => (verdict, fit.3, fit.2.as_str()),
        (None, "allow") if private => return answer("deny", "address_denied", "floor"),
        (None, "allow") => ("allow", "allowed", default.as_str()),
        (None, "ask") => ("ask", "needs_approval", default.as_str()),
        _ if near_port => ("deny", "port_denied", default.as_str()),
        _ if near_path => ("deny", "bad_path", default.as_str()),
        _ if near_request => ("deny", "action_denied", default.as_str()),
        _ => ("deny", "not_allowed", default.as_str()),
    };
    if tier.observe && verdict != "allow" && !floored {
        return answer(&format!("allow, would {verdict}"), reason, name);
    }
    answer(verdict, reason, name)
}

fn decided(policy: &Policy, ask: &Ask) -> Answer {
    decided_with(policy, ask, &Exceptions::default())
}

fn decided_with(policy: &Policy, ask: &Ask, exceptions: &Exceptions) -> Answer {
    let done = RequestFacts {
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
        ..RequestFacts::default()
    };
    let mut who = asking(policy, NAMES[ask.tier]).who;
    for group in &ask.groups {
        who.groups.insert(policy.group(group).unwrap());
    }
    who.repository = ask.own.map(Into::into);
    who.claimed = ask.claimed.map(Into::into).into_iter().collect();
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
            request_facts: Some(&done),
        },
        _ => Attempt::Connect,
    };
    let query = Query {
        who: &who,
        target: &target,
        attempt,
    };
    let live = InForce {
        exceptions,
        now: jiff::Timestamp::UNIX_EPOCH,
        is_open: false,
    };
    let decision = policy.decide_with(&query, Some(live));
    if exceptions.is_empty() {
        assert_eq!(decision, policy.decide(&query));
    }
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

/// Returns the rank of the verdict in enforce mode, strictest last.
fn strictness(answer: &Answer) -> usize {
    let verdict = answer.0.split_whitespace().last().unwrap_or_default();
    WORDS
        .iter()
        .position(|word| *word == verdict)
        .unwrap_or(WORDS.len())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_and_naive_decide_alike(written in policies(), asks in vec(ask(), 24)) {
        let text = written.text();
        let policy = compiled(&text);
        for ask in &asks {
            prop_assert_eq!(decided(&policy, ask), naive(&written, ask), "{:?}\n{}", ask, text);
        }
    }

    #[test]
    fn an_exception_lets_its_hosts_pass_and_never_touches_the_floor(
        written in policies(),
        asks in vec(ask(), 24),
        hosts in subsequence(&HOSTS[..], 1..4),
    ) {
        let policy = compiled(&written.text());
        let listed: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
        let text = format!(
            "{{\"id\": \"G\", \"reason\": \"r\", \"reviewer\": [\"uid:0\"], \
             \"expires\": \"2026-01-01T00:00:00Z\", \
             \"to\": {{\"hosts\": [{}], \"ports\": [80, 443, 8443]}}}}",
            listed.join(", ")
        );
        let grant: crate::ledger::Grant = serde_json::from_str(&text).unwrap();
        let granted = policy.compile_grant(&grant, "ledger:1").unwrap();
        let exceptions = Exceptions::new(vec![Arc::new(granted)]);
        for ask in &asks {
            let (plain, excepted) = (decided(&policy, ask), decided_with(&policy, ask, &exceptions));
            // A flow that the exception does not decide has the same decision.
            if excepted.2 != "G" {
                prop_assert_eq!(&plain, &excepted, "{:?}", ask);
                continue;
            }
            prop_assert_eq!(&excepted.0, "allow");
            let private = ["10.0.0.7", "box.internal"].contains(&ask.host);
            let granted = written.rules.iter().any(|rule| rule.addresses);
            prop_assert!(!private || granted, "{:?}", ask);
            prop_assert!(ask.host != "169.254.169.254", "{:?}", ask);
            let named = |pattern: &&str| match pattern.strip_prefix("*.") {
                Some(suffix) => ask.host.ends_with(&format!(".{suffix}")),
                None => **pattern == *ask.host || pattern.contains('/'),
            };
            prop_assert!(hosts.iter().any(named), "{:?} {:?}", ask, hosts);
        }
    }

    #[test]
    fn the_order_of_rules_never_matters_to_the_verdict(
        written in policies(),
        asks in vec(ask(), 24),
    ) {
        // The order of two rules may decide whether a tunnel is inspected.
        let mut written = written;
        for rule in written.rules.iter_mut().filter(|rule| rule.inspect.is_some()).skip(1) {
            rule.inspect = None;
        }
        let forward = compiled(&written.text());
        written.rules.reverse();
        let backward = compiled(&written.text());
        for ask in &asks {
            prop_assert_eq!(decided(&forward, ask).0, decided(&backward, ask).0, "{:?}", ask);
        }
    }

    #[test]
    fn one_more_deny_never_widens_and_one_more_allow_never_narrows(
        written in policies(),
        more in rule(),
        asks in vec(ask(), 24),
    ) {
        let before = compiled(&written.text());
        let with = |verdict| {
            let mut more = Rule { id: 99, verdict, inspect: None, credential: None, ..more.clone() };
            if more.hosts.is_empty() && more.categories.is_empty() {
                more.hosts = vec!["*.example.com"];
            }
            let mut written = written.clone();
            written.rules.push(more);
            compiled(&written.text())
        };
        let (denied, allowed) = (with("deny"), with("allow"));
        for ask in &asks {
            let plain = strictness(&decided(&before, ask));
            prop_assert!(strictness(&decided(&denied, ask)) >= plain, "{:?}", ask);
            prop_assert!(strictness(&decided(&allowed, ask)) <= plain, "{:?}", ask);
        }
    }

    #[test]
    fn a_label_changes_the_decisions_on_its_own_hosts_alone(
        written in policies(),
        label in select(&CATEGORIES[..]),
        host in select(&HOSTS[..]),
        asks in vec(ask(), 24),
    ) {
        let before = compiled(&written.text());
        let mut more = written.clone();
        more.labels.insert(host, (label, vec![]));
        let after = compiled(&more.text());
        for ask in asks.iter().filter(|ask| specific(host, ask.host).is_none()) {
            prop_assert_eq!(decided(&before, ask), decided(&after, ask), "{:?}", ask);
        }
    }

    #[test]
    fn every_spelling_of_a_path_is_denied_alike(
        written in policies(),
        asks in vec(ask(), 12),
        spelling in select(&[("/x", "/X"), ("/x", "/x/"), ("/x", "/x;p"), ("/x/y", "/x/Y")][..]),
    ) {
        let policy = compiled(&written.text());
        for mut ask in asks {
            let Some((method, _, tls)) = ask.seen else { continue };
            ask.seen = Some((method, spelling.0, tls));
            let plain = decided(&policy, &ask);
            ask.seen = Some((method, spelling.1, tls));
            let other = decided(&policy, &ask);
            if plain.0.ends_with("deny") && plain.2.starts_with('r') {
                prop_assert!(other.0.ends_with("deny"), "{:?}: {:?}, {:?}", ask, plain, other);
            }
        }
    }
}
