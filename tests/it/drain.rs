//! How a gate ends.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::kit::{
    DEADLINE, Dns, Gate, Hello, Lines, Origin, Program, TIERS, allow, loopback, until,
};

const HOST: &str = "files.example.net";

/// A gate with an open tunnel through it.
fn with_open_tunnel(limits: &str) -> (Origin, Gate, crate::kit::Client) {
    let origin = Origin::bytes();
    let gate = Gate::with(&format!("{}{limits}", loopback(origin.port())));
    let hello = Hello::naming(HOST).bytes();
    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);
    (origin, gate, client)
}

#[test]
fn sigterm_without_flows_ends_at_once_and_well() {
    let mut gate = Gate::with(&loopback(1));

    assert!(gate.terminate().success());
}

#[test]
fn sigterm_lets_open_flows_finish() {
    let (_origin, mut gate, mut client) = with_open_tunnel("");

    gate.signal(Signal::TERM);
    until("draining", || gate.said().contains("draining"));
    client.send(b"last words");
    assert_eq!(client.exactly(10), b"last words");
    client.half_close();
    assert_eq!(client.rest(), b"");

    assert!(gate.ended().success());
    let close = gate.records().named("close").pop().expect("a close");
    assert_eq!(close.text("tidegate.end"), "closed");
}

#[test]
fn a_second_sigterm_ends_open_flows_at_once() {
    let (_origin, mut gate, mut client) = with_open_tunnel("\n[limits]\ndrain = \"1 h\"\n");

    gate.signal(Signal::TERM);
    until("draining", || gate.said().contains("draining"));
    gate.signal(Signal::TERM);

    assert!(gate.ended().success());
    assert_eq!(client.rest(), b"");
    let close = gate.records().named("close").pop().expect("a close");
    assert_eq!(close.text("tidegate.end"), "cancelled");
    assert_eq!(close.text("tidegate.blame"), "proxy");
}

#[test]
fn a_drain_has_a_deadline() {
    let (_origin, mut gate, mut client) = with_open_tunnel("\n[limits]\ndrain = \"1 s\"\n");

    assert!(gate.terminate().success());

    assert_eq!(client.rest(), b"");
    let close = gate.records().named("close").pop().expect("a close");
    assert_eq!(close.text("tidegate.end"), "cancelled");
}

/// A 503 asks its client to try again. A POST that its origin has may not be carried out twice.
#[test]
fn at_the_end_of_a_drain_a_waiting_get_is_told_to_come_again_and_a_post_is_closed() {
    let origin = Origin::http(|visit, _| {
        let _ = visit.exactly(1)?;
        Ok(())
    });
    let port = origin.port();
    let mut gate = Gate::with(&format!("{}\n[limits]\ndrain = \"1 s\"\n", loopback(port)));
    let ask = |method: &str, fields: &str| {
        let mut client = gate.client();
        client.send(format!(
            "{method} http://{HOST}:{port}/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n"
        ));
        client
    };
    let mut reading = ask("GET", "");
    let mut writing = ask("POST", "Content-Length: 0\r\n");
    until("both at the origin", || origin.requests().len() == 2);

    assert!(gate.terminate().success());

    let answer = reading.answer("GET");
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (503, "draining")
    );
    assert_eq!(writing.rest(), b"");
    let mut ends: Vec<_> = gate
        .records()
        .named("close")
        .iter()
        .map(|close| close.text("tidegate.end").to_owned())
        .collect();
    ends.sort();
    assert_eq!(ends, ["cancelled", "refused"]);
}

