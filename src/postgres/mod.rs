//! A ledger in a table of `PostgreSQL`, which several gates share.
//!
//! The table has a row for each entry, and row 0 with the format. A gate appends a row in one statement,
//! which inserts the row only if the row before is the last. Of two gates that append the same revision,
//! one inserts its row and the other gets a conflict. Rows never change, so a gate needs a role that may
//! only read and insert.
//!
//! `NOTIFY` wakes the other gates at once after a new row. The notification is a hint: each gate also
//! reads the table every two seconds. Every wait has a deadline, in the gate and at the server.

mod session;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use crate::config::{Database, Dial};
use crate::dial::Resolver;
use crate::ledger::{Answer, Entry, FORMAT, MAX_BATCH, Store, StoreError, number, read};
use crate::tls;

use session::{Session, said};

/// The time limit for connecting, with TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time limit of the gate for a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(4);
/// How often a gate reads the table without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The id of row 0, which is no entry.
const HEADER: &str = "tidegate-ledger";

/// The settings of each connection. The server ends a statement before the gate stops waiting for it.
/// It answers only after an entry is on its disk, also where the database or the role sets
/// `synchronous_commit` to `off` or `local`.
const SET: &str = "SET statement_timeout = '3s'; SET lock_timeout = '3s'; \
    SELECT set_config('synchronous_commit', 'on', false) \
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// Creates the table with row 0, in one transaction. The lock makes a second gate that starts at the
/// same time wait.
const MAKE: &str = "SELECT pg_advisory_xact_lock(7449358); \
    CREATE TABLE IF NOT EXISTS tidegate_ledger \
    (revision bigint PRIMARY KEY CHECK (revision >= 0), id text NOT NULL, entry text NOT NULL); \
    INSERT INTO tidegate_ledger (revision, id, entry) \
    VALUES (0, 'tidegate-ledger', '{\"format\":3}') ON CONFLICT DO NOTHING";

/// Subscribes to notifications of new rows.
const LISTEN: &str = "LISTEN tidegate_ledger";

const EXISTS: &str = "SELECT to_regclass('tidegate_ledger') IS NOT NULL";

/// Writes a row where the row before is the last one, and the one that this gate read (`$4`; empty: it
/// has read none yet). Counts one row where it did.
const APPEND: &str = "WITH head AS \
    (SELECT revision, id FROM tidegate_ledger ORDER BY revision DESC LIMIT 1), \
    added AS (INSERT INTO tidegate_ledger (revision, id, entry) SELECT $1, $2, $3 FROM head \
    WHERE revision = $1 - 1 AND ($4 = '' OR id = $4) ON CONFLICT DO NOTHING RETURNING revision) \
    SELECT pg_notify('tidegate_ledger', revision::text) FROM added";

/// The row of a revision, and those after it.
const FOLLOW: &str = "SELECT revision, id, entry FROM tidegate_ledger WHERE revision >= $1 \
    ORDER BY revision LIMIT $2";

/// Keeps the entries in a table of `PostgreSQL`.
pub struct PostgresStore {
    database: Database,
    tls: Option<tls::Client>,
    resolver: Resolver,
    /// The connection for appending, and for reading without waiting.
    writer: tokio::sync::Mutex<Option<Session>>,
    /// The connection for waiting.
    listener: tokio::sync::Mutex<Option<Session>>,
    /// The revision and id of the last row that this gate read or wrote.
    last: Mutex<Option<(u64, String)>>,
}

/// Row 0.
#[derive(Deserialize)]
struct Header {
    format: i64,
}

impl PostgresStore {
    /// A store that connects when it is first used.
    ///
    /// # Errors
    ///
    /// The root certificates cannot be used.
    pub fn new(database: Database, dial: &Dial) -> Result<Self, StoreError> {
        let tls = tls::Client::of_database(&database);
        let tls = tls.map_err(|finding| StoreError::Unavailable(finding.message))?;
        Ok(Self {
            database,
            tls,
            resolver: Resolver::new(dial),
            writer: tokio::sync::Mutex::default(),
            listener: tokio::sync::Mutex::default(),
            last: Mutex::default(),
        })
    }

