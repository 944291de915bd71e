//! Clients that connect and ask nothing: they keep no other client out.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::SanType;

use crate::kit::{Client, Gate, Hello, Origin, Pki, loopback, until};

const HOST: &str = "files.example.net";
/// Clients that may be connected at once.
const ROOM: usize = 16;
/// Without these limits a silent client would leave soon.
const PATIENT: &str = "\n[limits]\nflows = 16\nheader-timeout = \"10 min\"\n";
/// What a client says before it falls silent.
const SILENCES: [(&str, &str); 4] = [
    ("nothing", ""),
    ("one byte", "G"),
    (
        "half a head",
        "GET http://files.example.net/ HTTP/1.1\r\nHost: ",
    ),
    (
        "half a tunnel",
        "CONNECT files.example.net:443 HTTP/1.1\r\n",
    ),
];

fn url(origin: &Origin) -> String {
    format!("http://{HOST}:{}/", origin.port())
}

/// Connects many clients that say this and no more.
fn silent(address: SocketAddr, count: usize, text: &str) -> Vec<Client> {
    let one = || {
        let mut client = Client::dial(address);
        client.send(text);
        client
    };
    (0..count).map(|_| one()).collect()
}

/// A client is answered, on a busy machine perhaps at its second try. Without room it never is.
fn is_answered(mut client: impl FnMut() -> Client, origin: &Origin, beside: &str) {
    let ask = format!(
        "GET {} HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n",
        url(origin),
        origin.port()
    );
    until(&format!("an answer beside {beside}"), || {
        let mut client = client();
        client.send(&ask);
        client
            .try_answer("GET")
            .is_ok_and(|answer| answer.status() == 200)
    });
}

fn evicted(gate: &Gate) -> f64 {
    gate.metrics()
        .sum("tidegate_connections_evicted_total", &[])
}

#[test]
fn silent_clients_keep_no_other_client_out() {
    let origin = Origin::echo();
    let gate = Gate::with(&format!("{}{PATIENT}", loopback(origin.port())));
    for (what, text) in SILENCES {
        let before = evicted(&gate);
        let held = silent(gate.proxy(), 2 * ROOM, text);
        is_answered(|| gate.client(), &origin, what);
        assert!(evicted(&gate) > before, "{what}: there was room");
        drop(held);
    }
    let line = gate.line("evictions", |line| line.name() == "connections_evicted");
    assert_eq!(line.text("client.address"), "127.0.0.1");
    assert!(line.number("tidegate.evicted.count") >= 1, "{line:?}");
}

#[test]
fn clients_that_rest_after_a_request_keep_no_other_client_out() {
    let origin = Origin::echo();
    let gate = Gate::with(&format!("{}{PATIENT}", loopback(origin.port())));
    for target in [url(&origin), "http://elsewhere.example.net/".to_owned()] {
        let held: Vec<_> = (0..2 * ROOM)
            .map(|_| {
                let mut client = gate.client();
                let host = target.split('/').nth(2).unwrap_or_default();
                client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
                // It may have been turned away on a busy machine.
                let _ = client.try_answer("GET");
                client
            })
            .collect();
        is_answered(|| gate.client(), &origin, &target);
        drop(held);
    }
    assert!(evicted(&gate) > 0.0, "there was room");
}

#[test]
fn requests_that_are_being_answered_are_not_ended() {
    let origin = Origin::bytes();
    let gate = Gate::with(&format!("{}{PATIENT}", loopback(origin.port())));
    let target = format!("{HOST}:{}", origin.port());
    let hello = Hello::naming(HOST).bytes();
    let open = |_| {
        let mut client = gate.client();
        client.tunnel(&target).send(&hello);
        assert_eq!(client.exactly(hello.len()), hello);
        client
    };
    let mut tunnels: Vec<_> = (0..ROOM).map(open).collect();
    // All turns are taken, and none of these clients waits: a new one is turned away.
    for mut late in silent(gate.proxy(), 2 * ROOM, "CONNECT ") {
        assert_eq!(late.rest(), b"");
    }
    assert!(evicted(&gate) < 1.0);
    for client in &mut tunnels {
        client.send("still here");
        assert_eq!(client.exactly(10), b"still here");
    }
    assert_eq!(
        gate.records()
            .iter()
            .filter(|it| it.name() == "close")
            .count(),
        0
    );
    // With one tunnel less there is a turn, which silent clients take from each other only.
    drop(tunnels.pop());
    until("a turn", || {
        let held = silent(gate.proxy(), ROOM, "");
        let mut client = gate.client();
        client.send(
            "GET http://elsewhere.example.net/ HTTP/1.1\r\nHost: elsewhere.example.net\r\n\r\n",
        );
        let is_served = client.try_answer("GET").is_ok_and(|it| it.status() == 403);
        drop(held);
        is_served
    });
    for client in &mut tunnels {
        client.send("still here");
        assert_eq!(client.exactly(10), b"still here");
    }
}

