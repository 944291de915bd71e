//! Runs the programs that the gate may start, and records each start.
//!
//! A program is named by its absolute path. No user but root and the gate's own may be able to
//! change the program, an argument that is a file, or a folder above them: the gate checks this
//! before each start. The program runs in `/` with an empty environment except for a fixed `PATH`,
//! without input unless it is told something, in its own process group. The gate kills the group if the program takes too long,
//! writes too much, or its result is no longer needed.

use std::collections::HashMap;
use std::fmt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::config::{Exposure, Owners, exposed_file, exposed_program};

/// The time limit of one program.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes that one program may write.
const MAX_OUTPUT: u64 = 16 * 1024;
/// The `PATH` of a program.
const PROGRAM_PATH: &str = "/usr/bin:/bin";

/// A program that is about to start.
#[derive(Clone, Copy, Debug)]
pub struct ProgramStart<'a> {
    /// Its absolute path.
    pub path: &'a str,
    /// The purpose of the start, in words.
    pub why: &'a str,
}

/// The end of a program.
#[derive(Clone, Copy, Debug)]
pub struct ProgramEnd {
    /// `ok`, `failed`, `not_started`, `timeout`, `too_much_output`, `cancelled`.
    pub result: &'static str,
    /// The exit code, if there is one.
    pub code: Option<i32>,
    /// The duration.
    pub took: Duration,
}

/// Records the programs that the gate starts.
pub trait ProgramWitness: fmt::Debug + Send + Sync {
    /// Called before a program starts.
    fn starts(&self, start: &ProgramStart<'_>);
    /// Called after a program ended, for any reason.
    fn ended(&self, start: &ProgramStart<'_>, end: &ProgramEnd);
}

/// Records nothing: used without a gate.
#[derive(Debug)]
struct NoWitness;

impl ProgramWitness for NoWitness {
    fn starts(&self, _: &ProgramStart<'_>) {}
    fn ended(&self, _: &ProgramStart<'_>, _: &ProgramEnd) {}
}

/// Starts programs, and checks the files that the gate may read again.
#[derive(Clone, Debug)]
pub struct Programs {
    owners: Owners,
    witness: Arc<dyn ProgramWitness>,
    children: Children,
}

/// Receives the exit codes of programs that another part of this process reaped.
#[derive(Clone, Debug, Default)]
pub struct Children(Arc<Mutex<HashMap<u32, oneshot::Sender<Option<i32>>>>>);

/// The reason why a program gave no usable output.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    /// Another user could change the program.
    #[error("it may not be started: {0}")]
    Exposed(Exposure),
    /// The system did not start the program.
    #[error("its command cannot be run")]
    NotStarted,
    /// The program did not end in time.
    #[error("its command took longer than 10 s")]
    Timeout,
    /// The program wrote more than [`MAX_OUTPUT`].
    #[error("its command wrote more than 16 KiB")]
    TooMuchOutput,
    /// The exit code is not 0, or the output cannot be read.
    #[error("its command failed")]
    Failed(Option<i32>),
}

impl ProgramError {
    fn word(&self) -> &'static str {
        match self {
            Self::Exposed(_) | Self::NotStarted => "not_started",
            Self::Timeout => "timeout",
            Self::TooMuchOutput => "too_much_output",
            Self::Failed(_) => "failed",
        }
    }

    /// A sentence without any text of the program.
    pub(super) fn sentence(&self) -> &'static str {
        match self {
            Self::Exposed(exposure) if exposure.is_no_program() => "its command cannot be run",
            Self::Exposed(_) => "another user could change its command: see the log",
            Self::NotStarted => "its command cannot be run",
            Self::Timeout => "its command took longer than 10 s",
            Self::TooMuchOutput => "its command wrote more than 16 KiB",
            Self::Failed(_) => "its command failed",
        }
    }
}

impl Programs {
    /// Programs that only `owners` may be able to change.
    pub fn of(owners: Owners) -> Self {
        Self {
            owners,
            witness: Arc::new(NoWitness),
            children: Children::default(),
        }
    }

    /// Adds a witness for each start.
    #[must_use]
    pub fn on_record(self, witness: Arc<dyn ProgramWitness>) -> Self {
        Self { witness, ..self }
    }

    /// The receiver of exit codes from another part of this process that reaps children.
    pub fn children(&self) -> Children {
        self.children.clone()
    }

