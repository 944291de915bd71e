//! Targets that are reached by another proxy: a real Squid, another gate, and parents that are not
//! what they should be.

use std::ffi::OsStr;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock};

use rcgen::{ExtendedKeyUsagePurpose, SanType};

use crate::kit::{
    Client, Fault, Faults, Gate, Line, Message, Origin, Pki, Squid, TIERS, Visit, allow,
    allow_more, eventually, names, tidegate, until,
};

const HOST: &str = "files.example.net";
const RAW: &str = "grant.raw = true\n";
const OPENED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// A `[[dial.parent]]` with more lines.
fn parent(url: &str, more: &str) -> String {
    format!("\n[[dial.parent]]\nurl = \"{url}\"\n{more}\n")
}

fn http(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Leave to reach that host at that port with raw bytes; its name is only known to parents.
fn raw(host: &str, port: u16) -> String {
    allow_more("raw", host, port, RAW)
}

fn failed(answer: &Message, detail: &str) {
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (502, "parent_failed"),
        "{answer:?}"
    );
    let said = answer.json()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(said.contains(detail), "`{detail}` is not in `{said}`");
}

/// A parent that answers each CONNECT with these bytes, then sends back what it gets.
fn answering(answer: impl Into<Vec<u8>>) -> Origin {
    let answer = answer.into();
    Origin::raw(move |visit| answer_once(visit, &answer))
}

fn answer_once(visit: &mut Visit, answer: &[u8]) -> io::Result<()> {
    let Some(request) = visit.head()? else {
        return Ok(());
    };
    visit.remember(&request);
    visit.say(answer)?;
    echo(visit)
}

fn echo(visit: &mut Visit) -> io::Result<()> {
    loop {
        let byte = visit.exactly(1)?;
        visit.say(byte)?;
    }
}

fn echoes(client: &mut Client) {
    client.send("ping");
    assert_eq!(client.exactly(4), b"ping");
}

fn no_secret_in(gate: &Gate, secrets: &[&str]) {
    let log = std::fs::read_to_string(gate.log()).expect("a log");
    let said = gate.said();
    for secret in secrets {
        assert!(!log.contains(secret), "`{secret}` is on record");
        assert!(!said.contains(secret), "`{secret}` is in the log: {said}");
    }
}

fn dials(gate: &Gate, result: &str) -> usize {
    let metrics = gate.metrics();
    let samples = metrics.0.lines().filter_map(|line| {
        let counted = line.strip_prefix("tidegate_parent_dials_total{result=\"")?;
        counted.strip_prefix(result)?.strip_prefix("\"} ")
    });
    samples
        .map(|count| count.parse::<usize>().expect("a count"))
        .sum()
}

/// The base64 of `ana:hunter2`.
const SECRET: &str = "YW5hOmh1bnRlcjI=";

#[test]
fn squid_takes_tunnels_and_plain_requests_for_a_password() {
    let pki = Pki::new();
    let (secure, plain) = (Origin::tls(&pki, &[HOST]), Origin::echo());
    let squid = Squid::start(&[HOST]);
    let rules = [
        allow("tls", HOST, secure.port()),
        allow("http", HOST, plain.port()),
    ]
    .concat();
    let credential = parent(&squid.url(), "credential-file = \"parent.key\"");
    let gate = Gate::plan(&format!("{TIERS}{rules}{credential}"))
        .file("parent.key", Squid::USER)
        .start();

    let mut client = gate.client();
    client.tunnel(&format!("{HOST}:{}", secure.port()));
    let mut client = client.enter(&pki, HOST);
    assert_eq!(client.inside("GET", HOST, "/in").status(), 200);
    drop(client);
    let close = gate.last_close();
    assert_eq!(
        format!("http://{}", close.text("tidegate.parent")),
        squid.url()
    );
    assert_eq!(close.text("network.peer.address"), "127.0.0.1");
    assert!(!close.has("dns.answers"), "the parent looked the name up");

    let url = format!("http://{HOST}:{}/out?a=b", plain.port());
    let mut client = gate.client();
    for _ in 0..2 {
        let answer = client.request("GET", &url, "Proxy-Authorization: Basic bm86bm8=\r\n", "");
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(answer.json()["target"], "/out?a=b");
    }
    for request in secure.requests().iter().chain(&plain.requests()) {
        assert_eq!(request.field("proxy-authorization"), None);
    }
    until("both on record at squid", || {
        let log = squid.log();
        log.contains("CONNECT") && log.contains("/out")
    });
    assert!(dials(&gate, "ok") >= 2);
    no_secret_in(&gate, &["hunter2", SECRET]);
}

