//! Tests of full disks and of slow logs.

use std::sync::Mutex;

use super::super::chain::Head;
use super::super::queue::Queue;
use super::super::writer::Writer;
use super::*;

/// Returns a recorder over a disk with limited room.
fn over(disk: &Faulty, on_failure: OnFailure, flows: usize, cuts: bool) -> (Recorder, Metrics) {
    let metrics = Metrics::new(&["allowed"]);
    let clock = Clock::system();
    let recorder = Recorder::over(disk.sink(cuts), on_failure, flows, clock, &metrics);
    (recorder.expect("started"), metrics)
}

/// Returns the lines on a disk, except checkpoints.
fn held(disk: &Faulty) -> Vec<Value> {
    without_checkpoints(lines(&disk.text()))
}

async fn failing(recorder: &Recorder) -> Permit {
    let mut permit = recorder.permit().await.expect("room");
    let result = permit.decided(&mut allowed().into()).await;
    assert_eq!(result, Err(RecordUnavailable(Unavailable::Failing)));
    permit
}

#[tokio::test]
async fn a_full_disk_refuses_flows_and_tells_of_them_later() {
    let disk = Faulty::with_room(usize::MAX / 2);
    let (recorder, metrics) = over(&disk, OnFailure::Refuse, 100, true);
    pass(&recorder).await;
    eventually("two lines", || held(&disk).len() == 2).await;
    disk.set_room(100);
    let refused = failing(&recorder).await;
    let untold = failing_or_unavailable(&recorder).await;
    assert!(untold.is_none(), "no permit while the disk is full");
    let error = FlowFacts {
        outcome: Outcome::Error,
        ..denied()
    };
    let result = refused.refused(&error).await;
    assert_eq!(result, Err(RecordUnavailable(Unavailable::Failing)));
    let full = held(&disk);
    disk.set_room(usize::MAX / 2);
    let began = Clock::system().instant();
    while recorder.permit().await.is_err() {
        assert!(began.elapsed() < DEADLINE, "it did not recover");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pass(&recorder).await;
    recorder.close().await;
    let lines = held(&disk);
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

/// Asserts that every allowed flow has its `close` line.
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
    let lines = held(&disk);
    assert_eq!(names(&lines), ["record_gap"]);
    assert_eq!(lines[0]["tidegate.gap.refused"], 1);
    assert_eq!(metric(&metrics, "tidegate_records_lost_total "), 1);
}

#[test]
fn a_line_is_not_written_after_its_flow_was_refused_for_it() {
    for (on_failure, written) in [(OnFailure::Refuse, 0), (OnFailure::Continue, 1)] {
        let disk = Faulty::with_room(usize::MAX / 2);
        let (clock, metrics) = (Clock::system(), Metrics::new(&["allowed"]));
        let config = config::Record {
            on_failure,
            ..config::embedded().record
        };
        let queue = Arc::new(Queue::new(1, &config, clock.clone(), metrics));
        let waiting = queue.push_awaited(encode::decision(clock.now(), &allowed()));
        drop(waiting.expect("a log that works"));
        queue.close();
        let writer = Writer::new(queue, disk.sink(true), None, Head::default());
        Writer::run(&Mutex::new(writer));
        assert_eq!(held(&disk).len(), written, "{on_failure:?}");
    }
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
    let lines = held(&disk);
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
        assert_eq!(
            names(&without_checkpoints(lines(&whole))),
            ["record_gap", "decision", "close"]
        );
    }
}

#[tokio::test]
async fn a_flow_waits_two_seconds_for_room() {
    let disk = Faulty::with_room(usize::MAX / 2);
    let (recorder, _) = over(&disk, OnFailure::Refuse, 1, true);
    let permit = recorder.permit().await.expect("room");
    let error = recorder.permit().await.expect_err("no room");
    assert_eq!(error, RecordUnavailable(Unavailable::Full));
    permit.refused(&denied()).await.expect("written");
    let freed = async { while recorder.permit().await.is_err() {} };
    freed.await;
    recorder.close().await;
    let lines = held(&disk);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line["tidegate.gap.cause"] == "slow")
            .count(),
        1
    );
}