    /// Takes the connection out of a slot, or opens one. The caller puts the connection back after a
    /// success; a failed or cancelled statement drops it.
    async fn session(&self, slot: &mut Option<Session>) -> Result<Session, StoreError> {
        if let Some(mut session) = slot.take()
            && session.is_open().await
        {
            return Ok(session);
        }
        let connected = timeout(CONNECT_TIMEOUT, self.connect()).await;
        connected.unwrap_or_else(|_| {
            let why = format!("the database does not answer within {CONNECT_TIMEOUT:?}");
            Err(StoreError::Unavailable(why))
        })
    }

    async fn connect(&self) -> Result<Session, StoreError> {
        let session = Session::connect(&self.database, self.tls.as_ref(), &self.resolver);
        let session = session.await;
        let mut session = session.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        session
            .run(async |client| client.batch_execute(SET).await)
            .await
            .map_err(|error| unavailable(&error))?;
        let table = session.run(async |client| table(client).await).await;
        format_of(&table.map_err(|error| unavailable(&error))?)?;
        Ok(session)
    }

    async fn append(&self, entry: &Entry) -> Result<(), StoreError> {
        let text = serde_json::to_string(entry).map_err(|error| {
            StoreError::Unavailable(format!("the entry cannot be written: {error}"))
        })?;
        let (revision, id) = (number(entry.revision)?, entry.id.to_string());
        let before = self.id_of(entry.revision - 1).unwrap_or_default();
        let mut slot = self.writer.lock().await;
        let mut session = self.session(&mut slot).await?;
        let written = session.run(async |client| {
            let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
                (&revision, Type::INT8),
                (&id, Type::TEXT),
                (&text, Type::TEXT),
                (&before, Type::TEXT),
            ];
            client.execute_typed(APPEND, &values).await
        });
        let written = timeout(STATEMENT_TIMEOUT, written).await;
        let written = written
            .map_err(|_| StoreError::Unknown(format!("no answer within {STATEMENT_TIMEOUT:?}")))?;
        let count = written.map_err(|error| failed(&error))?;
        *slot = Some(session);
        if count == 0 {
            return Err(StoreError::Conflict);
        }
        self.note(entry.revision, id);
        Ok(())
    }

    /// The entries after a revision, where there are any.
    async fn after(&self, session: &mut Session, revision: u64) -> Result<Vec<Entry>, StoreError> {
        let (from, most) = (number(revision)?, number(MAX_BATCH as u64 + 1)?);
        let rows = session.run(async |client| {
            let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
                [(&from, Type::INT8), (&most, Type::INT8)];
            client.query_typed(FOLLOW, &values).await
        });
        let rows = timeout(STATEMENT_TIMEOUT, rows).await.map_err(|_| {
            StoreError::Unavailable(format!("no answer within {STATEMENT_TIMEOUT:?}"))
        })?;
        let rows = rows.map_err(|error| unavailable(&error))?;
        let rows: Result<Vec<Stored>, StoreError> = rows.iter().map(Stored::of).collect();
        let rows = rows?;
        let Some((before, new)) = rows.split_first() else {
            return Err(other_history(revision));
        };
        let is_same = self.id_of(revision).is_none_or(|id| id == before.id);
        if before.revision != from || !is_same {
            return Err(other_history(revision));
        }
        let entries: Result<Vec<Entry>, StoreError> = new.iter().map(Stored::entry).collect();
        let entries = entries?;
        if let Some(last) = entries.last() {
            self.note(last.revision, last.id.to_string());
        }
        Ok(entries)
    }

    async fn follow(&self, after: u64, wait: Duration) -> Result<Vec<Entry>, StoreError> {
        let slot = if wait.is_zero() {
            &self.writer
        } else {
            &self.listener
        };
        let mut slot = slot.lock().await;
        let mut session = self.session(&mut slot).await?;
        if !wait.is_zero() {
            listen(&mut session).await?;
        }
        let mut left = wait;
        loop {
            let entries = self.after(&mut session, after).await?;
            if !entries.is_empty() || left.is_zero() {
                *slot = Some(session);
                return Ok(entries);
            }
            let pause = left.min(POLL_INTERVAL);
            match timeout(pause, session.told()).await {
                Ok(told) => told.map_err(|error| unavailable(&error))?,
                Err(_) => left = left.saturating_sub(pause),
            }
        }
    }

    /// Remembers the last row.
    fn note(&self, revision: u64, id: String) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(known, _)| *known <= revision) {
            *last = Some((revision, id));
        }
    }

    /// The id of a row, if that row is the last known one.
    fn id_of(&self, revision: u64) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref().filter(|(known, _)| *known == revision);
        last.map(|(_, id)| id.clone())
    }
}

