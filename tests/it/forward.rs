//! Plain HTTP through the proxy: absolute-form requests, one judgement each.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::kit::{
    Client, Gate, Line, Lines, Message, Origin, TIERS, allow, allow_more, loopback, names, until,
};

const HOST: &str = "files.example.net";

fn url(origin: &Origin, path: &str) -> String {
    format!("http://{HOST}:{}{path}", origin.port())
}

/// A gate that lets `files.example.net` at this origin pass, with more lines in its rule.
fn gate_with(origin: &Origin, lines: &str) -> Gate {
    let rule = allow_more("files", HOST, origin.port(), lines);
    Gate::with(&format!("{TIERS}{}{rule}", names(&[HOST])))
}

fn refused(answer: &Message, status: u16, code: &str) {
    assert_eq!(
        (answer.status(), answer.refusal().as_str()),
        (status, code),
        "{answer:?}"
    );
}

fn fields(answer: &Message) -> Vec<(String, String)> {
    serde_json::from_value(answer.json()["fields"].clone()).expect("fields")
}

fn named<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let all = fields
        .iter()
        .filter(|(field, _)| field.eq_ignore_ascii_case(name));
    all.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn a_get_passes_and_leaves_two_lines() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate.client().get(&url(&origin, "/a/b?c=d"));

    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.json()["target"],
        "/a/b?c=d",
        "the origin sees origin form"
    );
    let close = gate.last_close();
    assert_eq!(close.number("http.response.status_code"), 200);
    assert_eq!(close.text("http.request.method"), "GET");
    assert_eq!(close.text("network.protocol.name"), "http");
    assert_eq!(close.text("tidegate.action"), "read");
    assert_eq!(gate.records().of(close.flow()).len(), 2);
    assert!(
        !gate
            .records()
            .iter()
            .any(|line| line.to_string().contains("c=d")),
        "no query"
    );
}

#[test]
fn a_post_passes_with_its_length() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let answer =
        gate.client()
            .request("POST", &url(&origin, "/"), "Content-Length: 5\r\n", "hello");

    assert_eq!(answer.json()["body"], "hello");
    assert_eq!(named(&fields(&answer), "content-length"), ["5"]);
    assert_eq!(gate.last_close().text("tidegate.action"), "write");
}

#[test]
fn a_post_passes_in_chunks() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let body = "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";

    let answer = gate.client().request(
        "POST",
        &url(&origin, "/"),
        "Transfer-Encoding: chunked\r\n",
        body,
    );

    assert_eq!(answer.json()["body"], "hello world");
    assert_eq!(
        named(&fields(&answer), "content-length"),
        Vec::<&str>::new()
    );
}

#[test]
fn trailers_do_not_pass() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let body = "5\r\nhello\r\n0\r\nHost: evil.example.org\r\nAuthorization: x\r\n\r\n";

    let answer = gate.client().request(
        "POST",
        &url(&origin, "/"),
        "Transfer-Encoding: chunked\r\n",
        body,
    );

    assert_eq!(answer.status(), 200);
    assert!(origin.last().trailers.is_empty(), "{:?}", origin.last());
}

#[test]
fn each_request_of_a_kept_connection_is_judged() {
    let one = Origin::echo();
    let two = Origin::echo();
    let gate = Gate::with(&format!(
        "{TIERS}{}{}{}",
        names(&["one.example.com", "two.example.com"]),
        allow("one", "one.example.com", one.port()),
        allow("two", "two.example.com", two.port()),
    ));

    let mut client = gate.client();
    for round in 0..3 {
        let first = client.get(&format!("http://one.example.com:{}/{round}", one.port()));
        assert_eq!(first.status(), 200);
        let second = client.get(&format!("http://two.example.com:{}/{round}", two.port()));
        assert_eq!(second.status(), 200);
    }
    refused(&client.get("http://evil.example.org/"), 403, "not_allowed");

    let decisions =
        gate.eventually_records("7 decisions", |lines| lines.named("decision").len() == 7);
    let hosts: Vec<String> = decisions
        .named("decision")
        .iter()
        .map(|line| line.text("server.address").to_owned())
        .collect();
    let (one, two) = ("one.example.com", "two.example.com");
    assert_eq!(hosts, [one, two, one, two, one, two, "evil.example.org"]);
}

