//! Two gates with one ledger in `PostgreSQL`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::approvals::{HOST, connect, id_of};
use crate::approvals_ledger::{Key, origin, request, settle};
use crate::exceptions::{granted, listening, refused, status, within};
use crate::kit::postgres::{PASSWORD, Postgres};
use crate::kit::{
    Client, DEADLINE, Gate, Hello, Line, Lines as _, Origin, Session, allow, loopback, until,
};

/// `[ledger]` in a database, with more lines.
fn gate(database: &Postgres, policy: &str, lines: &str) -> Gate {
    let certificate = std::fs::read_to_string(database.certificate()).expect("a certificate");
    let ledger = format!(
        "\n[ledger]\nurl = \"{}\"\npassword-file = \"password.key\"\nroots = [\"db.pem\"]\n{lines}\n",
        database.url()
    );
    Gate::plan(&format!("{policy}{ledger}"))
        .file("password.key", &format!("{PASSWORD}\n"))
        .file("db.pem", &certificate)
        .start()
}

/// Two gates that share sessions, policy and ledger.
struct Fleet {
    one: Gate,
    two: Gate,
    key: Key,
    origin: Origin,
    database: Postgres,
}

impl Fleet {
    /// The second gate has more lines in `[ledger]`.
    fn start(lines: &str) -> Self {
        let (database, origin, key) = (Postgres::start(), origin(), Key::new());
        let policy = key.policy(origin.port(), "");
        Self {
            one: gate(&database, &policy, ""),
            two: gate(&database, &policy, lines),
            key,
            origin,
            database,
        }
    }

    fn target(&self) -> String {
        format!("{HOST}:{}", self.origin.port())
    }

    fn passes(&self, gate: &Gate, session: &Session) -> bool {
        connect(gate, session, &self.target()).status() == 200
    }

    /// Asks at a gate and allows it there.
    fn allow(&self, gate: &Gate, session: &Session, scope: &str) -> String {
        let id = id_of(&connect(gate, session, &self.target()));
        let answer = settle(gate, &id, "allow", &json!({ "scope": scope }));
        assert_eq!(answer.status(), 200, "{answer:?}");
        id
    }
}

fn state(gate: &Gate, id: &str) -> Option<Value> {
    request(gate, id).map(|it| it["state"].clone())
}

#[test]
fn what_reviewers_decide_at_one_gate_counts_at_the_other() {
    let fleet = Fleet::start("");
    let (one, two) = (&fleet.one, &fleet.two);
    let session = fleet.key.session();
    let own = id_of(&connect(two, &session, &fleet.target()));
    let id = fleet.allow(one, &session, "1h");
    until("the approval counts at the other gate", || {
        fleet.passes(two, &session)
    });
    assert_eq!(state(two, &id), Some(json!("allowed")));
    assert_eq!(
        state(two, &own),
        Some(json!("allowed")),
        "the same was asked"
    );
    let settled = two.records().named("approval_settled");
    let exception = format!("approval-{id}");
    assert!(
        settled
            .iter()
            .all(|it| it.text("tidegate.exception.id") == exception)
    );
    assert_eq!(settled.len(), 2);

    assert_eq!(settle(two, &id, "revoke", &json!({})).status(), 200);
    until("the revocation counts at the first gate", || {
        !fleet.passes(one, &session)
    });
    assert_eq!(settle(one, &id, "revoke", &json!({})).status(), 409);

    // An approval for one flow lets one pass, at one gate.
    let session = fleet.key.session();
    let id = fleet.allow(one, &session, "once");
    until("the other gate has it", || state(two, &id).is_some());
    assert!(fleet.passes(two, &session));
    assert!(!fleet.passes(one, &session));
    assert!(!fleet.passes(two, &session));

    let session = fleet.key.session();
    let id = id_of(&connect(one, &session, &fleet.target()));
    assert_eq!(settle(one, &id, "deny", &json!({})).status(), 200);
    until("the other gate has the denial", || {
        let answer = connect(two, &session, &fleet.target());
        answer.json()["error"] == "approval_refused"
    });
}

#[test]
fn gates_go_on_without_the_database_for_as_long_as_they_may() {
    let mut fleet = Fleet::start("stale-after = \"1s\"");
    let session = fleet.key.session();
    let id = fleet.allow(&fleet.one, &session, "1h");
    until("both let it pass", || fleet.passes(&fleet.two, &session));

    fleet.database.kill();
    until("what was granted ends at the second gate", || {
        !fleet.passes(&fleet.two, &session)
    });
    assert!(fleet.passes(&fleet.one, &session), "an hour is not over");
    let other = fleet.key.session();
    let asked = id_of(&connect(&fleet.one, &other, &fleet.target()));
    let answer = settle(&fleet.one, &asked, "allow", &json!({ "scope": "1h" }));
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert!(!fleet.passes(&fleet.one, &other));
    // A gate that starts now grants nothing.
    fleet.two.crash_and_restart();
    assert!(fleet.two.said().contains("cannot read the ledger"));
    assert!(!fleet.passes(&fleet.two, &session));

    fleet.database.run();
    until("it holds again", || fleet.passes(&fleet.two, &session));
    until("the reviewer is heard", || {
        settle(&fleet.one, &asked, "allow", &json!({ "scope": "1h" })).status() != 503
    });
    until("both gates have it", || {
        fleet.passes(&fleet.one, &other) && fleet.passes(&fleet.two, &other)
    });
    // A gate that is killed loses nothing.
    fleet.one.crash_and_restart();
    assert!(fleet.passes(&fleet.one, &session));
    assert_eq!(state(&fleet.one, &id), Some(json!("allowed")));
}

