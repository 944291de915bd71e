//! Approvals with `[ledger]`: what reviewers decided outlives a gate that is killed.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::approvals::{HOST, approvals, authorization, connect, id_of, policy};
use crate::kit::{DEADLINE, Gate, Lines as _, Message, Origin, Session, Site, tidegate, until};

/// A key whose sessions every gate accepts that has it, also after a restart.
pub(crate) struct Key(TempDir);

impl Key {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("gate.key");
        tidegate(&[
            OsStr::new("session"),
            OsStr::new("keygen"),
            path.as_os_str(),
        ])
        .succeeded();
        Self(folder)
    }

    /// The policy of the tests of approvals, with sessions of this key and more lines.
    pub(crate) fn policy(&self, port: u16, lines: &str) -> String {
        policy(port, "").replace("local = \"trust\"", &self.line()) + lines
    }

    /// `keys` of `[identity.session]`.
    pub(crate) fn line(&self) -> String {
        let public = self.0.path().join("gate.key.pub");
        format!("keys = [{:?}]", public.display())
    }

    /// A session that no gate knows of before it comes.
    pub(crate) fn session(&self) -> Session {
        let path = self.0.path().join("gate.key");
        let words = [
            OsStr::new("session"),
            OsStr::new("start"),
            OsStr::new("--key"),
            path.as_os_str(),
            OsStr::new("--json"),
        ];
        let started = tidegate(&words).succeeded().stdout;
        let answer: Value = serde_json::from_str(&started).expect("JSON");
        let text = |name: &str| answer[name].as_str().expect("text").to_owned();
        Session {
            id: text("session"),
            token: text("token"),
            answer,
        }
    }
}

pub(crate) fn origin() -> Origin {
    Origin::http(
        Site::default()
            .file("/file", "text/plain", "a file\n")
            .answers(),
    )
}

pub(crate) fn settle(gate: &Gate, id: &str, verb: &str, body: &Value) -> Message {
    gate.control(&format!("/v1/approvals/{id}/{verb}"), None, body)
}

/// The request as its reviewers see it.
pub(crate) fn request(gate: &Gate, id: &str) -> Option<Value> {
    approvals(gate).into_iter().find(|it| it["id"] == id)
}

struct Bench {
    origin: Origin,
    key: Key,
    gate: Gate,
    session: Session,
}

impl Bench {
    fn with(lines: &str) -> Self {
        let (origin, key) = (origin(), Key::new());
        let gate = Gate::with(&key.policy(origin.port(), lines));
        let session = key.session();
        Self {
            origin,
            key,
            gate,
            session,
        }
    }

    fn start() -> Self {
        Self::with("[ledger]\n")
    }

    fn connect(&self, session: &Session) -> Message {
        connect(
            &self.gate,
            session,
            &format!("{HOST}:{}", self.origin.port()),
        )
    }

    fn allowed(&self, scope: &str) -> String {
        let id = id_of(&self.connect(&self.session));
        let answer = settle(&self.gate, &id, "allow", &json!({ "scope": scope }));
        assert_eq!(answer.status(), 200, "{answer:?}");
        id
    }
}

#[test]
fn an_approval_outlives_a_crash_and_so_does_its_revocation() {
    let mut bench = Bench::start();
    let id = bench.allowed("1h");
    assert_eq!(bench.connect(&bench.session).status(), 200);

    bench.gate.crash_and_restart();
    assert_eq!(bench.connect(&bench.session).status(), 200);
    let shown = request(&bench.gate, &id).expect("the request");
    assert_eq!(shown["state"], "allowed");
    assert_eq!(shown["rule"], "artifacts");
    assert_eq!(shown["caller"]["bound_to"], *bench.session.id);
    let settled = bench.gate.records().named("approval_settled");
    assert_eq!(settled.len(), 2, "named again after the start");
    assert_eq!(
        settled[1].text("tidegate.exception.id"),
        format!("approval-{id}")
    );
    let again = settle(&bench.gate, &id, "allow", &json!({ "scope": "8h" }));
    assert_eq!(again.json()["error"], "settled", "{again:?}");

    let answer = settle(&bench.gate, &id, "revoke", &json!({ "note": "done" }));
    assert_eq!(answer.status(), 200, "{answer:?}");
    bench.gate.crash_and_restart();
    assert_ne!(id_of(&bench.connect(&bench.session)), id);
}

#[test]
fn a_denial_outlives_a_crash() {
    let mut bench = Bench::start();
    let id = id_of(&bench.connect(&bench.session));
    assert_eq!(settle(&bench.gate, &id, "deny", &json!({})).status(), 200);
    bench.gate.crash_and_restart();
    let again = bench.connect(&bench.session);
    assert_eq!(again.json()["error"], "approval_refused", "{again:?}");
    assert_eq!(again.json()["request"]["id"], *id);
}

