//! The gate's credential for a parent, from a file or a command, read again if the parent rejects
//! it.
//!
//! A gate that keeps a copy of its configuration also reads the file again, if the parent rejects
//! the credential: operators rotate credentials while sessions last for days. The file decides only
//! the credential for this parent, and is read only if no user but root and the gate's own can
//! change it. The path of the file, the command and the parent stay as they were at the start.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::{self, Authorization, Credential};

use super::super::program::Programs;
use super::ParentError;

/// The minimum time between two runs of a command, however often the parent rejects its output.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// The credential for one parent, with its state.
#[derive(Debug)]
pub(super) struct Keeper {
    source: Option<Credential>,
    /// The parent, for the record.
    parent: Box<str>,
    programs: Programs,
    clock: Clock,
    /// One task at a time reads the file or runs the command.
    turn: Semaphore,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    value: Option<Authorization>,
    /// The time of the last attempt to get `value`.
    since: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(
        source: Option<Credential>,
        parent: &str,
        programs: Programs,
        clock: Clock,
    ) -> Self {
        let value = match &source {
            Some(Credential::File { said, .. }) => Some(said.clone()),
            _ => None,
        };
        Self {
            source,
            parent: parent.into(),
            programs,
            clock,
            turn: Semaphore::new(1),
            kept: Mutex::new(Kept { value, since: None }),
        }
    }

    /// The credential to send; `None` if none is configured.
    pub(super) async fn get(&self) -> Result<Option<Authorization>, ParentError> {
        let Some(Credential::Command { words, lifetime }) = &self.source else {
            return Ok(self.kept().value.clone());
        };
        self.ask_command(words, *lifetime).await.map(Some)
    }

    /// Returns another credential after the parent rejected `refused`; `None` if there is no other.
    pub(super) async fn other_than(&self, refused: &Authorization) -> Option<Authorization> {
        let now_kept = self.kept().value.clone();
        if let Some(kept) = now_kept.filter(|kept| kept != refused) {
            return Some(kept);
        }
        let fresh = match self.source.as_ref()? {
            Credential::File { path, .. } => {
                let (path, programs) = (path.clone(), self.programs.clone());
                let read = tokio::task::spawn_blocking(move || read_again(&path, &programs)).await;
                let fresh = Authorization::parse(&read.ok()??).ok()?;
                self.kept().value = Some(fresh.clone());
                fresh
            }
            Credential::Command { words, .. } => self.ask_command(words, LEAST_PAUSE).await.ok()?,
        };
        (fresh != *refused).then_some(fresh)
    }

    /// The command's output, if newer than `newer_than`; else runs the command.
    async fn ask_command(
        &self,
        words: &[String],
        newer_than: Duration,
    ) -> Result<Authorization, ParentError> {
        if let Some(known) = self.newer_than(newer_than) {
            return known;
        }
        let Ok(_turn) = self.turn.acquire().await else {
            return Err(ParentError::Credential("no file or command is configured"));
        };
        // Another task may have run the command while this one waited.
        if let Some(known) = self.newer_than(newer_than) {
            return known;
        }
        let said = self.run(words).await;
        let mut kept = self.kept();
        kept.value = said.as_ref().ok().cloned();
        kept.since = Some(self.clock.instant());
        said.map_err(ParentError::Credential)
    }

    async fn run(&self, words: &[String]) -> Result<Authorization, &'static str> {
        let why = format!("credential for the parent {}", self.parent);
        let said = self.programs.run(words, &why, &self.clock).await;
        let said = said.map_err(|error| error.sentence())?;
        let said = String::from_utf8(said);
        let said = said.map_err(|_| "the output of its command is no text")?;
        Authorization::parse(&said)
    }

    fn newer_than(&self, longest: Duration) -> Option<Result<Authorization, ParentError>> {
        let kept = self.kept();
        let age = self.clock.instant().saturating_duration_since(kept.since?);
        match &kept.value {
            Some(value) if age < longest => Some(Ok(value.clone())),
            None if age < LEAST_PAUSE => Some(Err(ParentError::Credential(
                "its command failed a moment ago",
            ))),
            _ => None,
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the file; `None` if another user could have changed it.
fn read_again(path: &Path, programs: &Programs) -> Option<String> {
    if let Some(exposed) = programs.exposed_file(path) {
        tracing::warn!("the credential file is not read again: {exposed}");
        return None;
    }
    config::read_regular(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str], lifetime: Duration) -> Keeper {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        keeper(Credential::Command { words, lifetime })
    }

    fn keeper(source: Credential) -> Keeper {
        let programs = Programs::of(config::Owners::of_this_process());
        Keeper::new(
            Some(source),
            "proxy.example:3128",
            programs,
            Clock::system(),
        )
    }

    async fn said(keeper: &Keeper) -> Result<String, String> {
        let got = keeper.get().await.map_err(|error| error.to_string())?;
        Ok(got.expect("a credential").as_str().to_owned())
    }

    #[tokio::test]
    async fn a_command_runs_once_in_its_lifetime() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("runs");
        let script = format!("echo x >> {0}; echo Bearer $(wc -l < {0})", file.display());
        let keeper = command(&["/bin/sh", "-c", &script], Duration::from_mins(1));
        let (one, two) = tokio::join!(said(&keeper), said(&keeper));
        assert_eq!(
            (one.unwrap(), two.unwrap()),
            ("Bearer 1".into(), "Bearer 1".into())
        );
        assert_eq!(said(&keeper).await.unwrap(), "Bearer 1");
        let short = command(&["/bin/sh", "-c", &script], Duration::ZERO);
        assert_eq!(said(&short).await.unwrap(), "Bearer 2");
        assert_eq!(said(&short).await.unwrap(), "Bearer 3");
    }

    #[tokio::test]
    async fn a_command_that_fails_or_babbles_says_nothing_of_what_it_said() {
        for script in [
            "echo hunter2:x; exit 1",
            "yes hunter2",
            "echo hunter2",
            "printf 'a:b\\nc:d'",
        ] {
            let keeper = command(&["/bin/sh", "-c", script], Duration::from_mins(1));
            let why = said(&keeper).await.unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
        let keeper = command(&["/nonexistent"], Duration::from_mins(1));
        assert!(said(&keeper).await.unwrap_err().contains("cannot be run"));
    }

    #[tokio::test]
    async fn words_are_no_shell() {
        let keeper = command(&["/bin/echo", "a:$HOME;`id`"], Duration::from_mins(1));
        let expected = Authorization::parse("a:$HOME;`id`").unwrap();
        assert_eq!(said(&keeper).await.unwrap(), expected.as_str());
    }

    #[tokio::test]
    async fn a_file_is_read_again_when_what_it_said_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credential");
        let old = Authorization::parse("a:old").unwrap();
        std::fs::write(&path, "a:old").unwrap();
        let source = Credential::File {
            path: path.clone(),
            said: old.clone(),
        };
        let keeper = keeper(source);
        assert_eq!(keeper.other_than(&old).await, None);
        std::fs::write(&path, "a:new").unwrap();
        // A pipe without a writer does not block it.
        std::fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        assert_eq!(keeper.other_than(&old).await, None);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a:new").unwrap();
        // A file that another user could write is not read again.
        let may = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, may(0o606)).unwrap();
        assert_eq!(keeper.other_than(&old).await, None);
        std::fs::set_permissions(&path, may(0o600)).unwrap();
        let new = Authorization::parse("a:new").unwrap();
        assert_eq!(keeper.other_than(&old).await, Some(new.clone()));
        assert_eq!(keeper.get().await.unwrap(), Some(new));
    }
}
