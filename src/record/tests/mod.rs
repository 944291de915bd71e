//! Tests of the recorder as flows use it, with files, and with full disks.

mod chain;
mod changes;
mod failures;
mod files;
mod flows;
mod lines;
mod repeats;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::{self, OnFailure};
use crate::identity::{
    Job, Process, RepositoryBasis, RepositorySaid, TierGrounds, ToolCall, Trust, Work,
};
use crate::metrics::Metrics;
use crate::policy::{
    Action, Basis, Category, McpCall, Mode, RequestFacts, TierBasis, Verdict, Within,
};

use super::decision_text::DecisionTexts;
use super::encode;
use super::recorder::{Permit, RecordUnavailable, Recorder, Unavailable};
use super::sink::faulty::Faulty;
use super::{
    ApprovalFacts, Asker, Blame, CallFacts, CloseFacts, End, Event, ExceptionFacts, FlowFacts,
    FlowRecord, JailFacts, Outcome, ReplayFacts, Said, SessionFacts, Timings, TlsMode,
};

const DEADLINE: Duration = Duration::from_mins(1);

/// A log in a separate folder.
struct Log {
    folder: tempfile::TempDir,
    config: config::Record,
    metrics: Metrics,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config::Record {
            file: Some(folder.path().join("log/decisions.jsonl")),
            on_failure: OnFailure::Refuse,
            rotate_size: 0,
            rotate_keep: 1000,
            retain: Duration::ZERO,
            repeat_window: Duration::ZERO,
            key: Some(folder.path().join("log/record.key")),
            ..config::embedded().record
        };
        Self {
            folder,
            config,
            metrics: Metrics::new(&["allowed"]),
        }
    }

    fn start(&self) -> Recorder {
        Recorder::start(&self.config, 1000, Clock::system(), &self.metrics).expect("started")
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log/decisions.jsonl")
    }

    /// Returns the lines of the newest file, except checkpoints that do not begin it.
    fn lines(&self) -> Vec<Value> {
        without_checkpoints(lines(&text(&self.path())))
    }

    /// Returns the lines of all files, the oldest first.
    fn all_lines(&self) -> Vec<Value> {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path().display()));
        let count = (1..1000)
            .take_while(|number| numbered(*number).exists())
            .count();
        let count = u32::try_from(count).expect("few");
        let mut all: Vec<_> = (1..=count)
            .rev()
            .flat_map(|number| without_checkpoints(lines(&text(&numbered(number)))))
            .collect();
        all.extend(self.lines());
        all
    }
}

fn text(path: &Path) -> String {
    config::read(path).expect("a file")
}

fn lines(text: &str) -> Vec<Value> {
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "the last line is whole: {text}"
    );
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn without_checkpoints(mut lines: Vec<Value>) -> Vec<Value> {
    lines.retain(|line| {
        line["event.name"] != "checkpoint" || line["tidegate.checkpoint.cause"] == "opened"
    });
    lines
}

fn names(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["event.name"].as_str().expect("a name"))
        .collect()
}

fn numbers(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| line["event.sequence"].as_u64().expect("a number"))
        .collect()
}

fn metric(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.render();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("a metric");
    line.trim().parse().expect("a number")
}

/// Waits until a condition holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(
        timeout(DEADLINE, looking).await.is_ok(),
        "{what} did not come about"
    );
}

fn allowed() -> FlowFacts {
    FlowFacts {
        flow: Uuid::now_v7(),
        outcome: Outcome::Allow,
        reason: "allowed",
        evidence: "none",
        trust: "none",
        ..FlowFacts::default()
    }
}

fn denied() -> FlowFacts {
    FlowFacts {
        outcome: Outcome::Deny,
        reason: "not_allowed",
        ..allowed()
    }
}