#[test]
fn an_approval_for_one_flow_is_used_once_also_over_a_crash() {
    let mut bench = Bench::start();
    bench.allowed("once");
    bench.gate.crash_and_restart();
    assert_eq!(bench.connect(&bench.session).status(), 200);
    bench.gate.crash_and_restart();
    id_of(&bench.connect(&bench.session));
}

#[test]
fn an_approval_lifts_nothing_after_a_restart_where_another_rule_asks() {
    let mut bench = Bench::start();
    bench.allowed("1h");
    let before = bench.key.policy(bench.origin.port(), "[ledger]\n");
    for (policy, status) in [
        (
            before.replace("id = \"artifacts\"", "id = \"uploads\""),
            403,
        ),
        (before, 200),
    ] {
        bench.gate.signal(Signal::KILL);
        bench.gate.ended();
        bench.gate.rewrite(&policy);
        bench.gate.restart();
        assert_eq!(bench.connect(&bench.session).status(), status);
    }
}

#[test]
fn approvals_end_while_the_ledger_does_not_answer_and_hold_again_after_that() {
    let bench = Bench::with("[ledger]\nstale-after = \"1s\"\n");
    let id = bench.allowed("1h");
    let target = format!("{HOST}:{}", bench.origin.port());
    let mut tunnel = bench.gate.client();
    tunnel.send(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
        authorization(&bench.session)
    ));
    assert_eq!(tunnel.answer("CONNECT").status(), 200);

    let (path, away) = (
        bench.gate.folder().join("ledger.db"),
        bench.gate.folder().join("away"),
    );
    std::fs::rename(&path, &away).expect("moved");
    let close = bench.gate.last_close();
    assert_eq!(close.text("error.type"), "revoked");
    let metric = |name: &str| bench.gate.metrics().sum(name, &[]);
    assert!(metric("tidegate_ledger_stale") > 0.5);
    assert!(metric("tidegate_ledger_failures_total") > 0.5);
    let status = bench.gate.generation()["ledger"].clone();
    assert_eq!(
        (&status["answers"], &status["stale"]),
        (&json!(false), &json!(true))
    );
    let other = id_of(&bench.connect(&bench.session));
    assert_ne!(other, id);
    let refused = settle(&bench.gate, &other, "allow", &json!({ "scope": "1h" }));
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert_eq!(refused.json()["error"], "ledger_unavailable");

    std::fs::rename(&away, &path).expect("moved back");
    until("the approval holds again", || {
        bench.connect(&bench.session).status() == 200
    });
    assert!(metric("tidegate_ledger_stale") < 0.5);
    assert!(metric("tidegate_ledger_revision") > 0.5);
    assert!(metric("tidegate_ledger_last_answer_timestamp_seconds") > 0.5);
    assert_eq!(settle(&bench.gate, &id, "revoke", &json!({})).status(), 200);
    assert_eq!(id_of(&bench.connect(&bench.session)), other, "still open");
}

/// What a reviewer sent and did not wait for.
struct Settling(UnixStream);

impl Settling {
    fn send(gate: &Gate, id: &str) -> Self {
        let socket = UnixStream::connect(gate.folder().join("control.sock")).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let body = json!({ "scope": "1h" }).to_string();
        let head = format!(
            "POST /v1/approvals/{id}/allow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        (&socket).write_all(head.as_bytes()).expect("sent");
        Self(socket)
    }

    /// Whether the gate answered that it is allowed before it ended.
    fn was_answered(mut self) -> bool {
        let mut answer = Vec::new();
        // A gate that is killed may reset the connection.
        let _ = self.0.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 200")
    }
}

/// Bytes of the ledger, with those that are not yet in its file.
fn written(folder: &Path) -> u64 {
    let names = ["ledger.db", "ledger.db-wal"];
    let size = |name: &&str| std::fs::metadata(folder.join(name)).map_or(0, |it| it.len());
    names.iter().map(size).sum()
}

/// In even rounds it is killed at once, in odd ones when the entry is written.
#[test]
fn a_gate_that_is_killed_while_a_reviewer_allows_has_one_outcome() {
    let mut bench = Bench::start();
    for round in 0..8 {
        let session = bench.key.session();
        let id = id_of(&bench.connect(&session));
        let before = written(bench.gate.folder());
        let settling = Settling::send(&bench.gate, &id);
        if round % 2 == 1 {
            until("an entry", || written(bench.gate.folder()) > before);
        }
        bench.gate.crash_and_restart();
        let was_answered = settling.was_answered();

        let stands = request(&bench.gate, &id).is_some_and(|it| it["state"] == "allowed");
        assert!(
            stands || !was_answered,
            "round {round}: an answer that is lost"
        );
        let again = settle(&bench.gate, &id, "allow", &json!({ "scope": "1h" }));
        assert_eq!(again.status(), if stands { 409 } else { 404 }, "{again:?}");
        let attempt = bench.connect(&session);
        if stands {
            assert_eq!(attempt.status(), 200, "round {round}");
        } else {
            assert_ne!(id_of(&attempt), id, "round {round}");
        }
    }
}