#[test]
fn pipelined_requests_are_each_judged_and_answered_in_order() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\nGET http://evil.example.org/ HTTP/1.1\r\nHost: y\r\n\r\n",
        url(&origin, "/first"),
    ));

    assert_eq!(client.answer("GET").json()["target"], "/first");
    refused(&client.answer("GET"), 403, "not_allowed");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_refused_request_leaves_the_connection_usable_or_closes_it() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    let answer = client.get("http://evil.example.org/");
    refused(&answer, 403, "not_allowed");
    let closes = answer
        .field("connection")
        .is_some_and(|value| value.contains("close"));

    if closes {
        client.is_closed();
    } else {
        assert_eq!(client.get(&url(&origin, "/")).status(), 200);
    }
}

#[test]
fn fields_of_the_hop_stay_on_the_hop() {
    let origin = Origin::http(|visit, request| {
        let mut seen = Vec::new();
        for (name, value) in &request.fields {
            seen.push(serde_json::json!([name, value]));
        }
        let body = serde_json::json!({ "fields": seen }).to_string();
        visit.say(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: X-Inner\r\nX-Inner: 1\r\n\
             Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic realm=x\r\nX-Outer: 1\r\n\
             Alt-Svc: h3=\":443\"\r\n\r\n{body}",
            body.len()
        ))
    });
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate.client().request(
        "GET",
        &url(&origin, "/"),
        "Connection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: 300\r\nTE: trailers, gzip\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Foo: 1\r\nX-Forwarded-For: 1.2.3.4\r\n\
         Forwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX-End: 1\r\n",
        "",
    );

    let seen = fields(&answer);
    for gone in ["x-mine", "keep-alive", "proxy-connection", "proxy-foo"] {
        assert_eq!(
            named(&seen, gone),
            Vec::<&str>::new(),
            "{gone} reached the origin"
        );
    }
    for gone in [
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "proxy-authorization",
    ] {
        assert_eq!(
            named(&seen, gone),
            Vec::<&str>::new(),
            "{gone} reached the origin"
        );
    }
    assert_eq!(named(&seen, "x-end"), ["1"]);
    assert!(
        named(&seen, "te").iter().all(|value| *value == "trailers"),
        "{seen:?}"
    );
    assert!(
        named(&seen, "via")
            .iter()
            .any(|value| value.contains("tidegate")),
        "{seen:?}"
    );
    assert_eq!(named(&seen, "host"), [format!("{HOST}:{}", origin.port())]);
    for gone in ["x-inner", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.field(gone), None, "{gone} reached the client");
    }
    assert_eq!(answer.field("x-outer"), Some("1"));
    assert!(
        answer
            .field("via")
            .is_some_and(|value| value.contains("tidegate")),
        "{answer:?}"
    );
}

#[test]
fn the_host_field_is_written_from_the_target() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.send(format!(
        "GET http://FILES.example.NET.:{}/ HTTP/1.1\r\nHost: files.example.net:{}\r\n\r\n",
        origin.port(),
        origin.port()
    ));
    let answer = client.answer("GET");

    assert_eq!(
        named(&fields(&answer), "host"),
        [format!("{HOST}:{}", origin.port())]
    );
}

#[test]
fn a_request_that_has_been_here_before_is_refused() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let once = gate.client().get(&url(&origin, "/"));
    let via = named(&fields(&once), "via").join(", ");

    let again = gate
        .client()
        .request("GET", &url(&origin, "/"), &format!("Via: {via}\r\n"), "");

    refused(&again, 508, "bad_request");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_foreign_via_is_passed_on_and_ours_comes_last() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate
        .client()
        .request("GET", &url(&origin, "/"), "Via: 1.1 other\r\n", "");

    let seen = fields(&answer);
    let via = named(&seen, "via").join(", ");
    assert!(
        via.starts_with("1.1 other") && via.contains("tidegate"),
        "{via}"
    );
}

