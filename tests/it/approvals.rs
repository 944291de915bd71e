//! Requests for approval: filed by refusals and by agents, settled by reviewers, once.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::exceptions::within;
use crate::kit::{
    Gate, Line, Lines, Message, Origin, Program, Session, Site, TIERS, allow, eventually, names,
    until,
};

pub(crate) const HOST: &str = "artifacts.example.net";

/// A host that the policy asks about, and reviewers who may settle it.
pub(crate) fn policy(port: u16, tier: &str) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let asking =
        format!("[tier.standard]\nreviewers = [\"uid:{uid}\"]\nnot-oneself = false\n{tier}\n");
    let mut text = TIERS.replace("[tier.standard]\n", &asking);
    text.push_str(&names(&[HOST]));
    text.push_str(&allow("reach", HOST, port));
    let _ = write!(
        text,
        "\n[[rule]]\nid = \"artifacts\"\nverdict = \"ask\"\nto.hosts = [\"{HOST}\"]\n\
         to.ports = [{port}]\n\n[identity.session]\nlocal = \"trust\"\n"
    );
    text
}

/// A gate, an origin, and an agent's session.
struct Bench {
    origin: Origin,
    gate: Gate,
    session: Session,
}

impl Bench {
    fn start() -> Self {
        Self::with("")
    }

    fn with(tier: &str) -> Self {
        let origin = Origin::http(
            Site::default()
                .file("/file", "text/plain", "a file\n")
                .answers(),
        );
        let gate = Gate::with(&policy(origin.port(), tier));
        let session = gate.session(&json!({}));
        Self {
            origin,
            gate,
            session,
        }
    }

    /// Asks for a tunnel in the name of a session.
    fn connect(&self, session: &Session, host: &str) -> Message {
        connect(
            &self.gate,
            session,
            &format!("{host}:{}", self.origin.port()),
        )
    }

    fn approvals(&self) -> Vec<Value> {
        approvals(&self.gate)
    }

    fn settle(&self, id: &str, verb: &str, body: &Value) -> Message {
        self.gate
            .control(&format!("/v1/approvals/{id}/{verb}"), None, body)
    }

    fn lines(&self, name: &str) -> Vec<Line> {
        self.gate.records().named(name)
    }
}

pub(crate) fn approvals(gate: &Gate) -> Vec<Value> {
    let answer = gate.control_get("/v1/approvals");
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.json()["requests"]
        .as_array()
        .expect("a list")
        .clone()
}

pub(crate) fn connect(gate: &Gate, session: &Session, target: &str) -> Message {
    let mut client = gate.client();
    client.send(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
        authorization(session)
    ));
    client.answer("CONNECT")
}

pub(crate) fn authorization(session: &Session) -> String {
    format!("Proxy-Authorization: Bearer {}\r\n", session.token)
}

