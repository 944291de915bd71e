//! Opening the ledger of a gate.

use std::sync::Arc;

use anyhow::{Context, bail};

use crate::clock::Clock;
use crate::config::{self, Owners, exposed_file};
use crate::gate::ExceptionKeeper;
use crate::ledger::{Ledger, SqliteStore};

/// Opens the ledger that is configured, and reads it to its end. A gate without `[ledger]` gets
/// none.
///
/// # Errors
///
/// The file cannot be opened, is damaged, or another user could change it: the gate does not start.
pub(super) fn open(
    configured: Option<&config::Ledger>,
    clock: &Clock,
) -> anyhow::Result<ExceptionKeeper> {
    let Some(configured) = configured else {
        return Ok(ExceptionKeeper::default());
    };
    let path = &configured.file;
    let cannot = || format!("cannot open the ledger {}", path.display());
    let store = SqliteStore::open(path).with_context(cannot)?;
    if let Some(exposure) = exposed_file(path, &Owners::of_this_process()) {
        bail!("cannot trust the ledger: {exposure}");
    }
    let instance = uuid::Uuid::now_v7().to_string();
    let ledger = Arc::new(Ledger::new(Arc::new(store), clock.clone(), instance));
    let reading = ledger.clone();
    // The gate may start inside a runtime, which must not block.
    let read = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(reading.catch_up())?;
        anyhow::Ok(())
    });
    read.join()
        .unwrap_or_else(|_| bail!("it could not be read"))
        .with_context(cannot)?;
    let stale_after = configured.stale_after;
    Ok(ExceptionKeeper::with_ledger(ledger, stale_after, false))
}