#[test]
fn a_wrong_password_is_said_to_be_one_until_it_is_right() {
    let (origin, squid) = (Origin::bytes(), Squid::start(&[HOST]));
    let port = origin.port();
    let rules = [raw(HOST, port), allow("http", HOST, 80)].concat();
    let credential = parent(&squid.url(), "credential-file = \"parent.key\"");
    let gate = Gate::plan(&format!("{TIERS}{rules}{credential}"))
        .file("parent.key", "ana:wrong")
        .start();
    let target = format!("{HOST}:{port}");

    failed(&gate.client().connect(&target), "the parent refused: 407");
    let answer = gate.client().get(&format!("http://{HOST}/"));
    failed(&answer, "the parent refused: 407");
    assert!(answer.all("proxy-authenticate").is_empty(), "{answer:?}");
    origin.saw_nothing();
    assert_eq!(dials(&gate, "credential"), 1);

    gate.replace("parent.key", Squid::USER);
    let mut client = gate.client();
    echoes(client.tunnel(&target));
}

/// A gate that takes only callers with a certificate over TLS, and leads on by `more`.
fn inner(pki: &Pki, more: &str) -> Gate {
    let (cert, key) = pki.issue(|params| {
        let local = SanType::IpAddress("127.0.0.1".parse().expect("an address"));
        params.subject_alt_names = vec![local];
    });
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n\
        tls = { cert = \"proxy.pem\", key = \"proxy.key\", client-ca = \"callers.pem\" }\n";
    Gate::plan(&format!("{TIERS}{more}\n{listener}"))
        .file("proxy.pem", &cert)
        .file("proxy.key", &key)
        .file("callers.pem", &pki.pem())
        .start()
}

/// A gate whose parent is that one, with a client certificate or without.
fn outer(pki: &Pki, parent_gate: &Gate, rules: &str, certificate: bool) -> Gate {
    let (cert, key) = pki.issue(|params| {
        let name = SanType::URI("spiffe://acme/gate".try_into().expect("ASCII"));
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let mut more = String::from("roots = [\"roots.pem\"]\n");
    if certificate {
        more += "client-cert = \"gate.pem\"\nclient-key = \"gate.key\"\n";
    }
    let url = format!("https://{}", parent_gate.listener(1));
    Gate::plan(&format!("{TIERS}{rules}{}", parent(&url, &more)))
        .file("roots.pem", &pki.pem())
        .file("gate.pem", &cert)
        .file("gate.key", &key)
        .start()
}

#[test]
fn another_gate_is_a_parent_with_certificates_on_both_sides() {
    let pki = Pki::new();
    let (secure, plain) = (Origin::tls(&pki, &[HOST]), Origin::echo());
    let rules = [
        allow("tls", HOST, secure.port()),
        allow("http", HOST, plain.port()),
    ]
    .concat();
    let far = inner(&pki, &format!("{}{rules}", names(&[HOST])));
    let denied = allow("denied", "other.example.net", 443);
    let near = outer(&pki, &far, &format!("{rules}{denied}"), true);

    let name = "tidegate_certificate_not_after_timestamp_seconds";
    let end = near.metrics().sum(name, &[("kind", "parent")]);
    assert!(end > 1e9, "the end of the certificate is watched: {end}");

    let mut client = near.client();
    client.tunnel(&format!("{HOST}:{}", secure.port()));
    let mut client = client.enter(&pki, HOST);
    let large = "x".repeat(300_000);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n{large}",
        large.len()
    ));
    assert_eq!(client.answer("POST").json()["body"], large);
    drop(client);

    let url = format!("http://{HOST}:{}/plain", plain.port());
    let mut client = near.client();
    assert_eq!(client.get(&url).json()["target"], "/plain");
    assert_eq!(client.get(&url).json()["target"], "/plain");
    assert_eq!(
        plain.connections(),
        1,
        "the connection was kept all the way"
    );
    let via = plain.last().all("via").join(", ");
    assert_eq!(via.matches("tidegate-").count(), 2, "{via}");

    let caller = far.line("a caller", Line::is_close);
    assert_eq!(caller.text("user.id"), "spiffe://acme/gate");
    failed(
        &near.client().connect("other.example.net:443"),
        "403 not_allowed",
    );
    let refused = near.line("a refusal", |line| {
        line.text("error.type") == "parent_failed"
    });
    assert!(refused.text("tidegate.detail").contains("not_allowed"));
    assert_eq!(dials(&near, "refused"), 1);
}

#[test]
fn a_parent_that_wants_a_certificate_says_so() {
    let pki = Pki::new();
    let rules = raw(HOST, 443);
    let far = inner(&pki, &rules);
    let near = outer(&pki, &far, &rules, false);
    failed(
        &near.client().connect(&format!("{HOST}:443")),
        "wants a client certificate",
    );
    assert_eq!(dials(&near, "tls"), 1);
    // A parent with a certificate of an unknown authority is refused as well.
    let strange = outer(&Pki::new(), &far, &rules, true);
    failed(
        &strange.client().connect(&format!("{HOST}:443")),
        "the upstream's certificate has a wrong signature",
    );
}

#[test]
fn parents_have_parents() {
    let pki = Pki::new();
    let (secure, plain) = (Origin::tls(&pki, &[HOST]), Origin::echo());
    let squid = Squid::start(&[HOST]);
    let rules = [
        allow("tls", HOST, secure.port()),
        allow("http", HOST, plain.port()),
    ]
    .concat();
    let far = inner(
        &pki,
        &format!(
            "{rules}{}",
            parent(
                &squid.url(),
                "credential-command = [\"/bin/echo\", \"ana:hunter2\"]"
            )
        ),
    );
    let near = outer(&pki, &far, &rules, true);
    let mut client = near.client();
    client.tunnel(&format!("{HOST}:{}", secure.port()));
    let mut client = client.enter(&pki, HOST);
    assert_eq!(client.inside("GET", HOST, "/").status(), 200);
    let answer = near
        .client()
        .get(&format!("http://{HOST}:{}/", plain.port()));
    assert_eq!(answer.status(), 200);
    let seen = plain.last();
    for field in ["proxy-authorization", "x-tidegate-flow", "traceparent"] {
        assert_eq!(seen.field(field), None, "{seen:?}");
    }
    no_secret_in(&far, &["hunter2", SECRET]);
}

#[test]
fn what_comes_with_the_parents_yes_is_the_tunnels() {
    let parent_of = |answer: String| answering(answer);
    let large = "z".repeat(50_000);
    for (head, expected) in [
        (OPENED.to_owned(), "HELLO".to_owned()),
        (OPENED.to_owned(), large),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "HELLO".to_owned(),
        ),
        (
            format!("HTTP/1.1 102 Wait\r\n\r\n{OPENED}"),
            "HELLO".to_owned(),
        ),
    ] {
        let proxy = parent_of(format!("{head}{expected}"));
        let gate = Gate::with(&format!(
            "{TIERS}{}{}",
            raw(HOST, 9999),
            parent(&http(proxy.address()), "")
        ));
        let mut client = gate.client();
        client.tunnel(&format!("{HOST}:9999"));
        assert_eq!(client.exactly(expected.len()), expected.as_bytes());
        echoes(&mut client);
        let asked = proxy.last();
        assert_eq!(asked.start, format!("CONNECT {HOST}:9999 HTTP/1.1"));
        let fields: Vec<_> = asked.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(fields, ["Host", "Via"], "nothing else of ours leaves");
    }
}

