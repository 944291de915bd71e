//! The current branch and commit of a working copy, read at most once a second.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How long a result is used again.
const HEAD_LIFETIME: Duration = Duration::from_secs(1);
/// How long a flow waits for git's files; after that it uses the previous result.
const READ_TIMEOUT: Duration = Duration::from_millis(250);

/// Maximum number of reading threads; a file system that never answers may block each of them.
const MAX_READERS: usize = 8;

/// The threads that read which branches are checked out.
#[derive(Clone, Debug)]
pub struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_READERS)))
    }
}

/// The branch and commit that are checked out in a folder.
#[derive(Debug)]
pub struct Head {
    folder: PathBuf,
    readers: Readers,
    last: ArcSwapOption<Checkout>,
    /// Whether a thread is reading: at most one thread per folder is blocked by a file system.
    reading: AtomicBool,
}

/// The branch and commit at the last read.
#[derive(Debug)]
struct Checkout {
    at: Instant,
    /// Whether the folder is in a working copy of this user.
    found: bool,
    branch: Option<Arc<str>>,
    commit: Option<Arc<str>>,
}

impl Head {
    /// Returns the head of the working copy that contains `folder`.
    pub fn of(folder: PathBuf, readers: Readers) -> Self {
        Self {
            folder,
            readers,
            last: ArcSwapOption::empty(),
            reading: AtomicBool::new(false),
        }
    }

    /// Returns the branch and the commit: at most a second old if they can be read in 250 ms,
    /// otherwise as last read. `None` before the first successful read, or if the folder is in no
    /// working copy of this user.
    pub async fn now(
        self: &Arc<Self>,
        now: Instant,
    ) -> Option<(Option<Arc<str>>, Option<Arc<str>>)> {
        if !self.is_fresh(now) {
            self.refresh(now).await;
        }
        let last = self.last.load();
        let last = last.as_ref().filter(|last| last.found)?;
        Some((last.branch.clone(), last.commit.clone()))
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let last = self.last.load();
        last.as_ref()
            .is_some_and(|last| now.saturating_duration_since(last.at) < HEAD_LIFETIME)
    }

    /// Reads on a separate thread: a file system that never answers blocks neither a flow nor the
    /// end of the process.
    async fn refresh(self: &Arc<Self>, now: Instant) {
        if self.reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(place) = self.readers.0.clone().try_acquire_owned() else {
            self.reading.store(false, Ordering::Release);
            return;
        };
        let (done, read) = oneshot::channel();
        let head = self.clone();
        let started = std::thread::Builder::new()
            .name("git-head".to_owned())
            .spawn(move || {
                head.read(now, place);
                let _ = done.send(());
            });
        if started.is_err() {
            self.reading.store(false, Ordering::Release);
            return;
        }
        let _ = tokio::time::timeout(READ_TIMEOUT, read).await;
    }

    fn read(&self, now: Instant, place: OwnedSemaphorePermit) {
        let found = super::checkout(&self.folder);
        self.last.store(Some(Arc::new(Checkout {
            at: now,
            found: found.is_some(),
            branch: found
                .as_ref()
                .and_then(|(branch, _)| branch.as_deref().map(Arc::from)),
            commit: found
                .as_ref()
                .and_then(|(_, commit)| commit.as_deref().map(Arc::from)),
        })));
        self.reading.store(false, Ordering::Release);
        drop(place);
    }
}
