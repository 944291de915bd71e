//! `CONNECT`: what opens, what does not, and what both sides then see.

use std::io::{Read, Write};
use std::time::Duration;

use crate::kit::{
    Dns, Fault, Faults, Gate, Hello, Line, Lines, Origin, Pki, TIERS, Visit, allow, allow_more,
    loopback, names,
};

const HOST: &str = "files.example.net";

fn target(origin: &Origin) -> String {
    format!("{HOST}:{}", origin.port())
}

/// A loopback policy with one more line in the rule of the host.
fn policy_with(port: u16, lines: &str) -> String {
    format!(
        "{TIERS}{}{}",
        names(&[HOST]),
        allow_more("files", HOST, port, lines)
    )
}

#[test]
fn an_allowed_tunnel_carries_tls_both_ways() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.tunnel(&target(&origin));
    let mut client = client.enter(&pki, HOST);
    let answer = client.inside("GET", HOST, "/one");

    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json()["target"], "/one");
    drop(client);
    let close = gate.last_close();
    assert_eq!(close.text("tls.client.server_name"), HOST);
    assert_eq!(close.text("tidegate.end"), "closed");
    assert!(close.number("tidegate.bytes.in") > 100, "{close:?}");
    assert!(close.number("tidegate.bytes.out") > 100, "{close:?}");
}

#[test]
fn a_refused_connect_says_so_in_every_way_that_some_client_shows() {
    let gate = Gate::with(TIERS);

    let mut client = gate.client();
    let answer = client.connect("CDN.example.net:443");

    let flow = answer.field("x-tidegate-flow").expect("a flow").to_owned();
    assert_eq!(answer.status(), 403);
    let phrase = answer.phrase();
    let (said, next) = phrase
        .split_once("; tidegate explain ")
        .expect("a next step");
    assert_eq!(
        said,
        format!("tidegate denied cdn.example.net:443 not_allowed (flow {flow}")
    );
    assert!(flow.ends_with(next.trim_end_matches(')')), "{phrase}");
    assert!(phrase.len() <= 160);
    assert_eq!(
        answer.field("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(
        answer.field("proxy-status"),
        Some("tidegate; error=http_request_denied; details=\"not_allowed\"")
    );
    assert_eq!(answer.field("x-deny-reason"), Some("host_not_allowed"));
    assert_eq!(answer.field("x-proxy-error"), Some("blocked-by-allowlist"));
    assert_eq!(answer.field("via"), Some("1.1 tidegate"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.field("connection"), Some("close"));
    let body = answer.json();
    assert_eq!(body["error"], "not_allowed");
    assert_eq!(body["status"], 403);
    assert_eq!(body["host"], "cdn.example.net");
    assert_eq!(body["port"], 443);
    assert_eq!(body["category"], "unknown");
    assert_eq!(body["tier"], "standard");
    assert_eq!(body["rule"], "tier.standard.default");
    assert_eq!(body["flow"], flow.as_str());
    for written in ["type", "title", "detail"] {
        assert!(
            body[written].as_str().is_some_and(|text| !text.is_empty()),
            "{written}: {body}"
        );
    }
    assert!(
        body["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains(
                "This is policy, not a network fault: do not retry, do not look for another way."
            )),
        "{body}"
    );
    client.is_closed();

    let line = gate.decision(&flow);
    assert_eq!((line.verdict(), line.reason()), ("deny", "not_allowed"));
    assert_eq!(
        gate.records().of(&flow).len(),
        1,
        "a refused flow leaves one line"
    );
}

#[test]
fn a_denied_name_is_never_asked_of_dns() {
    let dns = Dns::start(&[("files.example.net", &["127.0.0.1"])]);
    let gate = Gate::with(&format!(
        "{TIERS}{}{}",
        dns.section(),
        allow("files", HOST, Origin::nobody().port())
    ));

    for name in [
        "c2VjcmV0.example.org",
        "x.files.example.net",
        "files.example.net.example.org",
    ] {
        assert_eq!(
            gate.client().connect(&format!("{name}:443")).status(),
            403,
            "{name}"
        );
        assert_eq!(
            gate.client().get(&format!("http://{name}/")).status(),
            403,
            "{name}"
        );
    }

    assert_eq!(dns.asked(), Vec::<String>::new());
}

#[test]
fn an_allowed_name_is_asked_of_dns_and_the_answer_is_dialled() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let dns = Dns::start(&[(HOST, &["127.0.0.1"])]);
    let gate = Gate::with(&format!(
        "{TIERS}{}{}",
        dns.section(),
        allow("files", HOST, origin.port())
    ));

    let mut client = gate.client();
    client.tunnel(&target(&origin));
    let mut client = client.enter(&pki, HOST);

    assert_eq!(client.inside("GET", HOST, "/").status(), 200);
    assert!(
        dns.asked().iter().all(|name| name == HOST),
        "{:?}",
        dns.asked()
    );
    drop(client);
    let close = gate.last_close();
    assert_eq!(close["dns.answers"], serde_json::json!(["127.0.0.1"]));
    assert_eq!(close.text("network.peer.address"), "127.0.0.1");
}

