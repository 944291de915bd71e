//! One suite for all stores, and the ledger over them.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::*;
use crate::clock::Clock;

const START: i64 = 1_790_000_000;
const WAIT: Duration = Duration::from_secs(10);

fn clock() -> Clock {
    Clock::by_hand(Timestamp::from_second(START).unwrap())
}

fn grant(id: &str) -> Grant {
    Grant {
        id: id.into(),
        tool: None,
        reason: "migration".into(),
        reviewer: vec!["uid:0".into()],
        control: None,
        expires: Timestamp::from_second(START + 3_600).unwrap(),
        policy_digest: String::new(),
        from: From::default(),
        to: To {
            hosts: vec!["artifacts.example.net".into()],
            ..To::default()
        },
        does: Does::default(),
        limit: Limit::default(),
    }
}

fn granted(id: &str) -> Change {
    Change::ExceptionGranted {
        grant: Box::new(grant(id)),
    }
}

fn entry(revision: u64, change: Change) -> Entry {
    Entry {
        revision,
        id: Uuid::now_v7(),
        at: Timestamp::from_second(START).unwrap(),
        actor: Actor::default(),
        change,
    }
}

/// The contract of every store. The store is empty.
pub(super) async fn keeps_the_contract(store: Arc<dyn Store>) {
    assert_eq!(store.follow(0, Duration::ZERO).await, Ok(Vec::new()));
    let first = entry(1, granted("first"));
    store.append(&first).await.unwrap();
    let gap = entry(3, granted("gap"));
    assert_eq!(store.append(&gap).await, Err(StoreError::Conflict));
    let rival = entry(1, granted("rival"));
    assert_eq!(store.append(&rival).await, Err(StoreError::Conflict));
    let waiting = {
        let store = store.clone();
        async move { store.follow(1, WAIT).await }
    };
    let second = entry(2, granted("second"));
    let (read, written) = tokio::join!(waiting, store.append(&second));
    written.unwrap();
    assert_eq!(read, Ok(vec![second.clone()]));
    let all = store.follow(0, Duration::ZERO).await;
    assert_eq!(all, Ok(vec![first, second]));
    settles_each_request_once(&store).await;
}

/// Eight gates settle twenty requests at once: of each request one wins.
async fn settles_each_request_once(store: &Arc<dyn Store>) {
    let requests: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
    let gates: Vec<_> = (0..8)
        .map(|gate| {
            let (store, requests) = (store.clone(), requests.clone());
            async move {
                let ledger = Ledger::new(store, clock(), format!("gate-{gate}"));
                let actor = ledger.actor("uid:0", "control");
                let mut won = Vec::new();
                for request in requests {
                    let settle = |_: &State| {
                        Ok(Change::RequestSettled {
                            request,
                            settlement: Settlement::Allowed,
                            reason: String::new(),
                            grant: Some(Box::new(grant(&format!("for-{request}")))),
                        })
                    };
                    match ledger.append(&actor, settle).await {
                        Ok(_) => won.push(request),
                        // The id of the exception is found first.
                        Err(LedgerError::Refused(
                            Refused::SettledBefore { .. } | Refused::SameId(_),
                        )) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                ledger.catch_up().await.unwrap();
                (won, ledger.state())
            }
        })
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for gate in gates {
        tasks.spawn(gate);
    }
    let mut won = Vec::new();
    let mut states = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (mine, state) = done.unwrap();
        won.extend(mine);
        states.push(state);
    }
    won.sort_unstable();
    assert_eq!(won, requests);
    let last = states.iter().max_by_key(|state| state.revision).unwrap();
    assert_eq!(last.settled.len(), 20);
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    keeps_the_contract(Arc::new(MemoryStore::default())).await;
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("ledger.db")).unwrap();
    keeps_the_contract(Arc::new(store)).await;
}

#[tokio::test]
async fn the_state_is_what_the_entries_say() {
    let clock = clock();
    let ledger = Ledger::new(Arc::new(MemoryStore::default()), clock.clone(), "one");
    let actor = ledger.actor("uid:0", "control");
    ledger.append(&actor, |_| Ok(granted("a"))).await.unwrap();
    let twice = ledger.append(&actor, |_| Ok(granted("a"))).await;
    assert_eq!(
        twice,
        Err(LedgerError::Refused(Refused::SameId("a".into())))
    );
    assert!(ledger.state().granted["a"].holds(clock.now()));
    clock.advance(SignedDuration::from_secs(3_600));
    assert!(!ledger.state().granted["a"].holds(clock.now()));
    let revoke = || Change::ExceptionRevoked {
        id: "a".into(),
        reason: "done".into(),
    };
    ledger.append(&actor, |_| Ok(revoke())).await.unwrap();
    let again = ledger.append(&actor, |_| Ok(revoke())).await;
    assert!(matches!(
        again,
        Err(LedgerError::Refused(Refused::RevokedBefore { .. }))
    ));
    assert_eq!(ledger.state().revision, 2);
}

