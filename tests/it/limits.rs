//! Bounds that hold by default: nobody can make the proxy wait or remember without end.

use crate::kit::{Client, Gate, Hello, Lines, Origin, loopback, until};

const HOST: &str = "files.example.net";

fn with_limits(origin: &Origin, lines: &str) -> Gate {
    Gate::with(&format!("{}\n[limits]\n{lines}\n", loopback(origin.port())))
}

#[test]
fn a_head_that_never_ends_is_closed() {
    let origin = Origin::echo();
    let gate = with_limits(&origin, "header-timeout = \"1 s\"");

    let mut client = gate.client();
    client.send("GET http://files.example.net/ HTTP/1.1\r\nHost: ");

    let rest = client.rest();
    assert!(
        !rest.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    origin.saw_nothing();
}

#[test]
fn a_head_that_dribbles_is_closed_though_bytes_keep_coming() {
    let origin = Origin::echo();
    let gate = with_limits(&origin, "header-timeout = \"1 s\"");

    let mut client = gate.client();
    client.send("GET http://files.example.net/ HTTP/1.1\r\n");
    // Each wait is shorter than the bound; all together are longer.
    let ended = (0..100).any(|number| {
        client.send(format!("A{number}: b\r\n"));
        !client.is_silent_for(std::time::Duration::from_millis(100)) || client.was_closed()
    });

    assert!(ended, "ten seconds of a head whose bound is one");
    origin.saw_nothing();
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let origin = Origin::echo();
    let gate = with_limits(&origin, "header-size = 4096\nheader-count = 20");
    let url = format!("http://{HOST}:{}/", origin.port());

    let large = format!("A: {}\r\n", "x".repeat(5000));
    let answer = gate.client().request("GET", &url, &large, "");
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (431, "bad_request")
    );

    let many: Vec<String> = (0..30).map(|number| format!("A{number}: x\r\n")).collect();
    let many = many.concat();
    let answer = gate.client().request("GET", &url, &many, "");
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (431, "bad_request")
    );
    origin.saw_nothing();
}

#[test]
fn a_caller_with_too_many_flows_is_told_to_wait() {
    let origin = Origin::bytes();
    let gate = with_limits(&origin, "flows-per-caller = 3");
    let target = format!("{HOST}:{}", origin.port());
    let hello = Hello::naming(HOST).bytes();
    let mut open: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = gate.client();
            client.tunnel(&target).send(&hello);
            client
        })
        .collect();

    let answer = gate.client().connect(&target);

    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (429, "too_many_flows")
    );
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    let line = gate.decision(answer.field("x-tidegate-flow").expect("a flow"));
    assert_eq!((line.verdict(), line.reason()), ("error", "too_many_flows"));

    drop(open.pop());
    until("room for one more", || {
        gate.client().connect(&target).status() == 200
    });
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_closed() {
    let origin = Origin::bytes();
    let gate = with_limits(&origin, "idle = \"1 s\"");
    let hello = Hello::naming(HOST).bytes();

    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);

    assert_eq!(client.rest(), b"");
    assert_eq!(gate.last_close().text("error.type"), "idle");
}

#[test]
fn a_stream_of_which_only_one_side_speaks_is_not_idle() {
    let origin = Origin::raw(|visit| {
        let _ = visit.exactly(5)?;
        let (_held, never) = std::sync::mpsc::channel::<()>();
        for _ in 0..20 {
            visit.say("tick")?;
            let _ = never.recv_timeout(std::time::Duration::from_millis(200));
        }
        visit.wire.half_close();
        Ok(())
    });
    let gate = with_limits(&origin, "idle = \"2 s\"");

    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(Hello::naming(HOST).bytes());

    assert_eq!(client.rest(), b"tick".repeat(20));
}

