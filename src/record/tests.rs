//! The recorder as flows use it, with files, and with disks that fill up.

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
use crate::metrics::Metrics;
use crate::policy::{Action, Basis, Category, Mode, TierBasis, Verdict};

use super::encode;
use super::recorder::{Permit, RecordUnavailable, Recorder, Unavailable};
use super::sink::faulty::Faulty;
use super::{Blame, CloseFacts, End, Event, FlowFacts, Outcome, Timings, TlsMode};

const DEADLINE: Duration = Duration::from_secs(60);

/// A log in a folder of its own.
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

    fn lines(&self) -> Vec<Value> {
        lines(&text(&self.path()))
    }

    /// The lines of all files, the oldest first.
    fn all_lines(&self) -> Vec<Value> {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path().display()));
        let count = (1..)
            .take_while(|number| numbered(*number).exists())
            .last()
            .unwrap_or(0);
        let mut all: Vec<_> = (1..=count)
            .rev()
            .flat_map(|number| lines(&text(&numbered(number))))
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

/// Level-triggered: looks until it is so.
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

/// Every field set.
fn full() -> FlowFacts {
    FlowFacts {
        mode: Some(Mode::Observe),
        would: Some(Verdict::Deny),
        detail: Some("nearest rule docs: host docs.example".into()),
        rule: Some("docs".into()),
        rule_location: Some("policy/web.toml:31".into()),
        policy_digest: Some("abc".into()),
        policy_generation: 3,
        category: Some(Category::PackageRegistry),
        category_basis: Some(Basis::Host),
        action: Some(Action::Read),
        action_any: false,
        tier: Some("standard".into()),
        tier_basis: Some(TierBasis::Repository),
        session: Some("s-1".into()),
        evidence: "username",
        trust: "asserted",
        channel: Some("bash".into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        span_id: Some("00f067aa0ba902b7".into()),
        user: Some("ana".into()),
        groups: Some(Arc::from([Arc::from("eng"), Arc::from("a\"b")])),
        repository: Some("git.example/app".into()),
        client_address: Some([127, 0, 0, 1].into()),
        server_address: Some("docs.example".into()),
        server_port: Some(443),
        peer_address: Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
        dns_answers: Some(Box::new([[192, 0, 2, 1].into()])),
        protocol: Some("connect"),
        method: Some("CONNECT".into()),
        status: Some(200),
        user_agent: Some("curl/8".into()),
        tls_mode: Some(TlsMode::Opaque),
        server_name: Some("docs.example".into()),
        ms: Timings {
            decide: Some(0.001),
            dns: Some(1.5),
            connect: Some(20.25),
            first_byte: Some(30.0),
            total: Some(1234.567_89),
        },
        ..allowed()
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
    let facts = allowed();
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&facts).await.expect("written");
    permit.closed(&facts, &ended());
    facts.flow
}

async fn refuse(recorder: &Recorder) {
    recorder.permit().await.expect("room").refused(&denied());
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

#[tokio::test]
async fn a_flow_that_may_pass_leaves_two_lines_and_a_refused_one_leaves_one() {
    let log = Log::new();
    let recorder = log.start();
    let flow = pass(&recorder).await;
    refuse(&recorder).await;
    recorder.close().await;
    let lines = log.lines();
    assert_eq!(names(&lines), ["decision", "close", "decision"]);
    assert_eq!(numbers(&lines), [1, 2, 3]);
    assert_eq!(lines[0]["tidegate.flow.id"], flow.to_string());
    assert_eq!(lines[1]["tidegate.flow.id"], flow.to_string());
    assert_eq!(metric(&log.metrics, "tidegate_records_total "), 3);
    assert_eq!(metric(&log.metrics, "tidegate_records_lost_total "), 0);
    assert_eq!(metric(&log.metrics, "tidegate_record_queue_length "), 0);
}

#[tokio::test]
async fn a_decision_is_in_the_file_when_its_flow_goes_on() {
    let log = Log::new();
    let recorder = log.start();
    let facts = allowed();
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&facts).await.expect("written");
    assert_eq!(log.lines()[0]["tidegate.flow.id"], facts.flow.to_string());
    permit.closed(&facts, &ended());
}

#[tokio::test]
async fn every_kind_of_line_fits_the_schema() {
    let log = Log::new();
    let recorder = log.start();
    for facts in [
        full(),
        allowed(),
        FlowFacts {
            action: None,
            action_any: true,
            ..full()
        },
    ] {
        let mut permit = recorder.permit().await.expect("room");
        permit.decided(&facts).await.expect("written");
        permit.closed(&facts, &ended());
    }
    refuse(&recorder).await;
    recorder.event(&Event::PolicyLoaded {
        digest: "abc".into(),
        generation: 1,
    });
    recorder.event(&Event::PolicyRejected {
        digest: "abc".into(),
        generation: 1,
        detail: "x".repeat(500).into(),
    });
    recorder.event(&Event::RecordGap {
        lost: 1,
        flows: vec![Uuid::nil()],
        detail: "d".into(),
    });
    let open = allowed();
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&open).await.expect("written");
    std::fs::rename(log.path(), log.folder.path().join("moved")).expect("moved");
    recorder.reopen();
    eventually("a new file", || {
        log.path().exists() && !text(&log.path()).is_empty()
    })
    .await;
    permit.closed(&open, &ended());
    recorder.close().await;
    let mut all = lines(&text(&log.folder.path().join("moved")));
    all.extend(log.lines());
    let kinds: BTreeSet<_> = names(&all).into_iter().map(str::to_owned).collect();
    let expected = [
        "checkpoint",
        "close",
        "decision",
        "policy_loaded",
        "policy_rejected",
        "record_gap",
    ];
    assert_eq!(kinds, expected.map(str::to_owned).into());
    assert_valid(&all);
}