/// What a refusal says of its request.
#[track_caller]
pub(crate) fn id_of(answer: &Message) -> String {
    assert_eq!(answer.status(), 403, "{answer:?}");
    let document = answer.json();
    assert_eq!(document["error"], "needs_approval", "{document}");
    let id = document["request"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(answer.field("x-tidegate-request"), Some(id.as_str()));
    id
}

#[test]
fn an_ask_leaves_one_request_for_all_its_attempts() {
    let bench = Bench::start();
    let id = id_of(&bench.connect(&bench.session, HOST));
    assert_eq!(id_of(&bench.connect(&bench.session, HOST)), id);
    let other = bench.gate.session(&json!({}));
    assert_ne!(id_of(&bench.connect(&other, HOST)), id, "another session's");
    let all = bench.approvals();
    assert_eq!(all.len(), 2, "{all:?}");
    let first = &all[0];
    assert_eq!(first["id"], *id);
    assert_eq!(first["count"], 2);
    assert_eq!(first["host"], HOST);
    assert_eq!(first["rule"], "artifacts");
    assert_eq!(first["untrusted"]["operation"], "connect");
    assert_eq!(first["caller"]["bound_to"], *bench.session.id);
    let lines = bench.lines("approval_requested");
    assert_eq!(lines.len(), 2, "one line for each request");
    assert_eq!(lines[0].text("tidegate.request.id"), id);
    let decisions = bench.lines("decision");
    assert_eq!(decisions[0].text("tidegate.request.id"), id);
    let pending = || bench.gate.metrics().sum("tidegate_approvals_pending", &[]);
    assert!((pending() - 2.0).abs() < 0.1);
}

#[test]
fn an_approval_lets_the_next_attempt_pass_and_is_on_record() {
    let bench = Bench::start();
    let id = id_of(&bench.connect(&bench.session, HOST));
    let answer = bench.settle(&id, "allow", &json!({ "scope": "1h", "note": "one\nrun" }));
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(bench.connect(&bench.session, HOST).status(), 200);
    let passed = bench.gate.line("an allowed flow", |line| {
        line.is_decision() && line.verdict() == "allow"
    });
    let exception = format!("approval-{id}");
    assert_eq!(passed.text("tidegate.exception.id"), exception);
    assert_eq!(passed.text("security_rule.name"), "artifacts");
    let settled = &bench.lines("approval_settled")[0];
    assert_eq!(settled.text("tidegate.request.result"), "allowed");
    assert_eq!(settled.text("tidegate.exception.id"), exception);
    // Another session's is another request.
    let other = bench.gate.session(&json!({}));
    id_of(&bench.connect(&other, HOST));
}

#[test]
fn an_approval_lifts_no_floor_and_its_flow_is_judged_the_same_again() {
    let origin = Origin::http(Site::default().answers());
    let port = origin.port();
    let without_addresses = policy(port, "").replace(&allow("reach", HOST, port), "");
    let gate = Gate::with(&without_addresses);
    let session = gate.session(&json!({}));
    let target = format!("{HOST}:{port}");
    let id = id_of(&connect(&gate, &session, &target));
    let path = format!("/v1/approvals/{id}/allow");
    let answer = gate.control(&path, None, &json!({ "scope": "1h" }));
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(connect(&gate, &session, &target).status(), 403);
    let refused = gate.line("a refusal by the floor", |line| {
        line.is_decision() && line.text("tidegate.reason") == "address_denied"
    });
    assert_eq!(
        refused.text("tidegate.exception.id"),
        format!("approval-{id}")
    );
    origin.saw_nothing();
    // When the gate is dropped, its records are judged again.
}

#[test]
fn a_denial_is_told_and_not_asked_again() {
    let bench = Bench::start();
    let id = id_of(&bench.connect(&bench.session, HOST));
    assert_eq!(bench.settle(&id, "deny", &json!({})).status(), 200);
    let again = bench.connect(&bench.session, HOST);
    assert_eq!(again.json()["error"], "approval_refused", "{again:?}");
    assert_eq!(again.json()["request"]["id"], *id);
    let port = bench.origin.port();
    let words = json!({ "host": HOST, "port": port, "reason": "please" }).to_string();
    let asked = own(&bench.gate, &bench.session, "POST", "/v1/requests", &words);
    assert_eq!(
        (asked.status(), asked.json()["state"].as_str()),
        (200, Some("denied"))
    );
    assert_eq!(bench.lines("approval_requested").len(), 1);
    // It is settled once.
    let late = bench.settle(&id, "allow", &json!({ "scope": "1h" }));
    assert_eq!(
        (late.status(), late.json()["error"].as_str()),
        (409, Some("settled"))
    );
}

#[test]
fn an_approval_for_one_flow_is_used_up_by_it() {
    let bench = Bench::start();
    let id = id_of(&bench.connect(&bench.session, HOST));
    assert_eq!(
        bench
            .settle(&id, "allow", &json!({ "scope": "once" }))
            .status(),
        200
    );
    assert_eq!(bench.connect(&bench.session, HOST).status(), 200);
    assert_ne!(
        id_of(&bench.connect(&bench.session, HOST)),
        id,
        "a new request"
    );
}

#[test]
fn an_approval_that_ends_or_is_taken_back_ends_its_tunnels() {
    let bench = Bench::start();
    for (scope, take_back) in [("1s", false), ("1h", true)] {
        let id = id_of(&bench.connect(&bench.session, HOST));
        assert_eq!(
            bench
                .settle(&id, "allow", &json!({ "scope": scope }))
                .status(),
            200
        );
        let target = format!("{HOST}:{}", bench.origin.port());
        let mut client = bench.gate.client();
        client.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
            authorization(&bench.session)
        ));
        assert_eq!(client.answer("CONNECT").status(), 200);
        if take_back {
            assert_eq!(bench.settle(&id, "revoke", &json!({})).status(), 200);
        }
        let close = bench.gate.last_close();
        assert_eq!(close.text("error.type"), "revoked");
        assert_eq!(
            close.text("tidegate.exception.id"),
            format!("approval-{id}")
        );
    }
    id_of(&bench.connect(&bench.session, HOST));
}

