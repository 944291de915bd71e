//! A ledger in one file of `SQLite`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::watch;
use tokio::time::timeout;

use super::entry::Entry;
use super::store::{Answer, FORMAT, MAX_BATCH, Store, StoreError};

/// Marks the file as a ledger of tidegate: `PRAGMA application_id`, "tgld".
const APPLICATION: i64 = 0x7467_6c64;
/// `SQLITE_IOERR_SHORT_READ`: the file ends before a page that it should contain.
const SHORT_READ: i32 = 522;
/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the file is checked for entries of other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Keeps the entries in one file of `SQLite`: `journal_mode = WAL`, `synchronous = FULL`, so an
/// appended entry survives a crash of the gate or of the machine.
#[derive(Debug)]
pub struct SqliteStore {
    file: Arc<File>,
    head: watch::Sender<u64>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// Device and inode of the file that was opened.
    identity: (u64, u64),
    connection: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens a file, or makes one with mode 0600 if there is none. Blocks: it reads the whole file
    /// to check it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or made, is not a ledger, is damaged, or was written by a newer
    /// version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let unavailable = |error: io::Error| unavailable(path, &error);
        let is_new = make(path).map_err(unavailable)?;
        let before = identity(path).map_err(unavailable)?;
        let connection = connect(path).map_err(|error| explained(path, &error))?;
        prepare(path, &connection, is_new)?;
        if identity(path).map_err(unavailable)? != before {
            return Err(StoreError::Replaced(path.display().to_string()));
        }
        Ok(Self {
            file: Arc::new(File {
                path: path.to_owned(),
                identity: before,
                connection: Mutex::new(connection),
            }),
            head: watch::Sender::new(0),
        })
    }

    /// Bounds the size of the file, like a full file system.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        let bounded = format!("PRAGMA max_page_count = {pages}");
        let connection = self.file.connection();
        let _: i64 = connection
            .query_row(&bounded, [], |row| row.get(0))
            .unwrap();
    }

    /// Runs a statement on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        let done = tokio::task::spawn_blocking(move || {
            file.is_in_place()?;
            work(&file)
        });
        done.await
            .unwrap_or_else(|error| Err(StoreError::Unknown(error.to_string())))
    }
}

impl Store for SqliteStore {
    fn append<'a>(&'a self, entry: &'a Entry) -> Answer<'a, ()> {
        let entry = entry.clone();
        Box::pin(async move {
            let revision = entry.revision;
            self.run(move |file| file.append(&entry)).await?;
            self.head.send_replace(revision);
            Ok(())
        })
    }

    fn follow(&self, after: u64, wait: Duration) -> Answer<'_, Vec<Entry>> {
        Box::pin(async move {
            let mut head = self.head.subscribe();
            let mut left = wait;
            loop {
                let entries = self.run(move |file| file.after(after)).await?;
                if !entries.is_empty() || left.is_zero() {
                    return Ok(entries);
                }
                let pause = left.min(POLL_INTERVAL);
                let own = head.wait_for(|head| *head > after);
                if timeout(pause, own).await.is_err() {
                    left = left.saturating_sub(pause);
                }
            }
        })
    }
}