/// The time from the answer to a reviewer at one gate until the other gate has the approval: the
/// median and the longest of as many rounds as `TIDEGATE_ROUNDS` says, for the benchmarks.
#[test]
fn an_approval_counts_at_the_other_gate_also_where_the_hint_is_lost() {
    let rounds = std::env::var("TIDEGATE_ROUNDS").ok();
    let rounds = rounds.and_then(|it| it.parse().ok()).unwrap_or(1);
    let fleet = Fleet::start("");
    measure(&fleet, "told by NOTIFY", rounds);
    // From now on NOTIFY tells nothing: this function is found before the server's.
    fleet.database.sql(
        "CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT'; \
         ALTER ROLE gate SET search_path = public, pg_catalog",
    );
    let mut fleet = fleet;
    fleet.one.crash_and_restart();
    measure(&fleet, "without NOTIFY", rounds);
}

fn measure(fleet: &Fleet, how: &str, rounds: usize) {
    let mut took = Vec::new();
    for _ in 0..rounds {
        let session = fleet.key.session();
        let id = fleet.allow(&fleet.one, &session, "1h");
        let answered = std::time::Instant::now();
        // Its record says so once the approval is in force. Calls of the API are limited.
        let has_it = || {
            let settled = fleet.two.records().named("approval_settled");
            let of_request = |it: &Line| it.text("tidegate.request.id") == id;
            settled.iter().any(of_request)
        };
        while !has_it() {
            assert!(
                answered.elapsed() < DEADLINE,
                "the other gate has no approval"
            );
        }
        took.push(answered.elapsed());
        assert!(fleet.passes(&fleet.two, &session));
    }
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    eprintln!("{how}: median {median:?}, longest {longest:?} of {rounds}");
}

/// Asks from four clients at once until a gate refuses. Returns how many requests passed.
fn spend(gate: &Gate, origin: &Origin, most: usize) -> usize {
    let passed = AtomicUsize::new(0);
    let ask = || {
        while passed.load(Ordering::Relaxed) < most {
            let answer = status(gate, origin);
            if answer.0 == 200 {
                passed.fetch_add(1, Ordering::Relaxed);
            } else {
                assert_eq!(answer, refused("exception_spent"));
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(ask);
        }
    });
    passed.into_inner()
}

#[test]
fn two_gates_keep_the_limits_of_an_exception_together() {
    let (database, origin, sink) = (Postgres::start(), Origin::echo(), listening());
    let denied =
        "\n[[rule]]\nid = \"no\"\nverdict = \"deny\"\nto.hosts = [\"files.example.net\"]\n";
    let bulk = sink.port();
    let policy = format!(
        "{}{}{denied}",
        loopback(origin.port()),
        allow("bulk", "files.example.net", bulk)
    );
    let mut gates = [gate(&database, &policy, ""), gate(&database, &policy, "")];
    let mut grant = granted(origin.port(), within(3600));
    grant["limit"] = json!({ "requests": 40 });
    let answer = gates[0].control("/v1/exceptions", None, &grant);
    assert_eq!(answer.status(), 201, "{answer:?}");
    until("the other gate has it", || {
        status(&gates[1], &origin).0 == 200
    });

    // The first gate is killed with a part of the limit reserved.
    let early = spend(&gates[0], &origin, 10);
    gates[0].crash_and_restart();
    let late: usize = thread::scope(|scope| {
        let spending = gates.each_ref().map(|gate| {
            let origin = &origin;
            scope.spawn(move || spend(gate, origin, usize::MAX))
        });
        let passed = spending.into_iter().map(|it| it.join().expect("clients"));
        passed.sum()
    });
    let passed = 1 + early + late;
    // What a gate reserves ahead is at most one and a half of an eighth.
    assert!((40 - 8..=40).contains(&passed), "{passed} of 40 passed");

    // Bytes: each open flow may have read up to 1 MiB when the limit is reached.
    let mut grant = granted(bulk, within(3600));
    grant["id"] = json!("EXC-3");
    grant["limit"] = json!({ "bytes-out": 2 << 20 });
    assert_eq!(
        gates[0].control("/v1/exceptions", None, &grant).status(),
        201
    );
    let target = format!("files.example.net:{bulk}");
    let is_open = |gate: &Gate| gate.client().connect(&target).status() == 200;
    until("both have it", || gates.iter().all(is_open));
    let tunnels = gates.each_ref().map(|gate| {
        let mut client = gate.client();
        client.tunnel(&target);
        client
    });
    thread::scope(|scope| {
        for tunnel in tunnels {
            scope.spawn(move || upload(tunnel));
        }
    });
    let out: u64 = gates.iter().map(bytes_out).sum();
    assert!(out <= (2 << 20) + (2 << 20), "{out} bytes went out");
}

/// Sends 4 MiB, or what passes of them before the gate closes the tunnel.
fn upload(mut tunnel: Client) {
    tunnel.send(Hello::naming("files.example.net").bytes());
    let block = vec![0; 64 * 1024];
    for _ in 0..64 {
        tunnel.send(&block);
    }
}

/// What tunnels that spent an exception sent, by the record.
fn bytes_out(gate: &Gate) -> u64 {
    let spent = gate.line("a tunnel that spent the limit", |line| {
        line["error.type"] == "exception_spent"
    });
    spent["tidegate.bytes.out"].as_u64().expect("a number")
}