    /// The reason why a file may not be read again; `None` if only `owners` can change it.
    pub fn exposed_file(&self, path: &std::path::Path) -> Option<Exposure> {
        exposed_file(path, &self.owners)
    }

    /// Runs a program to its end and returns its output. Standard error is discarded: it may
    /// contain a secret.
    pub(super) async fn run(
        &self,
        words: &[String],
        why: &str,
        clock: &Clock,
    ) -> Result<Vec<u8>, ProgramError> {
        self.run_with(&Run::of(words), why, clock).await
    }

    /// Runs a program with `input` on its standard input, and returns its output. `None` if it gave
    /// no usable output: the reason is on record and in the log.
    pub async fn ask(
        &self,
        words: &[String],
        why: &str,
        clock: &Clock,
        input: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let run = Run {
            input: Some(input),
            ..Run::of(words)
        };
        self.run_with(&run, why, clock).await.ok()
    }

    /// Shows a message on the desktop of this process's user, by `notify-send` at `path`. Returns
    /// whether the program ended well.
    pub async fn show(
        &self,
        path: &str,
        why: &str,
        clock: &Clock,
        (title, text): (String, String),
    ) -> bool {
        let folder = format!("/run/user/{}", rustix::process::geteuid().as_raw());
        let run = Run {
            // After `--` no text is an option.
            more: vec!["--app-name=tidegate".into(), "--".into(), title, text],
            environment: vec![
                (
                    "DBUS_SESSION_BUS_ADDRESS",
                    format!("unix:path={folder}/bus"),
                ),
                ("XDG_RUNTIME_DIR", folder),
            ],
            ..Run::of(&[path.to_owned()])
        };
        self.run_with(&run, why, clock).await.is_ok()
    }

    async fn run_with(&self, run: &Run, why: &str, clock: &Clock) -> Result<Vec<u8>, ProgramError> {
        let path = run.words.first().ok_or(ProgramError::NotStarted)?;
        let start = ProgramStart { path, why };
        self.witness.starts(&start);
        let mut account = Account {
            witness: &*self.witness,
            start,
            clock,
            began: clock.instant(),
            end: ("cancelled", None),
        };
        let ran = self.checked(run).await;
        account.end = match &ran {
            Ok(_) => ("ok", Some(0)),
            Err(error) => (error.word(), error.code()),
        };
        if let Err(error) = &ran {
            tracing::warn!(program = %path, "{why}: {error}");
        }
        ran
    }

    async fn checked(&self, run: &Run) -> Result<Vec<u8>, ProgramError> {
        let (owners, looked_at) = (self.owners.clone(), run.words.clone());
        let look = move || exposed_program(&looked_at, &owners.for_programs());
        let looked = tokio::task::spawn_blocking(look).await;
        if let Some(exposed) = looked.map_err(|_| ProgramError::NotStarted)? {
            return Err(ProgramError::Exposed(exposed));
        }
        let mut command = run.command().ok_or(ProgramError::NotStarted)?;
        let input = run.input.clone();
        let (mut child, status) = self.children.start(&mut command)?;
        let group = Group::of(&child);
        let ran = timeout(PROGRAM_TIMEOUT, to_its_end(&mut child, status, input)).await;
        let ran = ran.unwrap_or(Err(ProgramError::Timeout));
        if matches!(ran, Ok(_) | Err(ProgramError::Failed(Some(_)))) {
            group.has_ended();
        }
        ran
    }
}

impl ProgramError {
    fn code(&self) -> Option<i32> {
        match self {
            Self::Failed(code) => *code,
            _ => None,
        }
    }
}

/// A program to run.
#[derive(Clone, Debug)]
struct Run {
    /// Its path and arguments, as the operator wrote them. Arguments that are files are checked.
    words: Vec<String>,
    /// Further arguments, which the gate wrote.
    more: Vec<String>,
    /// Its environment, besides `PATH`.
    environment: Vec<(&'static str, String)>,
    /// Its standard input.
    input: Option<Vec<u8>>,
}

impl Run {
    fn of(words: &[String]) -> Self {
        Self {
            words: words.to_vec(),
            more: Vec::new(),
            environment: Vec::new(),
            input: None,
        }
    }

