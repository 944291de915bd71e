//! A gate that is killed right behind its answers: each that a client has seen has its line.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use rustix::process::Signal;

use crate::kit::{DEADLINE, Gate, Hello, Line, Lines, Origin, TIERS, Visit, loopback, names};

/// How often the gate is killed, and how many clients wait for an answer then.
const KILLS: usize = 100;
const CLIENTS: usize = 10;

/// The target of a client: every other one is allowed.
fn target(kill: usize, client: usize) -> (String, bool) {
    let allowed = client % 2 == 1;
    let end = if allowed { "com" } else { "net" };
    (format!("k{kill}-c{client}.example.{end}"), allowed)
}

fn policy(port: u16) -> String {
    let every = (0..KILLS).flat_map(|kill| (0..CLIENTS).map(move |client| target(kill, client)));
    let allowed: Vec<String> = every.filter(|it| it.1).map(|it| it.0).collect();
    let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
    format!(
        "{TIERS}{}\n[[rule]]\nid = \"all\"\nverdict = \"allow\"\nto.hosts = [\"*.example.com\"]\n\
         to.ports = [{port}]\ngrant.addresses = [\"127.0.0.0/8\"]\n",
        names(&allowed)
    )
}

/// The status that a client reads; `None` where the gate was killed before.
fn status(proxy: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(proxy).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut line = [0; 12];
    stream.read_exact(&mut line).ok()?;
    Some(String::from_utf8_lossy(&line[9..]).into_owned())
}

#[test]
fn no_line_of_an_answer_is_lost_with_a_gate_that_is_killed_behind_it() {
    let origin = Origin::http(|visit: &mut Visit, _| visit.answer("200 OK", "text/plain", b"a"));
    let port = origin.port();
    let mut gate = Gate::with(&policy(port));
    let answered = Mutex::new(Vec::new());
    for kill in 0..KILLS {
        let running = &gate;
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let answered = &answered;
                scope.spawn(move || {
                    let (host, allowed) = target(kill, client);
                    // Refusals of CONNECT are answered in another place than those of requests.
                    let request = match client % 4 {
                        2 => {
                            format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")
                        }
                        _ => format!(
                            "GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
                        ),
                    };
                    let Some(status) = status(running.proxy(), &request) else {
                        return;
                    };
                    running.signal(Signal::KILL);
                    assert_eq!(status, if allowed { "200" } else { "403" }, "{host}");
                    answered.lock().expect("hosts").push(host);
                });
            }
        });
        gate.ended();
        gate.restart();
    }
    let answered = answered.into_inner().expect("hosts");
    let refused = answered
        .iter()
        .filter(|host| host.contains(".example.net"))
        .count();
    assert!(
        answered.len() >= KILLS && refused > 0,
        "{} answers",
        answered.len()
    );
    eprintln!("{} answers, {refused} of them refusals", answered.len());
    let lines = gate.records().named("decision");
    let known: std::collections::HashSet<_> = lines
        .iter()
        .map(|line| line.text("server.address"))
        .collect();
    let lost: Vec<_> = answered
        .iter()
        .filter(|host| !known.contains(host.as_str()))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} lines are lost: {lost:?}",
        lost.len(),
        answered.len()
    );
}

/// How often a gate is killed behind one answer.
const SINGLE_KILLS: usize = 20;

/// Asks a gate, kills it behind the answer, and starts it again; what the log must have a line of.
fn killed_behind<T>(gate: &mut Gate, ask: impl Fn(&Gate) -> T) -> Vec<T> {
    let answers = (0..SINGLE_KILLS).map(|_| {
        let answer = ask(gate);
        gate.signal(Signal::KILL);
        gate.ended();
        gate.restart();
        answer
    });
    answers.collect()
}

fn closes_with<'a>(lines: &'a [Line], error: &str) -> Vec<&'a str> {
    let closes = lines
        .iter()
        .filter(|line| line.is_close() && line.text("error.type") == error);
    closes.map(Line::flow).collect()
}

