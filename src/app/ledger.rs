//! Opening the ledger of a gate.

use std::sync::Arc;

use anyhow::{Context, bail};

use crate::clock::Clock;
use crate::config::{self, Dial, LedgerStore, Owners, exposed_file};
use crate::gate::ExceptionKeeper;
use crate::ledger::{Ledger, SqliteStore, Store, StoreError};
use crate::postgres::PostgresStore;

/// Opens the ledger that is configured, and reads it to its end. A gate without `[ledger]` gets
/// none. Where a database does not answer, nothing is granted until it does.
///
/// # Errors
///
/// The file cannot be opened, or another user could change it; the ledger is damaged or of a newer
/// version: the gate does not start.
pub(super) fn open(
    configured: Option<&config::Ledger>,
    dial: &Dial,
    clock: &Clock,
) -> anyhow::Result<ExceptionKeeper> {
    let Some(configured) = configured else {
        return Ok(ExceptionKeeper::default());
    };
    let (store, place) = store(&configured.store, dial)?;
    let instance = uuid::Uuid::now_v7().to_string();
    let ledger = Arc::new(Ledger::new(store, clock.clone(), instance));
    let is_shared = matches!(configured.store, LedgerStore::Database(_));
    match read(&ledger)? {
        Err(error @ StoreError::Unavailable(_)) if is_shared => {
            super::banner::say(&format!(
                "tidegate: cannot read the ledger {place}: {error}\n  \
                 nothing that it grants is in force until it answers\n"
            ));
        }
        read => read.with_context(|| format!("cannot read the ledger {place}"))?,
    }
    let stale_after = configured.stale_after;
    Ok(ExceptionKeeper::with_ledger(ledger, stale_after, is_shared))
}

/// The store, and where it is.
fn store(configured: &LedgerStore, dial: &Dial) -> anyhow::Result<(Arc<dyn Store>, String)> {
    match configured {
        LedgerStore::File(path) => {
            let place = path.display().to_string();
            let store = SqliteStore::open(path);
            let store = store.with_context(|| format!("cannot open the ledger {place}"))?;
            if let Some(exposure) = exposed_file(path, &Owners::of_this_process()) {
                bail!("cannot trust the ledger: {exposure}");
            }
            Ok((Arc::new(store), place))
        }
        LedgerStore::Database(database) => {
            let place = format!("in database `{}`", database.name);
            let store = PostgresStore::new(database.clone(), dial);
            let store = store.with_context(|| format!("cannot use the ledger {place}"))?;
            Ok((Arc::new(store), place))
        }
    }
}

/// Reads a ledger to its end. The gate may start inside a runtime, which must not block.
fn read(ledger: &Arc<Ledger>) -> anyhow::Result<Result<(), StoreError>> {
    let reading = ledger.clone();
    let read = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build()?;
        let read = runtime.block_on(reading.catch_up());
        anyhow::Ok(read)
    });
    read.join()
        .unwrap_or_else(|_| bail!("it could not be read"))
}
