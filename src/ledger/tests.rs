//! One test suite for all stores, and tests of the ledger over them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::*;
use crate::clock::Clock;

const START: i64 = 1_790_000_000;
const WAIT: Duration = Duration::from_secs(10);

pub(crate) fn clock() -> Clock {
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

pub(crate) fn granted(id: &str) -> Change {
    Change::ExceptionGranted {
        grant: Box::new(grant(id)),
    }
}

pub(crate) fn settled(request: Uuid) -> Change {
    let review = Review {
        request,
        result: ReviewResult::Allowed,
        caller: ReviewedCaller::Session("s-1".into()),
        host: "artifacts.example.net".into(),
        port: 443,
        operation: "connect".into(),
        tier: "standard".into(),
        rule: "artifacts".into(),
        category: "unknown".into(),
        policy_digest: "sha256:1".into(),
        reviewers: vec!["uid:0".into()],
        until: Timestamp::from_second(START + 3_600).unwrap(),
        scope: Some("once".into()),
        note: None,
    };
    Change::RequestSettled {
        review: Box::new(review),
    }
}

pub(crate) fn entry(revision: u64, change: Change) -> Entry {
    Entry {
        revision,
        id: Uuid::now_v7(),
        at: Timestamp::from_second(START).unwrap(),
        actor: Actor::default(),
        change,
    }
}

/// Checks the contract of every store. The store is empty.
pub(crate) async fn keeps_the_contract(store: Arc<dyn Store>) {
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

/// Eight gates settle twenty requests concurrently: each request is settled once.
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
                    let settle = |_: &State| Ok(settled(request));
                    match ledger.append(&actor, settle).await {
                        Ok(_) => won.push(request),
                        Err(LedgerError::Refused(Refused::SettledBefore { .. })) => {}
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

/// The vote of a reviewer to allow a request of this session, until so many seconds after the start.
fn voted(reviewer: &str, session: &str, until: i64) -> Change {
    let Change::RequestSettled { mut review } = settled(Uuid::now_v7()) else {
        unreachable!("a settlement")
    };
    review.caller = ReviewedCaller::Session(session.into());
    review.until = Timestamp::from_second(START + until).unwrap();
    review.reviewers = vec![reviewer.into()];
    let voter = Voter {
        name: reviewer.into(),
        ..Voter::default()
    };
    Change::RequestVoted {
        review,
        voter: Box::new(voter),
    }
}

#[tokio::test]
async fn a_vote_stands_until_what_it_is_about_is_settled_or_its_time_is_over() {
    let clock = clock();
    let ledger = Ledger::new(Arc::new(MemoryStore::default()), clock.clone(), "one");
    let actor = ledger.actor("uid:0", "control");
    let add = async |change: Change| ledger.append(&actor, |_| Ok(change.clone())).await;
    let votes = || {
        let state = ledger.state();
        let names = state.votes.iter().map(|it| it.voter.name.clone());
        names.collect::<Vec<_>>()
    };
    for (reviewer, session) in [
        ("ana", "s-1"),
        ("ben", "s-1"),
        ("ana", "s-1"),
        ("ana", "s-2"),
    ] {
        add(voted(reviewer, session, 60)).await.unwrap();
    }
    assert_eq!(votes(), ["ben", "ana", "ana"], "one of each reviewer");
    let request = Uuid::now_v7();
    add(settled(request)).await.unwrap();
    assert_eq!(votes(), ["ana"], "that of the other session");
    clock.advance(SignedDuration::from_secs(61));
    add(voted("ben", "s-1", 120)).await.unwrap();
    assert_eq!(votes(), ["ben"]);
    // A request that is settled takes no vote.
    let mut late = voted("ana", "s-1", 120);
    if let Change::RequestVoted { review, .. } = &mut late {
        review.request = request;
    }
    let late = add(late).await;
    assert!(matches!(
        late,
        Err(LedgerError::Refused(Refused::SettledBefore { .. }))
    ));
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
    newer.execute_batch("PRAGMA user_version = 4").unwrap();
    drop(newer);
    let opened = SqliteStore::open(&whole).map(drop);
    let expected = StoreError::Newer { found: 4, known: 3 };
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

#[tokio::test]
async fn an_approval_is_revoked_once_and_used_once() {
    let ledger = Ledger::new(Arc::new(MemoryStore::default()), clock(), "one");
    let actor = ledger.actor("uid:0", "control");
    let (request, flow) = (Uuid::now_v7(), Uuid::now_v7());
    let used = || Change::ApprovalUsed { request, flow };
    let revoked = || Change::ApprovalRevoked {
        request,
        note: None,
    };
    let early = ledger.append(&actor, |_| Ok(used())).await;
    assert_eq!(early, Err(Refused::NoApproval(request).into()));
    ledger
        .append(&actor, |_| Ok(settled(request)))
        .await
        .unwrap();
    ledger.append(&actor, |_| Ok(used())).await.unwrap();
    let again = ledger.append(&actor, |_| Ok(used())).await;
    assert_eq!(again, Err(Refused::UsedBefore(request).into()));
    ledger.append(&actor, |_| Ok(revoked())).await.unwrap();
    for change in [used(), revoked()] {
        let late = ledger.append(&actor, |_| Ok(change.clone())).await;
        assert_eq!(late, Err(Refused::NoApproval(request).into()));
    }
    let state = ledger.state();
    let settled = &state.settled[&request];
    assert_eq!(settled.used_by, Some(flow));
    assert_eq!(settled.revoked.as_ref().unwrap().by, actor);
}

/// The store of a gate that is killed while it appends: before the entry is written, or after.
#[derive(Debug)]
struct Killing {
    store: Arc<dyn Store>,
    before: bool,
    is_dead: AtomicBool,
}

impl Store for Killing {
    fn append<'a>(&'a self, entry: &'a Entry) -> Answer<'a, ()> {
        Box::pin(async move {
            let is_dead = self.is_dead.swap(true, Ordering::Relaxed);
            if !self.before && !is_dead {
                self.store.append(entry).await?;
            }
            Err(StoreError::Unknown("killed".into()))
        })
    }

    fn follow(&self, after: u64, wait: Duration) -> Answer<'_, Vec<Entry>> {
        if self.is_dead.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        self.store.follow(after, wait)
    }
}

/// Kills a gate while it settles a request, before or after the entry is written. The next gate
/// reads the ledger and settles the request again: one of the two entries is stored. Returns how
/// often the first one was.
async fn kill_while_settling(store: &Arc<dyn Store>, times: usize) -> usize {
    let mut firsts = 0;
    for round in 0..times {
        let request = Uuid::now_v7();
        let gate = |store: Arc<dyn Store>, name: &str| {
            Ledger::new(store, clock(), format!("{name}-{round}"))
        };
        let settle = async |ledger: &Ledger| {
            let actor = ledger.actor("uid:0", "control");
            ledger.append(&actor, |_| Ok(settled(request))).await
        };
        let killing = Killing {
            store: store.clone(),
            before: round % 2 == 0,
            is_dead: AtomicBool::new(false),
        };
        let dying = gate(Arc::new(killing), "first");
        dying.catch_up().await.unwrap();
        let lost = settle(&dying).await;
        let lost = matches!(lost, Err(LedgerError::Store(StoreError::Unknown(_))));
        assert!(lost);
        drop(dying);

        let next = gate(store.clone(), "next");
        next.catch_up().await.unwrap();
        let again = settle(&next).await;
        let state = next.state();
        let stands = &state.settled[&request].by.instance;
        let count = state.settled.len();
        assert_eq!(count, round + 1, "each request is settled once");
        match again {
            Ok(_) => assert_eq!(*stands, format!("next-{round}")),
            Err(LedgerError::Refused(Refused::SettledBefore { .. })) => {
                assert_eq!(*stands, format!("first-{round}"));
                firsts += 1;
            }
            Err(other) => panic!("{other}"),
        }
        assert_eq!(state.revision, round as u64 + 1);
    }
    firsts
}

#[tokio::test]
async fn a_gate_that_is_killed_while_it_settles_leaves_one_outcome_500_times() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    assert_eq!(kill_while_settling(&store, 500).await, 250);
}

/// Each connection to the file is dropped at the kill.
#[tokio::test]
async fn a_gate_that_is_killed_while_it_settles_leaves_one_outcome_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    assert_eq!(kill_while_settling(&store, 20).await, 10);
}