#[test]
fn only_reviewers_whom_the_policy_names_settle() {
    let bench = Bench::with("");
    let id = id_of(&bench.connect(&bench.session, HOST));
    let allow = json!({ "scope": "1h" });
    let path = format!("/v1/approvals/{id}/allow");
    // The agent has a session token: at no door is it a reviewer's.
    let token = Some(bench.session.token.as_str());
    assert_eq!(bench.gate.post(&path, None, &allow).status(), 401);
    assert_eq!(bench.gate.post(&path, token, &allow).status(), 401);
    assert_eq!(bench.gate.control(&path, token, &allow).status(), 401);
    // A reviewer who lost the right meanwhile settles nothing.
    let port = bench.origin.port();
    let uid = format!("uid:{}", rustix::process::geteuid().as_raw());
    bench.gate.reload(&policy(port, "").replace(&uid, "uid:12"));
    let refused = bench.settle(&id, "allow", &allow);
    assert_eq!(refused.json()["error"], "not_reviewer", "{refused:?}");
    assert!(bench.lines("approval_settled").is_empty());
    id_of(&bench.connect(&bench.session, HOST));
}

#[test]
fn a_user_whose_processes_may_be_agents_settles_nothing_by_default() {
    let bench = Bench::start();
    let text = policy(bench.origin.port(), "").replace("not-oneself = false\n", "");
    bench.gate.reload(&text);
    let id = id_of(&bench.connect(&bench.session, HOST));
    let refused = bench.settle(&id, "allow", &json!({ "scope": "1h" }));
    assert_eq!(refused.json()["error"], "oneself", "{refused:?}");
}

#[test]
fn bounds_on_an_approval_are_those_of_the_tier() {
    let bench = Bench::with("longest-approval = \"2h\"");
    let id = id_of(&bench.connect(&bench.session, HOST));
    let error = |scope: &str| {
        let answer = bench.settle(&id, "allow", &json!({ "scope": scope }));
        answer.json()["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(error("3h"), "too_long");
    assert_eq!(error("forever"), "bad_request");
    assert_eq!(error(""), "bad_request");
    assert_eq!(error("2h"), "");
}

#[test]
fn two_reviewers_at_once_have_one_outcome() {
    let bench = Bench::start();
    for _ in 0..8 {
        let session = bench.gate.session(&json!({}));
        let id = id_of(&bench.connect(&session, HOST));
        let verbs = ["allow", "deny"];
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let settle = |verb: &'static str| {
                let (bench, id) = (&bench, &id);
                scope.spawn(move || {
                    let body = if verb == "allow" {
                        json!({ "scope": "1h" })
                    } else {
                        json!({})
                    };
                    bench.settle(id, verb, &body).status()
                })
            };
            let running: Vec<_> = verbs.into_iter().cycle().take(4).map(settle).collect();
            running
                .into_iter()
                .map(|it| it.join().expect("a status"))
                .collect()
        });
        assert_eq!(
            statuses.iter().filter(|it| **it == 200).count(),
            1,
            "{statuses:?}"
        );
        let lines = bench.lines("approval_settled");
        let of_this = lines
            .iter()
            .filter(|it| it.text("tidegate.request.id") == id);
        assert_eq!(of_this.count(), 1);
    }
}

