//! Tests that verification detects every tampering with a log.

use super::super::{Ending, Flaw, Verifier, parse_public_key, public_key};
use super::*;

const LINES: usize = 10_000;

/// Returns the lines of one run that stopped, and the key that signed them.
async fn log() -> (Vec<Vec<u8>>, [u8; 32]) {
    let log = Log::new();
    let recorder = log.start();
    for _ in 0..LINES / 2 {
        pass(&recorder).await;
    }
    recorder.close().await;
    let key = public_key(&log.config.key.clone().expect("a key")).expect("a key");
    let key = parse_public_key(&key).expect("a key");
    let lines = text(&log.path());
    let lines = lines.lines().map(|line| line.as_bytes().to_vec());
    (lines.collect(), key)
}

fn flaws(mut verifier: Verifier, lines: &[Vec<u8>]) -> Option<Flaw> {
    let found = lines.iter().find_map(|line| verifier.line(line).err());
    found.or_else(|| verifier.end(Ending::default()).err())
}

#[tokio::test]
async fn every_change_removal_swap_and_truncation_of_ten_thousand_lines_is_found() {
    let (lines, key) = log().await;
    assert!(lines.len() > LINES);
    assert_eq!(flaws(Verifier::new(Some(key)), &lines), None);
    // A flaw depends on the lines before and the next few lines: the verifier of each position has
    // read all lines before.
    let mut before = Verifier::new(Some(key));
    for at in 0..lines.len() {
        let few = |from: usize| lines[from.min(lines.len())..(from + 3).min(lines.len())].to_vec();
        let found = |lines: Vec<Vec<u8>>| flaws(before.clone(), &lines).is_some();

        let mut changed = lines[at].clone();
        let place = (at * 7919) % changed.len();
        changed[place] ^= 1;
        assert!(found([vec![changed], few(at + 1)].concat()), "changed {at}");
        assert!(found(few(at + 1)), "removed {at}");
        assert!(at == 0 || found(vec![]), "cut off at {at}");
        let part = lines[at][..place].to_vec();
        assert!(found(vec![part]), "cut off in {at}");
        let twice = vec![lines[at].clone(), lines[at].clone()];
        assert!(found(twice), "doubled {at}");
        if at + 1 < lines.len() {
            let swapped = vec![lines[at + 1].clone(), lines[at].clone()];
            assert!(found([swapped, few(at + 2)].concat()), "swapped {at}");
        }
        before.line(&lines[at]).expect("whole");
    }
}

#[tokio::test]
async fn a_chain_that_was_computed_anew_lacks_the_signature() {
    let (lines, key) = log().await;
    let mut head = super::super::chain::Head::default();
    let mut forged = Vec::new();
    for (number, line) in lines.iter().take(100).chain(lines.last()).enumerate() {
        let text = String::from_utf8(line.clone()).expect("UTF-8");
        let begin = text.find(",\"tidegate.chain.seq\"").expect("a chain");
        let said = text[..begin].replace("allow", if number == 50 { "deny" } else { "allow" });
        let mut bytes = said.into_bytes();
        head = head.seal(&mut bytes, 0, None);
        bytes.pop();
        forged.push(bytes);
    }
    let flaw = flaws(Verifier::new(Some(key)), &forged);
    assert!(matches!(flaw, Some(Flaw::Unsigned(101, _))), "{flaw:?}");
    let flaw = flaws(Verifier::new(Some([7; 32])), &lines);
    assert!(matches!(flaw, Some(Flaw::Unsigned(..))), "{flaw:?}");
}

