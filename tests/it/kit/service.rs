//! A program of other people that serves until the test is over.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{eventually, need};

/// A program in the background; it ends with the test.
pub(crate) struct Service {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// Starts it; what it says on stdout can be asked for.
    pub(crate) fn start<S: AsRef<OsStr>>(
        name: &str,
        home: &Path,
        words: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut command = Command::new(need(name));
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("a PATH"))
            .env("HOME", home)
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(home.join("service.log")).expect("a file"));
        let mut child = command.spawn().expect("a program");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (stdout, into) = (child.stdout.take().expect("a stdout"), said.clone());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                into.lock().expect("lines").push(line);
            }
        });
        Self { child, said }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().expect("lines").clone()
    }

    /// Waits for a line that begins so, and gives the rest of it.
    pub(crate) fn says(&self, beginning: &str) -> String {
        let found = || {
            let all = self.said();
            all.iter()
                .find_map(|line| line.strip_prefix(beginning).map(str::to_owned))
        };
        eventually(beginning, found)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