#[test]
fn a_tier_may_want_two_reviewers() {
    let bench = Bench::with("approvals = 2");
    let id = id_of(&bench.connect(&bench.session, HOST));
    let first = bench.settle(&id, "allow", &json!({ "scope": "1h" }));
    assert_eq!(first.json()["state"], "pending", "{first:?}");
    let again = bench.settle(&id, "allow", &json!({ "scope": "1h" }));
    assert_eq!(again.json()["error"], "second_reviewer_needed");
    assert_eq!(id_of(&bench.connect(&bench.session, HOST)), id);
    let line = &bench.lines("approval_settled")[0];
    assert_eq!(line.text("tidegate.request.result"), "first_of_two");
}

#[test]
fn a_policy_that_changed_in_what_a_request_touches_offers_it_again() {
    let bench = Bench::start();
    let port = bench.origin.port();
    let id = id_of(&bench.connect(&bench.session, HOST));
    bench
        .gate
        .reload(&policy(port, "").replace("id = \"artifacts\"", "id = \"other\""));
    let changed = bench.settle(&id, "allow", &json!({ "scope": "1h" }));
    assert_eq!(changed.json()["error"], "changed", "{changed:?}");
    assert_eq!(bench.approvals()[0]["rule"], "other");
    assert_eq!(
        bench
            .settle(&id, "allow", &json!({ "scope": "1h" }))
            .status(),
        200
    );
    assert_eq!(bench.connect(&bench.session, HOST).status(), 200);
    // What was approved under one rule is no approval under another.
    bench.gate.reload(&policy(port, ""));
    assert_ne!(id_of(&bench.connect(&bench.session, HOST)), id);
    // A deny is not lifted.
    bench
        .gate
        .reload(&policy(port, "").replace("verdict = \"ask\"", "verdict = \"deny\""));
    let denied = bench.connect(&bench.session, HOST);
    assert_eq!(denied.json()["error"], "denied", "{denied:?}");
}

#[test]
fn one_session_fills_its_own_share_and_no_other() {
    let bench = Bench::start();
    let port = bench.origin.port();
    let wide = policy(port, "").replace(
        &format!("to.hosts = [\"{HOST}\"]\nto.ports = [{port}]\n\n[identity"),
        &format!("to.hosts = [\"{HOST}\", \"*.example.org\"]\nto.ports = [{port}]\n\n[identity"),
    );
    bench.gate.reload(&wide);
    for at in 0..10_000 / 50 {
        let answer = bench.connect(&bench.session, &format!("h{at}.example.org"));
        // Beyond the rate of refusals, the caller is told to wait.
        assert!(matches!(answer.status(), 403 | 429), "{answer:?}");
    }
    assert_eq!(bench.approvals().len(), 32);
    let over = bench.connect(&bench.session, HOST);
    if over.status() == 403 {
        assert_eq!(over.json()["error"], "needs_approval");
        assert!(over.json()["request"]["id"].is_null(), "{over:?}");
    }
    let other = bench.gate.session(&json!({}));
    id_of(&bench.connect(&other, HOST));
}