#[test]
fn a_client_that_connects_without_pause_keeps_no_other_client_out() {
    let origin = Origin::echo();
    let gate = Gate::with(&format!("{}{PATIENT}", loopback(origin.port())));
    let (address, stop) = (gate.proxy(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let held = (0..4 * ROOM).map(|_| TcpStream::connect(address));
                drop(held.collect::<Vec<_>>());
            }
        });
        until("evictions", || evicted(&gate) > 0.0);
        for _ in 0..5 {
            is_answered(|| gate.client(), &origin, "the flood");
        }
        stop.store(true, Ordering::Release);
    });
}

/// A gate whose clients come through a balancer, and one listener with TLS.
fn fronted(origin: &Origin) -> Gate {
    let pki = Pki::new();
    let (cert, key) = pki.issue(|params| {
        let name = "proxy.example.net".try_into().expect("ASCII");
        params.subject_alt_names = vec![SanType::DnsName(name)];
    });
    let policy = format!(
        "{}
[[listener]]
address = \"127.0.0.1:0\"
proxy-protocol = [\"127.0.0.1/32\"]

[[listener]]
address = \"127.0.0.1:0\"
tls = {{ cert = \"proxy.pem\", key = \"proxy.key\" }}
{PATIENT}",
        loopback(origin.port())
    );
    let plan = Gate::plan(&policy);
    plan.file("proxy.pem", &cert)
        .file("proxy.key", &key)
        .start()
}

fn behind_balancer(gate: &Gate, client: &str) -> Client {
    let mut stream = Client::dial(gate.listener(1));
    stream.send(format!("PROXY TCP4 {client} 192.0.2.1 4000 3128\r\n"));
    stream
}

#[test]
fn headers_and_handshakes_that_do_not_come_keep_no_other_client_out() {
    let origin = Origin::echo();
    let gate = fronted(&origin);
    let silences = [
        (1, ""),
        (1, "PROXY TCP4 192.0.2.7 "),
        (1, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 3128\r\n"),
        (2, ""),
        (2, "\x16\x03\x01\x02\x00\x01\x00\x01"),
    ];
    for (listener, text) in silences {
        let before = evicted(&gate);
        let held = silent(gate.listener(listener), 2 * ROOM, text);
        let what = format!("{text:?} at listener {listener}");
        is_answered(|| gate.client(), &origin, &what);
        is_answered(|| behind_balancer(&gate, "192.0.2.9"), &origin, &what);
        assert!(evicted(&gate) > before, "{what}: there was room");
        drop(held);
    }
}

#[test]
fn a_network_with_many_silent_connections_ends_none_of_another_network() {
    let origin = Origin::echo();
    let gate = fronted(&origin);
    // The oldest connection of all: it is not ended, since its network has few.
    let mut honest = behind_balancer(&gate, "192.0.2.9");
    assert_eq!(honest.get(&url(&origin)).status(), 200);
    let header = "PROXY TCP4 198.51.100.7 192.0.2.1 4000 3128\r\n";
    let held = silent(gate.listener(1), 4 * ROOM, header);
    until("evictions", || evicted(&gate) > 0.0);
    assert_eq!(honest.get(&url(&origin)).status(), 200);
    let line = gate.line("evictions", |line| line.name() == "connections_evicted");
    assert_ne!(line.text("client.address"), "192.0.2.9");
    drop(held);
}

#[test]
fn bodies_that_the_gate_waits_for_keep_no_other_client_out() {
    let origin = Origin::echo();
    let gate = Gate::with(&format!("{}{PATIENT}", loopback(origin.port())));
    // A body that begins like JSON is read to its end before it is decided.
    let upload = format!(
        "POST {} HTTP/1.1\r\nHost: {HOST}:{}\r\nContent-Length: 100\r\n\r\n{{",
        url(&origin),
        origin.port()
    );
    let held = silent(gate.proxy(), 2 * ROOM, &upload);
    is_answered(|| gate.client(), &origin, "uploads that do not go on");
    drop(held);
    assert!(origin.asked().iter().all(|asked| asked.starts_with("GET")));
    let line = gate.line("an upload that was ended", |line| {
        line.reason() == "too_many_flows"
    });
    assert_eq!(line.verdict(), "error", "{line:?}");
}
