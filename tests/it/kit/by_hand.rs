//! A gate whose clock a test moves by hand.
//!
//! The gate runs in a process of its own, which is the program of the tests: the program that is
//! shipped cannot be told the time.

use std::ffi::OsString;
use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use jiff::{SignedDuration, Timestamp};

use tidegate::app;
use tidegate::clock::Clock;

/// Names the configuration to the process that is the gate.
const CONFIG: &str = "TIDEGATE_TESTS_CONFIG";
/// The time at which such a gate begins, in seconds of Unix time: 2026-11-30T09:00:00Z.
const BEGIN: i64 = 1_796_029_200;

/// The command that runs such a gate. It reads from standard input by how many seconds to move the
/// clock, a number a line.
pub(super) fn command(config: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the program of the tests"));
    command
        .args(["kit::by_hand::is_the_gate", "--exact", "--nocapture"])
        .env(CONFIG, config);
    command
}

#[test]
fn is_the_gate() {
    let Some(config) = configuration() else {
        return;
    };
    let begin = Timestamp::from_second(BEGIN).expect("a time");
    let clock = Clock::by_hand(begin);
    let moved = clock.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let seconds = line.expect("a line").parse().expect("a number");
            moved.advance(SignedDuration::from_secs(seconds));
        }
    });
    let found = app::discover(Some(Path::new(&config)));
    let ended = app::run_with_clock(&found, &[], clock);
    assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::SUCCESS));
}

fn configuration() -> Option<OsString> {
    std::env::var_os(CONFIG)
}