#[test]
fn an_agent_cannot_push_its_approval_out_of_a_reviewers_reach() {
    let bench = Bench::start();
    let port = bench.origin.port();
    let wide = policy(port, "").replace(
        &format!("verdict = \"ask\"\nto.hosts = [\"{HOST}\"]"),
        &format!("verdict = \"ask\"\nto.hosts = [\"{HOST}\", \"*.example.org\"]"),
    );
    bench.gate.reload(&wide);
    let id = id_of(&bench.connect(&bench.session, HOST));
    let allow = json!({ "scope": "1h" });
    assert_eq!(bench.settle(&id, "allow", &allow).status(), 200);
    // More settled requests than the gate keeps of one caller.
    for at in 0..70 {
        let body = json!({ "host": format!("h{at}.example.org"), "port": port }).to_string();
        let filed = own(&bench.gate, &bench.session, "POST", "/v1/requests", &body).json();
        let other = filed["id"].as_str().expect("an id");
        assert_eq!(bench.settle(other, "deny", &json!({})).status(), 200);
    }
    assert_eq!(bench.approvals().len(), 65, "64, and the one in force");
    assert_eq!(bench.connect(&bench.session, HOST).status(), 200);
    assert_eq!(bench.settle(&id, "revoke", &json!({})).status(), 200);
    id_of(&bench.connect(&bench.session, HOST));
}

#[test]
fn what_an_exception_allows_meanwhile_needs_no_approval() {
    let bench = Bench::start();
    let port = bench.origin.port();
    let id = id_of(&bench.connect(&bench.session, HOST));
    bench.gate.reload(&format!(
        "{}\n[[exception]]\nid = \"EXC-1\"\nto.hosts = [\"{HOST}\"]\nto.ports = [{port}]\n\
         reason = \"migration\"\nreviewer = \"sec@acme.example\"\n\
         expires = {}\n",
        policy(port, ""),
        within(3600)
    ));
    assert_eq!(bench.connect(&bench.session, HOST).status(), 200);
    let late = bench.settle(&id, "allow", &json!({ "scope": "1h" }));
    assert_eq!(late.json()["error"], "no_longer_asked", "{late:?}");
}

/// Asks the gate's own pages through the proxy.
pub(crate) fn own(gate: &Gate, session: &Session, method: &str, path: &str, body: &str) -> Message {
    let mut client = gate.client();
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
    };
    client.send(format!(
        "{method} http://tidegate.internal{path} HTTP/1.1\r\nHost: tidegate.internal\r\n{}{length}\
         Connection: close\r\n\r\n{body}",
        authorization(session)
    ));
    client.answer(method)
}

#[test]
fn an_agent_files_and_follows_its_own_requests_and_settles_none() {
    let bench = Bench::start();
    let (gate, session) = (&bench.gate, &bench.session);
    let port = bench.origin.port();
    let body = json!({ "host": HOST, "port": port, "reason": "the migration\u{1b}[2J" });
    let filed = own(gate, session, "POST", "/v1/requests", &body.to_string());
    assert_eq!(filed.status(), 200, "{filed:?}");
    let id = filed.json()["id"].as_str().expect("an id").to_owned();
    // The attempt is the same request.
    assert_eq!(id_of(&bench.connect(session, HOST)), id);
    let seen = &bench.approvals()[0];
    assert_eq!(seen["untrusted"]["reason"], "the migration [2J");
    let own_list = own(gate, session, "GET", "/v1/requests", "").json();
    assert_eq!(own_list["requests"][0]["id"], *id);
    assert_eq!(own_list["requests"][0]["state"], "pending");
    // Another session sees nothing of it.
    let other = gate.session(&json!({}));
    let list = own(gate, &other, "GET", "/v1/requests", "").json();
    assert_eq!(list["requests"], json!([]));
    let path = format!("/v1/requests/{id}");
    assert_eq!(own(gate, &other, "GET", &path, "").status(), 404);
    let words = json!({ "id": id, "reason": "mine" }).to_string();
    assert_eq!(
        own(gate, &other, "POST", "/v1/requests", &words).status(),
        404
    );
    // No page settles.
    for path in ["/allow", "/deny", "/revoke", ""] {
        let path = format!("/v1/requests/{id}{path}");
        let answer = own(gate, session, "POST", &path, "{\"scope\":\"1h\"}");
        assert!(matches!(answer.status(), 404 | 405), "{path}: {answer:?}");
    }
    assert_eq!(own(gate, session, "GET", "/v1/approvals", "").status(), 404);
    assert_eq!(
        bench
            .settle(&id, "allow", &json!({ "scope": "1h" }))
            .status(),
        200
    );
    let shown = own(gate, session, "GET", &format!("/v1/requests/{id}"), "").json();
    assert_eq!(shown["state"], "allowed");
    // What is allowed already needs no request; what is denied has none.
    let again = own(gate, session, "POST", "/v1/requests", &body.to_string());
    assert_eq!(again.json()["state"], "allowed", "{again:?}");
    let denied = json!({ "host": "other.example.net" }).to_string();
    let denied = own(gate, session, "POST", "/v1/requests", &denied);
    assert_eq!(
        (denied.status(), denied.json()["error"].as_str()),
        (403, Some("not_allowed"))
    );
}

