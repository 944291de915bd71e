//! That a caller cannot prevent, drown or forge records, and that `tidegate log` finds it out.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kit::{Gate, Line, Lines, Origin, eventually, log_files, loopback, until};

const REFUSED: &str = "evil.example.org:443";

/// A gate that counts what repeats, as it does by default.
fn counting() -> Gate {
    Gate::plan(&loopback(1))
        .record("repeat-window = \"10 min\"")
        .start()
}

/// `tidegate log` with these words: its exit code and what it says.
fn log(gate: &Gate, words: &[&str], files: &[PathBuf]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("log")
        .args(words)
        .args(files)
        .current_dir(gate.folder())
        .output()
        .expect("tidegate");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("a code"), text.into_owned())
}

fn public_key(gate: &Gate) -> String {
    let (code, key) = log(gate, &["key", "--config", "tidegate.toml"], &[]);
    assert_eq!(code, 0, "{key}");
    key.trim().to_owned()
}

/// Whole lines and counted refusals.
fn refusals(lines: &[Line]) -> u64 {
    let counted = lines.named("refusals_repeated").into_iter();
    let counted: u64 = counted
        .map(|line| line.number("tidegate.repeat.count"))
        .sum();
    counted + lines.named("decision").len() as u64
}

#[test]
fn killing_the_gate_behind_a_refusal_loses_no_line() {
    let mut gate = Gate::with(&loopback(1));
    for round in 0..10 {
        let mut client = gate.client();
        let answer = if round % 2 == 0 {
            client.connect(REFUSED)
        } else {
            client.get("http://evil.example.org/")
        };
        gate.crash_and_restart();
        assert_eq!(answer.status(), 403);
        let flow = answer.field("x-tidegate-flow").expect("a flow").to_owned();
        let lines = gate.records();
        let line = lines.iter().find(|line| line.flow() == flow);
        assert!(
            line.is_some_and(Line::is_decision),
            "round {round}: no line of {flow}"
        );
    }
}

#[test]
fn one_caller_that_repeats_a_refusal_does_not_drown_the_log() {
    let mut gate = counting();
    for _ in 0..300 {
        assert_eq!(gate.client().connect(REFUSED).status(), 403);
    }
    for number in 0..300 {
        let target = format!("h{number}.example.org:443");
        assert_eq!(gate.client().connect(&target).status(), 403);
    }
    assert!(gate.terminate().success());
    let lines = gate.records();
    assert!(lines.len() < 150, "{} lines", lines.len());
    assert_eq!(refusals(&lines), 600);
    let repeated = lines.named("refusals_repeated");
    let of_one =
        |line: &&Line| line.has("server.address") && line.number("tidegate.repeat.count") > 0;
    let one = repeated.iter().find(of_one).expect("a count of one target");
    assert_eq!(one.text("server.address"), "evil.example.org");
    assert_eq!(one.reason(), "not_allowed");
    assert_eq!(one.number("tidegate.repeat.count"), 280);
    assert!(
        repeated
            .iter()
            .any(|line| line.has("tidegate.repeat.targets"))
    );
}

#[test]
fn a_count_that_was_cut_short_is_told_at_the_next_start() {
    let mut gate = counting();
    for _ in 0..30 {
        assert_eq!(gate.client().connect(REFUSED).status(), 403);
    }
    gate.crash_and_restart();
    let gap = gate.line("a record_gap", |line| line.name() == "record_gap");
    assert_eq!(gap.text("tidegate.gap.cause"), "stopped");
    assert_eq!(gap.number("tidegate.gap.repeats"), 1);
}

#[test]
fn a_log_over_rotations_restarts_and_a_crash_is_whole_and_signed() {
    let origin = Origin::echo();
    let mut gate = Gate::plan(&loopback(origin.port()))
        .record("rotate-size = 10000")
        .start();
    let url = format!("http://files.example.net:{}/", origin.port());
    for round in 0..3 {
        for _ in 0..10 {
            assert_eq!(gate.client().get(&url).status(), 200);
        }
        if round == 1 {
            gate.crash_and_restart();
        } else {
            assert!(gate.terminate().success());
            gate.restart();
        }
    }
    let key = public_key(&gate);
    gate.eventually_records("a start", |lines| !lines.is_empty());
    let mut files = log_files(&gate.log());
    assert!(files.len() > 2, "{files:?}");
    let (code, said) = log(
        &gate,
        &["verify", "--running", "--public-key", &key],
        &files,
    );
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("signed by {key}\n")), "{said}");

    assert!(gate.terminate().success());
    files.reverse();
    let (code, said) = log(&gate, &["verify", "--json", "--public-key", &key], &files);
    assert_eq!(code, 0, "{said}");
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(report["whole"], true);
    assert_eq!(
        (&report["first"], &report["unsigned"]),
        (&1.into(), &0.into())
    );
    let through = (report["last"].as_u64().expect("a number") + 1).to_string();
    let (code, said) = log(&gate, &["verify", "--through", &through], &files);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&through), "{said}");
}

/// The first lines of a log, before any checkpoint.
fn unsigned_lines(log: &str) -> String {
    let lines = log.split_inclusive('\n');
    let unsigned = lines.take_while(|line| !line.contains("\"checkpoint\""));
    unsigned.collect()
}