#[test]
fn a_100_continue_comes_only_after_the_verdict() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));
    let expecting = "Content-Length: 5\r\nExpect: 100-continue\r\n";

    let mut client = gate.client();
    let refusal = client.request("POST", "http://evil.example.org/", expecting, "");
    refused(&refusal, 403, "not_allowed");

    let mut client = gate.client();
    let go = client.request("POST", &url(&origin, "/"), expecting, "");
    assert_eq!(go.status(), 100);
    client.send("hello");
    assert_eq!(client.answer("POST").json()["body"], "hello");
}

#[test]
fn an_upgrade_is_refused_without_a_rule_that_says_so() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate.client().request(
        "GET",
        &url(&origin, "/socket"),
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "",
    );

    assert_eq!(answer.status(), 403, "{answer:?}");
    origin.saw_nothing();
}

#[test]
fn an_upgrade_passes_where_a_rule_says_so() {
    let origin = Origin::raw(|visit| {
        let request = visit.head()?.expect("a request");
        visit.remember(&request);
        visit.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi",
        )?;
        let bytes = visit.exactly(5)?;
        visit.note(&bytes);
        visit.say("bye")?;
        visit.wire.half_close();
        Ok(())
    });
    let gate = gate_with(&origin, "grant.upgrade = true");

    let mut client = gate.client();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: abc\r\n\r\n",
        url(&origin, "/socket")
    ));
    let answer = client.head();
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    assert_eq!(client.exactly(2), b"hi");
    client.send("frame");

    assert_eq!(client.exactly(3), b"bye");
    assert_eq!(origin.received(), b"frame");
    assert_eq!(origin.last().field("upgrade"), Some("websocket"));
    assert_eq!(origin.last().field("sec-websocket-key"), Some("abc"));
    client.is_closed();
    client.half_close();
    assert_eq!(gate.last_close().text("tidegate.end"), "closed");
}

