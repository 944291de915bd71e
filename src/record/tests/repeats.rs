//! Tests of repeated refusals and events.

use super::super::SessionFacts;
use super::*;

/// Returns a log that counts after five refusals of one target, in windows longer than a test.
fn counting() -> Log {
    let mut log = Log::new();
    log.config.repeat_window = Duration::from_hours(1);
    log.config.repeat_after = 5;
    log
}

fn denied_at(host: &str, session: Option<&str>) -> FlowFacts {
    FlowFacts {
        server_address: Some(host.into()),
        server_port: Some(443),
        client_address: Some([127, 0, 0, 1].into()),
        session: session.map(Into::into),
        trust: if session.is_some() {
            "verified"
        } else {
            "none"
        },
        ..denied()
    }
}

async fn refuse_at(recorder: &Recorder, facts: &FlowFacts) {
    let permit = recorder.permit().await.expect("room");
    permit.refused(facts).await.expect("written");
}

fn counts(lines: &[Value]) -> u64 {
    let of = |line: &Value| line["tidegate.repeat.count"].as_u64();
    lines.iter().filter_map(of).sum()
}

fn named<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    let is = |line: &&Value| line["event.name"] == name;
    lines.iter().filter(is).collect()
}

#[tokio::test]
async fn repeated_refusals_become_one_line_with_an_exact_count() {
    let log = counting();
    let recorder = log.start();
    for _ in 0..1000 {
        refuse_at(&recorder, &denied_at("evil.example", None)).await;
    }
    recorder.close().await;
    let lines = log.lines();
    assert_valid(&lines);
    assert_eq!(named(&lines, "decision").len(), 5);
    let repeated = named(&lines, "refusals_repeated");
    assert_eq!(repeated.len(), 2);
    assert_eq!(repeated[0]["tidegate.repeat.state"], "open");
    assert_eq!(repeated[0]["tidegate.repeat.count"], 0);
    assert_eq!(repeated[1]["tidegate.repeat.state"], "ended");
    assert_eq!(repeated[1]["tidegate.repeat.count"], 995);
    assert_eq!(repeated[1]["server.address"], "evil.example");
    assert_eq!(repeated[1]["tidegate.reason"], "not_allowed");
    assert_eq!(
        repeated[0]["tidegate.repeat.id"],
        repeated[1]["tidegate.repeat.id"]
    );
    assert_eq!(
        metric(&log.metrics, "tidegate_records_repeated_total "),
        995
    );
    assert_eq!(metric(&log.metrics, "tidegate_records_lost_total "), 0);
}

#[tokio::test]
async fn the_opening_line_stands_before_anything_is_counted() {
    let log = counting();
    let recorder = log.start();
    for sent in 1..=10 {
        refuse_at(&recorder, &denied_at("evil.example", None)).await;
        let lines = log.lines();
        let opened = !named(&lines, "refusals_repeated").is_empty();
        assert_eq!(opened, sent > 5, "after {sent} refusals");
    }
    // The gate is killed here.
    let killed = Log::new();
    std::fs::create_dir(killed.path().parent().expect("a folder")).expect("a folder");
    std::fs::copy(log.path(), killed.path()).expect("copied");
    recorder.close().await;
    killed.start().close().await;
    let lines = killed.lines();
    let gap = lines.last().expect("a line");
    assert_eq!(gap["tidegate.gap.cause"], "stopped");
    assert_eq!(gap["tidegate.gap.repeats"], 1);
    assert_valid(&lines);
    killed.start().close().await;
    assert_eq!(killed.lines().len(), lines.len(), "told once");
}

#[tokio::test]
async fn a_caller_that_varies_its_targets_is_counted_too() {
    let log = counting();
    let recorder = log.start();
    for number in 0..2000 {
        refuse_at(
            &recorder,
            &denied_at(&format!("h{number}.evil.example"), None),
        )
        .await;
    }
    recorder.close().await;
    let lines = log.lines();
    assert_valid(&lines);
    let whole = named(&lines, "decision").len() as u64;
    assert!(lines.len() < 60, "{} lines", lines.len());
    assert_eq!(whole + counts(&lines), 2000, "every refusal is counted");
    let various = named(&lines, "refusals_repeated")
        .into_iter()
        .find(|line| line["tidegate.repeat.targets"].is_u64())
        .expect("a count of various targets");
    assert_eq!(various["tidegate.repeat.targets"], 1000);
    assert!(various.get("server.address").is_none());
    assert_eq!(various["client.address"], "127.0.0.1");
}