#[test]
fn a_kept_connection_that_rests_too_long_is_closed_quietly() {
    let origin = Origin::echo();
    let gate = with_limits(&origin, "keep-alive = \"1 s\"");
    let mut client = gate.client();
    assert_eq!(
        client
            .get(&format!("http://{HOST}:{}/", origin.port()))
            .status(),
        200
    );

    client.is_closed();

    assert_eq!(gate.records().named("decision").len(), 1);
}

#[test]
fn a_connection_that_says_nothing_costs_the_others_nothing() {
    let origin = Origin::echo();
    let gate = with_limits(&origin, "");
    let silent: Vec<Client> = (0..200).map(|_| gate.client()).collect();

    assert_eq!(
        gate.client()
            .get(&format!("http://{HOST}:{}/", origin.port()))
            .status(),
        200
    );
    drop(silent);
}

#[test]
fn out_of_descriptors_it_rests_and_recovers() {
    let origin = Origin::bytes();
    let gate = Gate::plan(&loopback(origin.port()))
        .under(&["prlimit", "--nofile=64:64"])
        .start();
    let target = format!("{HOST}:{}", origin.port());
    let mut crowd: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = gate.client();
            client.send(format!("CONNECT {target} HTTP/1.1\r\n\r\n"));
            client
        })
        .collect();
    // Some of them are answered, whatever the answer; the gate still lives.
    assert!(
        crowd
            .iter_mut()
            .any(|client| client.try_answer("CONNECT").is_ok())
    );
    drop(crowd);

    until("it takes flows again", || {
        let mut client = gate.client();
        client.send(format!("CONNECT {target} HTTP/1.1\r\n\r\n"));
        client
            .try_answer("CONNECT")
            .is_ok_and(|answer| answer.status() == 200)
    });
}

/// Whether the kernel probes a connection between these ports (proc(5): the timer of kind 2).
fn is_probed(local: Option<u16>, remote: Option<u16>) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    let port = |address: &str| u16::from_str_radix(address.split(':').nth(1)?, 16).ok();
    table.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let fits = |wanted: Option<u16>, at: usize| wanted.is_none() || port(fields[at]) == wanted;
        fits(local, 1) && fits(remote, 2) && fields[3] == "01" && fields[5].starts_with("02:")
    })
}

#[test]
fn peers_that_are_gone_without_a_word_are_probed_for_on_both_sides() {
    let origin = Origin::bytes();
    let gate = with_limits(&origin, "");
    let hello = Hello::naming(HOST).bytes();
    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);
    let (proxy, origin) = (gate.proxy().port(), origin.port());
    until("the client is probed for", || is_probed(Some(proxy), None));
    until("the origin is probed for", || is_probed(None, Some(origin)));
}

/// Asks until it is told 429; fails if it never is.
fn until_limited(mut ask: impl FnMut() -> crate::kit::Message) -> crate::kit::Message {
    let mut answers = (0..1000).map(|_| ask());
    let limited = answers.find(|answer| answer.status() == 429);
    limited.expect("a limit")
}

const TWO_CALLERS: &str = "\n[[listener]]\naddress = \"127.0.0.1:0\"\n";

#[test]
fn a_caller_that_floods_with_refused_flows_is_told_to_wait_and_others_are_not() {
    let origin = Origin::echo();
    let trust = "\n[identity.session]\nlocal = \"trust\"\n";
    let gate = with_limits(&origin, &format!("refusal-rate = 1\n{TWO_CALLERS}{trust}"));
    let url = format!("http://{HOST}:{}/", origin.port());

    let limited = until_limited(|| gate.client().connect("evil.example.org:443"));
    assert_eq!(limited.refusal(), "rate_limited");
    assert!(limited.field("retry-after").is_some(), "{limited:?}");

    // What the caller may do goes on, and so does every other caller.
    assert_eq!(gate.client().get(&url).status(), 200);
    let mut other = Client::dial(gate.listener(1));
    let refused = other.connect("evil.example.org:443");
    assert_eq!(
        (refused.status(), refused.refusal().as_str()),
        (403, "not_allowed")
    );
    let of_session = gate.session(&serde_json::json!({}));
    let user = format!("{}.main", of_session.id);
    let refused = gate
        .client()
        .known_as(&user, &of_session.token)
        .connect("evil.example.org:443");
    assert_eq!(refused.status(), 403, "{refused:?}");

    let kind = [("kind", "refusals")];
    assert!(gate.metrics().sum("tidegate_rate_limited_total", &kind) >= 1.0);
    until("a line", || {
        let lines = gate.records();
        lines.iter().any(|line| line.reason() == "rate_limited")
    });
}