#[test]
fn a_parent_that_dribbles_is_understood() {
    let proxy = answering(format!("{OPENED}HELLO"));
    let slow = Faults::before(&proxy, Fault::Dribbles);
    let gate = Gate::with(&format!(
        "{TIERS}{}{}",
        raw(HOST, 9999),
        parent(&http(slow.address()), "")
    ));
    let mut client = gate.client();
    client.tunnel(&format!("{HOST}:9999"));
    assert_eq!(client.exactly(5), b"HELLO");
}

#[test]
fn a_parent_that_makes_no_sense_is_refused() {
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(70_000));
    for (answer, detail) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", "does not answer in HTTP/1"),
        ("HTTP/1.1 200 OK\n\n", "bare LF"),
        ("HTTP/1.1 2x0 OK\r\n\r\n", "not well-formed"),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "another protocol",
        ),
        (&endless, "too long"),
    ] {
        let proxy = answering(answer);
        let gate = Gate::with(&format!(
            "{TIERS}{}{}",
            raw(HOST, 9999),
            parent(&http(proxy.address()), "")
        ));
        failed(&gate.client().connect(&format!("{HOST}:9999")), detail);
        assert_eq!(dials(&gate, "garbled"), 1);
        // It is passed over now, and nobody is asked instead.
        failed(
            &gate.client().connect(&format!("{HOST}:9999")),
            "a moment ago",
        );
        assert_eq!(dials(&gate, "resting"), 1);
    }
}