#[test]
fn an_origin_that_is_not_there_is_a_502_and_never_a_200() {
    let gone = Origin::nobody();
    let gate = Gate::with(&loopback(gone.port()));

    let mut client = gate.client();
    let answer = client.connect(&format!("{HOST}:{}", gone.port()));

    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (502, "connect_failed")
    );
    client.is_closed();
    let close = gate.close(answer.field("x-tidegate-flow").expect("a flow"));
    assert_eq!(close.text("error.type"), "connect_failed");
    assert_eq!(close.text("tidegate.blame"), "upstream");
}

#[test]
fn a_name_that_does_not_exist_is_a_502() {
    let dns = Dns::start(&[]);
    let gate = Gate::with(&format!(
        "{TIERS}{}{}",
        dns.section(),
        allow("files", HOST, 443)
    ));

    let answer = gate.client().connect(&format!("{HOST}:443"));

    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (502, "dns_failed")
    );
}

#[test]
fn an_origin_that_never_answers_is_a_504() {
    // A full backlog: the kernel drops further SYNs, so that a connection hangs.
    let full = backlog();
    let port = full.0.port();
    let gate = Gate::with(&format!(
        "{}\n[limits]\nconnect-timeout = \"1 s\"\n",
        loopback(port)
    ));

    let answer = gate.client().connect(&format!("{HOST}:{port}"));

    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (504, "connect_timeout")
    );
}

/// A listener whose queue is full, and what keeps it so.
fn backlog() -> (
    std::net::SocketAddr,
    socket2::Socket,
    Vec<std::net::TcpStream>,
) {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&any.into()).expect("a port");
    listener.listen(0).expect("a listener");
    let address = listener
        .local_addr()
        .expect("an address")
        .as_socket()
        .expect("an address");
    let patience = Duration::from_millis(300);
    let dial = || std::net::TcpStream::connect_timeout(&address, patience).ok();
    let held = std::iter::from_fn(dial).take(64).collect();
    (address, listener, held)
}

#[test]
fn connect_of_http_1_0_without_host_opens() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.send(format!("CONNECT {} HTTP/1.0\r\n\r\n", target(&origin)));
    assert_eq!(client.answer("CONNECT").status(), 200);

    assert_eq!(
        client.enter(&pki, HOST).inside("GET", HOST, "/").status(),
        200
    );
}

#[test]
fn bytes_sent_behind_an_allowed_connect_arrive_first() {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));
    let hello = Hello::naming(HOST).bytes();

    let mut client = gate.client();
    let connect = format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", target(&origin));
    client.send([connect.as_bytes(), &hello].concat());
    assert_eq!(client.answer("CONNECT").status(), 200);
    client.send(b"and more");

    let whole = [&hello[..], b"and more"].concat();
    assert_eq!(client.exactly(whole.len()), whole);
    assert_eq!(origin.received(), whole);
}

