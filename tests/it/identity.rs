//! Who is asking: credentials, listeners, labels, and what none of them can do.

use crate::kit::{Client, Gate, Line, Message, Origin, TIERS, allow_more, names};

const HOST: &str = "files.example.net";
const SESSION: &str = "0195f3c2-7e1a-7bbb-8ccc-0123456789ab";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const ANA: &str = "4f1c-a-long-random-token-of-ana";
const BOB: &str = "9e07-a-long-random-token-of-bob";

pub(crate) fn hashed(secret: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
    digest
        .as_ref()
        .iter()
        .fold(String::from("sha256:"), |text, byte| {
            format!("{text}{byte:02x}")
        })
}

/// Ana works on an open repository; Bob is a contractor and may be no looser than restricted.
/// Listeners: 0 optional identity, 1 identity required, 2 everyone restricted, 3 a repository.
/// Each tier has one host of its own at the origin.
fn policy(port: u16) -> String {
    let per_tier = |tier: &str| {
        let lines = format!("from.tiers = [\"{tier}\"]");
        allow_more(tier, &format!("{tier}.example.com"), port, &lines)
    };
    format!(
        "{TIERS}{dial}{files}{open}{standard}{restricted}
[[repository]]
match = \"github.com/acme/open*\"
tier = \"open\"

[group.contractors]
members = [\"subject:bob\"]
floor = \"restricted\"

[[identity.user]]
name = \"ana\"
secret = \"{ana}\"
groups = [\"platform\"]
repository = \"github.com/acme/open-tools\"

[group.platform]

[[identity.user]]
name = \"bob\"
secret = \"{bob}\"
repository = \"github.com/acme/open-tools\"

[[listener]]
address = \"127.0.0.1:0\"
identity = \"required\"

[[listener]]
address = \"127.0.0.1:0\"
tier = \"restricted\"

[[listener]]
address = \"127.0.0.1:0\"
repository = \"github.com/acme/open-site\"
user = \"site\"
",
        dial = names(&[
            HOST,
            "open.example.com",
            "standard.example.com",
            "restricted.example.com"
        ]),
        files = allow_more("files", HOST, port, ""),
        open = per_tier("open"),
        standard = per_tier("standard"),
        restricted = per_tier("restricted"),
        ana = hashed(ANA),
        bob = hashed(BOB),
    )
}

struct Bench {
    origin: Origin,
    gate: Gate,
}

impl Bench {
    fn start() -> Self {
        let origin = Origin::echo();
        let gate = Gate::with(&policy(origin.port()));
        Self { origin, gate }
    }

    fn url(&self) -> String {
        format!("http://{HOST}:{}/", self.origin.port())
    }

    fn at(&self, listener: usize) -> Client {
        Client::dial(self.gate.listener(listener))
    }

    /// Asks as that user and gives the answer with its record.
    #[track_caller]
    fn ask(&self, client: Client) -> (Message, Line) {
        let mut client = client;
        let before = self
            .gate
            .records()
            .iter()
            .filter(|line| line.is_decision())
            .count();
        let answer = client.get(&self.url());
        let lines = self.gate.eventually_records("the decision", |lines| {
            lines.iter().filter(|line| line.is_decision()).count() == before + 1
        });
        (
            answer,
            lines
                .into_iter()
                .rfind(Line::is_decision)
                .expect("a decision"),
        )
    }
}

#[test]
fn a_known_user_is_recorded_with_groups_and_repository() {
    let bench = Bench::start();

    let (answer, line) = bench.ask(bench.at(0).known_as("ana", ANA));

    assert_eq!(answer.status(), 200);
    assert_eq!(line.text("user.id"), "ana");
    assert_eq!(line["user.groups"], serde_json::json!(["platform"]));
    assert_eq!(
        line.text("vcs.repository.url.full"),
        "github.com/acme/open-tools"
    );
    assert_eq!(
        (line.text("tidegate.tier"), line.text("tidegate.tier.basis")),
        ("open", "repository")
    );
    assert_eq!(line.text("tidegate.session.evidence"), "username");
}

#[test]
fn a_wrong_secret_is_a_407_that_offers_basic() {
    let bench = Bench::start();

    for (user, secret) in [
        ("ana", "wrong"),
        ("ana", BOB),
        ("nobody", ANA),
        ("", ANA),
        ("ANA", ANA),
    ] {
        let (answer, line) = bench.ask(bench.at(0).known_as(user, secret));
        assert_eq!(
            (answer.status(), answer.refusal().as_str()),
            (407, "identity_invalid"),
            "{user}"
        );
        let offer = answer.field("proxy-authenticate").expect("an offer");
        assert!(offer.starts_with("Basic realm="), "{offer}");
        assert_eq!(
            (line.verdict(), line.reason()),
            ("error", "identity_invalid")
        );
    }
    bench.origin.saw_nothing();
}

#[test]
fn a_listener_that_requires_identity_says_407_without_one() {
    let bench = Bench::start();

    let (answer, line) = bench.ask(bench.at(1));
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (407, "identity_required")
    );
    assert!(
        answer
            .field("proxy-authenticate")
            .is_some_and(|offer| offer.starts_with("Basic realm="))
    );
    assert_eq!(line.reason(), "identity_required");
    bench.origin.saw_nothing();

    let (answer, _) = bench.ask(bench.at(1).known_as("ana", ANA));
    assert_eq!(answer.status(), 200);
}

#[test]
fn a_refused_connect_can_be_repeated_with_credentials() {
    let bench = Bench::start();
    let target = format!("{HOST}:{}", bench.origin.port());

    let answer = bench.at(1).connect(&target);
    assert_eq!(answer.status(), 407);

    assert_eq!(
        bench.at(1).known_as("ana", ANA).connect(&target).status(),
        200
    );
}

#[test]
fn credentials_that_are_not_basic_or_come_twice_are_refused() {
    let bench = Bench::start();
    for fields in [
        "Proxy-Authorization: Bearer abc\r\n",
        "Proxy-Authorization: Basic !!!\r\n",
        "Proxy-Authorization: Basic\r\n",
        "Proxy-Authorization: \r\n",
    ] {
        let answer = bench.at(0).request("GET", &bench.url(), fields, "");
        assert_eq!(
            (answer.status(), answer.refusal().as_str()),
            (407, "identity_invalid"),
            "{fields}"
        );
    }
    let twice = "Proxy-Authorization: Basic YTpi\r\nProxy-Authorization: Basic YTpi\r\n";
    let answer = bench.at(0).request("GET", &bench.url(), twice, "");
    assert!([400, 407].contains(&answer.status()), "{answer:?}");
    bench.origin.saw_nothing();
}

#[test]
fn labels_of_the_username_are_recorded_as_asserted() {
    let bench = Bench::start();

    let (answer, line) = bench.ask(
        bench
            .at(0)
            .known_as(&format!("ana.{SESSION}.bash.{TRACE}"), ANA),
    );

    assert_eq!(answer.status(), 200);
    assert_eq!(line.text("user.id"), "ana");
    assert_eq!(line.text("session.id"), SESSION);
    assert_eq!(line.text("tidegate.channel"), "bash");
    assert_eq!(line.text("trace_id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line.text("span_id"), "00f067aa0ba902b7");
    assert_eq!(line.text("tidegate.session.evidence"), "username");
    assert_eq!(line.text("tidegate.session.trust"), "asserted");
}

#[test]
fn a_label_never_opens_anything() {
    let bench = Bench::start();
    let port = bench.origin.port();

    // Bob's tier is restricted whatever he writes into his name.
    for name in [
        format!("bob.{SESSION}.main"),
        format!("bob.{SESSION}.bash.{TRACE}"),
    ] {
        let url = format!("http://open.example.com:{port}/");
        let answer = bench.at(0).known_as(&name, BOB).get(&url);
        assert_eq!(
            (answer.status(), answer.refusal().as_str()),
            (403, "not_allowed")
        );
        assert_eq!(answer.json()["tier"], "restricted");
    }
    for name in ["bob.open", "open.bob", "bob.open.main"] {
        let answer = bench.at(0).known_as(name, BOB).get(&bench.url());
        assert_eq!(answer.status(), 407, "{name} is no user");
    }
}

#[test]
fn the_strictest_evidence_tells_the_tier() {
    let bench = Bench::start();
    let port = bench.origin.port();
    let reaches = |client: fn(&Bench) -> Client| -> Vec<&str> {
        let tiers = ["open", "standard", "restricted"];
        let passes = |tier: &&str| {
            let answer = client(&bench).get(&format!("http://{tier}.example.com:{port}/"));
            answer.status() == 200
        };
        tiers.into_iter().filter(passes).collect()
    };

    assert_eq!(
        reaches(|bench| bench.at(0)),
        ["standard"],
        "nobody in particular"
    );
    assert_eq!(
        reaches(|bench| bench.at(0).known_as("ana", ANA)),
        ["open"],
        "by repository"
    );
    assert_eq!(
        reaches(|bench| bench.at(0).known_as("bob", BOB)),
        ["restricted"],
        "by group"
    );
    assert_eq!(
        reaches(|bench| bench.at(2).known_as("ana", ANA)),
        ["restricted"],
        "by listener"
    );
    assert_eq!(
        reaches(|bench| bench.at(3)),
        ["open"],
        "by the listener's repository"
    );
    assert_eq!(
        reaches(|bench| bench.at(3).known_as("bob", BOB)),
        ["restricted"],
        "by group again"
    );
}

#[test]
fn the_basis_of_the_tier_is_recorded() {
    let bench = Bench::start();
    let basis = |client: Client| bench.ask(client).1.text("tidegate.tier.basis").to_owned();

    assert_eq!(basis(bench.at(0)), "unattributed");
    assert_eq!(basis(bench.at(0).known_as("ana", ANA)), "repository");
    assert_eq!(basis(bench.at(0).known_as("bob", BOB)), "group");
    assert_eq!(basis(bench.at(2)), "listener");
}

#[test]
fn a_listener_says_who_its_callers_are() {
    let bench = Bench::start();

    let (_, line) = bench.ask(bench.at(3));

    assert_eq!(line.text("user.id"), "site");
    assert_eq!(
        line.text("vcs.repository.url.full"),
        "github.com/acme/open-site"
    );
    assert_eq!(line.text("tidegate.session.evidence"), "listener");
}

#[test]
fn no_credential_leaves_the_proxy_or_reaches_the_log() {
    let bench = Bench::start();
    let client = bench.at(0).known_as(&format!("ana.{SESSION}.main"), ANA);
    let (answer, _) = bench.ask(client);
    assert_eq!(answer.status(), 200);
    let (answer, _) = bench.ask(bench.at(0).known_as("ana", "a-wrong-but-real-secret"));
    assert_eq!(answer.status(), 407);
    bench.at(0).get(&format!(
        "http://user:hunter2@{HOST}:{}/",
        bench.origin.port()
    ));
    bench.at(0).request(
        "GET",
        &bench.url(),
        "Authorization: Bearer of-the-origin\r\n",
        "",
    );

    assert_eq!(
        bench.origin.requests()[0].field("proxy-authorization"),
        None
    );
    let seen = format!("{:?}", bench.origin.requests());
    assert!(
        seen.contains("of-the-origin"),
        "what is for the origin reaches it"
    );
    assert!(!seen.contains(SESSION) && !seen.contains(ANA), "{seen}");
    let log = std::fs::read_to_string(bench.gate.log()).expect("a log");
    let said = bench.gate.said();
    for secret in [
        ANA,
        "a-wrong-but-real-secret",
        "hunter2",
        "of-the-origin",
        "Basic ",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!said.contains(secret), "{secret} is on stderr");
    }
    assert!(!bench.gate.metrics().0.contains(SESSION));
}

#[test]
fn fields_that_claim_an_identity_are_not_forwarded() {
    let bench = Bench::start();
    let claims = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\n\
                  X-Real-IP: 1.2.3.4\r\nX-Tidegate-Flow: 1\r\nX-Tidegate-Tier: open\r\n";

    assert_eq!(
        bench
            .at(0)
            .request("GET", &bench.url(), claims, "")
            .status(),
        200
    );

    let seen = bench.origin.last();
    for gone in [
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "x-tidegate-flow",
        "x-tidegate-tier",
    ] {
        assert_eq!(seen.field(gone), None, "{gone} reached the origin");
    }
}

#[test]
fn a_failed_credential_leaves_nothing_for_the_next_request() {
    let bench = Bench::start();
    let mut client = bench.at(1);
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
        bench.url()
    ));
    let answer = client.answer("GET");
    assert_eq!(answer.status(), 407);
    bench
        .gate
        .decision(answer.field("x-tidegate-flow").expect("a flow"));

    let (answer, _) = bench.ask(bench.at(1));
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (407, "identity_required")
    );
}

