//! Tests of changes of the file that the gate did not make, of its permissions and of retention.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

/// Returns the first gap with this cause, while flows go on.
async fn gap(log: &Log, recorder: &Recorder, cause: &str) -> Value {
    let began = Clock::system().instant();
    loop {
        pass(recorder).await;
        let held = if log.path().exists() {
            log.lines()
        } else {
            Vec::new()
        };
        let told = held
            .into_iter()
            .find(|line| line["tidegate.gap.cause"] == cause);
        if let Some(told) = told {
            assert_valid(std::slice::from_ref(&told));
            return told;
        }
        assert!(began.elapsed() < DEADLINE, "no gap says {cause}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn written() -> (Log, Recorder) {
    let log = Log::new();
    let recorder = log.start();
    for _ in 0..3 {
        pass(&recorder).await;
    }
    (log, recorder)
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_told() {
    let (log, recorder) = written().await;
    let file = std::fs::OpenOptions::new().write(true).open(log.path());
    file.expect("a file").set_len(100).expect("cut");
    let began = Clock::system().instant();
    while !text(&log.path()).contains("\"truncated\"") {
        assert!(began.elapsed() < DEADLINE, "it was not noticed");
        pass(&recorder).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    recorder.close().await;
    let held = text(&log.path());
    let (torn, rest) = held.split_once('\n').expect("lines");
    assert_eq!(torn.len(), 100, "the next line begins on its own");
    let gap = lines(rest)
        .into_iter()
        .find(|line| line["event.name"] == "record_gap")
        .expect("a gap");
    assert!(gap["tidegate.gap.bytes"].as_u64() > Some(1000), "{gap}");
    assert_valid(std::slice::from_ref(&gap));
}

#[tokio::test]
async fn a_line_that_another_process_wrote_is_told() {
    let (log, recorder) = written().await;
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(log.path())
        .expect("a file");
    std::io::Write::write_all(&mut file, b"{\"event.name\":\"decision\"}\n").expect("written");
    let gap = gap(&log, &recorder, "appended").await;
    assert_eq!(gap["tidegate.gap.bytes"], 26);
    recorder.close().await;
}

#[tokio::test]
async fn a_file_that_was_moved_goes_on_at_its_path() {
    let (log, recorder) = written().await;
    std::fs::rename(log.path(), log.folder.path().join("moved")).expect("moved");
    let gap = gap(&log, &recorder, "moved").await;
    assert_eq!(gap["tidegate.gap.lost"], 0, "its lines are where it is");
    recorder.close().await;
    let moved = lines(&text(&log.folder.path().join("moved"))).len() as u64;
    let first = &log.lines()[0];
    assert_eq!(first["tidegate.checkpoint.cause"], "opened");
    assert_eq!(first["tidegate.chain.seq"], moved + 1);
}

#[tokio::test]
async fn a_file_that_was_replaced_is_told_with_its_lines() {
    let (log, recorder) = written().await;
    let forged = log.folder.path().join("forged");
    std::fs::write(&forged, "").expect("a file");
    std::fs::rename(&forged, log.path()).expect("replaced");
    let gap = gap(&log, &recorder, "replaced").await;
    assert!(gap["tidegate.gap.lost"].as_u64() >= Some(5), "{gap}");
    recorder.close().await;
}

#[tokio::test]
async fn a_link_or_a_pipe_in_the_place_of_the_file_is_not_written_to() {
    for pipe in [false, true] {
        let (log, recorder) = written().await;
        let elsewhere = log.folder.path().join("elsewhere");
        std::fs::write(&elsewhere, "").expect("a file");
        let trap = log.folder.path().join("trap");
        if pipe {
            let made = std::process::Command::new("mkfifo").arg(&trap).status();
            assert!(made.expect("mkfifo").success());
        } else {
            symlink(&elsewhere, &trap).expect("a link");
        }
        std::fs::rename(&trap, log.path()).expect("in its place");
        let began = Clock::system().instant();
        while recorder.permit().await.is_ok() {
            assert!(began.elapsed() < DEADLINE, "flows pass unrecorded");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(text(&elsewhere), "");
        std::fs::remove_file(log.path()).expect("removed");
        while recorder.permit().await.is_err() {
            assert!(began.elapsed() < DEADLINE, "it does not recover");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        pass(&recorder).await;
        recorder.close().await;
        let lines = log.lines();
        assert!(lines.iter().any(|line| line["event.name"] == "record_gap"));
        assert_valid(&lines);
    }
}

#[tokio::test]
async fn a_link_at_the_path_is_not_followed_at_start() {
    let log = Log::new();
    std::fs::create_dir(log.path().parent().expect("a folder")).expect("a folder");
    symlink("/dev/null", log.path()).expect("a link");
    let started = Recorder::start(&log.config, 10, Clock::system(), &log.metrics);
    let error = started.expect_err("a link").to_string();
    assert!(error.contains("symbolic link"), "{error}");
}

#[tokio::test]
async fn the_files_have_the_mode_and_group_that_are_configured() {
    let mut log = Log::new();
    log.config.mode = 0o640;
    log.config.group = Some(rustix::process::getgid().as_raw());
    log.config.rotate_size = 3000;
    let recorder = log.start();
    for _ in 0..10 {
        pass(&recorder).await;
    }
    recorder.close().await;
    let rotated = PathBuf::from(format!("{}.1", log.path().display()));
    for path in [log.path(), rotated] {
        let found = path.metadata().expect("there");
        assert_eq!(
            found.permissions().mode() & 0o777,
            0o640,
            "{}",
            path.display()
        );
        assert_eq!(Some(found.gid()), log.config.group);
    }
    let folder = log.path().parent().expect("a folder").to_owned();
    assert_eq!(
        folder.metadata().expect("there").permissions().mode() & 0o777,
        0o750
    );
}

#[tokio::test]
async fn age_wins_over_size_and_old_files_go() {
    let mut log = Log::new();
    log.config.rotate_size = 3000;
    log.config.rotate_keep = 2;
    log.config.retain = Duration::from_hours(24);
    let recorder = log.start();
    for _ in 0..30 {
        pass(&recorder).await;
    }
    recorder.close().await;
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", log.path().display()));
    let count = (1..1000)
        .take_while(|number| numbered(*number).exists())
        .count();
    assert!(
        count > 5,
        "{count} files: none is removed that is young enough"
    );
    assert_eq!(metric(&log.metrics, "tidegate_records_retention_short "), 1);
    let told = |name: &str| {
        let lines = log.all_lines();
        assert_valid(&lines);
        lines
            .iter()
            .filter(|line| line["event.name"] == name)
            .count()
    };
    assert_eq!(told("records_retention_short"), 1);
    assert_eq!(told("records_removed"), 0);

    let old = Clock::system().now() - SignedDuration::from_hours(25);
    for number in 3..=u32::try_from(count).expect("few") {
        let held = text(&numbered(number));
        let line = "{\"timestamp\":\"2020-01-01T00:00:00Z\"}\n".repeat(held.lines().count());
        std::fs::write(numbered(number), line).expect("written");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(numbered(number));
        file.expect("a file").set_modified(old.into()).expect("set");
    }
    let recorder = log.start();
    pass(&recorder).await;
    recorder.close().await;
    assert!(numbered(2).exists() && !numbered(5).exists());
    assert_eq!(told("records_removed"), 1);
}