#[test]
fn bytes_sent_behind_a_refused_connect_are_never_read_as_a_request() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.send(format!(
        "CONNECT evil.example.org:443 HTTP/1.1\r\nHost: evil.example.org:443\r\n\r\n\
         GET http://{}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
        target(&origin)
    ));

    let answer = client.answer("CONNECT");
    assert_eq!(answer.status(), 403);
    client.is_closed();
    gate.decision(answer.field("x-tidegate-flow").expect("a flow"));
    origin.saw_nothing();
    assert_eq!(
        gate.records()
            .iter()
            .filter(|line| line.is_decision())
            .count(),
        1
    );
}

#[test]
fn a_second_connect_after_a_refused_one_is_not_answered() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    assert_eq!(client.connect("evil.example.org:443").status(), 403);
    client.send(format!("CONNECT {} HTTP/1.1\r\n\r\n", target(&origin)));

    client.is_closed();
    origin.saw_nothing();
}

#[test]
fn a_connect_with_a_body_is_refused() {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));

    for framing in ["Content-Length: 4", "Transfer-Encoding: chunked"] {
        let mut client = gate.client();
        client.send(format!(
            "CONNECT {} HTTP/1.1\r\n{framing}\r\n\r\nbody",
            target(&origin)
        ));
        let answer = client.answer("CONNECT");
        assert_eq!(
            (answer.status(), answer.refusal().as_str()),
            (400, "bad_request"),
            "{framing}"
        );
    }
    origin.saw_nothing();
}

#[test]
fn the_client_may_finish_first_and_still_hear_the_rest() {
    let origin = Origin::raw(|visit| {
        let mut all = Vec::new();
        visit.wire.read_to_end(&mut all)?;
        visit.note(&all);
        visit.say(b"heard it all")?;
        visit.wire.half_close();
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));
    let hello = Hello::naming(HOST).bytes();

    let mut client = gate.client();
    client.tunnel(&target(&origin)).send(&hello);
    client.half_close();

    assert_eq!(client.rest(), b"heard it all");
    assert_eq!(origin.received(), hello);
    assert_eq!(gate.last_close().text("tidegate.end"), "closed");
}