#[test]
fn a_flow_whose_name_is_resolved_after_the_end_of_a_drain_ends_with_it() {
    let late = "late.example.net";
    let dns = Dns::start(&[(HOST, &["127.0.0.1"]), (late, &["127.0.0.1"])]);
    let origin = Origin::bytes();
    let rules = [
        allow("files", HOST, origin.port()),
        allow("late", late, origin.port()),
    ];
    let mut gate = Gate::with(&format!("{TIERS}{}{}", dns.section(), rules.concat()));
    let mut open = gate.client();
    open.tunnel(&format!("{HOST}:{}", origin.port()));
    dns.hold();
    let mut client = gate.client();
    let target = format!("{late}:{}", origin.port());
    client.send(format!("CONNECT {target} HTTP/1.1\r\n\r\n"));
    until("a question", || dns.asked().iter().any(|name| name == late));

    gate.signal(Signal::TERM);
    until("draining", || gate.said().contains("draining"));
    gate.signal(Signal::TERM);
    assert_eq!(open.rest(), b"", "open flows are ended");
    dns.release();

    assert!(gate.ended().success());
    client.rest();
    let lines = gate.records();
    assert_eq!(lines.named("decision").len(), 2);
    assert_eq!(lines.named("close").len(), 2, "{lines:?}");
    assert!(!gate.said().contains("did not end"), "{}", gate.said());
}

#[test]
fn while_draining_a_new_flow_is_refused() {
    let (_origin, mut gate, mut client) = with_open_tunnel("");
    // A connection from before the drain, on which the proxy already waits for the rest of a head.
    let mut early = gate.client();
    early.send("GET http://files.example.net/ HTTP/1.1\r\n");
    until("the connection", || gate.metrics().0.contains("tidegate"));
    gate.signal(Signal::TERM);
    until("draining", || {
        gate.metrics().sum("tidegate_draining", &[]) > 0.5
    });

    assert_eq!(gate.ask("/readyz").status(), 503);
    assert_eq!(gate.ask("/healthz").status(), 200);
    early.send("Host: x\r\n\r\n");
    if let Ok(answer) = early.try_answer("GET") {
        assert_eq!(
            (answer.status(), answer.refusal().as_str()),
            (503, "draining")
        );
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
    } else {
        panic!("a request that had begun got no answer");
    }

    client.half_close();
    assert_eq!(client.rest(), b"");
    assert!(gate.ended().success());
}

#[test]
fn sigint_is_like_sigterm() {
    let mut gate = Gate::with(&loopback(1));

    gate.signal(Signal::INT);

    assert!(gate.ended().success());
}

#[test]
fn sigterm_in_the_middle_of_a_clone_leaves_its_end() {
    let (begun, beginning) = mpsc::channel::<()>();
    let begun = Arc::new(Mutex::new(begun));
    let origin = Origin::http(move |visit, _| {
        visit.say(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\
             Transfer-Encoding: chunked\r\n\r\n4\r\n001e\r\n",
        )?;
        let _ = begun.lock().expect("a channel").send(());
        let _ = visit.exactly(1)?;
        Ok(())
    });
    let limits = "\n[limits]\ndrain = \"1 s\"\n";
    let mut gate = Gate::with(&format!("{}{limits}", loopback(origin.port())));
    let home = TempDir::new().expect("a home");
    let url = format!("http://{HOST}:{}/repo.git", origin.port());
    let git = Program::new("git", home.path())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .through(&gate.url())
        .args(["clone", &url, "copy"]);
    let cloning = std::thread::spawn(move || git.run());
    beginning
        .recv_timeout(DEADLINE)
        .expect("a clone at the origin");

    assert!(gate.terminate().success());

    cloning.join().expect("git").failed();
    let close = gate.records().named("close").pop().expect("a close");
    assert_eq!(close.text("tidegate.end"), "cancelled");
}

#[test]
fn a_port_that_is_taken_is_an_error_and_not_a_silent_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = taken.local_addr().expect("an address");
    let folder = TempDir::new().expect("a folder");
    let config = folder.path().join("tidegate.toml");
    std::fs::write(&config, format!("[listen]\nproxy = [\"{address}\"]\n")).expect("a file");

    let outcome = crate::kit::tidegate(&["run".as_ref(), "--config".as_ref(), config.as_os_str()]);

    assert_eq!(outcome.code, Some(4));
    outcome.showed(&address.to_string());
}
