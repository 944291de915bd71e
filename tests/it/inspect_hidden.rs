//! What a client inside a tunnel might hide: from the reader of its bodies, behind a second method,
//! behind a reload, behind another session's name.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::kit::{
    Client, Inside, Message, Origin, Pki, TIERS, allow_more, inspected, socket, until,
};

const HOST: &str = "allowed.example.com";
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;

struct Bench {
    origin: Origin,
    inside: Inside,
}

impl Bench {
    fn start(lines: &str) -> Self {
        Self::with(lines, "")
    }

    fn with(lines: &str, more: &str) -> Self {
        let pki = Pki::new();
        let origin = Origin::tls(&pki, &[HOST]);
        let rules = inspected("allowed", HOST, origin.port(), lines);
        let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}{more}"));
        Self { origin, inside }
    }

    fn client(&self) -> Client {
        self.inside.enter(HOST, self.origin.port())
    }

    fn head(&self, line: &str, fields: &str) -> String {
        let port = self.origin.port();
        format!("{line} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{fields}\r\n")
    }

    fn post(&self, path: &str, fields: &str, body: &[u8]) -> Message {
        self.ask("POST", path, fields, body)
    }

    fn ask(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Message {
        let mut client = self.client();
        let fields = format!("{fields}Content-Length: {}\r\n", body.len());
        client.send(self.head(&format!("{method} {path}"), &fields));
        client.send(body);
        client.answer(method)
    }

    /// Nothing but these reached the origin.
    #[track_caller]
    fn asked(&self, only: &[&str]) {
        assert_eq!(self.origin.asked(), only);
    }
}

// --- MCP that is not listed ---------------------------------------------------------------------

#[test]
fn a_message_of_mcp_is_found_whatever_it_is_called() {
    let bench = Bench::start("");
    for fields in [
        "Content-Type: image/png\r\n",
        "Content-Type: application/octet-stream\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/grpc\r\n",
        "Content-Type: image/png\r\nContent-Type: application/json\r\n",
        "Content-Type: image/png\r\nContent_Type: application/json\r\n",
    ] {
        let answer = bench.post("/mcp", fields, CALL.as_bytes());
        assert!(
            [400, 403].contains(&answer.status()),
            "{fields}: {answer:?}"
        );
    }
    bench.asked(&[]);
    let answer = bench.post("/x", "Content-Type: image/png\r\n", b"\x89PNG");
    assert_eq!(answer.status(), 200, "{answer:?}");
}

