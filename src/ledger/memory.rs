//! A ledger in memory, for tests.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::entry::Entry;
use super::store::{Answer, MAX_BATCH, Store, StoreError};

/// Keeps the entries in memory. Several ledgers may share one, as gates share a database.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<Vec<Entry>>,
    head: watch::Sender<u64>,
}

impl MemoryStore {
    fn after(&self, revision: u64) -> Vec<Entry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = usize::try_from(revision).unwrap_or(usize::MAX);
        entries.iter().skip(skip).take(MAX_BATCH).cloned().collect()
    }
}

impl Store for MemoryStore {
    fn append<'a>(&'a self, entry: &'a Entry) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            if entries.len() as u64 + 1 != entry.revision {
                return Err(StoreError::Conflict);
            }
            entries.push(entry.clone());
            drop(entries);
            self.head.send_replace(entry.revision);
            Ok(())
        })
    }

    fn follow(&self, after: u64, wait: Duration) -> Answer<'_, Vec<Entry>> {
        Box::pin(async move {
            let mut head = self.head.subscribe();
            let more = head.wait_for(|head| *head > after);
            let _ = tokio::time::timeout(wait, more).await;
            Ok(self.after(after))
        })
    }
}
