//! Programs of other people, run the way a user runs them but without the user's settings.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::eventually::eventually_within;

/// How long a foreign program may take; some retry what was refused.
const PATIENCE: Duration = Duration::from_mins(4);

/// A command line with an environment of its own.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    patience: Duration,
}

/// What a program left.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its exit status; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Whether its exit status was 0.
    pub(crate) success: bool,
    /// What it printed on stdout.
    pub(crate) stdout: String,
    /// What it printed on stderr.
    pub(crate) stderr: String,
}

impl Outcome {
    /// Panics with everything it said if it failed.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert!(self.success, "it failed: {self:#?}");
        self
    }

    /// Panics with everything it said if it did not fail.
    #[track_caller]
    pub(crate) fn failed(self) -> Self {
        assert!(!self.success, "it did not fail: {self:#?}");
        self
    }

    /// Panics unless the user saw `text` somewhere.
    #[track_caller]
    pub(crate) fn showed(self, text: &str) -> Self {
        assert!(self.shows(text), "`{text}` is not shown: {self:#?}");
        self
    }

    /// Whether the user saw `text` somewhere.
    pub(crate) fn shows(&self, text: &str) -> bool {
        self.stdout.contains(text) || self.stderr.contains(text)
    }
}

impl Program {
    /// A program by name; panics with what to install if it is not there. `home` becomes its HOME.
    pub(crate) fn new(name: &str, home: &Path) -> Self {
        Self::at(&need(name), home)
    }

    /// A program by path.
    pub(crate) fn at(path: &Path, home: &Path) -> Self {
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", home)
            .current_dir(home);
        command.env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1");
        // Toolchain managers look for their state here; the versions they chose are kept.
        for keep in [
            "CARGO_HOME",
            "RUSTUP_HOME",
            "RUSTUP_TOOLCHAIN",
            "PYENV_ROOT",
        ] {
            if let Some(value) = std::env::var_os(keep) {
                command.env(keep, value);
            }
        }
        Self {
            command,
            patience: PATIENCE,
        }
    }

    /// Adds words to the command line.
    #[must_use]
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command.args(words);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in that folder.
    #[must_use]
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Is ended, and the test with it, if it takes longer.
    #[must_use]
    pub(crate) fn within_time(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets the variables by which programs find a proxy.
    #[must_use]
    pub(crate) fn through(mut self, proxy: &str) -> Self {
        for name in [
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ] {
            self.command.env(name, proxy);
        }
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Outcome {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = Ended(self.command.spawn().expect("a program"));
        let child = &mut child.0;
        let stdout = collect(child.stdout.take().expect("a stdout"));
        let stderr = collect(child.stderr.take().expect("a stderr"));
        let words = format!("the end of {:?}", self.command);
        let status =
            eventually_within(self.patience, &words, || child.try_wait().expect("a child"));
        Outcome {
            code: status.code(),
            success: status.success(),
            stdout: stdout.join().expect("text"),
            stderr: stderr.join().expect("text"),
        }
    }
}

/// Where a program is; panics with what to install if it is not there.
pub(crate) fn need(name: &str) -> PathBuf {
    let found = venv(name).or_else(|| {
        std::env::split_paths(&search_path())
            .map(|folder| folder.join(name))
            .find(|at| at.is_file())
    });
    found.unwrap_or_else(|| {
        panic!(
            "`{name}` is not installed, and this test is about it: run tests/run, which installs it"
        )
    })
}

/// A program of the Python environment that tests/run makes.
fn venv(name: &str) -> Option<PathBuf> {
    let python = ["python", "python3", "pip", "uv"].contains(&name);
    let at = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/test-venv/bin")
        .join(name);
    (python && at.exists()).then_some(at)
}

/// A child that does not outlive the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn search_path() -> std::ffi::OsString {
    std::env::var_os("PATH").expect("a PATH")
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    })
}