#[test]
fn a_message_of_mcp_is_found_however_it_is_spelt() {
    let bench = Bench::start("");
    let odd = CALL.replacen('{', r#"{"\ud800":1,"#, 1);
    let latin = [&b"{\"\xe9\":1,"[..], &CALL.as_bytes()[1..]].concat();
    let long = format!(
        r#"{{"method":"tools/call","params":{{"x":"{}"}},"jsonrpc":"2.0","id":1}}"#,
        "a".repeat(2 << 20)
    );
    let wide: Vec<u8> = CALL.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let json = "Content-Type: application/json\r\n";
    let utf16 = "Content-Type: application/json; charset=utf-16le\r\n";
    let zipped = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n\
                  Accept: application/json, text/event-stream\r\n";
    for (fields, body) in [
        (json, odd.as_bytes()),
        (json, &latin),
        (json, long.as_bytes()),
        (utf16, &wide),
        (zipped, b"\x1f\x8b\x08\x00"),
    ] {
        let answer = bench.post("/mcp", fields, body);
        let shown = body.get(..40).unwrap_or(body).escape_ascii();
        assert!([400, 403].contains(&answer.status()), "{shown}: {answer:?}");
    }
    bench.asked(&[]);
}

#[test]
fn a_message_of_mcp_is_found_in_whatever_pieces_it_comes() {
    let bench = Bench::start("");
    for beginning in ["", " ", "\r\n\t ", "\u{feff}", "\u{feff}\n"] {
        let mut client = bench.client();
        client.send(bench.head("POST /mcp", "Transfer-Encoding: chunked\r\n"));
        let text = format!("{beginning}{CALL}");
        let chunks: Vec<u8> = text
            .bytes()
            .flat_map(|byte| [b'1', b'\r', b'\n', byte, b'\r', b'\n'])
            .collect();
        client.dribble(&chunks);
        client.send("0\r\n\r\n");
        let status = client.answer("POST").status();
        assert!([400, 403].contains(&status), "{beginning:?}: {status}");
    }
    bench.asked(&[]);
}

#[test]
fn a_message_of_mcp_is_found_where_a_batch_of_lfs_could_be() {
    let bench = Bench::start("");
    let answer = bench.post("/x/info/lfs/objects/batch", "", CALL.as_bytes());
    assert_eq!(answer.status(), 403, "{answer:?}");
    bench.asked(&[]);
}

#[test]
fn a_message_of_mcp_is_found_in_any_encoding_and_method() {
    let bench = Bench::start("");
    let wide: Vec<u8> = CALL.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let wider: Vec<u8> = CALL
        .chars()
        .flat_map(|it| u32::from(it).to_le_bytes())
        .collect();
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(CALL.as_bytes()).expect("memory");
    let zipped = zipped.finish().expect("memory");
    let behind = format!("{{\"{}\":1,{}", "a".repeat(2 << 20), &CALL[1..]);
    let json = "Content-Type: application/json\r\n";
    for (method, fields, body) in [
        ("POST", json, wide.as_slice()),
        ("POST", json, &wider),
        ("POST", "Content-Encoding: gzip\r\n", &zipped),
        ("POST", "Content-Encoding: br\r\n", b"\x8b\x00\x80"),
        ("POST", json, behind.as_bytes()),
        ("PUT", json, CALL.as_bytes()),
        ("PATCH", json, CALL.as_bytes()),
    ] {
        let answer = bench.ask(method, "/mcp", fields, body);
        let shown = body.get(..20).unwrap_or(body).escape_ascii();
        assert!([400, 403].contains(&answer.status()), "{shown}: {answer:?}");
    }
    bench.asked(&[]);
    let long = format!("{{\"a\":\"{}\"}}", "a".repeat(2 << 20));
    let answer = bench.ask("PUT", "/x", json, long.as_bytes());
    assert_eq!(answer.status(), 200, "a long body that is no message");
}

// --- Another method -----------------------------------------------------------------------------

#[test]
fn a_push_cannot_hide_behind_a_query_that_names_a_method() {
    let lines = "category = \"source-control\"\n";
    let deny = "
[[rule]]
id = \"not-main\"
verdict = \"deny\"
to.hosts = [\"allowed.example.com\"]
to.ports = [PORT]
does.refs = [\"refs/heads/main\"]
";
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let deny = deny.replace("PORT", &origin.port().to_string());
    let rules = inspected("allowed", HOST, origin.port(), lines);
    let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}{deny}"));
    let bench = Bench { origin, inside };
    let command = format!("{} {} refs/heads/main", "1".repeat(40), "2".repeat(40));
    let push = format!("{:04x}{command}0000PACK", command.len() + 4);
    for query in [
        "",
        "?_method=POST",
        "?%5fmethod=GET",
        "?x=1&$httpMethod=POST",
    ] {
        let path = format!("/acme/app.git/git-receive-pack{query}");
        let answer = bench.post(&path, "", push.as_bytes());
        assert!([400, 403].contains(&answer.status()), "{query}: {answer:?}");
    }
    bench.asked(&[]);
}

#[test]
fn a_field_that_repeats_the_method_is_not_passed_on() {
    let bench = Bench::start("");
    let answer = bench.post("/x", "X-HTTP-Method-Override: POST\r\n", b"x");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(bench.origin.last().field("x-http-method-override"), None);
    let answer = bench.post("/x", "X-HTTP-Method-Override: DELETE\r\n", b"x");
    assert_eq!(
        (answer.status(), answer.refusal()),
        (400, "bad_request".into())
    );
}

// --- Time ---------------------------------------------------------------------------------------

#[test]
fn a_body_that_has_to_be_judged_cannot_be_dribbled_for_ever() {
    let lines = "category = \"source-control\"\nservice = \"github\"\n";
    let bench = Bench::with(lines, "\n[limits]\nidle = \"1 s\"\n");
    let mut client = bench.client();
    client.send(bench.head("GET /user", ""));
    assert_eq!(client.answer("GET").status(), 200);
    let fields = "Content-Type: application/json\r\nContent-Length: 5000\r\n";
    client.send(bench.head("POST /graphql", fields));
    // Never silent for as long as it may be.
    until("an answer", || {
        client.send(" ");
        !client.is_silent_for(Duration::from_millis(50))
    });
    let answer = client.answer("POST");
    assert_eq!(
        (answer.status(), answer.refusal()),
        (408, "bad_request".into())
    );
    bench.asked(&["GET /user"]);
}

// --- Reloads ------------------------------------------------------------------------------------

#[test]
fn a_tunnel_that_is_to_be_looked_into_from_now_on_is_ended() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let blind = allow_more("allowed", HOST, origin.port(), "");
    let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{blind}"));
    let mut client = inside.gate.client();
    client.tunnel(&format!("{HOST}:{}", origin.port()));
    let mut client = client.enter(&pki, HOST);
    let authority = format!("{HOST}:{}", origin.port());
    assert_eq!(client.inside("GET", &authority, "/").status(), 200);
    let seen = inspected("allowed", HOST, origin.port(), "does.methods = [\"GET\"]\n");
    inside
        .gate
        .reload(&Inside::text(&[HOST], &format!("{TIERS}{seen}")));
    until("its end", || client.was_closed());
    let close = inside.gate.last_close();
    assert_eq!(close.text("error.type"), "revoked", "{close:?}");
}

#[test]
fn a_websocket_ends_where_no_rule_lets_it_any_more() {
    let pki = Pki::new();
    let origin = Origin::https(&pki, &[HOST], socket::echo);
    let rules = |lines: &str| {
        format!(
            "{TIERS}{}",
            inspected("allowed", HOST, origin.port(), lines)
        )
    };
    let inside = Inside::start(&pki, &[HOST], &rules("grant.upgrade = true\n"));
    let mut client = inside.enter(HOST, origin.port());
    let port = origin.port();
    let upgrade = socket::UPGRADE;
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}:{port}\r\n{upgrade}\r\n"
    ));
    assert_eq!(client.head().status(), 101);
    assert_eq!(socket::say(&mut client, "one"), "one");
    inside.gate.reload(&Inside::text(&[HOST], &rules("")));
    until("its end", || {
        let lines = inside.gate.records();
        lines
            .iter()
            .any(|line| line.has("tidegate.flow.parent") && line.text("error.type") == "revoked")
    });
    assert!(client.rest().is_empty());
}

