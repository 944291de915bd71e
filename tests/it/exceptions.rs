//! Exceptions, as an operator grants them and as a client meets them.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use std::ffi::OsStr;

use crate::kit::{Gate, Hello, Line, Origin, TIERS, loopback, tidegate, until};

const HOST: &str = "files.example.net";

/// A rule that denies what the rules of [`loopback`] allow: they grant the private address.
const DENY: &str =
    "\n[[rule]]\nid = \"no\"\nverdict = \"deny\"\nto.hosts = [\"files.example.net\"]\n";

#[expect(
    clippy::disallowed_methods,
    reason = "the gate under test has the machine's clock"
)]
pub(crate) fn within(seconds: i64) -> Timestamp {
    let end = Timestamp::now() + SignedDuration::from_secs(seconds);
    Timestamp::from_second(end.as_second()).expect("a time")
}

fn written(port: u16, expires: Timestamp, lines: &str) -> String {
    format!(
        "\n[[exception]]\nid = \"EXC-1\"\nto.hosts = [\"{HOST}\"]\nto.ports = [{port}]\n\
         reason = \"migration\"\nreviewer = \"sec@acme.example\"\nexpires = {expires}\n{lines}\n"
    )
}

pub(crate) fn granted(port: u16, expires: Timestamp) -> Value {
    json!({
        "id": "EXC-2",
        "reason": "migration",
        "expires": expires,
        "to": { "hosts": [HOST], "ports": [port] },
    })
}

/// An origin that reads all and says nothing.
pub(crate) fn listening() -> Origin {
    Origin::raw(|visit| {
        visit.exactly(usize::MAX)?;
        Ok(())
    })
}

/// The status of a request and the code of its refusal; 0 where the connection ends without an answer.
pub(crate) fn status(gate: &Gate, origin: &Origin) -> (u16, String) {
    let host = format!("{HOST}:{}", origin.port());
    let mut client = gate.client();
    client.send(format!(
        "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"
    ));
    match client.try_answer("GET") {
        Ok(answer) if answer.status() == 200 => (200, String::new()),
        Ok(answer) => (answer.status(), answer.refusal()),
        Err(_) => (0, String::new()),
    }
}

pub(crate) fn refused(code: &str) -> (u16, String) {
    (403, code.to_owned())
}

fn event<'l>(lines: &'l [Line], name: &str) -> Option<&'l Line> {
    lines.iter().find(|line| line["event.name"] == name)
}

#[test]
fn an_exception_of_a_file_passes_before_a_deny_and_its_tunnel_ends_with_it() {
    let origin = listening();
    let port = origin.port();
    let policy = format!("{}{DENY}{}", loopback(port), written(port, within(8), ""));
    let gate = Gate::with(&policy);

    let mut client = gate.client();
    client.tunnel(&format!("{HOST}:{port}"));
    let hello = Hello::naming(HOST).bytes();
    client.send(&hello);
    // The origin never answers this request.
    assert_eq!(status(&gate, &origin), refused("exception_ended"));
    client.is_closed();

    let lines = gate.records();
    let is_close = |line: &&Line| line["event.name"] == "close";
    for close in lines.iter().filter(is_close) {
        assert_eq!(close["error.type"], "exception_ended");
    }
    let close = gate.last_close();
    assert_eq!(close["tidegate.blame"], "policy");
    assert_eq!(close["tidegate.exception.id"], "EXC-1");
    assert_eq!(close["security_rule.name"], "EXC-1");
    let answer = gate.client().connect(&format!("{HOST}:{port}"));
    assert_eq!(answer.refusal(), "denied");
    let lines = gate.records();
    assert!(event(&lines, "exception_granted").is_some());
    assert!(event(&lines, "exception_expired").is_some());
}