#[test]
fn what_is_no_request_is_refused() {
    let bench = Bench::start();
    let post = |body: &str| own(&bench.gate, &bench.session, "POST", "/v1/requests", body).status();
    for body in [
        "[]",
        "{}",
        "{\"host\":\"\"}",
        "{\"host\":\"a b\"}",
        "{\"host\":1}",
        "{\"x\":1}",
    ] {
        assert_eq!(post(body), 400, "{body}");
    }
    assert_eq!(post(&format!("{{\"host\":\"{}\"}}", "a".repeat(5000))), 413);
    assert!(bench.approvals().is_empty());
}

#[test]
fn the_commands_list_show_allow_and_follow() {
    let bench = Bench::start();
    let id = id_of(&bench.connect(&bench.session, HOST));
    let control = format!(
        "unix:{}",
        bench.gate.folder().join("control.sock").display()
    );
    let approve = |words: &[&str]| {
        let program = Program::at(
            Path::new(env!("CARGO_BIN_EXE_tidegate")),
            bench.gate.folder(),
        );
        program
            .args(["approve"])
            .args(words)
            .args(["--control", &control])
            .run()
    };
    let short = &id[id.len() - 12..];
    let listed = approve(&["list"]);
    assert!(listed.stdout.contains(&id), "{listed:?}");
    let shown = approve(&["show", short]);
    assert!(
        shown.stdout.contains(HOST) && shown.stdout.contains("--for 1h"),
        "{shown:?}"
    );
    let proxy = format!(
        "http://{}:{}@{}",
        bench.session.id,
        bench.session.token,
        bench.gate.proxy()
    );
    let request = |words: &[&str]| {
        let program = Program::at(
            Path::new(env!("CARGO_BIN_EXE_tidegate")),
            bench.gate.folder(),
        );
        program
            .args(["request"])
            .args(words)
            .args(["--proxy", &proxy])
            .run()
    };
    let target = format!("{HOST}:{}", bench.origin.port());
    let filed = request(&["file", &target, "--reason", "a migration"]);
    assert!(filed.stdout.contains("pending"), "{filed:?}");
    let allowed = approve(&["allow", short, "--for", "1h"]);
    assert!(allowed.stdout.contains("allowed until"), "{allowed:?}");
    let followed = request(&["show", &id]);
    assert!(followed.stdout.contains("allowed"), "{followed:?}");
    assert_eq!(bench.connect(&bench.session, HOST).status(), 200);
    let twice = approve(&["deny", short]);
    assert_eq!(twice.code, Some(1), "{twice:?}");
}

/// What `approve watch` shows at a terminal where these keys are typed after these texts.
fn watched(bench: &Bench, steps: &Value) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents/terminal.py");
    let control = bench.gate.folder().join("control.sock");
    Program::new("python3", bench.gate.folder())
        .args([&script])
        .args([&steps.to_string(), "--", env!("CARGO_BIN_EXE_tidegate")])
        .args(["approve", "watch", "--control"])
        .args([&format!("unix:{}", control.display())])
        .run()
        .stdout
}

