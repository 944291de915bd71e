//! The command itself: its terminal, signals and exit code as if it had been started directly.

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

/// Signals for the command, also where the gate receives them.
const PASSED: [Signal; 6] = [
    Signal::TERM,
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// As a shell says that there is no such program, and that it cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// A command that is about to begin.
pub(super) struct Child<'a> {
    pub(super) words: &'a [OsString],
    set: &'a [(&'static str, String)],
    /// How many files it may have open: as many as this process before it was a gate.
    limit: Rlimit,
    signals: Signals,
    /// Programs of the gate, whose ends are seen here as well.
    programs: Children,
}

/// How many files this process may have open.
pub(super) fn descriptors() -> Rlimit {
    getrlimit(Resource::Nofile)
}

impl<'a> Child<'a> {
    /// Listens for its signals; what outlives its parent stays below us from now on, so that it can
    /// still be told whose it is.
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

    /// Runs it to its end; its code as a shell says it.
    pub(super) async fn run(&mut self, family: &Family) -> u8 {
        match self.limited(|| self.command().spawn()) {
            Ok(child) => {
                family.command_is(child.id());
                self.wait_for(child.id(), child.id()).await
            }
            Err(error) => not_begun(self.words, &error),
        }
    }

    /// Starts something that is to have the limits that we began with.
    pub(super) fn limited<T>(&self, start: impl FnOnce() -> T) -> T {
        let ours = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, self.limit);
        let started = start();
        let _ = setrlimit(Resource::Nofile, ours);
        started
    }

    /// Waits for the end of our child and passes signals on to the command until then. Without a
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

    /// What is set for it. What the user set for some of these goes on; ours comes last, where the
    /// last one counts.
    pub(super) fn variables(&self) -> Vec<(OsString, OsString)> {
        over_those_of_the_user(self.set)
    }
}

/// Ours behind what the user set, where a variable is a list of which the last one counts.
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

/// 127 where there is no such program, 126 where it cannot be run.
pub(super) fn not_begun(words: &[OsString], error: &io::Error) -> u8 {
    let name = words.first().map_or(Path::new(""), Path::new);
    print::err(&format!("tidegate: {}: {error}\n", name.display()));
    code_of(name, error)
}

/// What a shell answers where a command does not begin.
pub(super) fn code_of(name: &Path, error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        // A folder of the PATH that is not ours to look into hides nothing that we could run.
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

/// Reaps every process below us until the command ends; stops when it stops, so that the
/// shell above sees it.
/// Where the child is no command, it is the helper of a jail.
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

/// Stops when a jailed command stops, so that the shell above sees it; ends with the jail.
pub(super) fn stop_with(stops: &Stops, command: u32) {
    while stops.wait() {
        if process(command).is_some_and(is_stopped) {
            let _ = kill_process(getpid(), Signal::STOP);
        }
    }
}

/// Its own, or 128 and the signal that ended it.
fn code(status: WaitStatus) -> Option<u8> {
    let signalled = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signalled)?;
    Some(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Whether it still is: it may have been continued together with us.
fn is_stopped(pid: Pid) -> bool {
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let fields = fields(Path::new(&stat));
    fields.first().is_some_and(|state| state == "T")
}

/// Whether what the terminal sends reaches the command without us.
fn has_terminal() -> bool {
    let fields = fields(Path::new("/proc/self/stat"));
    matches!((fields.get(2), fields.get(5)), (Some(ours), Some(its)) if ours == its)
}

/// The fields of a `stat` behind the name: state, parent, group, session, terminal, its group …
fn fields(stat: &Path) -> Vec<String> {
    let text = config::read(stat).unwrap_or_default();
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The signals that are listened for.
struct Signals {
    heard: mpsc::Receiver<Signal>,
}

impl Signals {
    /// Those that were ignored when we began stay so, for the command as well (`nohup`).
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

    /// Passes on what the command has not got by itself; never ends.
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

/// Sends a signal on until its receiver is gone.
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

/// The signals that this process ignores, as bits.
fn ignored() -> u64 {
    let status = config::read(Path::new("/proc/self/status")).unwrap_or_default();
    let mut lines = status.lines();
    let bits = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0)
}