#[test]
fn the_origin_may_finish_first_and_still_hear_the_rest() {
    let hello = Hello::naming(HOST).bytes();
    let expected = hello.len();
    let origin = Origin::raw(move |visit| {
        let first = visit.exactly(expected)?;
        visit.note(&first);
        visit.wire.half_close();
        let mut rest = Vec::new();
        visit.wire.read_to_end(&mut rest)?;
        visit.note(&rest);
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.tunnel(&target(&origin)).send(&hello);
    client.is_closed();
    client.send(b"after your end");
    client.half_close();

    let heard = origin.received_at_least(expected + 14);
    assert_eq!(&heard[expected..], b"after your end");
    assert_eq!(gate.last_close().text("tidegate.end"), "closed");
}

#[test]
fn a_reset_on_one_side_ends_the_other_and_is_recorded() {
    let origin = Origin::raw(|visit| {
        visit.exactly(5)?;
        visit.reset();
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client
        .tunnel(&target(&origin))
        .send(Hello::naming(HOST).bytes());
    assert_eq!(client.rest(), b"");

    let close = gate.last_close();
    assert_eq!(close.text("tidegate.end"), "failed");
    assert_eq!(close.text("tidegate.blame"), "upstream");
}

/// Opens a tunnel, sends `bytes`, and gives the close line; the origin must have seen none of them.
#[track_caller]
fn closed_after(gate: &Gate, origin: &Origin, bytes: &[u8]) -> Line {
    let mut client = gate.client();
    client.tunnel(&target(origin)).send(bytes);
    let _alert = client.rest();
    assert_eq!(origin.received(), b"", "nothing of it may reach the origin");
    gate.last_close()
}

#[track_caller]
fn is_closed_for(reason: &str, bytes: &[u8]) {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));
    let close = closed_after(&gate, &origin, bytes);
    assert_eq!(close.text("error.type"), reason, "{close:?}");
    assert_eq!(close.text("tidegate.end"), "refused", "{close:?}");
    let labels = [("end", "refused"), ("reason", reason)];
    let counted = gate.metrics().sum("tidegate_flow_ends_total", &labels);
    assert!((counted - 1.0).abs() < 0.1, "counted {counted} times");
}

#[test]
fn another_name_in_the_hello_closes_the_tunnel() {
    is_closed_for("sni_mismatch", &Hello::naming("evil.example.org").bytes());
}

#[test]
fn a_name_below_the_asked_one_in_the_hello_closes_the_tunnel() {
    is_closed_for(
        "sni_mismatch",
        &Hello::naming("x.files.example.net").bytes(),
    );
}

#[test]
fn no_name_in_the_hello_closes_the_tunnel() {
    is_closed_for("sni_missing", &Hello::nameless().bytes());
}

#[test]
fn an_outer_name_of_an_encrypted_hello_closes_the_tunnel() {
    let hello = Hello::naming("cloudflare-ech.example.org").encrypted();
    is_closed_for("sni_mismatch", &hello.bytes());
}

#[test]
fn a_hello_in_which_the_name_cannot_be_read_for_certain_closes_the_tunnel() {
    let name = HOST.as_bytes();
    let twice = Hello::naming(HOST).names(&[(0, name)]);
    let two_names = Hello::nameless().names(&[(0, name), (0, b"evil.example.org")]);
    let other_type = Hello::nameless().names(&[(7, name)]);
    let with_nul = Hello::nameless().names(&[(0, b"files.example.net\0.evil.example.org")]);
    let trailing = {
        let list = [&[0, 0, 17][..], name, &[9, 9]].concat();
        let length = u16::try_from(list.len() - 2)
            .expect("a length")
            .to_be_bytes();
        Hello::nameless().extension(0, &[&length[..], &list].concat())
    };
    for (what, hello) in [
        ("two extensions", twice),
        ("two names", two_names),
        ("another type of name", other_type),
        ("a NUL", with_nul),
        ("trailing bytes", trailing),
    ] {
        let origin = Origin::bytes();
        let gate = Gate::with(&loopback(origin.port()));
        let close = closed_after(&gate, &origin, &hello.bytes());
        let error = close.text("error.type");
        assert!(
            ["bad_client_hello", "sni_mismatch"].contains(&error),
            "{what}: {close:?}"
        );
    }
}

#[test]
fn the_name_in_the_hello_may_be_in_upper_case() {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));
    let hello = Hello::naming("FILES.example.NET").bytes();

    let mut client = gate.client();
    client.tunnel(&target(&origin)).send(&hello);

    assert_eq!(client.exactly(hello.len()), hello, "passed on as it came");
}

#[test]
fn bytes_that_are_not_tls_close_the_tunnel() {
    is_closed_for(
        "not_tls",
        b"GET / HTTP/1.1\r\nHost: files.example.net\r\n\r\n",
    );
    is_closed_for("not_tls", b"SSH-2.0-OpenSSH_9.6\r\n");
    is_closed_for("not_tls", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}

#[test]
fn a_protocol_in_which_the_server_speaks_first_is_closed() {
    let origin = Origin::raw(|visit| {
        visit.say("220 mail.example.net ESMTP\r\n")?;
        visit.wire.read_to_end(&mut Vec::new())?;
        Ok(())
    });
    let limits = "\n[limits]\nhello-timeout = \"1 s\"\n";
    let gate = Gate::with(&format!("{}{limits}", loopback(origin.port())));

    let mut client = gate.client();
    client.tunnel(&target(&origin));

    let heard = client.rest();
    assert!(
        !heard.starts_with(b"220"),
        "the banner passed before anything was judged"
    );
    assert_eq!(gate.last_close().text("error.type"), "not_tls");
}

#[test]
fn a_hello_that_takes_too_long_is_closed() {
    let origin = Origin::bytes();
    let limits = "\n[limits]\nhello-timeout = \"1 s\"\n";
    let gate = Gate::with(&format!("{}{limits}", loopback(origin.port())));

    let close = closed_after(&gate, &origin, &Hello::naming(HOST).bytes()[..40]);

    assert_eq!(close.text("error.type"), "not_tls", "{close:?}");
}

#[test]
fn a_hello_of_more_than_64_kib_is_closed() {
    let large = vec![0; 60_000];
    let hello = Hello::nameless()
        .extension(0xfafa, &large)
        .names(&[(0, HOST.as_bytes())])
        .in_records(16 * 1024);
    let mut endless = hello;
    endless.extend(
        [22, 3, 1, 0x40, 0]
            .iter()
            .chain([0; 0x4000].iter())
            .copied(),
    );
    // The handshake says that it is longer than any hello may be.
    endless[6..9].copy_from_slice(&[0x02, 0, 0]);
    is_closed_for("limit", &endless);
}

#[test]
fn a_hello_in_pieces_of_one_byte_passes() {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));
    let hello = Hello::naming(HOST).bytes();

    let mut client = gate.client();
    client.tunnel(&target(&origin)).dribble(&hello);

    assert_eq!(client.exactly(hello.len()), hello);
}