#[test]
fn a_reviewer_at_a_terminal_is_asked_about_each_request() {
    let bench = Bench::start();
    let first = id_of(&bench.connect(&bench.session, HOST));
    let other = bench.gate.session(&json!({}));
    let second = id_of(&bench.connect(&other, HOST));
    // `y` was typed before the second question: it is no answer to it.
    let shown = watched(
        &bench,
        &json!([
            { "after": "[N]", "type": "\ny\n" },
            { "after": "[N]", "type": "d\n" },
            { "after": "denied", "type": "\u{3}" },
        ]),
    );
    assert!(shown.contains(&first) && shown.contains(&second), "{shown}");
    assert!(shown.contains("written by the agent"), "{shown}");
    let state = |id: &str| {
        let all = bench.approvals();
        let request = all.into_iter().find(|it| it["id"] == id);
        request.map(|it| it["state"].clone())
    };
    assert_eq!(state(&first), Some(json!("pending")));
    assert_eq!(state(&second), Some(json!("denied")));
    let shown = watched(
        &bench,
        &json!([
            { "after": "allow (session)?", "type": "y\n" },
            { "after": "allowed until", "type": "\u{3}" },
        ]),
    );
    assert_eq!(state(&first), Some(json!("allowed")), "{shown}");
    assert_eq!(bench.connect(&bench.session, HOST).status(), 200);
    // Without a terminal it asks nothing.
    let program = Program::at(
        Path::new(env!("CARGO_BIN_EXE_tidegate")),
        bench.gate.folder(),
    );
    let refused = program.args(["approve", "watch"]).run();
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn a_request_of_a_plain_http_request_names_what_it_does() {
    let bench = Bench::start();
    let get = || {
        let mut client = bench.gate.client();
        let port = bench.origin.port();
        client.send(format!(
            "GET http://{HOST}:{port}/file HTTP/1.1\r\nHost: {HOST}:{port}\r\n{}\r\n",
            authorization(&bench.session)
        ));
        client.answer("GET")
    };
    let id = id_of(&get());
    assert_eq!(bench.approvals()[0]["untrusted"]["operation"], "read");
    assert_eq!(
        bench
            .settle(&id, "allow", &json!({ "scope": "1h" }))
            .status(),
        200
    );
    assert_eq!(get().status(), 200);
    // Reading was allowed, not whatever passes in a tunnel.
    id_of(&bench.connect(&bench.session, HOST));
    until("one request is open", || {
        bench.gate.metrics().sum("tidegate_approvals_pending", &[]) > 0.5
    });
    let seconds = || {
        bench
            .gate
            .metrics()
            .sum("tidegate_approval_seconds_count", &[("result", "allowed")])
    };
    assert!(
        (eventually("a settled one", || Some(seconds()).filter(|it| *it > 0.5)) - 1.0).abs() < 0.1
    );
}

#[test]
fn a_held_flow_passes_when_it_is_allowed_and_is_told_when_no_reviewer_answers() {
    let bench = Bench::with("hold = \"40s\"");
    let id = std::thread::scope(|scope| {
        let held = scope.spawn(|| bench.connect(&bench.session, HOST).status());
        let id = eventually("a request", || {
            let all = bench.approvals();
            Some(all.first()?["id"].as_str()?.to_owned())
        });
        let answer = bench.settle(&id, "allow", &json!({ "scope": "1h" }));
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(held.join().expect("a status"), 200);
        id
    });
    let passed = bench.gate.line("an allowed flow", |line| {
        line.is_decision() && line.verdict() == "allow"
    });
    assert_eq!(passed.text("tidegate.request.id"), id);
    bench
        .gate
        .reload(&policy(bench.origin.port(), "hold = \"1s\""));
    let other = bench.gate.session(&json!({}));
    let late = bench.connect(&other, HOST);
    assert_eq!(late.json()["error"], "approval_timed_out", "{late:?}");
    assert_eq!(bench.approvals()[1]["state"], "pending");
    assert_eq!(
        bench.lines("approval_settled").len(),
        1,
        "it creates nothing"
    );
}

#[test]
fn a_client_that_leaves_and_a_shutdown_end_the_wait() {
    let mut bench = Bench::with("hold = \"55s\"");
    let target = format!("{HOST}:{}", bench.origin.port());
    let begin = || {
        let mut client = bench.gate.client();
        client.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
            authorization(&bench.session)
        ));
        client
    };
    let client = begin();
    until("a request", || !bench.approvals().is_empty());
    drop(client);
    bench.gate.line("the end of the wait", |line| {
        line.is_decision() && line.reason() == "needs_approval"
    });
    let mut client = begin();
    until("a second attempt", || bench.approvals()[0]["count"] == 2);
    bench.gate.signal(rustix::process::Signal::TERM);
    assert_eq!(client.answer("CONNECT").json()["error"], "draining");
    assert!(bench.gate.ended().success());
}