#[test]
fn tampering_is_told_with_file_line_and_number() {
    let mut gate = Gate::with(&loopback(1));
    for _ in 0..5 {
        assert_eq!(gate.client().connect(REFUSED).status(), 403);
    }
    assert!(gate.terminate().success());
    gate.tampered();
    let whole = std::fs::read_to_string(gate.log()).expect("a log");
    let lines: Vec<&str> = whole.lines().collect();
    let file = gate.log();
    let verify = |text: String| {
        std::fs::write(&file, text).expect("written");
        log(&gate, &["verify", "decisions.jsonl"], &[])
    };
    let without = |at: usize| {
        let mut kept = lines.clone();
        kept.remove(at);
        kept.join("\n") + "\n"
    };
    for (text, wanted) in [
        (
            whole.replacen("evil", "good", 1),
            "decisions.jsonl:2: line 2 was changed",
        ),
        (without(2), "decisions.jsonl:3: lines 3 to 3 are missing"),
        (without(0), "decisions.jsonl:1: the log begins with line 2"),
        (without(lines.len() - 1), "--running"),
    ] {
        let (code, said) = verify(text);
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains(wanted) && said.ends_with("not whole\n"),
            "{wanted}: {said}"
        );
    }
    // A chain without a signature, which any writer could compute.
    let forged = unsigned_lines(&whole);
    let key = public_key(&gate);
    std::fs::write(&file, forged).expect("written");
    for running in [&["--running"][..], &[]] {
        let options = [
            &["verify", "decisions.jsonl", "--public-key", &key],
            running,
        ]
        .concat();
        let (code, said) = log(&gate, &options, &[]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("no line is signed by the key"), "{said}");
        assert!(!said.contains("\nsigned by"), "{said}");
    }
    assert_eq!(verify(whole).0, 0);
    assert_eq!(log(&gate, &["verify", "tidegate.toml"], &[]).0, 2);
    assert_eq!(log(&gate, &["verify", "nowhere"], &[]).0, 2);
    let pipe = file.with_file_name("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .expect("run")
            .success()
    );
    let (code, said) = log(&gate, &["verify"], &[pipe]);
    assert_eq!(code, 2, "a pipe is not waited for: {said}");
    let (code, said) = log(
        &gate,
        &["verify", "decisions.jsonl", "--public-key", &"0".repeat(64)],
        &[],
    );
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("signature"), "{said}");
}

#[test]
fn a_log_that_another_process_cuts_off_is_told() {
    let mut gate = Gate::with(&loopback(1));
    gate.tampered();
    assert_eq!(gate.client().connect(REFUSED).status(), 403);
    let file = std::fs::OpenOptions::new().write(true).open(gate.log());
    file.expect("a log").set_len(0).expect("cut off");
    let gap = gate.line("a record_gap", |line| line.name() == "record_gap");
    assert_eq!(gap.text("tidegate.gap.cause"), "truncated");
    assert!(gap.number("tidegate.gap.bytes") > 100);
    let changes = |cause| {
        let labels = [("cause", cause)];
        gate.metrics()
            .sum("tidegate_record_file_changes_total", &labels)
    };
    until("a count", || changes("truncated") >= 1.0);
}

#[test]
fn a_log_that_another_process_moves_goes_on_and_is_told() {
    let gate = Gate::with(&loopback(1));
    assert_eq!(gate.client().connect(REFUSED).status(), 403);
    std::fs::rename(gate.log(), gate.folder().join("stolen")).expect("moved");
    let gap = eventually("a record_gap", || {
        let lines = if gate.log().exists() {
            gate.records()
        } else {
            Vec::new()
        };
        lines.named("record_gap").pop()
    });
    assert_eq!(gap.text("tidegate.gap.cause"), "moved");
    assert_eq!(gap.number("tidegate.gap.lost"), 0);
}

#[test]
fn a_shipper_of_another_group_can_read_where_it_is_configured() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let group = std::fs::metadata("/proc/self").expect("this process").gid();
    let gate = Gate::plan(&loopback(1))
        .record(&format!("mode = \"0640\"\ngroup = \"{group}\""))
        .start();
    assert_eq!(gate.client().connect(REFUSED).status(), 403);
    let found = gate.log().metadata().expect("a log");
    assert_eq!(
        (found.permissions().mode() & 0o777, found.gid()),
        (0o640, group)
    );
    let key = gate.folder().join("record.key").metadata().expect("a key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_mode_that_lets_others_write_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tidegate.toml");
    for (line, wanted) in [
        ("mode = \"0666\"", "lets others than the owner write"),
        ("mode = \"0644x\"", "is not a mode"),
        (
            "mode = \"0400\"",
            "is not a mode of a file that the gate writes",
        ),
        ("group = \"no-such-group\"", "there is no group"),
    ] {
        std::fs::write(&path, format!("[record]\n{line}\n")).expect("a file");
        let (code, said) = check(&path);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}

fn check(path: &Path) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("check")
        .arg(path)
        .output()
        .expect("tidegate");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("a code"), said)
}
