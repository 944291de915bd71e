//! Reads the files of a commit with `git`.
//!
//! An agent may be able to write the repository, and its configuration names programs. The commands
//! in this module (`rev-parse`, `merge-base`, `ls-tree`, `cat-file`) start none of them: no hook,
//! pager, file monitor, filter or helper of a remote. Objects are not fetched, replacement objects
//! are not followed, and variables like `GIT_DIR` are not passed on. All reads are bounded.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The interval between checks of a run of `git`.
const POLL: Duration = Duration::from_millis(2);
/// Maximum number of checks of a run (20 seconds); then the run is ended.
const MAX_POLLS: usize = 10_000;
/// Maximum output of one run, in bytes.
const MAX_OUTPUT: u64 = 64 << 20;
/// Maximum size of a file, in bytes.
const MAX_FILE: u64 = 8 << 20;
/// Maximum number of files of a commit.
const MAX_FILES: usize = 1000;

/// The reason why a file of a commit was not read.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// `git` could not be started, or did not answer.
    #[error("git cannot be run: {0}")]
    Run(#[from] io::Error),
    /// `git` refused.
    #[error("git {command}: {said}")]
    Git {
        /// The command.
        command: &'static str,
        /// The first line of its standard error.
        said: String,
    },
    /// A maximum was exceeded.
    #[error(
        "the commit has more than {MAX_FILES} such files, or larger ones than {MAX_FILE} bytes"
    )]
    TooMuch,
    /// A file that is a link, is too large, or is no text.
    #[error("{0} in the commit is no regular text file of at most {1} bytes")]
    NotRead(String, usize),
    /// A name that would lead out of the folder.
    #[error("the commit has a file with the name {0:?}")]
    Name(String),
}

/// A repository that `git` reads.
#[derive(Clone, Debug)]
pub struct Repository {
    folder: PathBuf,
    /// Whether the files may belong to another user than the user of this process.
    of_anyone: bool,
}

/// A commit, in hex.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Commit(pub String);

impl Repository {
    /// Returns the repository that contains a folder.
    pub fn around(folder: &Path) -> Result<Self, RevisionError> {
        let start = Self {
            folder: folder.to_owned(),
            of_anyone: false,
        };
        let top = start.ask("rev-parse", &["--show-toplevel"])?;
        let top = String::from_utf8_lossy(&top);
        Ok(Self {
            folder: PathBuf::from(top.trim_end_matches('\n')),
            of_anyone: false,
        })
    }