#[test]
fn what_a_never_forbids_no_reviewer_can_allow() {
    let bench = Bench::start();
    let never = format!(
        "{}\n[[never]]\nname = \"no artifacts\"\nto.hosts = [\"{HOST}\"]\nverdict = \"allow\"\n",
        policy(bench.origin.port(), "")
            .replace(
                "id = \"reach\"\nverdict = \"allow\"",
                "id = \"reach\"\nverdict = \"ask\""
            )
            .replace("grant.addresses = [\"127.0.0.0/8\"]\n", "")
    );
    let before = bench.gate.generation();
    bench.gate.reload(&never);
    let after = bench.gate.generation();
    assert_eq!(after["generation"], before["generation"]);
    let error = after["error"].as_str().unwrap_or_default();
    assert!(error.contains("may be allowed by a reviewer"), "{error}");
}

#[test]
fn an_hour_for_artifacts() {
    let bench = Bench::start();
    let gate = &bench.gate;
    let session = gate.session(&json!({
        "repository": "https://github.com/acme/migrator", "agent": "claude-code"
    }));
    // The agent begins a tool call, is refused with an id, and asks.
    let url = format!("https://{HOST}:{}/data", bench.origin.port());
    let call = json!({
        "session_id": session.id, "hook_event_name": "PreToolUse", "tool_name": "WebFetch",
        "tool_use_id": "toolu_01AB", "prompt_id": "p-1", "tool_input": { "url": url },
        "cwd": "/", "permission_mode": "default",
    });
    let told = gate.post("/v1/hooks/claude-code", Some(&session.token), &call);
    assert_eq!(told.status(), 200, "{told:?}");
    let id = id_of(&bench.connect(&session, HOST));
    let words = json!({ "id": id, "reason": "one-off data migration" }).to_string();
    let asked = own(gate, &session, "POST", "/v1/requests", &words);
    assert_eq!(asked.json()["state"], "pending", "{asked:?}");
    // The reviewer sees call, repository and words, each with who says it.
    let seen = &bench.approvals()[0];
    assert_eq!(seen["call"]["id"], "toolu_01AB", "{seen}");
    assert_eq!(seen["untrusted"]["tool"], "WebFetch");
    assert_eq!(seen["untrusted"]["reason"], "one-off data migration");
    assert_eq!(seen["repository"]["name"], "github.com/acme/migrator");
    // The hook after the call tells the agent how to go on.
    let mut ended = call.clone();
    ended["hook_event_name"] = "PostToolUseFailure".into();
    let told = gate.post("/v1/hooks/claude-code", Some(&session.token), &ended);
    let text = told.json()["hookSpecificOutput"]["additionalContext"].to_string();
    assert!(text.contains("tidegate request list"), "{text}");
    // An hour, here of two seconds: the next attempt passes, then its tunnel closes.
    assert_eq!(
        bench
            .settle(&id, "allow", &json!({ "scope": "2s" }))
            .status(),
        200
    );
    assert_eq!(bench.connect(&session, HOST).status(), 200);
    let close = gate.last_close();
    assert_eq!(
        close.text("tidegate.exception.id"),
        format!("approval-{id}")
    );
    until("the end of the approval", || {
        bench.connect(&session, HOST).status() == 403
    });
    let shown = own(gate, &session, "GET", &format!("/v1/requests/{id}"), "").json();
    assert_eq!(shown["state"], "allowed", "{shown}");
}
