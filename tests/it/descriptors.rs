//! The budget of descriptors: what one caller opens does not leave another without.

use base64::Engine as _;
use rcgen::SanType;

use crate::identity::hashed;
use crate::kit::{
    Client, Gate, Hello, Http2, Lines, Origin, Pki, TIERS, Wire, allow, flag, kind, names, until,
};

const HOST: &str = "files.example.net";
const NAME: &str = "proxy.example.net";
/// Descriptors of the gate: 256 are kept back, and half of the rest is for dials.
const LIMIT: &str = "--nofile=400:400";
/// What one caller may have of those: two thirds of 72.
const SHARE: usize = 48;

/// A gate with few descriptors, two users and a TLS listener.
struct Bench {
    pki: Pki,
    origin: Origin,
    gate: Gate,
}

impl Bench {
    fn start() -> Self {
        Self::before(Origin::bytes())
    }

    fn before(origin: Origin) -> Self {
        let pki = Pki::new();
        let (cert, key) = pki.issue(|params| {
            let name = NAME.try_into().expect("ASCII");
            params.subject_alt_names = vec![SanType::DnsName(name)];
        });
        let policy = format!(
            "{TIERS}{}{}
[[identity.user]]
name = \"ana\"
secret = \"{}\"

[[identity.user]]
name = \"bob\"
secret = \"{}\"

[[listener]]
address = \"127.0.0.1:0\"
tls = {{ cert = \"proxy.pem\", key = \"proxy.key\" }}
",
            names(&[HOST]),
            allow("files", HOST, origin.port()),
            hashed("of ana"),
            hashed("of bob"),
        );
        let gate = Gate::plan(&policy)
            .file("proxy.pem", &cert)
            .file("proxy.key", &key)
            .under(&["prlimit", LIMIT])
            .start();
        Self { pki, origin, gate }
    }

    fn target(&self) -> String {
        format!("{HOST}:{}", self.origin.port())
    }

    fn as_user(&self, user: &str) -> Client {
        self.gate.client().known_as(user, &format!("of {user}"))
    }

    /// A tunnel of that user passes bytes.
    #[track_caller]
    fn serves(&self, user: &str) {
        let hello = Hello::naming(HOST).bytes();
        let mut client = self.as_user(user);
        client.tunnel(&self.target()).send(&hello);
        assert_eq!(client.exactly(hello.len()), hello);
    }

    /// HTTP/2 with the TLS listener.
    fn http2(&self) -> Http2 {
        let wire = Wire::dial(self.gate.listener(1));
        Http2::client(self.pki.enter_as(wire, NAME, &["h2"]))
    }

    /// Asks for so many tunnels on one connection; how many opened, and how many were too many.
    fn flood(&self, client: &mut Http2, user: &str, count: u32) -> (usize, usize) {
        let both = format!("{user}:of {user}");
        let both = base64::engine::general_purpose::STANDARD.encode(both);
        let (authorization, target) = (format!("Basic {both}"), self.target());
        let head = [
            (":method", "CONNECT"),
            (":authority", &target),
            ("proxy-authorization", &authorization),
        ];
        for place in 0..count {
            client.head(place * 2 + 1, flag::END_HEADERS, &head);
        }
        let (mut opened, mut refused) = (0, 0);
        while opened + refused < count as usize {
            let frame = client.next().expect("the connection stays");
            match (frame.kind, frame.status()) {
                (kind::HEADERS, Some(200)) => opened += 1,
                (kind::HEADERS, Some(429)) => refused += 1,
                (kind::HEADERS, status) => panic!("{status:?}"),
                _ => {}
            }
        }
        (opened, refused)
    }
}

#[test]
fn tunnels_on_streams_of_one_caller_leave_descriptors_for_another() {
    let bench = Bench::start();
    bench.serves("bob");
    let mut clients: Vec<Http2> = (0..9).map(|_| bench.http2()).collect();
    let (mut opened, mut refused) = (0, 0);
    for client in &mut clients {
        let (more, fewer) = bench.flood(client, "ana", 120);
        (opened, refused) = (opened + more, refused + fewer);
    }
    assert_eq!(opened + refused, 1080);
    assert!((SHARE / 2..=SHARE).contains(&opened), "{opened} of {SHARE}");
    bench.serves("bob");
    let answer = bench.as_user("ana").connect(&bench.target());
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (429, "too_many_flows")
    );
    assert!(answer.field("retry-after").is_some());
    let reasons = bench.gate.records();
    let bad = |line: &crate::kit::Line| {
        matches!(
            line.reason(),
            "connect_failed" | "dns_failed" | "record_unavailable"
        )
    };
    assert!(!reasons.iter().any(bad), "something ran out of descriptors");
    assert!(bench.gate.metrics().sum("process_open_fds", &[]) < 400.0);

    drop(clients);
    until("room for more", || {
        bench.as_user("ana").connect(&bench.target()).status() == 200
    });
}

#[test]
fn tunnels_of_one_caller_leave_descriptors_for_another() {
    let bench = Bench::start();
    let mut open = Vec::new();
    let refused = loop {
        let mut client = bench.as_user("ana");
        let answer = client.connect(&bench.target());
        if answer.status() != 200 {
            break answer;
        }
        open.push(client);
        assert!(open.len() <= SHARE, "more than its share");
    };
    assert_eq!(
        (refused.status(), refused.refusal().as_str()),
        (429, "too_many_flows")
    );
    let line = bench
        .gate
        .decision(refused.field("x-tidegate-flow").expect("a flow"));
    assert_eq!(line.reason(), "too_many_flows");
    bench.serves("bob");

    drop(open.pop());
    until("room for one more", || {
        bench.as_user("ana").connect(&bench.target()).status() == 200
    });
}

#[test]
fn connections_that_rest_are_not_shared_by_callers() {
    let bench = Bench::before(Origin::echo());
    let url = format!("http://{}/", bench.target());
    for (asked, user) in ["ana", "bob", "ana", "bob"].into_iter().enumerate() {
        assert_eq!(bench.as_user(user).get(&url).status(), 200);
        let what = "its end";
        let ended = |lines: &[crate::kit::Line]| lines.named("close").len() == asked + 1;
        bench.gate.eventually_records(what, ended);
    }
    assert_eq!(bench.origin.requests().len(), 4);
    assert_eq!(bench.origin.connections(), 2, "one for each caller");
}

#[test]
fn connections_that_rest_in_the_pool_make_room() {
    let origins: Vec<Origin> = (0..SHARE + 10).map(|_| Origin::echo()).collect();
    let ports: Vec<_> = origins.iter().map(|it| it.port().to_string()).collect();
    let rule = format!(
        "\n[[rule]]\nid = \"files\"\nverdict = \"allow\"\nto.hosts = [\"{HOST}\"]\n\
         to.ports = [{}]\n\
         grant.addresses = [\"127.0.0.0/8\"]\n",
        ports.join(", ")
    );
    let gate = Gate::plan(&format!("{TIERS}{}{rule}", names(&[HOST])))
        .under(&["prlimit", LIMIT])
        .start();
    let mut client = gate.client();
    for origin in &origins {
        let answer = client.get(&format!("http://{HOST}:{}/", origin.port()));
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    assert!(
        gate.records()
            .iter()
            .all(|line| line.reason() != "too_many_flows")
    );
    assert_eq!(gate.records().named("decision").len(), origins.len());
}