#[tokio::test]
async fn what_sqlite_kept_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let ledger = Ledger::new(
        Arc::new(SqliteStore::open(&path).unwrap()),
        clock(),
        "first",
    );
    let actor = ledger.actor("uid:0", "control");
    ledger.append(&actor, |_| Ok(granted("a"))).await.unwrap();
    drop(ledger);
    let again = Ledger::new(Arc::new(SqliteStore::open(&path).unwrap()), clock(), "next");
    again.catch_up().await.unwrap();
    assert_eq!(again.state().granted["a"].grant, grant("a"));
    assert_eq!(again.state().granted["a"].by.instance, "first");
}

#[tokio::test]
async fn a_file_that_is_cut_foreign_newer_or_replaced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let store = SqliteStore::open(&path).unwrap();
    for revision in 1..=50 {
        let change = granted(&format!("{revision}-{}", "x".repeat(500)));
        store.append(&entry(revision, change)).await.unwrap();
    }
    drop(store);
    let whole = folder.path().join("whole.db");
    std::fs::copy(&path, &whole).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let moved = folder.path().join("moved.db");
    std::fs::rename(&path, &moved).unwrap();
    let gone = store.append(&entry(51, granted("gone"))).await;
    assert!(matches!(gone, Err(StoreError::Replaced(_))), "{gone:?}");

    // A file without its last pages.
    let size = std::fs::metadata(&whole).unwrap().len();
    let cut = folder.path().join("cut.db");
    std::fs::copy(&whole, &cut).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&cut).unwrap();
    file.set_len(size / 2).unwrap();
    let opened = SqliteStore::open(&cut).map(drop);
    assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");

    let empty = folder.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    let opened = SqliteStore::open(&empty).map(drop);
    assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");

    let text = folder.path().join("text.db");
    std::fs::write(
        &text,
        "this is a text, and no database of SQLite\n".repeat(40),
    )
    .unwrap();
    let opened = SqliteStore::open(&text).map(drop);
    assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");

    let newer = rusqlite::Connection::open(&whole).unwrap();
    newer.execute_batch("PRAGMA user_version = 2").unwrap();
    drop(newer);
    let opened = SqliteStore::open(&whole).map(drop);
    let expected = StoreError::Newer { found: 2, known: 1 };
    assert_eq!(opened, Err(expected));

    let other = folder.path().join("other.db");
    let foreign = rusqlite::Connection::open(&other).unwrap();
    foreign.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(foreign);
    let opened = SqliteStore::open(&other).map(drop);
    assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");
}

#[tokio::test]
async fn a_file_that_another_process_locks_is_unavailable_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let store = SqliteStore::open(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked = store.append(&entry(1, granted("a"))).await;
    let Err(StoreError::Unavailable(why)) = locked else {
        panic!("{locked:?}");
    };
    assert!(why.contains("locked"), "{why}");
    other.execute_batch("ROLLBACK").unwrap();
    store.append(&entry(1, granted("a"))).await.unwrap();
}

#[tokio::test]
async fn a_file_system_without_room_is_unavailable_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let store = SqliteStore::open(&path).unwrap();
    store.limit_pages(4);
    let mut revision = 1;
    let why = loop {
        let change = granted(&format!("{revision}-{}", "x".repeat(2_000)));
        match store.append(&entry(revision, change)).await {
            Ok(()) => revision += 1,
            Err(error) => break error,
        }
    };
    assert!(why.to_string().contains("full"), "{why}");
    let kept = store.follow(0, Duration::ZERO).await.unwrap();
    assert_eq!(kept.len() as u64, revision - 1);
}

#[test]
fn a_grant_is_the_text_of_an_exception_in_a_file() {
    let mut grant = grant("EXC-1");
    grant.from.groups = vec!["platform".into()];
    grant.limit.bytes_out = Some(1_000);
    let text = toml::to_string(&grant).unwrap();
    assert!(text.contains("[from]\ngroups = [\"platform\"]"), "{text}");
    let json = serde_json::to_string(&grant).unwrap();
    assert_eq!(serde_json::from_str::<Grant>(&json).unwrap(), grant);
}