#[test]
fn a_parent_that_never_answers_is_waited_for_no_longer_than_a_dial() {
    let silent = Faults::towards(Origin::nobody(), Fault::Drops);
    let limits = "[limits]\nconnect-timeout = \"300 ms\"\n";
    let gate = Gate::with(&format!(
        "{TIERS}{}{}{limits}",
        raw(HOST, 9999),
        parent(&http(silent.address()), "")
    ));
    let target = format!("{HOST}:9999");
    failed(&gate.client().connect(&target), "does not answer in time");
    // Its target may be to blame: the parent is not taken from others.
    failed(&gate.client().connect(&target), "does not answer in time");
    assert_eq!(dials(&gate, "silent"), 2);
}

#[test]
fn the_next_parent_is_asked_where_the_first_cannot_be_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let first = listener.local_addr().expect("an address");
    drop(listener);
    let second = answering(OPENED);
    let gate = Gate::with(&format!(
        "{TIERS}{}{}{}",
        raw(HOST, 9999),
        parent(&http(first), ""),
        parent(&http(second.address()), "")
    ));
    let target = format!("{HOST}:9999");
    let by = |gate: &Gate| {
        let mut client = gate.client();
        echoes(client.tunnel(&target));
        drop(client);
        gate.last_close().text("tidegate.parent").to_owned()
    };
    assert_eq!(by(&gate), second.address().to_string());
    assert!(gate.said().contains("passed over"), "{}", gate.said());
    let listener = TcpListener::bind(first).expect("the same port");
    let _back = Origin::raw_on(listener, |visit| answer_once(visit, OPENED.as_bytes()));
    until("the first parent again", || by(&gate) == first.to_string());
}

#[test]
fn a_parent_that_refuses_has_the_last_word() {
    let first = answering("HTTP/1.1 403 No\r\nX-Deny-Reason: host_not_allowed\r\n\r\n");
    let second = answering(OPENED);
    let more = "fall-back = \"direct\"";
    let gate = Gate::with(&format!(
        "{TIERS}{}{}{}{}",
        names(&[HOST]),
        raw(HOST, 9999),
        parent(&http(first.address()), more),
        parent(&http(second.address()), more)
    ));
    for _ in 0..2 {
        let answer = gate.client().connect(&format!("{HOST}:9999"));
        failed(&answer, "the parent refused: 403 host_not_allowed");
    }
    second.saw_nothing();
}

#[test]
fn nobody_is_dialled_past_a_parent_unless_it_says_so() {
    let origin = Origin::bytes();
    let target = format!("{HOST}:{}", origin.port());
    let policy = |more: &str| {
        format!(
            "{TIERS}{}{}{}",
            names(&[HOST]),
            raw(HOST, origin.port()),
            parent(&http(Origin::nobody()), more)
        )
    };
    let gate = Gate::with(&policy(""));
    failed(&gate.client().connect(&target), "refuses connections");
    failed(&gate.client().connect(&target), "a moment ago");
    origin.saw_nothing();

    let gate = Gate::with(&policy("fall-back = \"direct\""));
    for _ in 0..2 {
        let mut client = gate.client();
        echoes(client.tunnel(&target));
        drop(client);
        let close = gate.last_close();
        assert!(!close.has("tidegate.parent"), "{close:?}");
        assert!(close.has("dns.answers"));
    }
}