#[test]
fn a_hello_in_many_records_passes() {
    for size in [1, 7, 100] {
        let origin = Origin::bytes();
        let gate = Gate::with(&loopback(origin.port()));
        let hello = Hello::naming(HOST)
            .extension(0xfafa, &[0; 2000])
            .in_records(size);

        let mut client = gate.client();
        client.tunnel(&target(&origin)).send(&hello);

        assert_eq!(client.exactly(hello.len()), hello, "records of {size}");
    }
}

#[test]
fn tls_works_over_a_network_that_dribbles() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let gate = Gate::with(&loopback(origin.port()));
    let hop = Faults::towards(gate.proxy(), Fault::Dribbles);

    let mut client = crate::kit::Client::dial(hop.address());
    client.tunnel(&target(&origin));

    assert_eq!(
        client
            .enter(&pki, HOST)
            .inside("GET", HOST, "/slow")
            .status(),
        200
    );
}

#[test]
fn a_raw_rule_lets_any_bytes_pass() {
    let origin = Origin::bytes();
    let gate = Gate::with(&policy_with(origin.port(), "grant.raw = true"));

    let mut client = gate.client();
    client
        .tunnel(&target(&origin))
        .send(b"SSH-2.0-OpenSSH_9.6\r\n");

    assert_eq!(client.exactly(21), b"SSH-2.0-OpenSSH_9.6\r\n");
}

#[test]
fn a_raw_rule_lets_the_server_speak_first() {
    let origin = Origin::raw(|visit: &mut Visit| visit.say("220 mail.example.net ESMTP\r\n"));
    let gate = Gate::with(&policy_with(origin.port(), "grant.raw = true"));

    let mut client = gate.client();
    client.tunnel(&target(&origin));

    assert_eq!(client.rest(), b"220 mail.example.net ESMTP\r\n");
}

#[test]
fn another_port_of_an_allowed_host_is_refused() {
    let origin = Origin::bytes();
    let gate = Gate::with(&format!(
        "{TIERS}{}{}",
        names(&[HOST]),
        allow("files", HOST, 443)
    ));

    let answer = gate.client().connect(&target(&origin));

    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "port_denied")
    );
    origin.saw_nothing();
}

#[test]
fn a_rule_decides_over_another_and_deny_wins() {
    let origin = Origin::bytes();
    let deny = format!(
        "\n[[rule]]\nid = \"no\"\nverdict = \"deny\"\nto.hosts = [\"{HOST}\"]\nto.ports = [{}]\n",
        origin.port()
    );
    let gate = Gate::with(&format!("{}{deny}", loopback(origin.port())));

    let answer = gate.client().connect(&target(&origin));

    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "denied")
    );
    assert_eq!(answer.json()["rule"], "no");
    origin.saw_nothing();
}

