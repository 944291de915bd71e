//! Programs that the suite starts, each on a processor of its own, before all other work.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The processor of origin and client.
pub const CLIENT_CPU: &str = "0";
/// The processor of the proxy, which has it alone.
pub const PROXY_CPU: &str = "1";
/// Two descriptors for each of the idle tunnels, and some.
const LIMIT: &str = "--nofile=20000";
const TIME_TO_END: Duration = Duration::from_secs(5);

/// How programs are started here.
#[derive(Clone, Copy)]
pub struct Starter {
    /// Whether this user may give real-time priority.
    has_priority: bool,
    /// The options of chrt(1) without that right.
    otherwise: &'static [&'static str],
}

/// A program that ends when this is dropped, and all that it started with it.
pub struct Program {
    pub child: Child,
}

impl Starter {
    pub fn new() -> Self {
        let tried = Command::new("chrt")
            .args(["-r", "10", "true"])
            .stderr(Stdio::null())
            .status();
        Self {
            has_priority: tried.is_ok_and(|it| it.success()),
            otherwise: &[],
        }
    }

    /// Starts programs like any others on the machine.
    pub fn without_priority(self) -> Self {
        Self {
            has_priority: false,
            ..self
        }
    }

    /// Starts programs so that none of them interrupts another when it wakes (sched(7)): with a
    /// real-time policy as they are, else with `SCHED_BATCH`.
    pub fn without_interruption(self) -> Self {
        Self {
            otherwise: &["chrt", "-b", "0"],
            ..self
        }
    }

    /// Starts `arguments` on `cpu`, with its output in `log`.
    pub fn start<S: AsRef<OsStr>>(self, cpu: &str, arguments: &[S], log: &Path) -> Result<Program> {
        let mut command = self.first(cpu);
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Program::spawn(command)
    }

    /// The same, with an input, and its output to be read.
    pub fn ask<S: AsRef<OsStr>>(self, cpu: &str, arguments: &[S], input: Stdio) -> Result<Program> {
        let mut command = self.first(cpu);
        command.args(arguments).stdin(input).stdout(Stdio::piped());
        Program::spawn(command)
    }

    /// Whether this user may start programs on `cpu` with as many descriptors.
    pub fn may_start(self, cpu: &str) -> bool {
        let tried = self.first(cpu).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|it| it.success())
    }

    /// Keeps `cpu` from resting with what no other program wants of it: a virtual processor that rests
    /// takes long to wake.
    pub fn spin(cpu: &str, this: &Path) -> Result<Program> {
        let mut command = command(cpu, &["chrt", "-i", "0"]);
        command.arg(this).arg("spin").stdin(Stdio::null());
        Program::spawn(command)
    }

    /// A command that comes before all other work, where this user may say so.
    fn first(self, cpu: &str) -> Command {
        let priority: &[&str] = if self.has_priority {
            &["chrt", "-r", "10"]
        } else {
            self.otherwise
        };
        command(cpu, priority)
    }
}

fn command(cpu: &str, priority: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command
        .args([LIMIT, "taskset", "-c", cpu])
        .args(priority)
        .process_group(0);
    command
}

impl Program {
    fn spawn(mut command: Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.id());
        let _ = Command::new("kill")
            .args([name, "--", &group])
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal("-TERM");
        let end = Instant::now() + TIME_TO_END;
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal("-KILL");
        let _ = self.child.wait();
    }
}