#[test]
fn a_full_line_reads_as_documented() {
    let facts = FlowFacts {
        flow: Uuid::nil(),
        ..full()
    };
    let at = Timestamp::from_microsecond(1_700_000_000_000_001).expect("a time");
    let line = encode::close(at, &facts, &ended());
    insta::assert_snapshot!(
        String::from_utf8(line.bytes)
            .expect("UTF-8")
            .replace(",\"", ",\n\"")
    );
}

#[test]
fn what_is_not_known_is_not_written() {
    let line = encode::decision(Timestamp::UNIX_EPOCH, &FlowFacts::default());
    let value: Value = serde_json::from_slice(&line.bytes).expect("JSON");
    let written: Vec<_> = value
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        written,
        [
            "event.name",
            "tidegate.flow.id",
            "tidegate.verdict",
            "timestamp"
        ]
    );
}

#[test]
fn the_schema_knows_no_field_that_is_never_written() {
    let line = encode::close(Timestamp::UNIX_EPOCH, &full(), &ended());
    let written: Value = serde_json::from_slice(&line.bytes).expect("JSON");
    let text = text(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/record.schema.json"
    )));
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let fields = schema["$defs"]["close"]["properties"]
        .as_object()
        .expect("properties");
    let by_writer = [
        "event.sequence",
        "service.instance.id",
        "service.name",
        "service.version",
    ];
    for field in fields.keys() {
        let known = written.get(field).is_some()
            || by_writer.contains(&field.as_str())
            || field == "tidegate.schema";
        assert!(known, "{field} is never written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_texts_fit_the_schema(text in any::<String>(), more in ".{0,400}") {
        let facts = FlowFacts {
            detail: Some(text.as_str().into()),
            user_agent: Some(more.as_str().into()),
            session: Some(more.as_str().into()),
            server_name: Some(text.as_str().into()),
            user: Some(text.as_str().into()),
            ..full()
        };
        let line = encode::decision(Timestamp::UNIX_EPOCH, &facts);
        let bytes = String::from_utf8(line.bytes).expect("UTF-8");
        prop_assert_eq!(bytes.matches('\n').count(), 1);
        prop_assert!(!bytes.trim_end().contains(char::is_control));
        let mut value: Value = serde_json::from_str(&bytes).expect("JSON");
        value["event.sequence"] = 1.into();
        value["tidegate.schema"] = "record/1".into();
        value["service.name"] = "tidegate".into();
        value["service.version"] = "1".into();
        value["service.instance.id"] = Uuid::nil().to_string().into();
        if let Err(error) = schema().validate(&value) {
            prop_assert!(false, "{}: {}", error, value);
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

/// Each flow's lines are there once and in order, and lines are numbered without a hole.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_flows_lose_nothing() {
    let log = Log::new();
    let recorder = log.start();
    load(&recorder, 50, 201).await;
    recorder.close().await;
    let lines = log.lines();
    assert_eq!(lines.len(), 50 * (67 + 2 * 134));
    assert_whole(&lines);
    assert_eq!(metric(&log.metrics, "tidegate_records_lost_total "), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load_loses_nothing() {
    let mut log = Log::new();
    log.config.rotate_size = 64 * 1024;
    let recorder = log.start();
    let open = allowed();
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&open).await.expect("written");
    load(&recorder, 20, 60).await;
    assert_eq!(log.lines()[0]["event.name"], "checkpoint");
    assert!(
        log.lines()[0]["tidegate.checkpoint.open"]
            .to_string()
            .contains(&open.flow.to_string())
    );
    permit.closed(&open, &ended());
    recorder.close().await;
    let lines = log.all_lines();
    let checkpoints = names(&lines)
        .iter()
        .filter(|name| **name == "checkpoint")
        .count();
    assert!(checkpoints >= 3, "{checkpoints} rotations");
    assert_eq!(lines.len() - checkpoints, 2 + 20 * (20 + 2 * 40));
    assert_whole(&lines);
}

#[tokio::test]
async fn only_so_many_rotated_files_are_kept() {
    let mut log = Log::new();
    log.config.rotate_size = 2000;
    log.config.rotate_keep = 2;
    let recorder = log.start();
    for _ in 0..40 {
        pass(&recorder).await;
    }
    recorder.close().await;
    let folder = log.path().parent().expect("a folder").to_owned();
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        ["decisions.jsonl", "decisions.jsonl.1", "decisions.jsonl.2"]
    );
}

#[tokio::test]
async fn a_file_that_was_moved_is_begun_anew_on_demand() {
    let log = Log::new();
    let recorder = log.start();
    pass(&recorder).await;
    let moved = log.folder.path().join("moved");
    std::fs::rename(log.path(), &moved).expect("moved");
    recorder.reopen();
    pass(&recorder).await;
    recorder.reopen();
    pass(&recorder).await;
    recorder.close().await;
    let mut all = lines(&text(&moved));
    let fresh = log.lines();
    assert_eq!(
        names(&fresh),
        ["checkpoint", "decision", "close", "decision", "close"]
    );
    all.extend(fresh);
    assert_whole(&all);
}

#[tokio::test]
async fn two_writers_of_one_file_are_refused() {
    let log = Log::new();
    let recorder = log.start();
    let second = Recorder::start(&log.config, 10, Clock::system(), &log.metrics);
    let error = second.expect_err("a second writer").to_string();
    assert!(
        error.contains("another process writes this file"),
        "{error}"
    );
    assert!(error.contains("decisions.jsonl"), "{error}");
    recorder.close().await;
    log.start().close().await;
}

#[tokio::test]
async fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let log = Log::new();
    log.start().close().await;
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&log.path()), 0o600);
    assert_eq!(mode(log.path().parent().expect("a folder")), 0o700);
}