impl File {
    /// Whether the file at the path is the open file: another one would not get the writes, or be
    /// an older copy.
    fn is_in_place(&self) -> Result<(), StoreError> {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            _ => Err(StoreError::Replaced(self.path.display().to_string())),
        }
    }

    fn append(&self, entry: &Entry) -> Result<(), StoreError> {
        let text = serde_json::to_string(entry).map_err(|error| {
            StoreError::Unavailable(format!("the entry cannot be written: {error}"))
        })?;
        let revision = number(entry.revision)?;
        let mut connection = self.connection();
        let written = append(&mut connection, revision, &text);
        match written {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Conflict),
            Err(error) => Err(explained(&self.path, &error)),
        }
    }

    fn after(&self, revision: u64) -> Result<Vec<Entry>, StoreError> {
        let connection = self.connection();
        let texts = after(&connection, number(revision)?, MAX_BATCH);
        let texts = texts.map_err(|error| explained(&self.path, &error))?;
        texts.iter().map(|(at, text)| read(*at, text)).collect()
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the entry; returns whether it was written, which needs the next revision.
fn append(connection: &mut Connection, revision: i64, text: &str) -> rusqlite::Result<bool> {
    let turn = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let head: i64 = turn.query_row("SELECT coalesce(max(revision), 0) FROM entry", [], |row| {
        row.get(0)
    })?;
    if head.checked_add(1) != Some(revision) {
        return Ok(false);
    }
    turn.execute(
        "INSERT INTO entry (revision, entry) VALUES (?1, ?2)",
        (revision, text),
    )?;
    turn.commit()?;
    Ok(true)
}

fn after(
    connection: &Connection,
    revision: i64,
    most: usize,
) -> rusqlite::Result<Vec<(i64, String)>> {
    let mut statement = connection.prepare(
        "SELECT revision, entry FROM entry WHERE revision > ?1 ORDER BY revision LIMIT ?2",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = statement.query_map((revision, most), |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Parses a stored entry.
pub(crate) fn read(revision: i64, text: &str) -> Result<Entry, StoreError> {
    let damaged = |why: String| StoreError::Damaged(format!("entry {revision}: {why}"));
    let entry: Entry = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    if number(entry.revision)? != revision {
        return Err(damaged(format!("it says that it is {}", entry.revision)));
    }
    Ok(entry)
}

/// The revision as databases keep it.
pub(crate) fn number(revision: u64) -> Result<i64, StoreError> {
    i64::try_from(revision)
        .map_err(|_| StoreError::Damaged(format!("there is no revision {revision}")))
}

/// Makes the file, for its owner alone, if there is none. Returns whether it made one.
fn make(path: &Path) -> io::Result<bool> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|_| true),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok((meta.dev(), meta.ino()))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Checks that the file is a ledger of this version, or prepares a new file.
fn prepare(path: &Path, connection: &Connection, is_new: bool) -> Result<(), StoreError> {
    let explained = |error: rusqlite::Error| explained(path, &error);
    let pragma = |name: &str| {
        connection
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
            .map_err(explained)
    };
    let (application, format) = (pragma("application_id")?, pragma("user_version")?);
    let damaged = |why: &str| StoreError::Damaged(format!("{}: {why}", path.display()));
    let is_empty = application == 0 && format == 0 && pragma("schema_version")? == 0;
    if is_empty && !is_new {
        return Err(damaged(
            "it has no entries and no format: it was cut, or a start was interrupted; remove it to \
             begin a new ledger",
        ));
    }
    if !is_empty && application != APPLICATION {
        return Err(damaged("it is a database of another program"));
    }
    if format > FORMAT {
        return Err(StoreError::Newer {
            found: format,
            known: FORMAT,
        });
    }
    if !is_empty {
        let found: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(explained)?;
        if found != "ok" {
            return Err(damaged(&found));
        }
    }
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS entry (revision INTEGER PRIMARY KEY, entry TEXT NOT NULL) STRICT;
             PRAGMA application_id = {APPLICATION};
             PRAGMA user_version = {FORMAT};
             COMMIT;"
        ))
        .map_err(explained)
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

/// Converts an error of `SQLite`.
fn explained(path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = path.display();
    let extended = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        _ if extended == Some(SHORT_READ) => StoreError::Damaged(format!("{path}: it was cut")),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged(format!("{path}: {error}"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Unavailable(format!(
                "{path}: another process kept it locked for {} seconds",
                BUSY_TIMEOUT.as_secs()
            ))
        }
        Some(ErrorCode::DiskFull) => {
            StoreError::Unavailable(format!("{path}: the file system is full"))
        }
        _ => StoreError::Unavailable(format!("{path}: {error}")),
    }
}