#[test]
fn an_upgrade_to_h2c_is_not_passed_on() {
    let origin = Origin::echo();
    let gate = gate_with(&origin, "grant.upgrade = true");

    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
    ] {
        let answer = gate.client().request("GET", &url(&origin, "/"), fields, "");
        assert_ne!(answer.status(), 101);
        for seen in origin.requests() {
            assert_eq!(
                (seen.field("upgrade"), seen.field("http2-settings")),
                (None, None)
            );
        }
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_a_502() {
    let origin = Origin::http(|visit, _| visit.say("HTTP/1.1 101 Switching Protocols\r\n\r\nxx"));
    let gate = gate_with(&origin, "grant.upgrade = true");

    let answer = gate.client().get(&url(&origin, "/"));

    assert_eq!(answer.status(), 502, "{answer:?}");
}

#[test]
fn answers_without_a_body_end_where_they_should() {
    let origin = Origin::http(|visit, request| match request.target() {
        "/204" => visit.say("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => visit.say("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
        _ if request.method() == "HEAD" => {
            visit.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        }
        _ => visit.echo(request),
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    assert_eq!(
        client
            .request("HEAD", &url(&origin, "/"), "", "")
            .field("content-length"),
        Some("10")
    );
    assert_eq!(client.get(&url(&origin, "/204")).status(), 204);
    assert_eq!(client.get(&url(&origin, "/304")).status(), 304);
    assert_eq!(client.get(&url(&origin, "/end")).json()["target"], "/end");
}

#[test]
fn a_chunked_answer_reaches_an_http_1_0_client_without_chunks() {
    let origin = Origin::http(|visit, _| {
        visit.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.send(format!("GET {} HTTP/1.0\r\n\r\n", url(&origin, "/")));
    let answer = client.answer("GET");

    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(answer.text(), "hello");
    client.is_closed();
}

#[test]
fn an_answer_that_ends_with_the_connection_arrives_whole() {
    let origin = Origin::raw(|visit| {
        visit.head()?;
        visit.say("HTTP/1.0 200 OK\r\n\r\nto the end")?;
        visit.wire.half_close();
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate.client().get(&url(&origin, "/"));

    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (200, "to the end")
    );
}

#[test]
fn each_event_of_a_stream_arrives_before_the_next_is_sent() {
    let (go, next) = mpsc::channel::<()>();
    let next = Arc::new(Mutex::new(next));
    let origin = Origin::http(move |visit, _| {
        let next = next.lock().expect("a channel");
        visit.say(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                   Transfer-Encoding: chunked\r\n\r\n",
        )?;
        for event in 0..5 {
            visit.say(format!("9\r\ndata: {event}\n\n\r\n"))?;
            next.recv_timeout(Duration::from_secs(30))
                .map_err(std::io::Error::other)?;
        }
        visit.say("0\r\n\r\n")
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        url(&origin, "/")
    ));
    assert_eq!(client.head().status(), 200);
    for event in 0..5 {
        assert_eq!(client.chunk(), format!("data: {event}\n\n").as_bytes());
        go.send(()).expect("an origin");
    }
    assert_eq!(client.chunk(), b"");
}

#[test]
fn an_early_answer_passes_and_the_rest_of_the_body_is_not_a_request() {
    let origin = Origin::raw(|visit| {
        visit.head()?;
        visit.answer("413 Content Too Large", "text/plain", b"too much")?;
        visit.wire.half_close();
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.send(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx",
        url(&origin, "/")
    ));
    let answer = client.answer("POST");
    client.send("GET http://evil.example.org/ HTTP/1.1\r\n\r\n");

    assert_eq!((answer.status(), answer.text().as_str()), (413, "too much"));
    let _ = client.rest();
    assert_eq!(gate.records().named("decision").len(), 1);
}

#[test]
fn a_403_of_the_origin_is_not_mistaken_for_ours() {
    let origin = Origin::http(|visit, _| visit.answer("403 Forbidden", "text/plain", b"theirs"));
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate.client().get(&url(&origin, "/"));

    assert_eq!((answer.status(), answer.phrase()), (403, "Forbidden"));
    assert_eq!(answer.text(), "theirs");
    for ours in [
        "x-deny-reason",
        "x-proxy-error",
        "proxy-status",
        "x-tidegate-flow",
    ] {
        assert_eq!(answer.field(ours), None, "{ours}");
    }
    assert_eq!(gate.last_close().number("http.response.status_code"), 403);
}

#[test]
fn an_origin_cannot_speak_in_our_name() {
    let origin = Origin::http(|visit, _| {
        visit.say(
            "HTTP/1.1 403 tidegate denied x:1 not_allowed\r\nX-Tidegate-Flow: 1\r\n\
                   X-Deny-Reason: host_not_allowed\r\nX-Proxy-Error: blocked-by-allowlist\r\n\
                   Content-Length: 0\r\n\r\n",
        )
    });
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate.client().get(&url(&origin, "/"));

    assert_eq!(answer.field("x-tidegate-flow"), None, "{answer:?}");
}

#[test]
fn a_request_in_origin_form_is_refused() {
    let gate = Gate::with(TIERS);

    let mut client = gate.client();
    client.send("GET / HTTP/1.1\r\nHost: files.example.net\r\n\r\n");

    let answer = client.answer("GET");
    assert_eq!(answer.status(), 400, "{answer:?}");
    assert!(
        ["bad_target", "bad_request"].contains(&answer.refusal().as_str()),
        "{answer:?}"
    );
}

#[test]
fn an_https_url_in_absolute_form_is_refused() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate
        .client()
        .get(&format!("https://{HOST}:{}/", origin.port()));

    refused(&answer, 400, "bad_target");
    origin.saw_nothing();
}

#[test]
fn a_path_with_dot_segments_is_refused() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate.client().get(&url(&origin, "/public/../secret"));

    refused(&answer, 400, "bad_path");
    origin.saw_nothing();
}

#[test]
fn methods_and_paths_of_a_rule_hold() {
    let origin = Origin::echo();
    let gate = gate_with(
        &origin,
        "does.methods = [\"GET\"]\ndoes.paths = [\"/docs/**\"]",
    );

    let ask = |method: &str, path: &str| {
        gate.client()
            .request(method, &url(&origin, path), "Content-Length: 0\r\n", "")
            .status()
    };

    assert_eq!(ask("GET", "/docs/one"), 200);
    assert_eq!(ask("HEAD", "/docs/one"), 200, "GET implies HEAD");
    assert_eq!(ask("POST", "/docs/one"), 403);
    assert_eq!(ask("GET", "/docsx/one"), 403);
    assert_eq!(ask("GET", "/other"), 403);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn where_a_request_copies_to_has_to_pass_as_well() {
    let origin = Origin::echo();
    let gate = gate_with(
        &origin,
        "does.methods = [\"COPY\", \"MOVE\", \"PUT\"]\ndoes.paths = [\"/public/**\"]",
    );
    let there = url(&origin, "");
    let ask = |method: &str, destination: &str| {
        let fields = format!("{destination}Content-Length: 0\r\n");
        gate.client()
            .request(method, &url(&origin, "/public/a"), &fields, "")
            .status()
    };
    for method in ["COPY", "MOVE"] {
        for (destination, status) in [
            (format!("Destination: {there}/public/b\r\n"), 200),
            ("Destination: /public/b\r\n".to_owned(), 200),
            (format!("Destination: {there}/private/b\r\n"), 403),
            ("destination: /private/b\r\n".to_owned(), 403),
            ("Destination: /public/../private/b\r\n".to_owned(), 400),
            (
                "Destination: http://evil.example.org/public/b\r\n".to_owned(),
                400,
            ),
            (
                "Destination: https://files.example.net/public/b\r\n".to_owned(),
                400,
            ),
            (
                "Destination: /public/b\r\nDestination: /private/b\r\n".to_owned(),
                400,
            ),
        ] {
            assert_eq!(
                ask(method, &destination),
                status,
                "{method} {destination:?}"
            );
        }
    }
    assert_eq!(
        ask("PUT", "Destination: /private/b\r\n"),
        200,
        "it means nothing there"
    );
    assert_eq!(origin.requests().len(), 5);
}

#[test]
fn an_action_that_the_tier_does_not_allow_is_refused() {
    let origin = Origin::echo();
    let policy = TIERS.replace(
        "[tier.standard]\n",
        "[tier.standard]\nallow = [\"package-registry:read\"]\ndeny = [\"package-registry:write\"]\n",
    );
    let rule = format!(
        "\n[[destination]]\ncategory = \"package-registry\"\nhosts = [\"{HOST}\"]\nports = [{0}]\n\
         [[rule]]\nid = \"registry\"\nverdict = \"allow\"\nto.hosts = [\"{HOST}\"]\n\
         to.ports = [{0}]\ngrant.addresses = [\"127.0.0.0/8\"]\n",
        origin.port()
    );
    let gate = Gate::with(&format!("{policy}{}{rule}", names(&[HOST])));

    assert_eq!(gate.client().get(&url(&origin, "/index")).status(), 200);
    let answer = gate
        .client()
        .request("PUT", &url(&origin, "/x"), "Content-Length: 0\r\n", "");

    refused(&answer, 403, "action_denied");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn an_idle_connection_to_the_same_target_is_used_again() {
    let origin = Origin::echo();
    let gate = Gate::with(&loopback(origin.port()));

    for number in 0..5 {
        assert_eq!(
            gate.client()
                .get(&url(&origin, &format!("/{number}")))
                .status(),
            200
        );
        gate.eventually_records("its end", |lines| lines.named("close").len() == number + 1);
    }

    assert_eq!(origin.connections(), 1, "five callers, one connection");
}

#[test]
fn a_connection_with_credentials_of_its_own_is_not_used_again() {
    for scheme in ["Negotiate", "ntlm"] {
        let origin = Origin::echo();
        let gate = gate_with(&origin, "");
        let mut client = gate.client();

        let fields = format!("Authorization: {scheme} YWJj\r\n");
        let answer = client.request("GET", &url(&origin, "/mine"), &fields, "");
        assert_eq!(answer.status(), 200);
        assert_eq!(gate.client().get(&url(&origin, "/")).status(), 200);

        assert_eq!(origin.connections(), 2, "{scheme}");
    }
}

#[test]
fn an_idle_connection_is_not_shared_between_tiers() {
    let origin = Origin::echo();
    let listeners = "\n[[listener]]\naddress = \"127.0.0.1:0\"\ntier = \"restricted\"\n";
    let gate = Gate::with(&format!("{}{listeners}", loopback(origin.port())));

    let ask = |place: usize| {
        Client::dial(gate.listener(place))
            .get(&url(&origin, "/"))
            .status()
    };
    assert_eq!(ask(0), 200);
    gate.eventually_records("its end", |lines| lines.named("close").len() == 1);
    assert_eq!(ask(1), 200);

    assert_eq!(origin.connections(), 2);
}

#[test]
fn an_idle_connection_that_the_origin_closed_is_replaced() {
    let origin = Origin::raw(|visit| {
        let request = visit.head()?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        visit.remember(&request);
        visit.answer("200 OK", "text/plain", b"once")?;
        visit.wire.half_close();
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));

    for _ in 0..5 {
        assert_eq!(gate.client().get(&url(&origin, "/")).status(), 200);
    }
    assert_eq!(origin.requests().len(), 5);
}

#[test]
fn what_an_origin_must_not_say_is_a_502_and_the_connection_is_not_kept() {
    let bad: [(&str, &[u8]); 8] = [
        ("no status line", b"hello\r\n\r\n"),
        ("another version", b"HTTP/9.9 200 OK\r\n\r\n"),
        (
            "two lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        ),
        (
            "a length with a sign",
            b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        ),
        (
            "folding",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "a NUL",
            b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n",
        ),
        ("nothing", b""),
        ("half a head", b"HTTP/1.1 200 OK\r\nA: b\r\n"),
    ];
    for (what, bytes) in bad {
        let origin = Origin::raw(move |visit| {
            visit.head()?;
            visit.say(bytes)?;
            visit.wire.half_close();
            Ok(())
        });
        let gate = Gate::with(&loopback(origin.port()));
        let answer = gate.client().get(&url(&origin, "/"));
        assert_eq!(answer.status(), 502, "{what}: {answer:?}");
        assert!(
            gate.client().get("http://evil.example.org/").status() == 403,
            "{what}"
        );
    }
}

#[test]
fn interim_responses_without_end_are_a_502() {
    let origin = Origin::http(|visit, _| {
        visit.say("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000))?;
        let _ = visit.exactly(1)?;
        Ok(())
    });
    let gate = gate_with(&origin, "");
    let mut client = gate.client();
    let url = url(&origin, "/");
    client.send(format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n"));

    let last = std::iter::repeat_with(|| client.head()).find(|head| head.status() >= 200);

    assert_eq!(last.map(|head| head.status()), Some(502));
    assert_eq!(gate.last_close().text("tidegate.blame"), "upstream");
}

#[test]
fn a_client_that_does_not_read_its_refusals_gets_no_answer_behind_half_a_one() {
    let gate = Gate::with(TIERS);
    let mut client = gate.client();
    let count = 40_000;
    let ask = "GET http://evil.example.org/ HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(ask.repeat(count));
    // The proxy waits a second for an answer to be taken, then it goes no further: no line follows.
    let clock = tidegate::clock::Clock::system();
    until("an answer that is not taken", || {
        let log = std::fs::read_to_string(gate.log()).expect("a log");
        let last = log.lines().rfind(|line| line.contains("\"decision\""));
        let last = last.and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let at = last.and_then(|line| line["timestamp"].as_str()?.parse::<jiff::Timestamp>().ok());
        at.is_some_and(|at| clock.now().duration_since(at).as_secs() >= 3)
    });

    let text = client.rest();

    let whole = text
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.starts_with(b"{\"error\"") && line.ends_with(b"}\n"))
        .count();
    let heads = text
        .windows(12)
        .filter(|some| some == b"HTTP/1.1 403")
        .count();
    assert!(
        heads < count && heads - whole <= 1,
        "{whole} whole answers of {heads}"
    );
}

#[test]
fn bytes_behind_an_answer_are_not_the_next_answer() {
    let origin = Origin::http(|visit, request| match request.target() {
        "/first" => visit.say(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst\
             HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        ),
        _ => visit.answer("200 OK", "text/plain", b"second"),
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    assert_eq!(client.get(&url(&origin, "/first")).text(), "first");
    gate.eventually_records("its end", |lines| lines.named("close").len() == 1);

    assert_eq!(client.get(&url(&origin, "/second")).text(), "second");
}

#[test]
fn a_body_cut_short_by_the_origin_is_recorded_as_failed() {
    let origin = Origin::raw(|visit| {
        visit.head()?;
        visit.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")?;
        visit.wire.half_close();
        Ok(())
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        url(&origin, "/")
    ));
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.rest(), b"short");

    let close: Line = gate.last_close();
    assert_eq!(close.text("tidegate.end"), "failed");
    assert_eq!(close.text("tidegate.blame"), "upstream");
}

#[test]
fn a_client_that_leaves_in_the_middle_is_recorded() {
    let (sent, leave) = mpsc::channel::<()>();
    let origin = Origin::http(move |visit, _| {
        visit.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        let _ = sent.send(());
        loop {
            visit.say(vec![b'x'; 64 * 1024])?;
        }
    });
    let gate = Gate::with(&loopback(origin.port()));

    let mut client = gate.client();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        url(&origin, "/")
    ));
    leave
        .recv_timeout(Duration::from_secs(30))
        .expect("a request at the origin");
    assert_eq!(client.head().status(), 200);
    client.reset();

    let close = gate.last_close();
    assert_eq!(close.text("tidegate.blame"), "client", "{close:?}");
}

#[test]
fn one_name_with_two_ports_is_two_targets() {
    let one = Origin::echo();
    let two = Origin::echo();
    let gate = Gate::with(&format!(
        "{TIERS}{}{}",
        names(&[HOST]),
        allow("one", HOST, one.port())
    ));

    assert_eq!(gate.client().get(&url(&one, "/")).status(), 200);
    refused(&gate.client().get(&url(&two, "/")), 403, "port_denied");
    two.saw_nothing();
}

#[test]
fn a_redirect_is_passed_on_and_not_followed() {
    let inside = Origin::echo();
    let location = format!("http://127.0.0.1:{}/", inside.port());
    let origin = Origin::http(move |visit, _| {
        visit.say(format!(
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ))
    });
    let gate = Gate::with(&loopback(origin.port()));

    let answer = gate.client().get(&url(&origin, "/"));

    assert_eq!(answer.status(), 302);
    assert!(
        answer
            .field("location")
            .is_some_and(|to| to.contains("127.0.0.1"))
    );
    inside.saw_nothing();
}

#[test]
fn chunks_that_are_none_are_not_passed_on() {
    let bad = [
        "FFFFFFFFFFFFFFFF0\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "\r\nhello",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5 \r\r\nhello\r\n0\r\n\r\n",
        "g\r\n",
    ];
    for chunks in bad {
        let origin = Origin::echo();
        let gate = Gate::with(&loopback(origin.port()));
        let mut client = gate.client();
        client.send(format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}",
            url(&origin, "/")
        ));
        let answer = client.try_answer("POST");
        assert!(
            !answer.as_ref().is_ok_and(|answer| answer.status() < 400),
            "{chunks:?}: {answer:?}"
        );
        drop(client);
        // Chunks that are malformed at once are refused before the origin is dialled.
        let blamed =
            |line: &Line| line.text("tidegate.blame") == "client" || line.reason() == "bad_request";
        gate.line("a line that blames the client", blamed);
        assert!(
            origin.requests().is_empty(),
            "{chunks:?} was a whole request to the origin"
        );
    }
}

#[test]
fn a_client_that_vanishes_while_the_origin_is_silent_gives_up_its_place() {
    let origin = Origin::raw(|visit| {
        let request = visit.head()?.expect("a request");
        visit.remember(&request);
        // Says nothing until the proxy hangs up.
        visit.head().map(|_| ())
    });
    let gate = gate_with(&origin, "");
    let mut client = gate.client();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        url(&origin, "/")
    ));
    until("the origin has the request", || {
        !origin.requests().is_empty()
    });

    client.reset();

    let close = gate.last_close();
    assert_eq!(close.text("tidegate.end"), "failed");
    assert_eq!(close.text("tidegate.blame"), "client");
}

#[test]
fn a_client_that_closed_its_side_still_gets_its_answer() {
    let origin = Origin::raw(|visit| {
        let request = visit.head()?.expect("a request");
        visit.remember(&request);
        // The end of the client's side does not reach a kept connection to the origin.
        visit.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let gate = gate_with(&origin, "");
    let mut client = gate.client();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        url(&origin, "/")
    ));
    client.half_close();

    let answer = client.answer("GET");

    assert_eq!(
        (answer.status(), answer.body.as_slice()),
        (200, b"ok".as_slice())
    );
}