impl Store for PostgresStore {
    fn append<'a>(&'a self, entry: &'a Entry) -> Answer<'a, ()> {
        Box::pin(self.append(entry))
    }

    fn follow(&self, after: u64, wait: Duration) -> Answer<'_, Vec<Entry>> {
        Box::pin(self.follow(after, wait))
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// Subscribes a connection to notifications. The writer is not subscribed: it never reads them, and
/// they would fill its socket.
async fn listen(session: &mut Session) -> Result<(), StoreError> {
    let listen = session.run(async |client| client.batch_execute(LISTEN).await);
    let listen = timeout(STATEMENT_TIMEOUT, listen)
        .await
        .map_err(|_| StoreError::Unavailable(format!("no answer within {STATEMENT_TIMEOUT:?}")))?;
    listen.map_err(|error| unavailable(&error))
}

/// A row.
struct Stored {
    revision: i64,
    id: String,
    entry: String,
}

impl Stored {
    fn of(row: &Row) -> Result<Self, StoreError> {
        let damaged = |error: Error| StoreError::Damaged(said(&error));
        Ok(Self {
            revision: row.try_get(0).map_err(damaged)?,
            id: row.try_get(1).map_err(damaged)?,
            entry: row.try_get(2).map_err(damaged)?,
        })
    }
}

impl Stored {
    fn entry(&self) -> Result<Entry, StoreError> {
        let entry = read(self.revision, &self.entry)?;
        if entry.id.to_string() != self.id {
            let why = format!("row {} has another id than its entry", self.revision);
            return Err(StoreError::Damaged(why));
        }
        Ok(entry)
    }
}

/// Returns row 0 of the table; creates the table if there is none.
async fn table(client: &Client) -> Result<Vec<Row>, Error> {
    let exists = client.query_typed(EXISTS, &[]).await?;
    let exists = exists.first().map(|row| row.try_get::<_, bool>(0));
    if exists.transpose()? != Some(true) {
        client.batch_execute(MAKE).await?;
    }
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&0_i64, Type::INT8), (&1_i64, Type::INT8)];
    client.query_typed(FOLLOW, &values).await
}

fn format_of(rows: &[Row]) -> Result<(), StoreError> {
    let damaged = || StoreError::Damaged("row 0 of `tidegate_ledger` has no format".into());
    let header = Stored::of(rows.first().ok_or_else(damaged)?)?;
    let header: Header = match header.id.as_str() {
        HEADER if header.revision == 0 => {
            serde_json::from_str(&header.entry).map_err(|_| damaged())?
        }
        _ => return Err(damaged()),
    };
    if header.format > FORMAT {
        return Err(StoreError::Newer {
            found: header.format,
            known: FORMAT,
        });
    }
    Ok(())
}

/// The error if the database has other rows than this gate read: a backup was restored, or a standby
/// without the last entries took over.
fn other_history(revision: u64) -> StoreError {
    StoreError::Damaged(format!(
        "the database no longer has entry {revision} as this gate read it: a backup was restored, or \
         a standby without the last entries took over; restart the gate to read it anew"
    ))
}

/// The error of a failed statement that reads.
fn unavailable(error: &Error) -> StoreError {
    StoreError::Unavailable(said(error))
}

/// The error of a failed statement that writes. If the connection was lost or the server ended it, the
/// entry may be in the table.
fn failed(error: &Error) -> StoreError {
    let Some(refused) = error.as_db_error() else {
        return StoreError::Unknown(said(error));
    };
    let is_over = matches!(
        refused.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic) | None
    );
    match *refused.code() {
        SqlState::UNIQUE_VIOLATION => StoreError::Conflict,
        _ if is_over => StoreError::Unknown(said(error)),
        _ => StoreError::Unavailable(said(error)),
    }
}
