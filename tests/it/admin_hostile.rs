//! Clients of the admin listener and the control socket that send slowly, read slowly, or do neither.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kit::{DEADLINE, Gate, Lines, eventually, loopback, until};

/// What a client says before it falls silent.
const SILENCES: &[(&str, &str)] = &[
    ("nothing", ""),
    ("half a head", "POST /v1/contained HTTP/1.1\r\nHost: local"),
    (
        "half a body",
        "POST /v1/contained HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{",
    ),
    (
        "half a session",
        "POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{",
    ),
    (
        "half a form",
        "POST /v1/sessions/exchange HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\na=",
    ),
    (
        "half a chunk",
        "POST /v1/contained HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n64\r\n{",
    ),
    (
        "an answer that it keeps open",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
];

/// Room for many sockets in this process; how many it takes.
fn room_for(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
    let most = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    wanted.min(usize::try_from(most / 2).unwrap_or(wanted))
}

fn all_answer(gate: &Gate, beside: &str) {
    for path in ["/healthz", "/readyz", "/metrics", "/v1/policy"] {
        assert_eq!(gate.ask(path).status(), 200, "{path} beside {beside}");
    }
}

#[test]
fn no_number_of_silent_clients_keeps_health_and_metrics_from_answering() {
    let gate = Gate::with(&loopback(1));
    let many = room_for(1000);
    for (what, text) in SILENCES {
        for count in [64, 200, many] {
            let clients: Vec<_> = (0..count)
                .map(|_| {
                    let mut client = TcpStream::connect(gate.admin()).expect("a connection");
                    // It may have been ended to make room.
                    let _ = client.write_all(text.as_bytes());
                    client
                })
                .collect();
            all_answer(&gate, &format!("{count} clients that sent {what}"));
            drop(clients);
        }
    }
}

#[test]
fn clients_that_do_not_read_metrics_keep_nobody_from_them() {
    let gate = Gate::with(&loopback(1));
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let mut client = TcpStream::connect(gate.admin()).expect("a connection");
            client.set_nonblocking(true).expect("a socket");
            let _ = client.write(ask.as_bytes());
            client
        })
        .collect();
    all_answer(&gate, "clients that do not read");
    drop(clients);
}

#[test]
fn the_control_socket_answers_beside_silent_clients() {
    let gate = Gate::with(&loopback(1));
    let path = gate.folder().join("control.sock");
    for (_, text) in SILENCES {
        let clients: Vec<_> = (0..room_for(200))
            .map(|_| {
                let mut client = UnixStream::connect(&path).expect("a connection");
                let _ = client.write_all(text.as_bytes());
                client
            })
            .collect();
        gate.session(&serde_json::json!({}));
        drop(clients);
    }
}

#[test]
fn a_body_that_does_not_come_is_answered_408() {
    let gate = Gate::with(&loopback(1));
    for (what, text) in SILENCES
        .iter()
        .filter(|(what, _)| what.starts_with("half a "))
    {
        let mut client = TcpStream::connect(gate.admin()).expect("a connection");
        client.set_read_timeout(Some(DEADLINE)).expect("a socket");
        client.write_all(text.as_bytes()).expect("sent");
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        let late = answer.starts_with("HTTP/1.1 408 ");
        assert!(
            late || *what == "half a head" && answer.is_empty(),
            "{what}: {answer}"
        );
    }
}

#[test]
fn a_hook_whose_body_does_not_come_is_answered_408() {
    let gate = Gate::with(&loopback(1));
    let session = gate.session(&serde_json::json!({}));
    let mut client = TcpStream::connect(gate.admin()).expect("a connection");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let head = format!(
        "POST /v1/hooks/claude-code HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\
         Content-Type: application/json\r\nAuthorization: Bearer {}\r\n\r\n{{",
        session.token
    );
    client.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    let gate = Gate::with(&loopback(1));
    let mut client = TcpStream::connect(gate.admin()).expect("a connection");
    client.set_nonblocking(true).expect("a socket");
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20_000);
    let _ = client.write(ask.as_bytes());
    until("its end", || {
        let mut polled = [PollFd::new(&client, PollFlags::RDHUP)];
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let _ = poll(&mut polled, Some(&moment));
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        polled[0].revents().intersects(ended)
    });
}

#[test]
fn a_connection_that_rests_is_let_go() {
    let gate = Gate::with(&loopback(1));
    for (what, text) in [SILENCES[0], SILENCES[SILENCES.len() - 1]] {
        let mut client = TcpStream::connect(gate.admin()).expect("a connection");
        client.set_read_timeout(Some(DEADLINE)).expect("a socket");
        client.write_all(text.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        client
            .read_to_end(&mut answer)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn every_change_is_on_record_with_who_asked() {
    let gate = Gate::with(&loopback(1));
    let (own, uid) = (std::process::id(), rustix::process::getuid().as_raw());
    let parent = gate.session(&serde_json::json!({}));
    let request = serde_json::json!({ "session": "0195f3c2-7e1a-7bbb-8ccc-0123456789ab" });
    let child = gate.child(&parent, &request);
    let hook = serde_json::json!({
        "session_id": parent.id, "hook_event_name": "PreToolUse", "tool_name": "Bash",
        "tool_use_id": "toolu_1", "tool_input": { "command": "true" },
    });
    let answer = gate.post("/v1/hooks/claude-code", Some(&parent.token), &hook);
    assert_eq!(answer.status(), 200, "{answer:?}");
    gate.revoke(&child.id);
    let nothing = serde_json::json!({});
    let ended = gate.post("/v1/sessions/end", Some(&parent.token), &nothing);
    assert_eq!(ended.status(), 204, "{ended:?}");

    let lines = eventually("five lines", || {
        let lines = gate.records();
        (lines.named("session_ended").len() == 2).then_some(lines)
    });
    let started = lines.named("session_started");
    let ended = lines.named("session_ended");
    for line in [&started[0], &ended[0]] {
        assert_eq!(line.text("tidegate.asker.door"), "control");
        assert_eq!(line.number("tidegate.asker.pid"), u64::from(own));
        assert_eq!(line.number("tidegate.asker.uid"), u64::from(uid));
    }
    let calls = lines.named("tool_call_started");
    for line in [&started[1], &calls[0], &ended[1]] {
        assert_eq!(line.text("tidegate.asker.door"), "admin");
        assert_eq!(line.text("tidegate.asker.session"), parent.id);
        assert_eq!(line.text("tidegate.asker.address"), "127.0.0.1");
    }
    assert_eq!(calls[0].text("tool_use_id"), "toolu_1");
}
