//! Runs a third-party program until it has made the expected request, or for a bounded time.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::clock::Clock;

/// A JVM on a loaded machine starts slowly.
const PATIENCE: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(20);

/// How the program ended.
pub(super) enum Ended {
    /// It made the expected request.
    Asked,
    /// It ended without the request.
    Itself,
    /// It was stopped after the bounded time.
    Late,
    /// It could not be started.
    Never,
}

/// Runs the program in a separate process group, which does not outlive this call.
pub(super) fn run(command: &mut Command, asked: impl Fn() -> bool) -> Ended {
    let Ok(child) = command.process_group(0).spawn() else {
        return Ended::Never;
    };
    let mut child = Group(child);
    let clock = Clock::system();
    let begun = clock.instant();
    while begun.elapsed() < PATIENCE {
        if asked() {
            return Ended::Asked;
        }
        if !matches!(child.0.try_wait(), Ok(None)) {
            return if asked() { Ended::Asked } else { Ended::Itself };
        }
        thread::sleep(STEP);
    }
    Ended::Late
}

struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