/// Returns facts with every field set.
fn full() -> FlowFacts {
    FlowFacts {
        mode: Some(Mode::Observe),
        would: Some(Verdict::Deny),
        detail: Some("nearest rule docs: host docs.example".into()),
        rule: Some("docs".into()),
        rule_location: Some("policy/web.toml:31".into()),
        policy_digest: Some("abc".into()),
        policy_generation: 3,
        exception: Some("approval-1".into()),
        request: Some(Uuid::nil()),
        category: Some(Category::PackageRegistry),
        category_basis: Some(Basis::Host),
        action: Some(Action::Read),
        action_any: false,
        tier: Some("standard".into()),
        tier_basis: Some(TierBasis::Repository),
        session: Some("s-1".into()),
        root: Some("s-0".into()),
        evidence: "username",
        trust: "asserted",
        channel: Some("bash".into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        span_id: Some("00f067aa0ba902b7".into()),
        user: Some("ana".into()),
        groups: Some(Arc::from([Arc::from("eng"), Arc::from("a\"b")])),
        repository: Some(RepositorySaid {
            name: "git.example/app".into(),
            trust: Trust::Verified,
            basis: RepositoryBasis::Workspace,
        }),
        work: Some(Arc::new(Work {
            agent: Some("claude-code".into()),
            ref_name: Some("main".into()),
            revision: Some("4bf92f35".into()),
            issued_ref: false,
            permission_mode: Some("plan".into()),
            organization: Some("acme".into()),
            job: Some(Job {
                pipeline: Some("ci".into()),
                run: Some("77".into()),
                task: Some("test".into()),
                worker: Some("runner-1".into()),
            }),
        })),
        call_trust: Trust::Verified,
        call_basis: Some("environment"),
        call: Some(Arc::new(ToolCall {
            trust: Trust::Verified,
            handle: None,
            session: None,
            id: Some("toolu_1".into()),
            prompt: Some("p-1".into()),
            agent: Some("a-2".into()),
            parent_agent: Some("a-1".into()),
            tool: Some("Bash".into()),
        })),
        process: Some(Arc::new(Process {
            path: Some("/usr/bin/curl".into()),
            pid: 77,
            command: "curl https://docs.example/".into(),
            ancestry: vec!["bash".into(), "claude".into()],
            lineage: Vec::new(),
        })),
        client_address: Some([127, 0, 0, 1].into()),
        server_address: Some("docs.example".into()),
        server_port: Some(443),
        peer_address: Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
        parent_proxy: Some("proxy.acme.example:3129".into()),
        dns_answers: Some(Box::new([[192, 0, 2, 1].into()])),
        protocol: Some("connect"),
        method: Some("CONNECT".into()),
        status: Some(200),
        user_agent: Some("curl/8".into()),
        tls_mode: Some(TlsMode::Opaque),
        server_name: Some("docs.example".into()),
        parent: Some(Uuid::from_u128(7)),
        ech: true,
        reused: true,
        client_hash: Some("ab".repeat(32).into()),
        upstream: Some("internal".into()),
        request_facts: Some(Arc::new(full_request_facts())),
        said: Some(Box::new(full_said())),
        shadow: Some((Verdict::Allow, "next".into())),
        again: Some(Box::new(full_again())),
        ms: Timings {
            decide: Some(0.001),
            dns: Some(1.5),
            connect: Some(20.25),
            tls: Some(2.5),
            first_byte: Some(30.0),
            total: Some(1234.5678),
        },
        ..allowed()
    }
}

fn full_request_facts() -> RequestFacts {
    RequestFacts {
        service: Some("git".into()),
        operation: Some("push".into()),
        repository: Some("acme/app".into()),
        package: Some("@acme/ui".into()),
        version: Some("1.2.3".into()),
        reference: Some("refs/heads/agent/x".into()),
        mcp: Some(McpCall {
            server: Some("tickets".into()),
            method: Some("tools/call".into()),
            tool: Some("search".into()),
            tool_use_id: Some("toolu_02".into()),
        }),
        ..RequestFacts::default()
    }
}

fn full_again() -> ReplayFacts {
    ReplayFacts {
        within: Within::parse(["model-api"]).ok().map(Arc::new),
        enforced: true,
        grounds: Some(Arc::new(TierGrounds {
            given: Some("open".into()),
            issued: Some("standard".into()),
            verified: Some("git.example/other".into()),
            claimed: Some([Arc::from("git.example/app")].into()),
            hinted: [Arc::from("git.example/hint")].into(),
        })),
        upgrade: true,
        presented: Some(true),
        published: Some(Timestamp::UNIX_EPOCH),
        facts: 2,
        readings: 1,
        head_only: true,
        path: Some("/acme/app".into()),
    }
}

fn full_said() -> Said {
    Said {
        session: Some("another".into()),
        mismatch: true,
        conversation: Some("thread-1".into()),
        request: Some("req-1".into()),
        server_tools: vec!["web_search_20250305".into()],
        ..Said::default()
    }
}

fn ended() -> CloseFacts {
    CloseFacts {
        bytes_out: 10,
        bytes_in: 20,
        requests: 1,
        end: End::Closed,
        blame: Some(Blame::Client),
        error: Some("idle"),
    }
}

async fn pass(recorder: &Recorder) -> Uuid {
    let mut facts = FlowRecord::from(allowed());
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&mut facts).await.expect("written");
    permit.closed(&facts, &ended());
    facts.flow
}

async fn refuse(recorder: &Recorder) {
    let permit = recorder.permit().await.expect("room");
    permit.refused(&denied()).await.expect("written");
}

fn schema() -> jsonschema::Validator {
    let text = text(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/record.schema.json"
    )));
    jsonschema::validator_for(&serde_json::from_str(&text).expect("JSON")).expect("a schema")
}

fn assert_valid(lines: &[Value]) {
    let schema = schema();
    for line in lines {
        if let Err(error) = schema.validate(line) {
            panic!("{error}: {line}");
        }
    }
}

/// Runs flows on many tasks; two of three pass.
async fn load(recorder: &Recorder, tasks: usize, flows: usize) {
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let recorder = recorder.clone();
        running.spawn(async move {
            for flow in 0..flows {
                if flow % 3 == 0 {
                    refuse(&recorder).await;
                } else {
                    pass(&recorder).await;
                }
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic");
    }
}

/// Asserts that each flow's lines occur once and in order, and that line numbers have no gap.
fn assert_whole(lines: &[Value]) {
    let expected: Vec<u64> = (1..).take(lines.len()).collect();
    assert_eq!(numbers(lines), expected);
    let mut flows = BTreeMap::<&str, Vec<(&str, &str)>>::new();
    for line in lines {
        if let Some(flow) = line["tidegate.flow.id"].as_str() {
            let name = line["event.name"].as_str().expect("a name");
            let verdict = line["tidegate.verdict"].as_str().expect("a verdict");
            flows.entry(flow).or_default().push((name, verdict));
        }
    }
    for (flow, said) in flows {
        let whole =
            said == [("decision", "allow"), ("close", "allow")] || said == [("decision", "deny")];
        assert!(whole, "{flow} has {said:?}");
    }
}
