//! The store against a server that each test starts, by TLS and SCRAM.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::config::{self, LedgerStore};
use crate::ledger::tests::{clock, entry, granted, keeps_the_contract, settled};
use crate::ledger::{Ledger, LedgerError};

#[path = "../../tests/it/kit/postgres.rs"]
mod server;

use server::{PASSWORD, Postgres};

/// A store as a configuration names it.
fn store(folder: &Path, url: &str, roots: &Path, password: &str) -> PostgresStore {
    let file = folder.join("ledger.password");
    std::fs::write(&file, password).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[ledger]\nurl = {url:?}\npassword-file = {file:?}\nroots = [{roots:?}]\n\
         [record]\nfile = \"decisions.jsonl\"\n"
    );
    let (config, findings) = config::load_text(&folder.join("tidegate.toml"), &text);
    let ledger = config.unwrap_or_else(|| panic!("{findings:?}")).ledger;
    match ledger.unwrap().store {
        LedgerStore::Database(database) => PostgresStore::new(database, &Dial::default()).unwrap(),
        LedgerStore::File(_) => panic!("a database"),
    }
}

struct Bench {
    server: Postgres,
    folder: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        Self {
            server: Postgres::start(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> PostgresStore {
        self.store_as(&self.server.url(), PASSWORD)
    }

    fn store_as(&self, url: &str, password: &str) -> PostgresStore {
        let roots = self.server.certificate();
        store(self.folder.path(), url, &roots, password)
    }
}

fn why<T: fmt::Debug>(failed: Result<T, StoreError>) -> String {
    match failed {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    let bench = Bench::start();
    keeps_the_contract(Arc::new(bench.store())).await;

    // A role that may read and insert is enough, and it can change nothing that was written.
    bench
        .server
        .sql("GRANT SELECT, INSERT ON tidegate_ledger TO narrow");
    let url = bench.server.url().replace("gate@", "narrow@");
    let narrow = bench.store_as(&url, PASSWORD);
    let known = narrow.follow(0, Duration::ZERO).await.unwrap();
    let next = known.len() as u64 + 1;
    narrow
        .append(&entry(next, granted("narrow")))
        .await
        .unwrap();

    // By the Unix socket, with SCRAM and without TLS.
    let (folder, port) = (bench.server.folder().display(), bench.server.port());
    let socket = format!("postgres://gate@/fleet?host={folder}&port={port}");
    let local = bench.store_as(&socket, PASSWORD);
    let read = local.follow(next - 1, Duration::ZERO).await.unwrap();
    assert_eq!(read.len(), 1);

    let wrong = bench.store_as(&bench.server.url(), "guess");
    let refused = why(wrong.follow(0, Duration::ZERO).await);
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
    assert!(!refused.contains("guess"), "{refused}");

    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let roots = bench.folder.path().join("other.pem");
    std::fs::write(&roots, other.cert.pem()).unwrap();
    let stranger = store(bench.folder.path(), &bench.server.url(), &roots, PASSWORD);
    let refused = why(stranger.follow(0, Duration::ZERO).await);
    assert!(refused.contains("certificate"), "{refused}");

    bench
        .server
        .sql("UPDATE tidegate_ledger SET entry = '{\"format\":4}' WHERE revision = 0");
    let newer = bench.store().follow(0, Duration::ZERO).await;
    assert_eq!(newer, Err(StoreError::Newer { found: 4, known: 3 }));
}

/// As after a backup was restored, or a standby without the last entries took over.
#[tokio::test]
async fn a_database_with_another_history_is_refused() {
    let bench = Bench::start();
    let store = bench.store();
    for revision in 1..=2 {
        let change = granted(&format!("{revision}"));
        store.append(&entry(revision, change)).await.unwrap();
    }
    let remove = "DELETE FROM tidegate_ledger WHERE revision = 2";
    bench.server.sql(remove);
    let fewer = store.follow(2, Duration::ZERO).await;
    assert!(matches!(fewer, Err(StoreError::Damaged(_))), "{fewer:?}");
    let next = store.append(&entry(3, granted("3"))).await;
    assert_eq!(next, Err(StoreError::Conflict));

    let other = bench.store();
    assert_eq!(other.follow(0, Duration::ZERO).await.unwrap().len(), 1);
    other.append(&entry(2, granted("another"))).await.unwrap();
    let next = store.append(&entry(3, granted("3"))).await;
    assert_eq!(next, Err(StoreError::Conflict));
    let changed = store.follow(2, Duration::ZERO).await;
    assert!(
        matches!(changed, Err(StoreError::Damaged(_))),
        "{changed:?}"
    );
    // A row that is missing in between is noticed by a gate that starts anew.
    bench.server.sql(
        "INSERT INTO tidegate_ledger (revision, id, entry) SELECT 4, id, entry \
         FROM tidegate_ledger WHERE revision = 1",
    );
    let gap = Ledger::new(Arc::new(bench.store()), clock(), "gap");
    let gap = gap.catch_up().await;
    assert!(matches!(gap, Err(StoreError::Damaged(_))), "{gap:?}");
    bench
        .server
        .sql("DELETE FROM tidegate_ledger WHERE revision = 4");
    // A gate that starts anew reads what there is.
    assert_eq!(
        bench.store().follow(0, Duration::ZERO).await.unwrap().len(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_no_entry_that_was_answered() {
    let mut bench = Bench::start();
    let mut gates = tokio::task::JoinSet::new();
    let (told, mut appended) = tokio::sync::mpsc::channel(1_000);
    for gate in 0..3 {
        let ledger = Ledger::new(Arc::new(bench.store()), clock(), format!("gate-{gate}"));
        let told = told.clone();
        gates.spawn(async move {
            let actor = ledger.actor("uid:0", "control");
            let mut answered = Vec::new();
            loop {
                let request = Uuid::now_v7();
                match ledger.append(&actor, |_| Ok(settled(request))).await {
                    Ok(_) => answered.push(request),
                    Err(LedgerError::Store(
                        StoreError::Unavailable(_) | StoreError::Unknown(_),
                    )) => {
                        return answered;
                    }
                    Err(other) => panic!("{other}"),
                }
                let _ = told.send(()).await;
            }
        });
    }
    for _ in 0..30 {
        appended.recv().await;
    }
    bench.server.kill();
    appended.close();
    let mut answered = Vec::new();
    while let Some(of_gate) = gates.join_next().await {
        answered.extend(of_gate.unwrap());
    }
    bench.server.run();
    let ledger = Ledger::new(Arc::new(bench.store()), clock(), "next");
    ledger.catch_up().await.unwrap();
    let state = ledger.state();
    assert!(
        answered
            .iter()
            .all(|request| state.settled.contains_key(request))
    );
    // Of each gate, one more may stand whose answer was lost.
    let lost = state.settled.len() - answered.len();
    assert!(lost <= 3, "{lost}");
}

/// A role that may insert wrote a row that no gate would write.
#[tokio::test]
async fn a_row_that_is_too_long_does_not_fill_the_memory() {
    let bench = Bench::start();
    let store = bench.store();
    store.append(&entry(1, granted("1"))).await.unwrap();
    bench.server.sql(
        "INSERT INTO tidegate_ledger (revision, id, entry) \
         VALUES (2, 'x', repeat('x', 70 * 1024 * 1024))",
    );
    let read = store.follow(1, Duration::ZERO).await;
    assert!(why(read).contains("longer than"));
}

/// A server at a Unix socket that answers each client with these bytes again and again, or, if there
/// are none, not at all.
#[expect(clippy::disallowed_methods, reason = "a test's server is no flow")]
fn answering(folder: &Path, bytes: &'static [u8]) {
    use tokio::io::AsyncWriteExt as _;
    let socket = tokio::net::UnixListener::bind(folder.join(".s.PGSQL.5432")).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = socket.accept().await {
            tokio::spawn(async move {
                while !bytes.is_empty() && client.write_all(bytes).await.is_ok() {}
                std::future::pending::<()>().await;
                drop(client);
            });
        }
    });
}

#[tokio::test]
async fn a_server_that_answers_garbage_or_nothing_is_unavailable_in_time() {
    let long_notice = b"N\x7f\xff\xff\xff";
    for bytes in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        &[0; 4096],
        long_notice,
        b"",
    ] {
        let folder = tempfile::tempdir().unwrap();
        answering(folder.path(), bytes);
        let roots = folder.path().join("roots.pem");
        let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        std::fs::write(&roots, other.cert.pem()).unwrap();
        let url = format!("postgres://gate@/fleet?host={}", folder.path().display());
        let store = store(folder.path(), &url, &roots, PASSWORD);
        let read = store.follow(0, Duration::ZERO).await;
        assert!(!why(read).is_empty());
        let written = store.append(&entry(1, granted("1"))).await;
        assert!(!why(written).is_empty());
    }
}
