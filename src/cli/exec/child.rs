//! Runs the command: its terminal, signals and exit code are as if it had been started directly.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getrlimit, kill_process,
    set_child_subreaper, setrlimit, wait,
};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::dial::Children;
use crate::identity::Family;
use crate::jail::Stops;

use super::super::print;

/// Signals that are passed on to the command.
const PASSED: [Signal; 6] = [
    Signal::TERM,
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// Exit codes of a shell: no such program, and a program that cannot be executed.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// A command that is about to start.
pub(super) struct Child<'a> {
    pub(super) words: &'a [OsString],
    set: &'a [(&'static str, String)],
    /// The original limit of open files, from before this process raised it.
    limit: Rlimit,
    signals: Signals,
    /// Programs of the gate, whose ends this process also reaps.
    programs: Children,
}

/// Returns the limit of open files of this process.
pub(super) fn descriptors() -> Rlimit {
    getrlimit(Resource::Nofile)
}

impl<'a> Child<'a> {
    /// Registers the signals; makes this process the reaper of orphaned descendants, so that their
    /// flows can still be attributed.
    pub(super) fn new(
        words: &'a [OsString],
        set: &'a [(&'static str, String)],
        limit: Rlimit,
        tasks: &TaskTracker,
        programs: Children,
    ) -> Self {
        let _ = set_child_subreaper(Some(getpid()));
        Self {
            words,
            set,
            limit,
            signals: Signals::listen(tasks),
            programs,
        }
    }

    /// Runs the command to its end; returns its exit code as a shell does.
    pub(super) async fn run(&mut self, family: &Family) -> u8 {
        match self.limited(|| self.command().spawn()) {
            Ok(child) => {
                family.command_is(child.id());
                self.wait_for(child.id(), child.id()).await
            }
            Err(error) => not_begun(self.words, &error),
        }
    }

    /// Starts a process with the original limits.
    pub(super) fn limited<T>(&self, start: impl FnOnce() -> T) -> T {
        let ours = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, self.limit);
        let started = start();
        let _ = setrlimit(Resource::Nofile, ours);
        started
    }

    /// Waits for the end of the child and passes signals on to the command meanwhile. Without a
    /// jail the two are one process.
    pub(super) async fn wait_for(&mut self, child: u32, command: u32) -> u8 {
        let (Some(child), Some(command)) = (process(child), process(command)) else {
            return u8::MAX;
        };
        let programs = self.programs.clone();
        let ended = tokio::task::spawn_blocking(move || reap(child, command, &programs));
        tokio::select! {
            code = ended => code.unwrap_or(u8::MAX),
            () = self.signals.pass_on(command) => u8::MAX,
        }
    }

    fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map(OsString::as_os_str).unwrap_or_default());
        command.args(words).envs(self.variables());
        command
    }

    /// Returns the variables of the command. Some extend the user's value: the gate's part is last,
    /// because the last part counts.
    pub(super) fn variables(&self) -> Vec<(OsString, OsString)> {
        over_those_of_the_user(self.set)
    }
}

/// Appends the gate's value to the user's, for list variables in which the last entry counts.
pub(super) fn over_those_of_the_user(set: &[(&str, String)]) -> Vec<(OsString, OsString)> {
    let set = set.iter().map(|(name, value)| {
        let before = match *name {
            "JAVA_TOOL_OPTIONS" | "GIT_CONFIG_PARAMETERS" => std::env::var_os(name),
            _ => None,
        };
        let mut whole = before.unwrap_or_default();
        if !whole.is_empty() {
            whole.push(" ");
        }
        whole.push(value);
        (OsString::from(name), whole)
    });
    set.collect()
}

/// Reports a command that did not start: 127 if there is no such program, 126 if it cannot be
/// executed.
pub(super) fn not_begun(words: &[OsString], error: &io::Error) -> u8 {
    let name = words.first().map_or(Path::new(""), Path::new);
    print::err(&format!("tidegate: {}: {error}\n", name.display()));
    code_of(name, error)
}

/// Returns a shell's exit code for a command that did not start.
pub(super) fn code_of(name: &Path, error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        // A PATH folder that this user cannot read contains no program that this user could run.
        io::ErrorKind::PermissionDenied if !is_seen(name) => NOT_FOUND,
        _ => NOT_RUN,
    }
}

