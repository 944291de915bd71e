//! Tests of the lines of flows while the log works.

use super::*;

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
    assert_eq!(
        metric(&log.metrics, "tidegate_records_total "),
        4,
        "with a checkpoint"
    );
    assert_eq!(metric(&log.metrics, "tidegate_records_lost_total "), 0);
    assert_eq!(metric(&log.metrics, "tidegate_record_queue_length "), 0);
}

#[tokio::test]
async fn a_decision_is_in_the_file_when_its_flow_goes_on() {
    let log = Log::new();
    let recorder = log.start();
    let mut facts = FlowRecord::from(allowed());
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&mut facts).await.expect("written");
    assert_eq!(log.lines()[0]["tidegate.flow.id"], facts.flow.to_string());
    permit.closed(&facts, &ended());
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
async fn a_refusal_is_in_the_file_when_its_client_is_answered() {
    let log = Log::new();
    let recorder = log.start();
    for count in 1..=10 {
        refuse(&recorder).await;
        assert_eq!(log.lines().len(), count);
    }
}

#[tokio::test]
async fn a_refusal_whose_client_left_is_written_all_the_same() {
    let log = Log::new();
    let recorder = log.start();
    let facts = denied();
    let mut waiting = Box::pin(recorder.permit().await.expect("room").refused(&facts));
    // Polled once, so that the line is queued, then dropped.
    let polled = std::future::poll_fn(|context| {
        let _ = waiting.as_mut().poll(context);
        std::task::Poll::Ready(())
    });
    polled.await;
    drop(waiting);
    recorder.close().await;
    assert_eq!(names(&log.lines()), ["decision"]);
}
