//! What a record costs: a flow that passes, a refusal that is written, one that is only counted,
//! and the verification of a line (which hashes it, as writing does).

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot begin has to end"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};

use tidegate::clock::Clock;
use tidegate::config;
use tidegate::metrics::Metrics;
use tidegate::record::{CloseFacts, End, FlowFacts, FlowRecord, Outcome, Recorder, Verifier};

struct Log {
    folder: tempfile::TempDir,
    recorder: Recorder,
    runtime: Runtime,
}

impl Log {
    fn new(window: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let record = config::Record {
            file: Some(folder.path().join("decisions.jsonl")),
            key: Some(folder.path().join("record.key")),
            retain: Duration::ZERO,
            rotate_keep: 1,
            repeat_window: window,
            ..config::embedded().record
        };
        let metrics = Metrics::new(&["allowed"]);
        let recorder = Recorder::start(&record, 1000, Clock::system(), &metrics);
        let runtime = Builder::new_current_thread().enable_all().build();
        Self {
            folder,
            recorder: recorder.expect("started"),
            runtime: runtime.expect("a runtime"),
        }
    }

    fn refuse(&self, facts: &FlowFacts) {
        self.runtime.block_on(async {
            let permit = self.recorder.permit().await.expect("room");
            permit.refused(facts).await.expect("written");
        });
    }

    fn pass(&self, facts: &FlowFacts) {
        let mut facts = FlowRecord::from(facts.clone());
        self.runtime.block_on(async {
            let mut permit = self.recorder.permit().await.expect("room");
            permit.decided(&mut facts).await.expect("written");
            permit.closed(
                &facts,
                &CloseFacts {
                    end: End::Closed,
                    ..CloseFacts::default()
                },
            );
        });
    }
}

fn facts(outcome: Outcome) -> FlowFacts {
    FlowFacts {
        outcome,
        reason: "not_allowed",
        evidence: "none",
        trust: "none",
        rule: Some("tier.standard.default".into()),
        policy_digest: Some("ab".repeat(32).into()),
        tier: Some("standard".into()),
        server_address: Some("registry.example.com".into()),
        server_port: Some(443),
        client_address: Some([127, 0, 0, 1].into()),
        protocol: Some("connect"),
        user_agent: Some("npm/11.0.0 node/v24.0.0 linux x64".into()),
        ..FlowFacts::default()
    }
}

fn record(criterion: &mut Criterion) {
    let (allowed, denied) = (facts(Outcome::Allow), facts(Outcome::Deny));
    let log = Log::new(Duration::ZERO);
    criterion.bench_function("record/a flow that passes", |bench| {
        bench.iter(|| log.pass(&allowed));
    });
    criterion.bench_function("record/a refusal that is written", |bench| {
        bench.iter(|| log.refuse(&denied));
    });
    let counting = Log::new(Duration::from_hours(1));
    for _ in 0..100 {
        counting.refuse(&denied);
    }
    criterion.bench_function("record/a refusal that is counted", |bench| {
        bench.iter(|| counting.refuse(&denied));
    });
    let text = config::read(&log.folder.path().join("decisions.jsonl")).expect("a log");
    let line = text.lines().next().expect("a line").as_bytes();
    criterion.bench_function("record/verify a line", |bench| {
        bench.iter(|| black_box(Verifier::new(None).line(line)));
    });
}

criterion_group!(benches, record);
criterion_main!(benches);
