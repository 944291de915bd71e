//! Clients that do not read: each is let go, and counted until it is.

use std::io::Write;

use rcgen::SanType;

use crate::kit::{
    Gate, Http2, Inside, Lines, Origin, Pki, TIERS, Wire, allow_more, flag, inspected, kind, names,
    until,
};

const HOST: &str = "files.example.net";
const NAME: &str = "proxy.example.net";
/// More than sockets hold.
const LARGE: usize = 32 << 20;
const LIMITS: &str = "\n[limits]\nidle = \"1 s\"\nkeep-alive = \"1 s\"\n";

/// A gate with a TLS listener, and an origin that answers more than a client takes.
struct Bench {
    pki: Pki,
    origin: Origin,
    gate: Gate,
}

impl Bench {
    fn start() -> Self {
        let pki = Pki::new();
        let origin = Origin::http(|visit, request| {
            if request.target() == "/upgrade" {
                visit.say(
                    "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                )?;
                return visit.say(vec![b'x'; LARGE]);
            }
            visit.answer("200 OK", "text/plain", &vec![b'x'; LARGE])
        });
        let (cert, key) = pki.issue(|params| {
            let name = NAME.try_into().expect("ASCII");
            params.subject_alt_names = vec![SanType::DnsName(name)];
        });
        let rule = allow_more("files", HOST, origin.port(), "upgrade = true\n");
        let listener = "\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                        tls = { cert = \"proxy.pem\", key = \"proxy.key\" }\n";
        let gate = Gate::plan(&format!(
            "{TIERS}{}{rule}{listener}{LIMITS}",
            names(&[HOST])
        ))
        .file("proxy.pem", &cert)
        .file("proxy.key", &key)
        .start();
        Self { pki, origin, gate }
    }

    fn tls(&self, protocol: &str) -> Wire {
        let wire = Wire::dial(self.gate.listener(1));
        self.pki.enter_as(wire, NAME, &[protocol])
    }

    fn url(&self, path: &str) -> String {
        format!("http://{HOST}:{}{path}", self.origin.port())
    }
}

fn connections(gate: &Gate) -> f64 {
    gate.metrics().sum("tidegate_connections", &[])
}

/// The client is counted, and after a while no more, though it keeps its side open.
#[track_caller]
fn is_let_go(gate: &Gate, client: &dyn std::any::Any) {
    until("the client is let go", || connections(gate) < 0.5);
    let _ = client;
    let active = gate.metrics().sum("tidegate_flows_active", &[]);
    assert!(active < 0.5, "{active} flows");
}

fn counted(gate: &Gate) {
    until("the client is counted", || connections(gate) > 0.5);
}

#[test]
fn a_client_of_tls_that_does_not_read_its_answer_is_let_go() {
    let mut bench = Bench::start();
    let mut wire = bench.tls("http/1.1");
    counted(&bench.gate);
    let request = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", bench.url("/"));
    wire.write_all(request.as_bytes()).expect("a request");
    let close = bench.gate.last_close();
    assert_eq!(close.text("error.type"), "idle");
    is_let_go(&bench.gate, &wire);
    assert!(bench.gate.terminate().success());
}

#[test]
fn a_client_of_tls_that_does_not_read_its_refusals_is_let_go() {
    let bench = Bench::start();
    let mut wire = bench.tls("http/1.1");
    counted(&bench.gate);
    let request = "GET http://evil.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\n\r\n";
    // The gate reads on only while it can answer; then it ends the connection.
    let all = request.repeat(20_000);
    let _ = wire.write_all(all.as_bytes());
    is_let_go(&bench.gate, &wire);
}

#[test]
fn a_client_of_tls_that_does_not_read_its_upgrade_is_let_go() {
    let bench = Bench::start();
    let mut wire = bench.tls("http/1.1");
    counted(&bench.gate);
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        bench.url("/upgrade")
    );
    wire.write_all(request.as_bytes()).expect("a request");
    bench.gate.last_close();
    is_let_go(&bench.gate, &wire);
}

#[test]
fn a_client_of_http2_that_does_not_read_is_let_go() {
    let bench = Bench::start();
    let mut client = Http2::client(bench.tls("h2"));
    counted(&bench.gate);
    // Windows as large as they get: the socket is what is full.
    client.frame(kind::SETTINGS, 0, 0, [0, 4, 0x7f, 0xff, 0xff, 0xff]);
    client.frame(kind::WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0, 0]);
    let authority = format!("{HOST}:{}", bench.origin.port());
    let head = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", &authority),
        (":path", "/"),
    ];
    client.head(1, flag::WHOLE, &head);
    bench.gate.last_close();
    until("the client is let go", || connections(&bench.gate) < 0.5);
    drop(client);
}

#[test]
fn a_client_inside_a_tunnel_that_does_not_read_is_let_go() {
    let pki = Pki::new();
    let origin = Origin::https(&pki, &[HOST], |visit, _| {
        visit.answer("200 OK", "text/plain", &vec![b'x'; LARGE])
    });
    let rules = inspected("files", HOST, origin.port(), "");
    let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}{LIMITS}"));
    let mut client = inside.enter(HOST, origin.port());
    counted(&inside.gate);
    let host = format!("{HOST}:{}", origin.port());
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    is_let_go(&inside.gate, &client);
    // The client ended both: their lines come a moment later.
    until("the close lines of the request and its tunnel", || {
        inside.gate.records().named("close").len() == 2
    });
}