#[tokio::test]
async fn a_clean_start_says_nothing_about_gaps() {
    let log = Log::new();
    let recorder = log.start();
    pass(&recorder).await;
    recorder.close().await;
    log.start().close().await;
    assert_eq!(names(&log.lines()), ["decision", "close"]);
}

#[tokio::test]
async fn flows_that_a_killed_run_left_open_are_told_once() {
    let log = Log::new();
    let recorder = log.start();
    pass(&recorder).await;
    recorder.close().await;
    let open = allowed();
    let mut killed =
        String::from_utf8(encode::decision(Timestamp::UNIX_EPOCH, &open).bytes).expect("UTF-8");
    killed.push_str("{\"timestamp\":\"2026-");
    append(&log.path(), &killed);
    log.start().close().await;
    log.start().close().await;
    let lines = log.lines();
    assert_eq!(
        names(&lines),
        ["decision", "close", "decision", "record_gap"]
    );
    let gap = &lines[3];
    assert_eq!(gap["tidegate.gap.cause"], "stopped");
    assert_eq!(gap["tidegate.gap.open"], 1);
    assert_eq!(gap["tidegate.gap.flows"][0], open.flow.to_string());
    assert_eq!(gap["tidegate.gap.lost"], 1);
    assert_valid(&lines[3..]);
    assert_eq!(metric(&log.metrics, "tidegate_records_lost_total "), 1);
}