#[test]
fn a_refusal_behind_an_allowed_decision_has_its_close_line_before_its_answer() {
    // No origin listens at this port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    drop(taken);
    let mut gate = Gate::with(&loopback(port));
    let target = format!("files.example.net:{port}");
    let url = format!("http://{target}/");
    let flows = killed_behind(&mut gate, |gate| {
        let answer = gate.client().connect(&target);
        assert_eq!(answer.refusal(), "connect_failed");
        answer.field("x-tidegate-flow").expect("a flow").to_owned()
    });
    let requests = killed_behind(&mut gate, |gate| {
        let answer = gate.client().get(&url);
        assert_eq!(answer.refusal(), "connect_failed");
        answer.field("x-tidegate-flow").expect("a flow").to_owned()
    });
    let lines = gate.records();
    let closed = closes_with(&lines, "connect_failed");
    for flow in flows.iter().chain(&requests) {
        assert!(closed.contains(&flow.as_str()), "{flow} has no close line");
    }
}

#[test]
fn a_wrong_name_in_a_tunnel_has_its_close_line_before_its_alert() {
    let origin = Origin::bytes();
    let mut gate = Gate::with(&loopback(origin.port()));
    let target = format!("files.example.net:{}", origin.port());
    for (hello, error) in [
        (Hello::naming("other.example.net").bytes(), "sni_mismatch"),
        (Hello::nameless().bytes(), "sni_missing"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not_tls"),
    ] {
        killed_behind(&mut gate, |gate| {
            let mut client = gate.client();
            client.tunnel(&target).send(&hello);
            client.rest();
        });
        let closed = closes_with(&gate.records(), error).len();
        assert_eq!(closed, SINGLE_KILLS, "{error}");
    }
}

#[test]
fn a_session_that_starts_or_ends_has_its_line_before_the_answer() {
    let mut gate = Gate::with(&loopback(1));
    let nothing = serde_json::json!({});
    let started = killed_behind(&mut gate, |gate| gate.session(&nothing).id);
    let revoked = killed_behind(&mut gate, |gate| {
        let session = gate.session(&nothing);
        gate.revoke(&session.id);
        session.id
    });
    let ended = killed_behind(&mut gate, |gate| {
        let session = gate.session(&nothing);
        let answer = gate.post("/v1/sessions/end", Some(&session.token), &nothing);
        assert_eq!(answer.status(), 204, "{answer:?}");
        session.id
    });
    let lines = gate.records();
    let sessions = |event: &str| -> Vec<String> {
        let lines = lines.named(event);
        lines
            .iter()
            .map(|line| line.text("session.id").to_owned())
            .collect()
    };
    let (starts, ends) = (sessions("session_started"), sessions("session_ended"));
    for id in started.iter().chain(&revoked).chain(&ended) {
        assert!(starts.contains(id), "the start of {id}");
    }
    for id in revoked.iter().chain(&ended) {
        assert!(ends.contains(id), "the end of {id}");
    }
}

#[test]
fn a_report_and_a_tool_call_have_their_lines_before_the_answer() {
    let mut gate = Gate::with(&loopback(1));
    killed_behind(&mut gate, |gate| {
        assert_eq!(gate.contained(r#"{"tcp":true}"#), 204);
    });
    killed_behind(&mut gate, |gate| {
        let session = gate.session(&serde_json::json!({}));
        let hook = serde_json::json!({
            "session_id": session.id, "hook_event_name": "PreToolUse", "tool_name": "Bash",
            "tool_use_id": "toolu_1", "tool_input": { "command": "true" },
        });
        let answer = gate.post("/v1/hooks/claude-code", Some(&session.token), &hook);
        assert_eq!(answer.status(), 200, "{answer:?}");
    });
    let lines = gate.records();
    for event in ["containment_reported", "tool_call_started"] {
        assert_eq!(lines.named(event).len(), SINGLE_KILLS, "{event}");
    }
}