#[test]
fn a_rule_that_asks_is_refused_until_someone_approves() {
    let ask = "\n[[rule]]\nid = \"later\"\nverdict = \"ask\"\nto.hosts = [\"later.example.com\"]\n";
    let gate = Gate::with(&format!("{TIERS}{ask}"));

    let answer = gate.client().connect("later.example.com:443");

    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "needs_approval")
    );
    let line = gate.decision(answer.field("x-tidegate-flow").expect("a flow"));
    assert_eq!((line.verdict(), line.reason()), ("ask", "needs_approval"));
}

#[test]
fn a_denied_category_is_named() {
    let policy = TIERS.replace(
        "[tier.standard]\n",
        "[tier.standard]\ndeny = [\"webfetch\"]\n",
    );
    let rule = "\n[[destination]]\ncategory = \"webfetch\"\nhosts = [\"docs.example.com\"]\n\
    [[rule]]\nid = \"docs\"\nverdict = \"allow\"\n\
                to.hosts = [\"docs.example.com\"]\n";
    let gate = Gate::with(&format!("{policy}{rule}"));

    let answer = gate.client().connect("docs.example.com:443");

    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "category_denied")
    );
    assert_eq!(answer.json()["category"], "webfetch");
}

#[test]
fn in_observe_mode_a_would_be_denial_passes_and_the_record_says_so() {
    let origin = Origin::bytes();
    let policy = TIERS.replace("[tier.standard]\n", "[tier.standard]\nmode = \"observe\"\n");
    let address = format!("127.0.0.1:{}", origin.port());
    let gate = Gate::with(&format!("{policy}{}", names(&[HOST])));

    // The floor holds all the same: loopback is not named by any rule.
    let answer = gate.client().connect(&target(&origin));
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "address_denied"),
        "{address}"
    );
    origin.saw_nothing();
    let flow = answer.field("x-tidegate-flow").expect("a flow").to_owned();
    let line = gate.line("what would have been", |line| line.flow() == flow);
    assert_eq!(line.text("tidegate.mode"), "observe");
}

#[test]
fn a_name_that_comes_to_mean_loopback_is_refused() {
    let origin = Origin::bytes();
    let dns = Dns::start(&[("allowed.example.com", &["127.0.0.1"])]);
    let rule = format!(
        "\n[[rule]]\nid = \"r\"\nverdict = \"allow\"\nto.hosts = [\"allowed.example.com\"]\n\
         to.ports = [{}]\n",
        origin.port()
    );
    let gate = Gate::with(&format!("{TIERS}{}{rule}", dns.section()));

    for _ in 0..2 {
        let answer = gate
            .client()
            .connect(&format!("allowed.example.com:{}", origin.port()));
        assert_eq!(
            (answer.status(), answer.refusal().as_str()),
            (403, "address_denied")
        );
        let flow = answer.field("x-tidegate-flow").expect("a flow");
        let line = gate.line("the answers", |line| {
            line.flow() == flow && line.has("dns.answers")
        });
        assert_eq!(line["dns.answers"], serde_json::json!(["127.0.0.1"]));
    }
    origin.saw_nothing();
}

#[test]
fn of_mixed_answers_only_the_permitted_are_dialled() {
    // 127.0.0.2 is named by the rule, 127.0.0.1 is not: the origin there must see nothing.
    let trap = Origin::bytes();
    let dns = Dns::start(&[("mixed.example.com", &["127.0.0.1", "127.0.0.2"])]);
    let rule = format!(
        "\n[[rule]]\nid = \"r\"\nverdict = \"allow\"\nto.hosts = [\"mixed.example.com\"]\n\
         to.ports = [{}]\ngrant.addresses = [\"127.0.0.2/32\"]\n",
        trap.port()
    );
    let gate = Gate::with(&format!("{TIERS}{}{rule}", dns.section()));

    let answer = gate
        .client()
        .connect(&format!("mixed.example.com:{}", trap.port()));

    // Nobody listens on 127.0.0.2, and that is the only address that may be tried.
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (502, "connect_failed")
    );
    trap.saw_nothing();
}

