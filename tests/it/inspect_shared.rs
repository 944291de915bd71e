//! Connections to origins that inspected tunnels of one caller share, and where each tunnel makes its
//! own.

use std::io;

use crate::identity::hashed;
use crate::kit::{Inside, Line, Lines, Origin, Pki, TIERS, Visit, allow_more, inspected, until};

const HOST: &str = "files.example.net";
const CALLER: &str = "ana";
const OTHER_CALLER: &str = "bob";

/// Two users, each with a secret of its own.
fn users() -> String {
    let user = |name: &str| {
        let secret = hashed(&format!("of {name}"));
        format!("\n[[identity.user]]\nname = \"{name}\"\nsecret = \"{secret}\"\n")
    };
    user(CALLER) + &user(OTHER_CALLER)
}

/// An origin over TLS that speaks HTTP/1.1, and a gate that inspects it.
struct Bench {
    origin: Origin,
    inside: Inside,
}

impl Bench {
    fn start() -> Self {
        Self::before(Visit::echo)
    }

    fn before(
        answer: impl Fn(&mut Visit, &crate::kit::Message) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let pki = Pki::new();
        let origin = Origin::https(&pki, &[HOST], answer);
        let rules = inspected("files", HOST, origin.port(), "");
        let policy = format!("{TIERS}{}{rules}", users());
        let inside = Inside::start(&pki, &[HOST], &policy);
        Self { origin, inside }
    }

    /// A tunnel whose one request is answered, and that is closed in order: then its connection to
    /// the origin rests.
    #[track_caller]
    fn visit(&self, caller: &str) {
        let authority = format!("{HOST}:{}", self.origin.port());
        let before = self.closed();
        let client = self.inside.gate.client();
        let mut client = client.known_as(caller, &format!("of {caller}"));
        client.tunnel(&authority);
        let mut client = client.enter(&self.inside.trust, HOST);
        assert_eq!(client.inside("GET", &authority, "/docs").status(), 200);
        drop(client);
        until("both close lines", || self.closed() >= before + 2);
    }

    fn closed(&self) -> usize {
        let lines = self.inside.gate.records();
        lines.iter().filter(|line| line.is_close()).count()
    }

    /// Whether each tunnel took the connection of an earlier flow, as its decision says.
    fn reused(&self) -> Vec<bool> {
        let mut tunnels = self.inside.gate.records().named("decision");
        tunnels.retain(|line| line.text("http.request.method") == "CONNECT");
        let reused = |line: &Line| line.has("tidegate.connection.reused");
        tunnels.iter().map(reused).collect()
    }
}

#[test]
fn a_tunnel_takes_the_connection_of_an_earlier_one_and_the_record_says_so() {
    let bench = Bench::start();
    for _ in 0..3 {
        bench.visit(CALLER);
    }
    assert_eq!(bench.origin.connections(), 1);
    assert_eq!(bench.reused(), [false, true, true]);
}

#[test]
fn another_caller_takes_no_connection() {
    let bench = Bench::start();
    bench.visit(CALLER);
    bench.visit(OTHER_CALLER);
    assert_eq!(bench.origin.connections(), 2);
    bench.visit(CALLER);
    bench.visit(OTHER_CALLER);
    assert_eq!(bench.origin.connections(), 2);
    assert_eq!(bench.reused(), [false, false, true, true]);
}

#[test]
fn a_new_policy_begins_without_connections() {
    let bench = Bench::start();
    bench.visit(CALLER);
    let rules = inspected("renamed", HOST, bench.origin.port(), "");
    let policy = Inside::text(&[HOST], &format!("{TIERS}{}{rules}", users()));
    bench.inside.gate.reload(&policy);
    bench.visit(CALLER);
    assert_eq!(bench.origin.connections(), 2);
    assert_eq!(bench.reused(), [false, false]);
}

#[test]
fn a_connection_that_its_origin_closed_serves_no_tunnel() {
    let bench = Bench::before(|visit, request| {
        visit.echo(request)?;
        Err(io::Error::other("the origin closes after each answer"))
    });
    for _ in 0..3 {
        bench.visit(CALLER);
    }
    assert_eq!(bench.origin.connections(), 3);
}

#[test]
fn each_tunnel_makes_its_own_handshake_where_a_certificate_can_be_revoked() {
    let lists = "crl = [\"all.crl\"]\n";
    let own = "client-cert = \"agent.pem\"\nclient-key = \"agent.key\"\n";
    for lines in [lists, own] {
        let pki = Pki::new();
        let (cert, key) = pki.issue(|_| ());
        let origin = Origin::tls(&pki, &[HOST]);
        let strict = "grant.inspect = true\ngrant.upstream = \"strict\"\n";
        let rules = allow_more("files", HOST, origin.port(), strict);
        let upstream = format!("\n[upstream.strict]\nroots = [\"origins.pem\"]\n{lines}");
        let policy = Inside::text(&[HOST], &format!("{TIERS}{}{rules}{upstream}", users()));
        let files = [
            ("all.crl", pki.crl(&[], 2099)),
            ("agent.pem", cert),
            ("agent.key", key),
        ];
        let inside = Inside::with(&pki, &policy, &files);
        let bench = Bench { origin, inside };
        bench.visit(CALLER);
        bench.visit(CALLER);
        assert_eq!(bench.origin.connections(), 2, "{lines}");
        assert_eq!(bench.reused(), [false, false], "{lines}");
    }
}