#[test]
fn hosts_categories_and_exceptions_choose_the_parent() {
    let origin = Origin::bytes();
    let port = origin.port();
    let (one, two, rest) = (answering(OPENED), answering(OPENED), answering(OPENED));
    let other = "a.other.example";
    let registry = allow_more(
        "registry",
        other,
        port,
        &format!("{RAW}category = \"package-registry\"\n"),
    );
    let direct = allow_more("direct", "x.acme.example", port, RAW);
    let literal = allow_more("literal", "127.0.0.1", port, RAW);
    let third = allow_more("third", "third.example", port, RAW);
    let except = "except = [\"*.acme.example\", \"127.0.0.0/8\"]\n";
    let gate = Gate::with(&format!(
        "{TIERS}{}{}{registry}{direct}{literal}{third}{}{}{}",
        names(&["x.acme.example"]),
        raw(HOST, port),
        parent(&http(one.address()), "categories = [\"package-registry\"]"),
        parent(
            &http(two.address()),
            &format!("hosts = [\"*.example.net\"]\n{except}")
        ),
        parent(&http(rest.address()), except),
    ));
    let by = |host: &str| {
        let mut client = gate.client();
        echoes(client.tunnel(&format!("{host}:{port}")));
        drop(client);
        let is_of = |line: &Line| line.is_close() && line.text("server.address") == host;
        gate.line("its end", is_of)
            .text("tidegate.parent")
            .to_owned()
    };
    assert_eq!(by(other), one.address().to_string());
    assert_eq!(by(HOST), two.address().to_string());
    assert_eq!(by("third.example"), rest.address().to_string());
    assert_eq!(origin.connections(), 0);
    assert_eq!(by("x.acme.example"), "");
    assert_eq!(by("127.0.0.1"), "");
    let said = |host: &str| {
        let (config, target) = (gate.config(), format!("{host}:{port}"));
        let words = ["explain", &target, "--config"].map(OsStr::new);
        tidegate(&[&words[..], &[config.as_os_str()]].concat()).stdout
    };
    let both = format!("{}, else {}", two.address(), rest.address());
    assert!(said(HOST).contains(&both), "{}", said(HOST));
    assert!(!said("x.acme.example").contains("by parent"));
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_circle_of_proxies_is_refused() {
    let back: Arc<OnceLock<SocketAddr>> = Arc::default();
    let to = back.clone();
    // A proxy that knows nobody else to ask.
    let hop = Origin::raw(move |visit| {
        let Some(request) = visit.head()? else {
            return Ok(());
        };
        let mut client = Client::dial(*to.get().expect("an address"));
        let fields: Vec<_> = request
            .fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let fields = fields.concat();
        client.send(format!("{}\r\n{fields}\r\n", request.start));
        let answer = client.answer(request.method());
        let status = answer.status();
        visit.say(format!(
            "HTTP/1.1 {status} Passed on\r\nContent-Length: 0\r\n\r\n"
        ))
    });
    let rules = [raw(HOST, 9999), allow("http", HOST, 80)].concat();
    let gate = Gate::with(&format!(
        "{TIERS}{rules}{}",
        parent(&http(hop.address()), "")
    ));
    back.set(gate.proxy()).expect("once");
    failed(
        &gate.client().connect(&format!("{HOST}:9999")),
        "the parent refused: 508",
    );
    assert_eq!(gate.client().get(&format!("http://{HOST}/")).status(), 508);
}

#[test]
fn a_parent_that_is_the_gate_itself_is_never_dialled() {
    let policy = |parents: &str| format!("{TIERS}{}{parents}", raw(HOST, 9999));
    let gate = Gate::with(&policy(""));
    gate.reload(&policy(&parent(&gate.url(), "")));
    failed(
        &gate.client().connect(&format!("{HOST}:9999")),
        "this proxy itself",
    );
    assert_eq!(dials(&gate, "own"), 1);
}

#[test]
fn addresses_are_judged_before_a_parent_is_asked() {
    let proxy = answering(OPENED);
    let rule = |addresses: &str| {
        format!(
            "\n[[rule]]\nid = \"r\"\nverdict = \"allow\"\nto.hosts = [\"{HOST}\", \"10.1.2.3\"]\n\
             to.ports = [9999]\ngrant.raw = true\n{addresses}"
        )
    };
    let policy = |addresses: &str, more: &str| {
        format!(
            "{TIERS}{}{}{}",
            names(&[HOST]),
            rule(addresses),
            parent(&http(proxy.address()), more)
        )
    };
    let local = "resolve = \"local\"";
    let gate = Gate::with(&policy("", ""));
    assert_eq!(
        gate.client().connect("10.1.2.3:9999").refusal(),
        "address_denied"
    );
    gate.reload(&policy("", local));
    let answer = gate.client().connect(&format!("{HOST}:9999"));
    assert_eq!(answer.refusal(), "address_denied");
    proxy.saw_nothing();

    gate.reload(&policy(
        "grant.addresses = [\"127.0.0.0/8\", \"10.0.0.0/8\"]",
        local,
    ));
    let mut client = gate.client();
    echoes(client.tunnel(&format!("{HOST}:9999")));
    assert_eq!(proxy.last().target(), "127.0.0.1:9999", "a judged address");
    let mut literal = gate.client();
    echoes(literal.tunnel("10.1.2.3:9999"));
    // What no longer passes is ended, though the parent is at an address that does.
    gate.reload(&policy("grant.addresses = [\"127.0.0.0/8\"]", local));
    until("the end of the tunnel", || literal.was_closed());
    echoes(&mut client);
}

/// A parent that takes only this token, which may change.
fn with_token(token: &Arc<Mutex<String>>) -> Origin {
    let token = token.clone();
    Origin::raw(move |visit| {
        while let Some(request) = visit.head()? {
            visit.remember(&request);
            let wanted = format!("Bearer {}", token.lock().expect("a token"));
            if request.field("proxy-authorization") != Some(&*wanted) {
                visit.say(
                    "HTTP/1.1 407 Who\r\nProxy-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n",
                )?;
            } else if request.method() == "CONNECT" {
                visit.say(OPENED)?;
                return echo(visit);
            } else {
                visit.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_token_that_is_not_taken_any_more_is_fetched_anew() {
    let token = Arc::new(Mutex::new("one".to_owned()));
    let proxy = with_token(&token);
    let rules = [raw(HOST, 9999), allow("http", HOST, 80)].concat();
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "Bearer one\n").expect("a file");
    let command = format!(
        "credential-command = [\"/bin/cat\", {:?}]\ncredential-lifetime = \"24 h\"",
        file.display().to_string()
    );
    let gate = Gate::with(&format!(
        "{TIERS}{rules}{}",
        parent(&http(proxy.address()), &command)
    ));
    let target = format!("{HOST}:9999");
    let mut client = gate.client();
    echoes(client.tunnel(&target));
    assert_eq!(gate.client().get(&format!("http://{HOST}/")).status(), 200);

    "two".clone_into(&mut token.lock().expect("a token"));
    std::fs::write(&file, "Bearer two\n").expect("a file");
    // A command is not run again at once, however often it is asked for.
    eventually("the new token", || {
        let answer = gate.client().connect(&target);
        (answer.status() == 200).then_some(())
    });
    assert_eq!(gate.client().get(&format!("http://{HOST}/")).status(), 200);
    no_secret_in(&gate, &["Bearer"]);
}

#[test]
fn a_plain_request_is_sent_again_with_the_credential_that_a_file_has_now() {
    let token = Arc::new(Mutex::new("one".to_owned()));
    let proxy = with_token(&token);
    let credential = parent(&http(proxy.address()), "credential-file = \"parent.key\"");
    let gate = Gate::plan(&format!("{TIERS}{}{credential}", allow("http", HOST, 80)))
        .file("parent.key", "Bearer one")
        .start();
    let mut client = gate.client();
    let url = format!("http://{HOST}/a");
    assert_eq!(client.get(&url).status(), 200);
    "two".clone_into(&mut token.lock().expect("a token"));
    std::fs::write(gate.folder().join("parent.key"), "Bearer two").expect("a file");
    assert_eq!(
        client.get(&url).status(),
        200,
        "the client never sees the 407"
    );
    assert_eq!(proxy.last().target(), "http://files.example.net/a");
}