#[test]
fn an_exception_is_granted_and_revoked_at_the_control_socket_and_outlives_a_crash() {
    let origin = Origin::echo();
    let policy = format!("{}{DENY}\n[ledger]\n", loopback(origin.port()));
    let mut gate = Gate::with(&policy);
    assert_eq!(status(&gate, &origin), refused("denied"));

    let answer = gate.control(
        "/v1/exceptions",
        None,
        &granted(origin.port(), within(3600)),
    );
    assert_eq!(answer.status(), 201, "{answer:?}");
    let uid = format!("uid:{}", rustix::process::geteuid().as_raw());
    assert_eq!(answer.json()["reviewer"], json!([uid]));
    assert_eq!(status(&gate, &origin).0, 200);
    let twice = gate.control(
        "/v1/exceptions",
        None,
        &granted(origin.port(), within(3600)),
    );
    assert_eq!(twice.status(), 409, "{twice:?}");

    gate.crash_and_restart();
    assert_eq!(status(&gate, &origin).0, 200);
    let revoke = json!({ "id": "EXC-2", "reason": "done" });
    let answer = gate.control("/v1/exceptions/revoke", None, &revoke);
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(status(&gate, &origin), refused("denied"));
    let again = gate.control("/v1/exceptions/revoke", None, &revoke);
    assert_eq!(again.status(), 409, "{again:?}");
    gate.line("the revocation", |line| {
        line["event.name"] == "exception_revoked" && line["tidegate.detail"] == "done"
    });
}

#[test]
fn nothing_is_granted_elsewhere_or_without_a_ledger_or_for_too_long() {
    let origin = Origin::echo();
    let without = Gate::with(&format!("{}{DENY}", loopback(origin.port())));
    let request = granted(origin.port(), within(3600));
    let answer = without.control("/v1/exceptions", None, &request);
    assert_eq!(
        (answer.status(), answer.json()["error"].clone()),
        (409, json!("no_ledger"))
    );
    assert!(!without.folder().join("ledger.db").exists());

    let bounded = "[ledger]\n[exceptions]\nlongest = \"8h\"";
    let gate = Gate::with(&format!("{}{DENY}\n{bounded}\n", loopback(origin.port())));
    let answer = gate.post("/v1/exceptions", None, &request);
    assert_eq!(answer.status(), 403, "{answer:?}");
    let long = gate.control(
        "/v1/exceptions",
        None,
        &granted(origin.port(), within(9 * 3600)),
    );
    let detail = long.json()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(detail.contains("at most 8h from now"), "{detail}");
    let wrong = [
        granted(origin.port(), within(100 * 24 * 3600)),
        granted(origin.port(), within(-1)),
        json!({ "reason": "r", "expires": within(60), "to": { "hosts": [] } }),
        json!({ "reason": "r", "expires": within(60), "to": { "hosts": ["*.com"] } }),
        json!({ "reason": "", "expires": within(60), "to": { "hosts": [HOST] } }),
        json!({ "id": "a b", "reason": "r", "expires": within(60), "to": { "hosts": [HOST] } }),
        json!({ "reason": "r", "expires": within(60), "to": { "hosts": [HOST] },
                "from": { "tiers": ["nosuch"] } }),
    ];
    for request in wrong {
        let answer = gate.control("/v1/exceptions", None, &request);
        assert_eq!(answer.status(), 400, "{request} {answer:?}");
    }
    assert_eq!(status(&gate, &origin), refused("denied"));
}

#[test]
fn granted_exceptions_end_while_the_ledger_does_not_answer_and_hold_again_after_that() {
    let origin = Origin::echo();
    let ledger = "[ledger]\nstale-after = \"1s\"";
    let gate = Gate::with(&format!("{}{DENY}\n{ledger}\n", loopback(origin.port())));
    let request = granted(origin.port(), within(3600));
    assert_eq!(gate.control("/v1/exceptions", None, &request).status(), 201);
    assert_eq!(status(&gate, &origin).0, 200);

    let (path, away) = (gate.folder().join("ledger.db"), gate.folder().join("away"));
    std::fs::rename(&path, &away).expect("moved");
    until("the exception ends", || {
        status(&gate, &origin) == refused("denied")
    });
    gate.line("the end on record", |line| {
        line["event.name"] == "exception_revoked"
    });
    std::fs::rename(&away, &path).expect("moved back");
    until("the exception holds again", || {
        status(&gate, &origin).0 == 200
    });
}