    /// Returns the repository at a folder: a bare one, or the top of a working copy. The caller
    /// has checked which users can write it; git does not check its owner.
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            of_anyone: true,
        }
    }

    /// Returns the text of a regular file at the top of a commit; `None` if the commit has no such
    /// file. A symbolic link is an error, as is a file of more than `max` bytes.
    pub fn file(
        &self,
        commit: &Commit,
        name: &str,
        max: usize,
    ) -> Result<Option<String>, RevisionError> {
        let words = ["-z", "-l", "--full-tree", &commit.0, "--", name];
        let listed = self.ask("ls-tree", &words)?;
        let listed = String::from_utf8_lossy(&listed);
        let Some((about, _)) = listed.split_once('\t') else {
            return Ok(None);
        };
        let parts: Vec<_> = about.split_ascii_whitespace().collect();
        let [mode, _, blob, size] = parts.as_slice() else {
            return Err(RevisionError::Name(name.to_owned()));
        };
        let is_small = size.parse::<usize>().is_ok_and(|size| size <= max);
        if !is_file(mode) || !is_small {
            return Err(RevisionError::NotRead(name.to_owned(), max));
        }
        let text = self.ask("cat-file", &["blob", blob])?;
        let text = String::from_utf8(text);
        text.map(Some)
            .map_err(|_| RevisionError::NotRead(name.to_owned(), max))
    }

    /// Returns the top folder of the working copy.
    pub fn top(&self) -> &Path {
        &self.folder
    }

    /// Returns the commit of a revision.
    pub fn commit(&self, revision: &str) -> Result<Commit, RevisionError> {
        let wanted = format!("{revision}^{{commit}}");
        let words = ["--verify", "--quiet", "--end-of-options", &wanted];
        let found = self.ask("rev-parse", &words).map_err(|error| match error {
            RevisionError::Git { command, said } if said.is_empty() => RevisionError::Git {
                command,
                said: format!("there is no revision `{revision}`"),
            },
            error => error,
        })?;
        Ok(Commit(String::from_utf8_lossy(&found).trim().to_owned()))
    }

    /// Returns the best common ancestor of two commits.
    pub fn merge_base(&self, one: &Commit, other: &Commit) -> Result<Commit, RevisionError> {
        let found = self.ask("merge-base", &[&one.0, &other.0])?;
        Ok(Commit(String::from_utf8_lossy(&found).trim().to_owned()))
    }

    /// Writes the files of a commit that `wanted` names into a folder, with their paths. Links and
    /// submodules are left out. Returns the paths of all other entries.
    pub fn write_files(
        &self,
        commit: &Commit,
        wanted: impl Fn(&str) -> bool,
        to: &Path,
    ) -> Result<Vec<String>, RevisionError> {
        let listed = self.ask("ls-tree", &["-r", "-z", "--full-tree", "-l", &commit.0])?;
        let mut files: Vec<(String, String)> = Vec::new();
        let mut others: Vec<String> = Vec::new();
        for entry in listed.split(|byte| *byte == 0).filter(|it| !it.is_empty()) {
            let entry = String::from_utf8_lossy(entry);
            let Some((about, path)) = entry.split_once('\t') else {
                continue;
            };
            let [mode, _, blob, size] = *about.split_ascii_whitespace().collect::<Vec<_>>() else {
                continue;
            };
            let mut parts = Path::new(path).components();
            if !parts.all(|it| matches!(it, Component::Normal(_))) {
                return Err(RevisionError::Name(path.to_owned()));
            }
            if !is_file(mode) || !wanted(path) {
                others.push(path.to_owned());
                continue;
            }
            if files.len() >= MAX_FILES || size.parse::<u64>().is_ok_and(|size| size > MAX_FILE) {
                return Err(RevisionError::TooMuch);
            }
            files.push((path.to_owned(), blob.to_owned()));
        }
        for (path, blob) in files {
            let text = self.ask("cat-file", &["blob", &blob])?;
            let file = to.join(path);
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::File::create(file)?.write_all(&text)?;
        }
        Ok(others)
    }

    /// Runs `git` and returns what it prints.
    fn ask(&self, command: &'static str, words: &[&str]) -> Result<Vec<u8>, RevisionError> {
        let mut git = Command::new("git");
        git.env_clear()
            .envs(kept_variables())
            .args(["--no-pager", "--no-replace-objects", "--no-optional-locks"])
            .args(["-c", "protocol.allow=never", "-c", "core.fsmonitor=false"])
            .args(
                self.of_anyone
                    .then_some(["-c", "safe.directory=*"])
                    .into_iter()
                    .flatten(),
            )
            .arg("-C")
            .arg(&self.folder)
            .arg(command)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = git.spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let said = std::thread::spawn(move || read_some(err, 4096));
        let printed = std::thread::spawn(move || read_some(out, MAX_OUTPUT));
        let status = wait(&mut child)?;
        let printed = printed.join().unwrap_or_default();
        let said = said.join().unwrap_or_default();
        if status.success() {
            return Ok(printed);
        }
        let said = String::from_utf8_lossy(&said);
        let first = said.lines().next().unwrap_or_default();
        Err(RevisionError::Git {
            command,
            said: first.trim_start_matches("fatal: ").to_owned(),
        })
    }
}

/// Whether an entry of a tree is a regular file.
fn is_file(mode: &str) -> bool {
    ["100644", "100755"].contains(&mode)
}

/// Returns the environment of `git`: the paths of programs and of the home folder, and settings
/// against fetches and prompts.
#[expect(
    clippy::disallowed_methods,
    reason = "git is found as the user of this process finds it"
)]
fn kept_variables() -> Vec<(&'static str, String)> {
    let mut kept = vec![
        ("GIT_NO_LAZY_FETCH", "1".to_owned()),
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ("LC_ALL", "C".to_owned()),
    ];
    for name in ["PATH", "HOME"] {
        kept.extend(std::env::var(name).ok().map(|value| (name, value)));
    }
    kept
}

fn read_some(pipe: Option<impl Read>, most: u64) -> Vec<u8> {
    let mut read = Vec::new();
    if let Some(pipe) = pipe {
        // The available output is used; the status shows whether it is complete.
        let _ = pipe.take(most).read_to_end(&mut read);
    }
    read
}

/// Waits for a child, at most [`MAX_POLLS`] times.
fn wait(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    for _ in 0..MAX_POLLS {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Err(io::ErrorKind::TimedOut.into())
}