#[tokio::test]
async fn callers_are_counted_apart_and_a_chosen_name_makes_no_other_caller() {
    let log = counting();
    let recorder = log.start();
    for number in 0..1000 {
        let mut facts = denied_at("evil.example", Some(&format!("s{number}")));
        facts.trust = "asserted";
        refuse_at(&recorder, &facts).await;
    }
    let before = log.lines().len();
    assert!(before < 60, "{before} lines of one address");
    for _ in 0..5 {
        refuse_at(&recorder, &denied_at("evil.example", Some("other"))).await;
    }
    assert_eq!(
        log.lines().len(),
        before + 5,
        "another caller has its lines"
    );
    recorder.close().await;
    let lines = log.lines();
    assert_eq!(
        named(&lines, "decision").len() as u64 + counts(&lines),
        1005
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact_under_load_and_over_windows_and_rotations() {
    let mut log = counting();
    log.config.repeat_window = Duration::from_millis(1);
    log.config.rotate_size = 16 * 1024;
    let recorder = log.start();
    let mut running = JoinSet::new();
    for task in 0..20 {
        let recorder = recorder.clone();
        running.spawn(async move {
            for number in 0..200 {
                let host = format!("h{}.example", (task * number) % 40);
                refuse_at(&recorder, &denied_at(&host, None)).await;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic");
    }
    recorder.close().await;
    let lines = log.all_lines();
    let whole = named(&lines, "decision").len() as u64;
    assert_eq!(whole + counts(&lines), 4000);
    let ids = |state: &str| -> BTreeSet<String> {
        let of = lines
            .iter()
            .filter(|line| line["tidegate.repeat.state"] == state);
        of.map(|line| line["tidegate.repeat.id"].to_string())
            .collect()
    };
    assert_eq!(ids("open"), ids("ended"));
}

#[tokio::test]
async fn a_flood_of_sessions_is_counted() {
    let log = counting();
    let recorder = log.start();
    for number in 0..500 {
        recorder.event(&Event::SessionStarted(Box::new(SessionFacts {
            session: Some(format!("s{number}").into()),
            user: Some("ana".into()),
            evidence: "token",
            trust: "verified",
            ..SessionFacts::default()
        })));
        // The recorder does not wait for events: the flow after them is awaited.
        pass(&recorder).await;
    }
    recorder.close().await;
    let lines = log.lines();
    assert_valid(&lines);
    let started = named(&lines, "session_started").len() as u64;
    assert!(started < 20, "{started}");
    assert_eq!(started + counts(&lines), 500);
    let repeated = named(&lines, "events_repeated");
    assert_eq!(repeated.len(), 2);
    assert_eq!(repeated[1]["tidegate.repeat.event"], "session_started");
}

#[tokio::test]
async fn a_process_with_many_loopback_addresses_is_one_caller() {
    let log = counting();
    let recorder = log.start();
    let victim = |number: u8| denied_at(&format!("h{number}.example"), Some("victim"));
    for number in 0..600_u16 {
        let [high, low] = number.to_be_bytes();
        let facts = FlowFacts {
            client_address: Some([127, 7, high, low].into()),
            ..denied_at(&format!("h{number}.evil.example"), None)
        };
        refuse_at(&recorder, &facts).await;
    }
    let flood = log.lines().len();
    assert!(flood < 60, "{flood} lines of one process");
    for number in 0..10 {
        refuse_at(&recorder, &victim(number)).await;
    }
    assert_eq!(log.lines().len(), flood + 10, "the session has its lines");
    recorder.close().await;
    let lines = log.lines();
    assert_valid(&lines);
    assert_eq!(named(&lines, "decision").len() as u64 + counts(&lines), 610);
    for line in named(&lines, "refusals_repeated") {
        assert_eq!(line["client.address"], "127.0.0.1");
    }
}

#[tokio::test]
async fn a_full_table_of_addresses_takes_no_lines_from_sessions_and_names_no_caller() {
    let log = counting();
    let recorder = log.start();
    let from = |address: [u8; 4], host: &str, session: Option<&str>| FlowFacts {
        client_address: Some(address.into()),
        ..denied_at(host, session)
    };
    for number in 0..300_u16 {
        let [high, low] = number.to_be_bytes();
        let facts = FlowFacts {
            trust: "asserted",
            ..from([192, 0, high, low], "evil.example", Some("claimed"))
        };
        refuse_at(&recorder, &facts).await;
    }
    let before = log.lines().len();
    for number in 0..10 {
        let host = format!("h{number}.example");
        refuse_at(&recorder, &from([192, 0, 9, 9], &host, Some("victim"))).await;
    }
    assert_eq!(log.lines().len(), before + 10, "the session has its lines");
    recorder.close().await;
    let lines = log.lines();
    assert_valid(&lines);
    let ended = named(&lines, "refusals_repeated");
    assert!(!ended.is_empty(), "the others are counted");
    for line in ended {
        for field in ["client.address", "session.id", "user.id"] {
            assert!(line.get(field).is_none(), "{field} of the others: {line}");
        }
        assert_eq!(line["tidegate.session.trust"], "none");
    }
}

#[tokio::test]
async fn more_sessions_of_one_user_than_are_told_apart_are_that_user() {
    let log = counting();
    let recorder = log.start();
    let of = |session: &str, user: &str| FlowFacts {
        user: Some(user.into()),
        ..denied_at("evil.example", Some(session))
    };
    for number in 0..400 {
        refuse_at(&recorder, &of(&format!("s{number}"), "eve")).await;
    }
    let before = log.lines().len();
    for _ in 0..5 {
        refuse_at(&recorder, &of("victim", "ana")).await;
    }
    let lines = log.lines();
    assert_eq!(lines.len(), before + 5, "another user has its lines");
    recorder.close().await;
    let lines = log.lines();
    assert_valid(&lines);
    for line in named(&lines, "refusals_repeated") {
        assert_eq!(line["user.id"], "eve");
    }
}

fn call_started(session: &str, number: u32) -> Event {
    Event::ToolCallStarted(Box::new(CallFacts {
        session: Some(session.into()),
        call: ToolCall {
            trust: Trust::Verified,
            handle: None,
            session: None,
            id: Some(format!("toolu_{number}").into()),
            prompt: None,
            agent: None,
            parent_agent: None,
            tool: Some("Bash".into()),
        },
        asker: Asker {
            door: "control",
            ..Asker::default()
        },
    }))
}

#[tokio::test]
async fn a_flood_of_tool_calls_is_counted_by_session() {
    let log = counting();
    let recorder = log.start();
    for number in 0..500 {
        recorder.event(&call_started("s-1", number));
        // The recorder does not wait for events: the flow after them is awaited.
        pass(&recorder).await;
    }
    recorder.event(&call_started("s-2", 0));
    recorder.close().await;
    let lines = log.lines();
    assert_valid(&lines);
    let started = named(&lines, "tool_call_started");
    assert_eq!(started.len(), 16);
    assert_eq!(started[15]["session.id"], "s-2");
    let repeated = named(&lines, "events_repeated");
    assert_eq!(repeated[1]["tidegate.repeat.event"], "tool_call_started");
    assert_eq!(repeated[1]["tidegate.repeat.count"], 485);
    assert_eq!(repeated[1]["session.id"], "s-1");
}

#[tokio::test]
async fn events_of_callers_leave_room_to_those_of_the_gate() {
    let disk = Faulty::with_room(usize::MAX / 2);
    let metrics = Metrics::new(&["allowed"]);
    let (on_failure, clock) = (OnFailure::Refuse, Clock::system());
    let recorder = Recorder::over(disk.sink(true), on_failure, 10, clock, &metrics);
    let recorder = recorder.expect("started");
    let stalled = disk.0.lock().expect("whole");
    for number in 0..3000 {
        recorder.event(&call_started(&format!("s-{}", number / 50), number));
    }
    for generation in 0..400 {
        recorder.event(&Event::PolicyLoaded {
            digest: "abc".into(),
            generation,
            copy: Some("abc".into()),
            change: "narrower".into(),
            repositories: vec!["github.com/acme/web@1a2b:.tidegate.toml sha256:ab".into()],
        });
    }
    drop(stalled);
    recorder.close().await;
    let lines = lines(&disk.text());
    assert_eq!(named(&lines, "policy_loaded").len(), 400);
    let gap = &named(&lines, "record_gap")[0];
    assert_eq!(gap["tidegate.gap.cause"], "slow");
}

#[tokio::test]
async fn small_files_do_not_make_lines_of_what_is_counted() {
    let mut log = counting();
    log.config.rotate_size = 4096;
    let recorder = log.start();
    for _ in 0..100 {
        for _ in 0..20 {
            refuse_at(&recorder, &denied_at("evil.example", None)).await;
        }
        // Other lines rotate the file.
        pass(&recorder).await;
    }
    let before = log.all_lines();
    recorder.close().await;
    let lines = log.all_lines();
    assert_valid(&lines);
    assert_eq!(named(&lines, "decision").len(), 100 + 5);
    assert_eq!(counts(&lines), 1995);
    assert_eq!(named(&lines, "refusals_repeated").len(), 2);
    // The gate was killed before it closed: the newest file contains the open counts.
    let opened = before
        .iter()
        .rfind(|line| line["event.name"] == "checkpoint");
    let open = named(&lines, "refusals_repeated")[0]["tidegate.repeat.id"].clone();
    let opened = opened.expect("a rotation");
    assert_eq!(
        opened["tidegate.checkpoint.repeats"],
        serde_json::json!([open])
    );
}