#[test]
fn an_address_instead_of_a_name_needs_a_rule_of_its_own() {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate
        .client()
        .connect(&format!("127.0.0.1:{}", origin.port()));
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "address_denied")
    );

    let answer = gate.client().connect("8.8.8.8:443");
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (403, "not_allowed")
    );
    origin.saw_nothing();
}

#[test]
fn a_hundred_tunnels_at_once_stay_apart() {
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));
    let hello = Hello::naming(HOST).bytes();

    let mut clients: Vec<_> = (0..100)
        .map(|number| {
            let mut client = gate.client();
            client.tunnel(&target(&origin)).send(&hello);
            client.send(format!("{number:08}"));
            client
        })
        .collect();

    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.exactly(hello.len()), hello);
        assert_eq!(client.exactly(8), format!("{number:08}").as_bytes());
    }
}

#[test]
fn a_large_transfer_arrives_whole_and_is_counted() {
    const SIZE: usize = 8 << 20;
    let hello = Hello::naming(HOST).bytes();
    let expected = hello.len();
    let origin = Origin::raw(move |visit| {
        visit.exactly(expected)?;
        visit.wire.write_all(&vec![b'x'; SIZE])?;
        visit.wire.half_close();
        visit.wire.read_to_end(&mut Vec::new())?;
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.tunnel(&target(&origin)).send(&hello);
    let all = client.rest();
    drop(client);

    assert!(
        all.len() == SIZE && all.iter().all(|byte| *byte == b'x'),
        "{} bytes",
        all.len()
    );
    let close = gate.last_close();
    assert_eq!(close.number("tidegate.bytes.in"), SIZE as u64);
    assert_eq!(close.number("tidegate.bytes.out"), expected as u64);
}

#[test]
fn a_tunnel_leads_to_the_port_that_was_judged() {
    let judged = Origin::bytes();
    let other = Origin::bytes();
    let gate = Gate::with(&loopback(judged.port()));
    let hello = Hello::naming(HOST).bytes();

    let mut client = gate.client();
    client.send(format!(
        "CONNECT {} HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n",
        target(&judged),
        other.port()
    ));
    assert_eq!(client.answer("CONNECT").status(), 200);
    client.send(&hello);

    assert_eq!(client.exactly(hello.len()), hello);
    assert_eq!(judged.received(), hello);
    other.saw_nothing();
}

#[test]
fn tls_works_over_a_network_that_delays() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let hop = Faults::before(&origin, Fault::Delays(Duration::from_millis(30)));
    let gate = Gate::with(&loopback(hop.address().port()));

    let mut client = gate.client();
    client.tunnel(&format!("{HOST}:{}", hop.address().port()));

    assert_eq!(
        client
            .enter(&pki, HOST)
            .inside("GET", HOST, "/late")
            .status(),
        200
    );
}

#[test]
fn a_network_that_resets_in_the_middle_ends_the_tunnel_on_record() {
    let origin = Origin::bytes();
    let hop = Faults::before(&origin, Fault::ResetsAfter(10));
    let gate = Gate::with(&loopback(hop.address().port()));
    let hello = Hello::naming(HOST).bytes();

    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", hop.address().port()))
        .send(&hello);

    assert_eq!(client.rest(), hello[..10]);
    let close = gate.last_close();
    assert_eq!(close.text("tidegate.end"), "failed");
    assert_eq!(close.text("tidegate.blame"), "upstream");
}

#[test]
fn a_network_that_swallows_everything_ends_at_the_idle_limit() {
    let origin = Origin::bytes();
    let hop = Faults::before(&origin, Fault::Drops);
    let limits = "\n[limits]\nidle = \"1 s\"\n";
    let gate = Gate::with(&format!("{}{limits}", loopback(hop.address().port())));

    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", hop.address().port()))
        .send(Hello::naming(HOST).bytes());

    assert_eq!(client.rest(), b"");
    assert_eq!(gate.last_close().text("error.type"), "idle");
    origin.saw_nothing();
}