#[test]
fn a_good_credential_counts_for_its_own_request_only() {
    let bench = Bench::start();
    let mut client = bench.at(1).known_as("ana", ANA);
    assert_eq!(client.get(&bench.url()).status(), 200);

    client.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", bench.url()));

    assert_eq!(
        client.answer("GET").status(),
        407,
        "the same connection, no credential"
    );
}

#[test]
fn without_users_a_username_is_only_a_label() {
    let origin = Origin::echo();
    let gate = Gate::with(&crate::kit::loopback(origin.port()));
    let url = format!("http://{HOST}:{}/", origin.port());

    let answer = gate
        .client()
        .known_as(&format!("{SESSION}.main"), "x")
        .get(&url);

    assert_eq!(answer.status(), 200);
    let line = gate.last_close();
    assert_eq!(line.text("session.id"), SESSION);
    assert_eq!(line.text("tidegate.session.trust"), "asserted");
    assert_eq!(line.text("user.id"), "");
    assert_eq!(line.text("tidegate.tier.basis"), "unattributed");
}

#[test]
fn a_rotated_secret_ends_the_tunnels_of_the_old_one() {
    let origin = Origin::bytes();
    let policy = policy(origin.port());
    let gate = Gate::with(&policy);
    let hello = crate::kit::Hello::naming(HOST).bytes();
    let mut client = Client::dial(gate.listener(0)).known_as("ana", ANA);
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);

    gate.reload(&policy.replace(&hashed(ANA), &hashed("another-long-random-token")));

    assert_eq!(client.rest(), b"");
    assert_eq!(gate.last_close().text("error.type"), "revoked");
}

#[test]
fn a_listener_that_becomes_stricter_ends_the_tunnels_that_came_by_it() {
    let origin = Origin::bytes();
    // A fixed port: a listener is known again by its address.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let listener = format!("\n[[listener]]\naddress = \"{address}\"\n");
    let files = allow_more(
        "only",
        "standard.example.com",
        origin.port(),
        "from.tiers = [\"standard\"]",
    );
    let policy = format!(
        "{TIERS}{}{files}{listener}",
        names(&["standard.example.com"])
    );
    let gate = Gate::with(&policy);
    let hello = crate::kit::Hello::naming("standard.example.com").bytes();
    let mut client = Client::dial(address);
    client
        .tunnel(&format!("standard.example.com:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);

    gate.reload(&format!("{policy}tier = \"restricted\"\n"));

    assert_eq!(client.rest(), b"");
    assert_eq!(gate.last_close().text("error.type"), "revoked");
}