#[test]
fn limits_are_enforced_also_over_a_crash() {
    let origin = Origin::echo();
    let port = origin.port();
    let limit = written(port, within(3600), "limit.requests = 2");
    let policy = format!("{}{DENY}{limit}\n[ledger]\n", loopback(port));
    let mut gate = Gate::with(&policy);
    assert_eq!(status(&gate, &origin).0, 200);
    // A gate that is killed wastes what it had reserved: what it leaves may be one request or none.
    gate.crash_and_restart();
    let mut passed = 1;
    until("the budget is spent", || {
        let now = status(&gate, &origin);
        passed += usize::from(now.0 == 200);
        now == refused("exception_spent")
    });
    assert!(passed <= 2, "{passed} requests passed");
    gate.crash_and_restart();
    assert_eq!(status(&gate, &origin), refused("exception_spent"));
}

#[test]
fn a_tunnel_that_spends_its_budget_is_closed() {
    let origin = listening();
    let port = origin.port();
    let limit = written(port, within(3600), "limit.bytes-out = \"1 MiB\"");
    let gate = Gate::with(&format!("{}{DENY}{limit}\n[ledger]\n", loopback(port)));
    let mut client = gate.client();
    client.tunnel(&format!("{HOST}:{port}"));
    client.send(Hello::naming(HOST).bytes());
    let block = vec![0; 64 * 1024];
    // The gate closes the connection: a write may fail.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..64 {
            client.send(&block);
        }
    }));
    let close = gate.last_close();
    assert_eq!(close["error.type"], "exception_spent", "{close:?}");
    let out = close["tidegate.bytes.out"].as_u64().expect("a number");
    assert!(out <= (1 << 20) + (1 << 20), "{out}");
    let answer = gate.client().connect(&format!("{HOST}:{port}"));
    assert_eq!(answer.refusal(), "exception_spent");
}

#[test]
fn the_commands_grant_list_retest_and_suggest_a_rule() {
    let origin = Origin::echo();
    let gate = Gate::with(&format!("{}{DENY}\n[ledger]\n", loopback(origin.port())));
    let control = format!("unix:{}", gate.folder().join("control.sock").display());
    let run = |words: &[&str]| {
        let more = ["--control", &control];
        let words: Vec<&OsStr> = words.iter().chain(&more).map(OsStr::new).collect();
        tidegate(&words)
    };
    let port = origin.port().to_string();
    let grant = |id: &str| {
        run(&[
            "exception",
            "grant",
            "--host",
            HOST,
            "--port",
            &port,
            "--for",
            "1h",
            "--reason",
            "migration",
            "--id",
            id,
        ])
    };
    let first = grant("ONE");
    assert_eq!(
        (first.code, first.stdout.as_str()),
        (Some(0), "ONE\n"),
        "{first:?}"
    );
    assert!(!first.stderr.contains("[[rule]]"), "{first:?}");
    assert_eq!(status(&gate, &origin).0, 200);
    grant("TWO");
    let third = grant("THREE");
    assert!(third.stderr.contains("make it a rule"), "{third:?}");
    assert!(
        third.stderr.contains("[[rule]]") && third.stderr.contains("[[trial]]"),
        "{third:?}"
    );

    let unused = run(&["exceptions", "--unused"]);
    assert!(
        unused.stdout.contains("TWO") && !unused.stdout.contains("ONE"),
        "{unused:?}"
    );
    for id in ["ONE", "TWO", "THREE"] {
        let revoked = run(&["exception", "revoke", id, "--reason", "done"]);
        assert_eq!(revoked.code, Some(0), "{revoked:?}");
    }
    assert_eq!(status(&gate, &origin), refused("denied"));
    let retested = run(&["exceptions", "--retest"]);
    assert_eq!(retested.code, Some(0), "{retested:?}");
    assert!(
        retested.stdout.contains("denied again, by no"),
        "{retested:?}"
    );
    // A later rule quietly replaces the exception.
    gate.reload(&format!("{}\n[ledger]\n", loopback(origin.port())));
    let replaced = run(&["exceptions", "--retest"]);
    assert_eq!(replaced.code, Some(1), "{replaced:?}");
    assert!(
        replaced.stdout.contains("still allowed, by files"),
        "{replaced:?}"
    );
}

