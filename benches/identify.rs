//! The cost of identification: no credential, a session token seen before, a new one.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, criterion_group, criterion_main};

use tidegate::clock::Clock;
use tidegate::config::{self, Listener};
use tidegate::identity::{Channel, Claims, Deciding, Identity, Journal, OwnFetch, Refusing};
use tidegate::policy::{self, Policy};

struct Gate {
    identity: Identity,
    policy: Policy,
    listener: Arc<Listener>,
    channel: Arc<Channel>,
    clock: Clock,
}

/// Issuers whose keys are never fetched.
fn reach(clock: &Clock) -> tidegate::identity::Reach {
    let (dial, limits) = (config::Dial::default(), config::Limits::default());
    tidegate::identity::Reach {
        dialer: Arc::new(tidegate::dial::Dialer::new(
            &dial,
            &limits,
            clock.clone(),
            &tidegate::dial::Programs::of(config::Owners::default()),
            None,
        )),
        guard: Arc::default(),
        metrics: tidegate::metrics::Metrics::new(&[]),
        journal: Arc::new(Unrecorded),
    }
}

/// Records nothing, so that nothing is fetched.
#[derive(Debug)]
struct Unrecorded;

impl Journal for Unrecorded {
    fn decided<'j>(&'j self, _: &'j OwnFetch) -> Deciding<'j> {
        Box::pin(async { None })
    }

    fn refused<'j>(&'j self, _: &'j OwnFetch, _: &'static str) -> Refusing<'j> {
        Box::pin(async {})
    }
}

impl Gate {
    fn new() -> Self {
        let (policy, findings) = policy::compile(&policy::default_source(), &policy::built_in());
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000));
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 3128));
        let clock = Clock::system();
        Self {
            identity: Identity::new(
                &config::Identity::default(),
                None,
                clock.clone(),
                reach(&clock),
            ),
            policy: policy.unwrap_or_else(|| unreachable!("{findings:?}")),
            listener: Arc::new(Listener::at(here)),
            channel: Arc::new(Channel::plain(client, here)),
            clock,
        }
    }

    /// What a client sends that was given a token.
    fn credential(&self) -> Vec<u8> {
        let session = uuid::Uuid::now_v7().to_string();
        let now = self.clock.now();
        let claims = Claims {
            sub: Some("ana@acme.example".into()),
            agent: Some("claude-code".into()),
            repository: Some("github.com/acme/web".into()),
            r#ref: Some("main".into()),
            commit: Some("4bf92f3577b34da6a3ce929d0e0e4736aaaaaaaa".into()),
            ..self
                .identity
                .tokens()
                .blank(&session, now, std::time::Duration::from_hours(1))
        };
        let signer = self.identity.signer();
        let token = signer.and_then(|signer| signer.mint(&claims));
        let token = token.unwrap_or_else(|| unreachable!("a key"));
        format!(
            "Basic {}",
            STANDARD.encode(format!("{session}.bash:{token}"))
        )
        .into_bytes()
    }

    /// What the proxy does once for each connection.
    async fn identify(&self, credential: Option<&[u8]>) {
        let presented = self
            .identity
            .present(&self.listener, &self.channel, credential);
        let presented = presented
            .await
            .unwrap_or_else(|error| unreachable!("{error}"));
        let caller = self.identity.caller(&presented, &self.policy);
        assert!(black_box(caller).is_some());
    }
}

fn identities(criterion: &mut Criterion) {
    let gate = Gate::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.unwrap_or_else(|error| unreachable!("{error}"));
    let mut group = criterion.benchmark_group("identify");
    group.bench_function("nobody", |bench| {
        bench.iter(|| runtime.block_on(gate.identify(None)));
    });
    let known = gate.credential();
    group.bench_function("a session token, seen before", |bench| {
        bench.iter(|| runtime.block_on(gate.identify(Some(&known))));
    });
    group.bench_function("a session token, new", |bench| {
        bench.iter_batched(
            || gate.credential(),
            |credential| runtime.block_on(gate.identify(Some(&credential))),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, identities);
criterion_main!(benches);
