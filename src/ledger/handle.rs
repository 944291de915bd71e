//! The ledger in the gate: the folded state, and the only function that changes it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;

use super::entry::{Actor, Change, Entry};
use super::state::{Refused, State};
use super::store::{Store, StoreError};

/// How often an append is retried after another gate appended first.
const MAX_CONFLICTS: usize = 64;
/// Maximum time that one [`Store::follow`] waits for an entry.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of an append, with all retries.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed [`Store::follow`].
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The ledger of a gate.
#[derive(Debug)]
pub struct Ledger {
    store: Arc<dyn Store>,
    state: ArcSwap<State>,
    health: ArcSwap<Health>,
    /// Serializes reading and appending within this gate.
    turn: Mutex<()>,
    changed: watch::Sender<u64>,
    clock: Clock,
    instance: Arc<str>,
}

/// Whether the store answers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Health {
    /// When the store last answered.
    pub answered: Option<Timestamp>,
    /// Why the store does not answer now; `None`: it answers.
    pub failure: Option<StoreError>,
    /// Attempts to read or append that failed.
    pub failures: u64,
}

/// Why no entry was appended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LedgerError {
    /// The state does not permit the change.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ledger {
    /// Returns an empty ledger: [`Ledger::catch_up`] reads the stored entries.
    pub fn new(store: Arc<dyn Store>, clock: Clock, instance: impl Into<Arc<str>>) -> Self {
        Self {
            store,
            state: ArcSwap::default(),
            health: ArcSwap::default(),
            turn: Mutex::default(),
            changed: watch::Sender::new(0),
            clock,
            instance: instance.into(),
        }
    }

    /// Returns the state as far as this gate has read it. Never waits.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Returns whether the store answers.
    pub fn health(&self) -> Arc<Health> {
        self.health.load_full()
    }

    /// Returns the revision of the state, as a receiver that notices changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Returns the name of this gate in its entries.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Returns an actor of this gate.
    pub fn actor(&self, principal: impl Into<String>, door: impl Into<String>) -> Actor {
        Actor {
            principal: principal.into(),
            door: door.into(),
            instance: self.instance.to_string(),
        }
    }

    /// Reads the entries that this gate has not read yet.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        self.read_on(Duration::ZERO).await
    }

    /// Appends the change that `decide` makes from the state. If another gate appended first,
    /// `decide` is called again with the new state.
    ///
    /// # Errors
    ///
    /// The refusal of `decide`, or of the state (settled or revoked before, an id that is in use).
    /// Otherwise the store failed: then the entry was not stored, except with
    /// [`StoreError::Unknown`], where it may be.
    pub async fn append(
        &self,
        actor: &Actor,
        decide: impl FnMut(&State) -> Result<Change, Refused>,
    ) -> Result<Entry, LedgerError> {
        let appended = tokio::time::timeout(APPEND_TIMEOUT, self.try_append(actor, decide)).await;
        let lost = || StoreError::Unknown(format!("no answer within {APPEND_TIMEOUT:?}"));
        appended.unwrap_or_else(|_| Err(lost().into()))
    }

    async fn try_append(
        &self,
        actor: &Actor,
        mut decide: impl FnMut(&State) -> Result<Change, Refused>,
    ) -> Result<Entry, LedgerError> {
        let _turn = self.turn.lock().await;
        let id = Uuid::now_v7();
        for _ in 0..MAX_CONFLICTS {
            let state = self.state();
            let change = match decide(&state).and_then(|it| state.accepts(&it).map(|()| it)) {
                Ok(change) => change,
                // The state may be outdated.
                Err(refused) => {
                    self.read_on(Duration::ZERO).await?;
                    if self.state().revision == state.revision {
                        return Err(refused.into());
                    }
                    continue;
                }
            };
            let entry = Entry {
                revision: state.revision + 1,
                id,
                at: self.clock.now(),
                actor: actor.clone(),
                change,
            };
            match self.store.append(&entry).await {
                Ok(()) => {
                    self.fold(std::slice::from_ref(&entry))?;
                    return Ok(entry);
                }
                Err(StoreError::Conflict) => self.read_on(Duration::ZERO).await?,
                Err(StoreError::Unknown(why)) => {
                    if self.append_again(&entry, why).await? {
                        return Ok(entry);
                    }
                }
                Err(error) => return Err(self.failed(error).into()),
            }
        }
        Err(StoreError::Unavailable("other gates append all the time".into()).into())
    }

    /// Repeats the append of an entry whose answer was lost: then the entry is stored, or another
    /// entry has its revision. A delayed earlier append can no longer be written. Returns whether
    /// the entry is stored.
    async fn append_again(&self, entry: &Entry, why: String) -> Result<bool, StoreError> {
        match self.store.append(entry).await {
            Ok(()) => {
                self.fold(std::slice::from_ref(entry))?;
                Ok(true)
            }
            Err(StoreError::Conflict) => {
                let found = self.store.follow(entry.revision - 1, Duration::ZERO).await;
                let found = found.map_err(|_| self.failed(StoreError::Unknown(why)))?;
                self.fold(&found)?;
                Ok(found.first().is_some_and(|first| first.id == entry.id))
            }
            Err(_) => Err(self.failed(StoreError::Unknown(why))),
        }
    }

    /// Reads entries and folds them into the state, until there are no more.
    async fn read_on(&self, wait: Duration) -> Result<(), StoreError> {
        let mut wait = wait;
        loop {
            let revision = self.state().revision;
            let read = self.store.follow(revision, wait).await;
            let entries = read.map_err(|error| self.failed(error))?;
            self.fold(&entries)?;
            if entries.is_empty() {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
    }

    fn failed(&self, error: StoreError) -> StoreError {
        self.health.rcu(|before| Health {
            answered: before.answered,
            failure: Some(error.clone()),
            failures: before.failures + 1,
        });
        error
    }

    /// Folds entries into the state. Entries that were folded before have no effect.
    fn fold(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.health.rcu(|before| Health {
            answered: Some(now),
            failure: None,
            failures: before.failures,
        });
        let before = self.state();
        let mut entries = entries
            .iter()
            .filter(|it| it.revision > before.revision)
            .peekable();
        if entries.peek().is_none() {
            return Ok(());
        }
        let mut state = State::clone(&before);
        for entry in entries {
            if entry.revision != state.revision + 1 {
                let message = format!("revision {} is missing", state.revision + 1);
                return Err(self.failed(StoreError::Damaged(message)));
            }
            state.apply(entry);
        }
        let revision = state.revision;
        self.state.store(Arc::new(state));
        self.changed.send_replace(revision);
        Ok(())
    }

    /// Follows the store until it is cancelled.
    pub async fn run(&self, until: CancellationToken) {
        while !until.is_cancelled() {
            let revision = self.state().revision;
            // After a failure, the first answer counts at once.
            let wait = match self.health().failure {
                Some(_) => Duration::ZERO,
                None => FOLLOW_TIMEOUT,
            };
            let followed = tokio::select! {
                () = until.cancelled() => return,
                followed = self.store.follow(revision, wait) => followed,
            };
            let turn = self.turn.lock().await;
            let folded = match followed {
                Ok(entries) => self.fold(&entries),
                Err(error) => Err(self.failed(error)),
            };
            drop(turn);
            if let Err(error) = folded {
                tracing::warn!("{error}");
                tokio::select! {
                    () = until.cancelled() => return,
                    () = tokio::time::sleep(RETRY_DELAY) => {}
                }
            }
        }
    }
}