#[test]
fn requests_on_one_connection_and_wrong_credentials_are_refusals_too() {
    let origin = Origin::echo();
    let gate = with_limits(&origin, "refusal-rate = 1");
    let mut client = gate.client();
    let limited = until_limited(|| client.get("http://evil.example.org/"));
    assert_eq!(limited.refusal(), "rate_limited");

    let gate = with_limits(&origin, "refusal-rate = 1");
    let limited = until_limited(|| {
        gate.client()
            .known_as("ana", "tgs_wrong")
            .get("http://evil.example.org/")
    });
    assert_eq!(limited.refusal(), "rate_limited");
    origin.saw_nothing();
}

#[test]
fn a_caller_that_connects_too_often_is_told_to_wait() {
    let origin = Origin::echo();
    let gate = with_limits(&origin, &format!("connection-rate = 1\n{TWO_CALLERS}"));
    let url = format!("http://{HOST}:{}/", origin.port());

    // From whichever address of this host.
    let mut turn = 0_u8;
    let limited = until_limited(|| {
        turn = turn.wrapping_add(1);
        Client::dial_from([127, 0, 0, turn.max(1)], gate.proxy()).get(&url)
    });
    assert_eq!(limited.refusal(), "rate_limited");
    assert_eq!(Client::dial(gate.listener(1)).get(&url).status(), 200);
}

#[test]
fn sessions_and_calls_have_their_rates() {
    let origin = Origin::echo();
    let gate = with_limits(&origin, "session-rate = 1");
    let parent = gate.session(&serde_json::json!({}));
    let request = serde_json::json!({});
    let limited = until_limited(|| gate.post("/v1/sessions", Some(&parent.token), &request));
    assert!(limited.field("retry-after").is_some(), "{limited:?}");
    assert_eq!(limited.json()["error"], "rate_limited");
    // The operator is another caller.
    gate.session(&request);
    until_limited(|| gate.control("/v1/sessions", None, &request));

    let gate = with_limits(&origin, "admin-rate = 1");
    let parent = gate.session(&serde_json::json!({}));
    until_limited(|| gate.post("/v1/sessions/end", None, &request));
    assert_eq!(gate.ask("/healthz").status(), 200);
    gate.child(&parent, &request);
    let kind = [("kind", "admin")];
    assert!(gate.metrics().sum("tidegate_rate_limited_total", &kind) >= 1.0);
}

#[test]
fn calls_without_a_token_do_not_spend_the_rate_of_calls_with_one() {
    let origin = Origin::echo();
    let gate = with_limits(&origin, "admin-rate = 1");
    let session = gate.session(&serde_json::json!({}));
    let report = gate.report_token();
    let nothing = serde_json::json!({});
    until_limited(|| gate.post("/v1/sessions/end", None, &nothing));
    until_limited(|| gate.post("/v1/contained", Some("tgreport_wrong"), &nothing));

    assert_eq!(gate.contained_with(&report, r#"{"tcp":true}"#), 204);
    let exchange = |token: &str| {
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &subject_token={token}\
             &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt"
        );
        let mut client = Client::dial(gate.admin());
        client.send(format!(
            "POST /v1/sessions/exchange HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        ));
        client.answer("POST")
    };
    until_limited(|| exchange("wrong"));
    let exchanged = exchange(&session.token);
    assert_eq!(exchanged.status(), 200, "{exchanged:?}");
}
