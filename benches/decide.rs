//! One decision, at a thousand and at a million hosts.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use toml::Spanned;

use tidegate::diag::Source;
use tidegate::name::{Target, Url};
use tidegate::policy::source::{self, Placed};
use tidegate::policy::{self, Attempt, Catalogue, Exceptions, Facts, InForce, Policy, Query};

/// As many hosts as one rule names.
const HOSTS_OF_A_RULE: usize = 1000;

/// As many targets are asked for in turn: too many for the caches to hold all they lead to.
const TURNS: usize = 65_536;

/// Every tenth host is a suffix; all stand below names of their own.
fn host(at: usize) -> String {
    let star = if at.is_multiple_of(10) { "*." } else { "" };
    format!(
        "{star}host-{at}.team-{}.corp-{}.example.com",
        at % 97,
        at % 7919
    )
}

fn rule(at: usize, hosts: std::ops::Range<usize>) -> source::Rule {
    let word = |text: String| Spanned::new(0..0, text);
    source::Rule {
        id: word(format!("rule-{at}")),
        verdict: word(
            ["allow", "ask", "allow", "deny"]
                .into_iter()
                .cycle()
                .nth(at)
                .unwrap_or("deny")
                .into(),
        ),
        from: source::From::default(),
        to: source::To {
            hosts: hosts.map(host).map(word).collect(),
            ..source::To::default()
        },
        does: source::Does::default(),
        unless: source::Unless::default(),
        grant: source::Grant::default(),
        reason: None,
        allows: Vec::new(),
        denies: Vec::new(),
    }
}

fn with_hosts(hosts: usize, catalogue: &Catalogue) -> Policy {
    let text = Arc::new(Source::new("bench.toml", ""));
    let rules = (0..hosts.div_ceil(HOSTS_OF_A_RULE)).map(|at| {
        let range = at * HOSTS_OF_A_RULE..((at + 1) * HOSTS_OF_A_RULE).min(hosts);
        Placed {
            source: text.clone(),
            span: 0..0,
            value: rule(at, range),
        }
    });
    let written = source::Policy {
        rules: rules.collect(),
        ..source::Policy::default()
    };
    let (policy, findings) = policy::compile(&written, catalogue);
    policy.unwrap_or_else(|| unreachable!("{findings:?}"))
}

fn target(authority: &str) -> Target {
    Target::from_connect(authority.as_bytes()).unwrap_or_else(|error| unreachable!("{error}"))
}

fn decisions(criterion: &mut Criterion) {
    let catalogue = policy::built_in();
    for hosts in [1000, 1_000_000] {
        let policy = with_hosts(hosts, &catalogue);
        let who = policy.who(&Facts::default());
        // Different hosts in turn, so that the map is not in the cache.
        let exact: Vec<String> = (0..TURNS)
            .map(|at| (at * 7919) % hosts)
            .map(|at| format!("{}:443", host(at).replace("*.", "x.")))
            .collect();
        let missing: Vec<String> = (0..TURNS)
            .map(|at| format!("a{at}.b{}.c{}.other.example.org:443", at % 7, at % 13))
            .collect();
        let known = vec!["api.anthropic.com:443".into(), "github.com:443".into()];
        let mut group = criterion.benchmark_group("decide");
        for (name, targets) in [("rule", exact), ("unknown", missing), ("catalogue", known)] {
            let mut turn = targets.iter().cycle();
            group.bench_function(BenchmarkId::new(name, hosts), |bencher| {
                // The target was parsed just before, as in a flow; what it leads to was not touched.
                bencher.iter_batched(
                    || turn.next().map(|authority| target(authority)),
                    |target| {
                        let target = target?;
                        let attempt = Attempt::Connect;
                        let query = Query {
                            who: &who,
                            target: &target,
                            attempt,
                        };
                        let decision = policy.decide(black_box(&query));
                        // Returned with the target: what frees them is no part of a decision.
                        Some((decision, target))
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        let url = Url::parse(b"http://github.com/a/b.git/info/refs?service=git-receive-pack");
        let url = url.unwrap_or_else(|error| unreachable!("{error}"));
        let attempt = Attempt::Request {
            method: "GET",
            path: &url.path,
            upgrade: false,
            tls: false,
            request_facts: None,
        };
        let query = Query {
            who: &who,
            target: &url.target,
            attempt,
        };
        group.bench_function(BenchmarkId::new("request", hosts), |bencher| {
            bencher.iter(|| policy.decide(black_box(&query)));
        });
        group.finish();
    }
}

/// So many exceptions: each second one for a host of its own, the others for one host and a repository.
fn exceptions(count: usize, policy: &Policy) -> Exceptions {
    let one = |at: usize| {
        let (host, from) = if at.is_multiple_of(2) {
            (format!("host-{at}.example.net"), String::new())
        } else {
            let from = format!(r#", "from": {{"repositories": ["github.com/acme/app-{at}"]}}"#);
            ("artifacts.example.net".to_owned(), from)
        };
        let text = format!(
            r#"{{"id": "E{at}", "reason": "r", "reviewer": ["uid:0"],
                 "expires": "2100-01-01T00:00:00Z", "to": {{"hosts": ["{host}"]}}{from}}}"#
        );
        let grant = serde_json::from_str(&text);
        let grant = grant.unwrap_or_else(|error| unreachable!("{error}"));
        let compiled = policy.compile_grant(&grant, "ledger:1");
        Arc::new(compiled.unwrap_or_else(|findings| unreachable!("{findings:?}")))
    };
    Exceptions::new((0..count).map(one).collect())
}

/// One decision with exceptions in force: of a host that none names, and of one that they name.
fn excepted(criterion: &mut Criterion) {
    let catalogue = policy::built_in();
    let policy = with_hosts(1000, &catalogue);
    let repository: Arc<str> = "github.com/acme/app-9999".into();
    let who = policy.who(&Facts {
        repository: Some(&repository),
        ..Facts::default()
    });
    let mut group = criterion.benchmark_group("exceptions");
    for count in [0, 1, 10_000] {
        let exceptions = exceptions(count, &policy);
        let live = InForce {
            exceptions: &exceptions,
            now: Timestamp::UNIX_EPOCH,
            is_open: false,
        };
        for name in ["host-1.team-1.corp-1.example.com", "artifacts.example.net"] {
            let target = target(&format!("{name}:443"));
            let query = Query {
                who: &who,
                target: &target,
                attempt: Attempt::Connect,
            };
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    // As the gate does it: without exceptions it does not look for one.
                    let live = (!exceptions.is_empty()).then_some(live);
                    policy.decide_with(black_box(&query), live)
                });
            });
        }
    }
    group.finish();
}

fn compilations(criterion: &mut Criterion) {
    let catalogue = policy::built_in();
    let source = policy::default_source();
    let mut group = criterion.benchmark_group("compile");
    group.bench_function("catalogue", |bencher| bencher.iter(policy::built_in));
    group.bench_function("default", |bencher| {
        bencher.iter(|| policy::compile(black_box(&source), &catalogue));
    });
    group.finish();
}

criterion_group!(benches, decisions, excepted, compilations);
criterion_main!(benches);
