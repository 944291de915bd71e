//! What we say to a parent of who we are: from a file or a command, taken anew when it is not good.

use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::{self, Authorization, Credential};

use super::ParentError;

/// For how long a command may run, and how much it may say.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_SAID: u64 = 16 * 1024;
/// A command is not run again sooner, however often what it says is refused.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// The credential for one parent, and what is known of it.
#[derive(Debug)]
pub(super) struct Keeper {
    source: Option<Credential>,
    clock: Clock,
    /// One at a time reads or runs.
    turn: Semaphore,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    value: Option<Authorization>,
    /// When `value` was got, or last tried to be.
    since: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(source: Option<Credential>, clock: Clock) -> Self {
        let value = match &source {
            Some(Credential::File { said, .. }) => Some(said.clone()),
            _ => None,
        };
        Self {
            source,
            clock,
            turn: Semaphore::new(1),
            kept: Mutex::new(Kept { value, since: None }),
        }
    }

    /// What to say; nothing where no credential is configured.
    pub(super) async fn get(&self) -> Result<Option<Authorization>, ParentError> {
        let Some(Credential::Command { words, lifetime }) = &self.source else {
            return Ok(self.kept().value.clone());
        };
        self.ask_command(words, *lifetime).await.map(Some)
    }

    /// After `refused` was not taken: something else, where there is something else by now.
    pub(super) async fn other_than(&self, refused: &Authorization) -> Option<Authorization> {
        let now_kept = self.kept().value.clone();
        if let Some(kept) = now_kept.filter(|kept| kept != refused) {
            return Some(kept);
        }
        let fresh = match self.source.as_ref()? {
            Credential::File { path, .. } => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || config::read(&path)).await;
                let fresh = Authorization::parse(&read.ok()?.ok()?).ok()?;
                self.kept().value = Some(fresh.clone());
                fresh
            }
            Credential::Command { words, .. } => self.ask_command(words, LEAST_PAUSE).await.ok()?,
        };
        (fresh != *refused).then_some(fresh)
    }

    /// What a command said at most that long ago, or says now.
    async fn ask_command(
        &self,
        words: &[String],
        newer_than: Duration,
    ) -> Result<Authorization, ParentError> {
        if let Some(known) = self.newer_than(newer_than) {
            return known;
        }
        let Ok(_turn) = self.turn.acquire().await else {
            return Err(ParentError::Credential("nobody can be asked for it"));
        };
        // Somebody else may have had the turn before.
        if let Some(known) = self.newer_than(newer_than) {
            return known;
        }
        let said = tokio::time::timeout(PATIENCE, run(words)).await;
        let said = said.unwrap_or(Err("its command takes too long"));
        let mut kept = self.kept();
        kept.value = said.as_ref().ok().cloned();
        kept.since = Some(self.clock.instant());
        said.map_err(ParentError::Credential)
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

/// Runs a command to its end. What it says on standard error is dropped: it may be a secret.
async fn run(words: &[String]) -> Result<Authorization, &'static str> {
    let (program, arguments) = words.split_first().ok_or("its command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|_| "its command cannot be run")?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(MOST_SAID + 1).read_to_end(&mut said).await;
        read.map_err(|_| "its command cannot be read")?;
    }
    if said.len() as u64 > MOST_SAID {
        return Err("its command says too much");
    }
    let status = child.wait().await.map_err(|_| "its command is lost")?;
    if !status.success() {
        return Err("its command failed");
    }
    let said = String::from_utf8(said).map_err(|_| "its command says something that is no text")?;
    Authorization::parse(&said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str], lifetime: Duration) -> Keeper {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let source = Credential::Command { words, lifetime };
        Keeper::new(Some(source), Clock::system())
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
        let keeper = command(&["sh", "-c", &script], Duration::from_mins(1));
        let (one, two) = tokio::join!(said(&keeper), said(&keeper));
        assert_eq!(
            (one.unwrap(), two.unwrap()),
            ("Bearer 1".into(), "Bearer 1".into())
        );
        assert_eq!(said(&keeper).await.unwrap(), "Bearer 1");
        let short = command(&["sh", "-c", &script], Duration::ZERO);
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
            let keeper = command(&["sh", "-c", script], Duration::from_mins(1));
            let why = said(&keeper).await.unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
        let keeper = command(&["/nonexistent"], Duration::from_mins(1));
        assert!(said(&keeper).await.unwrap_err().contains("cannot be run"));
    }

    #[tokio::test]
    async fn words_are_no_shell() {
        let keeper = command(&["echo", "a:$HOME;`id`"], Duration::from_mins(1));
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
        let keeper = Keeper::new(Some(source), Clock::system());
        assert_eq!(keeper.other_than(&old).await, None);
        std::fs::write(&path, "a:new").unwrap();
        let new = Authorization::parse("a:new").unwrap();
        assert_eq!(keeper.other_than(&old).await, Some(new.clone()));
        assert_eq!(keeper.get().await.unwrap(), Some(new));
    }
}