#[tokio::test]
async fn flows_open_before_a_rotation_are_found_in_the_newest_file() {
    let mut log = Log::new();
    log.config.rotate_size = 3000;
    let recorder = log.start();
    let open = allowed();
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&open).await.expect("written");
    for _ in 0..20 {
        pass(&recorder).await;
    }
    recorder.close().await;
    drop(permit);
    drop(recorder);
    log.config.rotate_size = 0;
    log.start().close().await;
    let lines = log.lines();
    let gap = lines.last().expect("a line");
    assert_eq!(gap["event.name"], "record_gap");
    assert_eq!(gap["tidegate.gap.flows"][0], open.flow.to_string());
    assert_eq!(gap["tidegate.gap.open"], 1);
}

fn append(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(path)
        .expect("a file");
    file.write_all(text.as_bytes()).expect("written");
}

/// A recorder over a disk that takes so many bytes.
fn over(disk: &Faulty, on_failure: OnFailure, flows: usize, cuts: bool) -> (Recorder, Metrics) {
    let metrics = Metrics::new(&["allowed"]);
    let clock = Clock::system();
    let recorder = Recorder::over(disk.sink(cuts), on_failure, flows, clock, &metrics);
    (recorder.expect("started"), metrics)
}

async fn failing(recorder: &Recorder) -> Permit {
    let mut permit = recorder.permit().await.expect("room");
    let result = permit.decided(&allowed()).await;
    assert_eq!(result, Err(RecordUnavailable(Unavailable::Failing)));
    permit
}