#[test]
fn a_gate_does_not_start_with_a_damaged_ledger() {
    let origin = Origin::echo();
    let mut gate = Gate::with(&format!("{}{DENY}\n[ledger]\n", loopback(origin.port())));
    gate.terminate();
    let path = gate.folder().join("ledger.db");
    std::fs::write(&path, "no database\n".repeat(500)).expect("a file");
    let config = gate.config();
    let words = ["run", "--config"].map(OsStr::new);
    let ran = tidegate(&[words[0], words[1], config.as_os_str()]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("the ledger is damaged"), "{ran:?}");
}

const NEVER: &str = "\n[[never]]\nname = \"no files\"\nto.hosts = [\"files.example.net\"]\n\
                     verdict = \"allow\"\n";

#[test]
fn an_exception_that_a_never_forbids_is_granted_neither_at_a_socket_nor_by_a_file() {
    let base = format!("{TIERS}{DENY}\n[ledger]\n");
    let gate = Gate::with(&format!("{base}{NEVER}"));
    let control = format!("unix:{}", gate.folder().join("control.sock").display());
    let grant = [
        "exception",
        "grant",
        "--host",
        "*.example.net",
        "--for",
        "1h",
        "--reason",
        "r",
        "--id",
        "ONE",
        "--control",
        &control,
    ];
    let refused = tidegate(&grant.map(OsStr::new));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for words in [
        "exception `ONE` lets pass what `[[never]]` \"no files\" forbids",
        "would reach files.example.net:443",
        "see `tidegate explain files.example.net:443",
    ] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    let mut other = granted(443, within(3600));
    other["to"]["hosts"] = json!(["other.example.net"]);
    assert_eq!(gate.control("/v1/exceptions", None, &other).status(), 201);

    let before = gate.generation();
    let file = written(443, within(3600), "");
    gate.reload(&format!("{base}{NEVER}{file}"));
    let after = gate.generation();
    assert_eq!(after["generation"], before["generation"], "{after}");
    let error = after["error"].as_str().unwrap_or_default();
    assert!(
        error.contains("exception `EXC-1` lets pass what"),
        "{error}"
    );
}

#[test]
fn a_policy_that_forbids_what_was_granted_ends_it() {
    let base = format!("{TIERS}{DENY}\n[ledger]\n");
    let gate = Gate::with(&base);
    let answer = gate.control("/v1/exceptions", None, &granted(443, within(3600)));
    assert_eq!(answer.status(), 201, "{answer:?}");
    let state = || {
        let control = format!("unix:{}", gate.folder().join("control.sock").display());
        let words = ["exceptions", "--json", "--control", &control];
        let listed = tidegate(&words.map(OsStr::new));
        let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
        let first = listed[0].clone();
        (
            first["state"].as_str().unwrap_or_default().to_owned(),
            first["why"].clone(),
        )
    };
    assert_eq!(state(), ("active".to_owned(), Value::Null));
    gate.reload(&format!("{base}{NEVER}"));
    let (word, why) = state();
    assert_eq!(word, "not-in-force");
    assert!(
        why.as_str().unwrap_or_default().contains("`[[never]]`"),
        "{why}"
    );
    gate.line("the end of the exception", |line| {
        line["event.name"] == "exception_revoked"
            && line["tidegate.detail"]
                .as_str()
                .is_some_and(|it| it.contains("lets pass what"))
    });
    gate.reload(&base);
    assert_eq!(state().0, "active");
}