/// Whether there is such a file, by its path or in the PATH.
fn is_seen(name: &Path) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let bare = name.components().count() == 1 && name.is_relative();
    let mut folders = std::env::split_paths(&folders);
    !bare || folders.any(|folder| folder.join(name).exists())
}

/// Reaps every process below this one until the command ends; stops when the command stops, so that
/// the shell above notices. If the child is not the command, it is the helper of a jail.
fn reap(child: Pid, command: Pid, programs: &Children) -> u8 {
    loop {
        match wait(WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == child => {
                if let Some(signal) = status.terminating_signal().filter(|_| child != command) {
                    print::err(&format!(
                        "tidegate: the helper of the jail (process {}) was ended by signal \
                         {signal}, and the command with it\n",
                        pid.as_raw_nonzero()
                    ));
                }
                if let Some(code) = code(status) {
                    return code;
                }
                if status.stopped() && is_stopped(child) {
                    let _ = kill_process(getpid(), Signal::STOP);
                }
            }
            Ok(Some((pid, status))) => {
                if let Ok(pid) = u32::try_from(pid.as_raw_nonzero().get()) {
                    programs.ended(pid, status.exit_status());
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return u8::MAX,
        }
    }
}

fn process(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Stops when a jailed command stops, so that the shell above notices; ends with the jail.
pub(super) fn stop_with(stops: &Stops, command: u32) {
    while stops.wait() {
        if process(command).is_some_and(is_stopped) {
            let _ = kill_process(getpid(), Signal::STOP);
        }
    }
}

/// Returns the exit code, or 128 and the signal that ended the process.
fn code(status: WaitStatus) -> Option<u8> {
    let signalled = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signalled)?;
    Some(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Whether the process is still stopped: it may have been continued together with this one.
fn is_stopped(pid: Pid) -> bool {
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let fields = fields(Path::new(&stat));
    fields.first().is_some_and(|state| state == "T")
}

/// Whether the command gets the terminal's signals directly.
fn has_terminal() -> bool {
    let fields = fields(Path::new("/proc/self/stat"));
    matches!((fields.get(2), fields.get(5)), (Some(ours), Some(its)) if ours == its)
}

/// Returns the fields of a `stat` after the name: state, parent, group, session, terminal, its
/// group …
fn fields(stat: &Path) -> Vec<String> {
    let text = config::read(stat).unwrap_or_default();
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The signals that this process receives.
struct Signals {
    heard: mpsc::Receiver<Signal>,
}

impl Signals {
    /// Signals that were ignored at the start stay ignored, also for the command (`nohup`).
    fn listen(tasks: &TaskTracker) -> Self {
        let (tell, heard) = mpsc::channel(PASSED.len());
        let ignored = ignored();
        for passed in PASSED {
            let number = passed.as_raw();
            if ignored >> (number - 1) & 1 == 1 {
                continue;
            }
            let Ok(arrives) = signal(SignalKind::from_raw(number)) else {
                continue;
            };
            tasks.spawn(tell_of(passed, arrives, tell.clone()));
        }
        Self { heard }
    }

    /// Passes on the signals that the command has not received itself; never ends.
    async fn pass_on(&mut self, pid: Pid) {
        loop {
            let Some(signal) = self.heard.recv().await else {
                return std::future::pending().await;
            };
            let typed = matches!(signal, Signal::INT | Signal::QUIT);
            if !(typed && has_terminal()) {
                let _ = kill_process(pid, signal);
            }
        }
    }
}

/// Forwards a signal until its receiver is gone.
async fn tell_of(passed: Signal, mut arrives: unix::Signal, tell: mpsc::Sender<Signal>) {
    loop {
        tokio::select! {
            heard = arrives.recv() => {
                if heard.is_none() || tell.send(passed).await.is_err() {
                    return;
                }
            }
            () = tell.closed() => return,
        }
    }
}

/// Returns the signals that this process ignores, as bits.
fn ignored() -> u64 {
    let status = config::read(Path::new("/proc/self/status")).unwrap_or_default();
    let mut lines = status.lines();
    let bits = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0)
}