    fn command(&self) -> Option<Command> {
        let (path, arguments) = self.words.split_first()?;
        let mut command = command(path, arguments);
        command
            .args(&self.more)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.input.is_some() {
            command.stdin(Stdio::piped());
        }
        Some(command)
    }
}

fn command(path: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PROGRAM_PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn to_its_end(
    child: &mut Child,
    status: oneshot::Receiver<Option<i32>>,
    input: Option<Vec<u8>>,
) -> Result<Vec<u8>, ProgramError> {
    let mut said = Vec::new();
    let stdin = child.stdin.take();
    let tell = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program may end without reading its input.
            let _ = stdin.write_all(&input).await;
        }
    };
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = stdout.take(MAX_OUTPUT + 1);
        let ((), read) = tokio::join!(tell, stdout.read_to_end(&mut said));
        read.map_err(|_| ProgramError::Failed(None))?;
    }
    if said.len() as u64 > MAX_OUTPUT {
        return Err(ProgramError::TooMuchOutput);
    }
    let code = match child.wait().await {
        Ok(status) => status.code(),
        // Another part of this process reaps every child, and reaped this one.
        Err(_) => status.await.unwrap_or(None),
    };
    match code {
        Some(0) => Ok(said),
        code => Err(ProgramError::Failed(code)),
    }
}

impl Children {
    /// Starts a program whose exit code [`Children::ended`] may report.
    fn start(
        &self,
        command: &mut Command,
    ) -> Result<(Child, oneshot::Receiver<Option<i32>>), ProgramError> {
        let (tell, told) = oneshot::channel();
        // Held during the start: another part must not reap this child before it is listed.
        let mut listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listed.retain(|_, waiting| !waiting.is_closed());
        let child = command.spawn().map_err(|_| ProgramError::NotStarted)?;
        if let Some(pid) = child.id() {
            listed.insert(pid, tell);
        }
        Ok((child, told))
    }

    /// Reports the end of a child of this process, with its exit code if there is one.
    pub fn ended(&self, pid: u32, code: Option<i32>) {
        let mut listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = listed.remove(&pid) {
            let _ = waiting.send(code);
        }
    }
}

/// The process group of a program; killed when dropped, unless the program ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reports the end of a program when dropped, also if its result is no longer needed.
struct Account<'a> {
    witness: &'a dyn ProgramWitness,
    start: ProgramStart<'a>,
    clock: &'a Clock,
    began: Instant,
    end: (&'static str, Option<i32>),
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let (result, code) = self.end;
        let end = ProgramEnd {
            result,
            code,
            took: self.clock.instant().saturating_duration_since(self.began),
        };
        self.witness.ended(&self.start, &end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs() -> Programs {
        Programs::of(Owners::of_this_process())
    }

    async fn run(words: &[&str]) -> Result<Vec<u8>, ProgramError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        programs().run(&words, "a test", &Clock::system()).await
    }

    #[tokio::test]
    async fn a_program_has_no_environment_but_a_path_and_runs_in_the_root_folder() {
        let said = run(&["/usr/bin/env"]).await.unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), "PATH=/usr/bin:/bin\n");
        let said = run(&["/bin/pwd"]).await.unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), "/\n");
    }

    #[tokio::test]
    async fn its_process_group_ends_with_it_where_it_says_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! >{}; yes", file.display());
        let error = run(&["/bin/sh", "-c", &script]).await.unwrap_err();
        assert_eq!(error.word(), "too_much_output");
        let pid = crate::config::read(&file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let deadline = Clock::system().instant() + Duration::from_secs(30);
        // Killed; its present parent may not have reaped it yet.
        while crate::config::read(stat.as_ref()).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Clock::system().instant() < deadline, "it goes on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_no_program_is_not_started() {
        for path in ["/etc/passwd", "/etc", "/nowhere/at/all"] {
            let error = run(&[path]).await.unwrap_err();
            assert_eq!(error.word(), "not_started", "{path}");
            assert_eq!(error.sentence(), "its command cannot be run", "{path}");
        }
    }

    #[tokio::test]
    async fn a_code_that_something_else_waited_for_arrives() {
        let children = Children::default();
        let (mut child, status) = children.start(&mut command("/bin/true", &[])).unwrap();
        let pid = child.id().unwrap();
        child.wait().await.unwrap();
        children.ended(pid, Some(7));
        assert_eq!(status.await.unwrap(), Some(7));
        children.ended(pid, Some(8));
    }
}
