//! Tests of rotation, of other writers, and of the state that an earlier run left.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load_loses_nothing() {
    let mut log = Log::new();
    log.config.rotate_size = 64 * 1024;
    let recorder = log.start();
    let mut open = FlowRecord::from(allowed());
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&mut open).await.expect("written");
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
        [
            "decisions.jsonl",
            "decisions.jsonl.1",
            "decisions.jsonl.2",
            "decisions.jsonl.chain",
            "record.key"
        ]
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
    assert_eq!(fresh[0]["event.name"], "checkpoint");
    assert_eq!(
        names(&fresh)
            .iter()
            .filter(|name| **name == "checkpoint")
            .count(),
        1
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
    let mut open = FlowRecord::from(allowed());
    let mut permit = recorder.permit().await.expect("room");
    permit.decided(&mut open).await.expect("written");
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
    assert!(gap["tidegate.gap.lost"].as_u64() >= Some(1));
}

#[tokio::test]
async fn a_pipe_at_the_path_of_the_log_is_refused() {
    let log = Log::new();
    log.start().close().await;
    std::fs::remove_file(log.path()).expect("moved away");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        log.path(),
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )
    .expect("a pipe");
    let started = Recorder::start(&log.config, 10, Clock::system(), &log.metrics);
    let error = started.expect_err("a pipe is no log").to_string();
    assert!(error.contains("is no regular file: remove it"), "{error}");
    // A rotated file that is a pipe does not block the start.
    std::fs::rename(log.path(), format!("{}.1", log.path().display())).expect("renamed");
    log.start().close().await;
}

#[tokio::test]
async fn a_file_goes_by_the_time_of_its_last_line() {
    let mut log = Log::new();
    log.config.retain = Duration::from_hours(24);
    let recorder = log.start();
    pass(&recorder).await;
    recorder.close().await;
    let rotated = |number: u32| PathBuf::from(format!("{}.{number}", log.path().display()));
    let held = text(&log.path());
    let today = &held[r#"{"timestamp":""#.len()..][..10];
    std::fs::rename(log.path(), rotated(1)).expect("renamed");
    let torn = format!("{held}{{\"event.na");
    std::fs::write(rotated(2), &torn).expect("written");
    std::fs::write(rotated(3), "x".repeat(1 << 20)).expect("written");
    std::fs::write(rotated(4), held.replace(today, "2020-01-01")).expect("written");
    let now = std::fs::metadata(rotated(3)).and_then(|file| file.modified());
    let earlier = now.expect("a time") - Duration::from_hours(72);
    for number in 1..=4 {
        let file = std::fs::File::options().write(true).open(rotated(number));
        file.expect("a file")
            .set_modified(earlier)
            .expect("touched");
    }
    log.start().close().await;
    for number in 1..=3 {
        assert!(rotated(number).exists(), "{number} is not old");
    }
    assert!(!rotated(4).exists(), "an old file is removed");
    assert!(text(&log.path()).contains("removed decisions.jsonl.4"));
}