// --- Sessions -----------------------------------------------------------------------------------

/// Asks inside a tunnel of a session, with these fields.
fn as_session(bench: &Bench, session: &crate::kit::Session, fields: &str) -> Message {
    let mut client = bench
        .inside
        .gate
        .client()
        .known_as(&session.id, &session.token);
    client.tunnel(&format!("{HOST}:{}", bench.origin.port()));
    let mut client = client.enter(&bench.inside.trust, HOST);
    client.send(bench.head("GET /x", fields));
    client.answer("GET")
}

#[test]
fn another_session_in_the_fields_is_recorded_or_refused() {
    let other = "4f1c2b4e-1111-4222-8333-123456789abc";
    for (word, status) in [("record", 200), ("deny", 403)] {
        let lines =
            format!("\n[identity.session]\nlocal = \"trust\"\nheader-mismatch = \"{word}\"\n");
        let bench = Bench::with("", &lines);
        let session = bench.inside.gate.session(&json!({}));
        let own = format!("x-claude-code-session-id: {}\r\n", session.id);
        let foreign = format!("X-Claude-Code-Session-Id: {other}\r\n");
        assert_eq!(as_session(&bench, &session, &own).status(), 200);
        assert_eq!(as_session(&bench, &session, "").status(), 200);
        for fields in [
            foreign.clone(),
            format!("{foreign}{own}"),
            format!("{foreign}x-mcp-client-session-id: {}\r\n", session.id),
        ] {
            let answer = as_session(&bench, &session, &fields);
            assert_eq!(answer.status(), status, "{word}: {fields} {answer:?}");
            let judged = bench.inside.judged();
            let line = judged.last().expect("a request");
            assert_eq!(line.text("tidegate.session.mismatch"), "header", "{line:?}");
            if status == 403 {
                assert_eq!(line.reason(), "denied");
                assert_eq!(
                    line.text("security_rule.name"),
                    "identity.session.header-mismatch"
                );
            }
        }
        // Without evidence of a session there is nothing to compare with.
        let mut client = bench.client();
        client.send(bench.head("GET /x", &foreign));
        assert_eq!(client.answer("GET").status(), 200);
    }
}

#[test]
fn an_agent_that_clears_or_resumes_stays_one_session_and_is_not_stopped() {
    let lines = "\n[identity.session]\nlocal = \"trust\"\nheader-mismatch = \"deny\"\n";
    let bench = Bench::with("", lines);
    let gate = &bench.inside.gate;
    let session = gate.session(&json!({}));
    let next = "4f1c2b4e-1111-4222-8333-123456789abc";
    let field = |id: &str| format!("x-claude-code-session-id: {id}\r\n");
    assert_eq!(as_session(&bench, &session, &field(next)).status(), 403);

    let told = json!({
        "session_id": next, "hook_event_name": "SessionStart", "source": "clear",
    });
    let answer = gate.post("/v1/hooks/claude-code", Some(&session.token), &told);
    assert_eq!(answer.status(), 200, "{answer:?}");

    for id in [next, &session.id] {
        assert_eq!(as_session(&bench, &session, &field(id)).status(), 200);
    }
    let line = bench.inside.judged().pop().expect("a request");
    assert_eq!(line.text("session.id"), next);
    assert_eq!(line.text("tidegate.session.root"), session.id);
    assert!(!line.has("tidegate.session.mismatch"), "{line:?}");
    let prompt = format!("{}x-claude-code-prompt-id: prompt-9\r\n", field(next));
    assert_eq!(as_session(&bench, &session, &prompt).status(), 200);
    let line = bench.inside.judged().pop().expect("a request");
    assert_eq!(line.text("prompt.id"), "prompt-9");
    let stranger = field("4f1c2b4e-2222-4222-8333-123456789abc");
    assert_eq!(as_session(&bench, &session, &stranger).status(), 403);
    // The token of another session does not rename this one.
    let other = gate.session(&json!({}));
    let answer = gate.post(
        "/v1/hooks/claude-code",
        Some(&other.token),
        &json!({
            "session_id": session.id, "hook_event_name": "SessionStart", "source": "resume",
        }),
    );
    assert_eq!(answer.status(), 403);
}