#[tokio::test]
async fn a_full_disk_refuses_flows_and_tells_of_them_later() {
    let disk = Faulty::with_room(1500);
    let (recorder, metrics) = over(&disk, OnFailure::Refuse, 100, true);
    pass(&recorder).await;
    let refused = failing(&recorder).await;
    let untold = failing_or_unavailable(&recorder).await;
    assert!(untold.is_none(), "no permit while the disk is full");
    refused.refused(&FlowFacts {
        outcome: Outcome::Error,
        ..denied()
    });
    let full = lines(&disk.text());
    disk.set_room(usize::MAX / 2);
    let began = Clock::system().instant();
    while recorder.permit().await.is_err() {
        assert!(began.elapsed() < DEADLINE, "it did not recover");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pass(&recorder).await;
    recorder.close().await;
    let lines = lines(&disk.text());
    assert_eq!(names(&lines[..full.len()]), names(&full));
    assert_eq!(lines[full.len()]["event.name"], "record_gap");
    assert_eq!(lines[full.len()]["tidegate.gap.cause"], "failing");
    assert!(lines[full.len()]["tidegate.gap.refused"].as_u64() >= Some(1));
    let expected: Vec<u64> = (1..).take(lines.len()).collect();
    assert_eq!(numbers(&lines), expected);
    assert_valid(&lines);
    let errors: Vec<_> = lines
        .iter()
        .filter(|line| line["tidegate.verdict"] == "error")
        .collect();
    assert_eq!(errors.len(), 1, "the refused flow has its line");
    let told: u64 = lines
        .iter()
        .filter_map(|line| line["tidegate.gap.refused"].as_u64())
        .sum();
    assert_eq!(metric(&metrics, "tidegate_records_lost_total "), told);
    assert_closed(&lines);
}

async fn failing_or_unavailable(recorder: &Recorder) -> Option<Permit> {
    recorder.permit().await.ok()
}

/// Every flow that may pass has its close.
fn assert_closed(lines: &[Value]) {
    let of = |name: &str| -> BTreeSet<String> {
        lines
            .iter()
            .filter(|line| line["event.name"] == name && line["tidegate.verdict"] == "allow")
            .map(|line| line["tidegate.flow.id"].to_string())
            .collect()
    };
    assert_eq!(of("decision"), of("close"));
}

#[tokio::test]
async fn a_flow_dropped_after_a_failure_is_counted_in_the_gap() {
    let disk = Faulty::with_room(0);
    let (recorder, metrics) = over(&disk, OnFailure::Refuse, 100, true);
    drop(failing(&recorder).await);
    disk.set_room(usize::MAX / 2);
    recorder.close().await;
    let lines = lines(&disk.text());
    assert_eq!(names(&lines), ["record_gap"]);
    assert_eq!(lines[0]["tidegate.gap.refused"], 1);
    assert_eq!(metric(&metrics, "tidegate_records_lost_total "), 1);
}

#[tokio::test]
async fn with_continue_flows_pass_and_queued_lines_are_written_later() {
    let disk = Faulty::with_room(0);
    let (recorder, metrics) = over(&disk, OnFailure::Continue, 5, true);
    for _ in 0..20 {
        pass(&recorder).await;
    }
    disk.set_room(usize::MAX / 2);
    recorder.close().await;
    let lines = lines(&disk.text());
    let lost = lines[0]["tidegate.gap.lost"].as_u64().expect("a count");
    assert_eq!(lines[0]["event.name"], "record_gap");
    assert_eq!(lost, metric(&metrics, "tidegate_records_lost_total "));
    assert_eq!(u64::try_from(lines.len()).expect("few") - 1 + lost, 40);
    assert!(lost > 0, "five flows had room");
}

#[tokio::test]
async fn part_of_a_line_is_cut_off_a_file_and_ended_in_a_stream() {
    for cuts in [true, false] {
        let disk = Faulty::with_room(300);
        let (recorder, _) = over(&disk, OnFailure::Continue, 100, cuts);
        pass(&recorder).await;
        let held = disk.text();
        assert_eq!(held.is_empty(), cuts, "{held}");
        disk.set_room(usize::MAX / 2);
        recorder.close().await;
        let text = disk.text();
        let whole = if cuts {
            text
        } else {
            text.split_once('\n').expect("ended").1.to_owned()
        };
        assert_eq!(names(&lines(&whole)), ["record_gap", "decision", "close"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_waits_two_seconds_for_room() {
    let disk = Faulty::with_room(usize::MAX / 2);
    let (recorder, _) = over(&disk, OnFailure::Refuse, 1, true);
    let permit = recorder.permit().await.expect("room");
    let error = recorder.permit().await.expect_err("no room");
    assert_eq!(error, RecordUnavailable(Unavailable::Full));
    permit.refused(&denied());
    let freed = async { while recorder.permit().await.is_err() {} };
    freed.await;
    recorder.close().await;
    let lines = lines(&disk.text());
    assert_eq!(
        lines
            .iter()
            .filter(|line| line["tidegate.gap.cause"] == "slow")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_closed_log_gives_no_permit() {
    let log = Log::new();
    let recorder = log.start();
    recorder.close().await;
    let error = recorder.permit().await.expect_err("closed");
    assert_eq!(error, RecordUnavailable(Unavailable::Closed));
}

#[tokio::test]
async fn dropping_every_handle_writes_what_is_queued() {
    let log = Log::new();
    let recorder = log.start();
    refuse(&recorder).await;
    drop(recorder);
    eventually("the line", || log.lines().len() == 1).await;
}

#[tokio::test]
async fn a_permit_that_says_nothing_leaves_nothing() {
    let log = Log::new();
    let recorder = log.start();
    drop(recorder.permit().await.expect("room"));
    recorder.close().await;
    assert!(log.lines().is_empty());
    assert_eq!(metric(&log.metrics, "tidegate_records_lost_total "), 0);
}

#[tokio::test]
async fn a_removed_file_is_noticed() {
    let log = Log::new();
    let recorder = log.start();
    pass(&recorder).await;
    std::fs::remove_file(log.path()).expect("removed");
    let began = Clock::system().instant();
    while !log.path().exists() {
        assert!(began.elapsed() < DEADLINE, "it was not noticed");
        pass(&recorder).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    recorder.close().await;
    let lines = log.lines();
    assert_eq!(lines[0]["event.name"], "checkpoint");
    let gap = lines
        .iter()
        .find(|line| line["tidegate.gap.cause"] == "removed")
        .expect("a gap");
    assert!(gap["tidegate.gap.lost"].as_u64() >= Some(2));
}

#[test]
fn time_comes_from_the_clock() {
    let clock = Clock::by_hand(Timestamp::UNIX_EPOCH);
    clock.advance(SignedDuration::from_secs(1));
    let line = encode::decision(clock.now(), &allowed());
    assert!(
        line.bytes
            .starts_with(b"{\"timestamp\":\"1970-01-01T00:00:01.000000Z\"")
    );
}