#[tokio::test]
async fn the_chain_goes_on_over_rotations_and_restarts() {
    let mut log = Log::new();
    log.config.rotate_size = 8000;
    for _ in 0..3 {
        let recorder = log.start();
        for _ in 0..30 {
            pass(&recorder).await;
        }
        recorder.close().await;
    }
    let files = files(&log);
    assert!(files.len() > 3, "{} files", files.len());
    let all = files.concat();
    assert_eq!(flaws(Verifier::new(None), &all), None);
    // Without the oldest files, as after some time: the log begins with the checkpoint of a file.
    assert_eq!(flaws(Verifier::new(None), &files[1..].concat()), None);
    let flaw = flaws(Verifier::new(None), &all[3..]);
    assert_eq!(flaw, Some(Flaw::Beheaded(4)));
    let without_one = [&files[..1], &files[2..]].concat().concat();
    let flaw = flaws(Verifier::new(None), &without_one);
    assert!(matches!(flaw, Some(Flaw::Missing(..))), "{flaw:?}");
}

/// Returns the lines of each file, the oldest first.
fn files(log: &Log) -> Vec<Vec<Vec<u8>>> {
    let mut paths = vec![log.path()];
    for number in 1.. {
        let path = PathBuf::from(format!("{}.{number}", log.path().display()));
        if !path.exists() {
            break;
        }
        paths.insert(0, path);
    }
    let lines = |path: PathBuf| {
        let text = text(&path);
        text.lines().map(|line| line.as_bytes().to_vec()).collect()
    };
    paths.into_iter().map(lines).collect()
}

#[tokio::test]
async fn a_killed_run_is_followed_without_a_hole() {
    let log = Log::new();
    let recorder = log.start();
    for _ in 0..5 {
        pass(&recorder).await;
    }
    recorder.close().await;
    // As if the gate had been killed: its last checkpoint and its memory file are missing.
    let held = text(&log.path());
    let last = held.trim_end().rfind('\n').expect("lines") + 1;
    std::fs::write(log.path(), &held[..last]).expect("cut");
    std::fs::write(log.folder.path().join("log/decisions.jsonl.chain"), "").expect("emptied");
    log.start().close().await;
    let lines = lines(&text(&log.path()));
    assert_eq!(lines[10]["tidegate.checkpoint.cause"], "started");
    assert_eq!(flaws(Verifier::new(None), &files(&log).concat()), None);
}

#[tokio::test]
async fn lines_cut_off_between_two_runs_are_told_and_stay_missing() {
    let log = Log::new();
    let recorder = log.start();
    for _ in 0..5 {
        pass(&recorder).await;
    }
    recorder.close().await;
    let held = text(&log.path());
    let kept: String = held.split_inclusive('\n').take(4).collect();
    std::fs::write(log.path(), kept).expect("cut");
    log.start().close().await;
    let lines = log.lines();
    let gap = lines.last().expect("a line");
    assert_eq!(gap["event.name"], "record_gap");
    assert_eq!(gap["tidegate.gap.cause"], "truncated");
    assert_eq!(gap["tidegate.gap.lost"], 7);
    assert_valid(&lines);
    let flaw = flaws(Verifier::new(None), &files(&log).concat());
    assert_eq!(flaw, Some(Flaw::Missing(5, 11)));
}

#[tokio::test]
async fn a_running_log_is_whole_for_two_minutes_after_its_last_checkpoint() {
    let (lines, key) = log().await;
    let mut verifier = Verifier::new(Some(key));
    for line in &lines[..100] {
        verifier.line(line).expect("whole");
    }
    let never = verifier.end(Ending::default());
    assert!(matches!(never, Err(Flaw::NeverSigned(_))), "{never:?}");
    let mut verifier = Verifier::new(None);
    for line in &lines[..100] {
        verifier.line(line).expect("whole");
    }
    let now = Clock::system().now();
    let running = |now| Ending {
        running: Some(now),
        through: None,
    };
    assert_eq!(verifier.end(running(now)), Ok(()));
    let late = now + SignedDuration::from_mins(5);
    assert_eq!(verifier.end(running(late)), Err(Flaw::Unfastened(100)));
    let through = Ending {
        running: Some(now),
        through: Some(101),
    };
    assert_eq!(verifier.end(through), Err(Flaw::Short(100, 101)));
}

#[tokio::test]
async fn a_log_is_signed_each_minute_in_which_lines_are_written() {
    let log = Log::new();
    let clock = Clock::by_hand(Timestamp::UNIX_EPOCH);
    let recorder = Recorder::start(&log.config, 10, clock.clone(), &log.metrics).expect("started");
    pass(&recorder).await;
    clock.advance(SignedDuration::from_secs(61));
    pass(&recorder).await;
    recorder.close().await;
    let lines = lines(&text(&log.path()));
    let causes: Vec<_> = lines
        .iter()
        .filter_map(|line| line["tidegate.checkpoint.cause"].as_str())
        .collect();
    assert!(causes.starts_with(&["running"]), "{causes:?}");
    assert_eq!(causes.last(), Some(&"stopped"));
    assert_valid(&lines);
    assert_eq!(flaws(Verifier::new(None), &files(&log).concat()), None);
}

/// Returns the lines of a gate that signs each minute, is idle for an hour, works, signs and stops.
async fn run_with_an_idle_hour() -> Vec<Vec<u8>> {
    let log = Log::new();
    let clock = Clock::by_hand(Timestamp::UNIX_EPOCH);
    let recorder = Recorder::start(&log.config, 10, clock.clone(), &log.metrics).expect("started");
    pass(&recorder).await;
    for seconds in [61, 3600, 61] {
        let held = text(&log.path()).len();
        clock.advance(SignedDuration::from_secs(seconds));
        // No record is written, and the gate signs all the same.
        eventually("a checkpoint", || text(&log.path()).len() > held).await;
    }
    clock.advance(SignedDuration::from_secs(3600));
    pass(&recorder).await;
    recorder.close().await;
    clock.advance(SignedDuration::from_hours(5));
    let recorder = Recorder::start(&log.config, 10, clock, &log.metrics).expect("started");
    pass(&recorder).await;
    recorder.close().await;
    files(&log).concat()
}

#[tokio::test]
async fn a_log_that_was_cut_at_an_old_checkpoint_is_not_whole() {
    let lines = run_with_an_idle_hour().await;
    assert_eq!(flaws(Verifier::new(None), &lines), None);
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).expect("UTF-8");
    let is = |line: &[u8], what: &str| text(line).contains(what);
    let first = lines.iter().position(|line| is(line, "running"));
    let first = first.expect("a checkpoint");
    let mut verifier = Verifier::new(None);
    for line in &lines[..=first] {
        verifier.line(line).expect("whole");
    }
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(30);
    let running = Ending {
        running: Some(now),
        through: None,
    };
    let stale = verifier.end(running);
    assert!(matches!(stale, Err(Flaw::Stale(..))), "{stale:?}");
    // Forged lines after the end, with a valid chain and the current time.
    for name in ["record_gap", "session_started", "decision"] {
        let mut verifier = verifier.clone();
        let mut bytes = format!(r#"{{"timestamp":"{now}","event.name":"{name}""#).into_bytes();
        let last = text(&lines[first]);
        let hash = &last[last.len() - 66..last.len() - 2];
        let hash = super::super::chain::from_hex(hash.as_bytes()).expect("a hash");
        let seq = verifier.last();
        super::super::chain::Head { seq, hash }.seal(&mut bytes, 0, None);
        bytes.pop();
        let line = verifier.line(&bytes);
        let found = line.and_then(|()| verifier.end(running));
        assert_eq!(found, Err(Flaw::Unfastened(seq + 1)), "{name}");
    }
}

#[tokio::test]
async fn the_key_is_for_its_owner_only_and_stays() {
    use std::os::unix::fs::PermissionsExt as _;
    let log = Log::new();
    log.start().close().await;
    let path = log.config.key.clone().expect("a key");
    let first = public_key(&path).expect("a key");
    assert_eq!(
        path.metadata().expect("there").permissions().mode() & 0o777,
        0o600
    );
    log.start().close().await;
    assert_eq!(public_key(&path).expect("a key"), first);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&path, open).expect("changed");
    let error = Recorder::start(&log.config, 10, Clock::system(), &log.metrics);
    let error = error.expect_err("a key that others read").to_string();
    assert!(error.contains("chmod 600"), "{error}");
}
