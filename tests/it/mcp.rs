//! MCP from inside, with the client and server libraries of others and with messages of our own:
//! what a rule lists works, what it denies gets an answer that an agent can read, and what nobody
//! listed does not pass.

use std::path::{Path, PathBuf};

use rcgen::SanType;
use serde_json::{Value, json};

use crate::kit::{
    Client, Inside, Line, Lines as _, Message, Origin, Outcome, Pki, Service, TIERS, inspected,
    until,
};

const HOST: &str = "mcp.example.com";

/// A server by the library, and a gate in front of it.
struct World {
    inside: Inside,
    log: PathBuf,
    url: String,
    _server: Service,
    _folder: tempfile::TempDir,
}

/// A file beside these tests.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it")
        .join(name)
}

/// Lists that endpoint and lets everyone call its tools, but for some.
fn listed(port: u16, path: &str) -> String {
    format!(
        "
[[rule]]
id = \"docs-tools\"
verdict = \"allow\"
does.servers = [\"docs\"]
does.tools = [\"sea*\"]
grant.addresses = [\"127.0.0.0/8\"]
grant.upstream = \"test\"
[[rule]]
id = \"docs-no-delete\"
verdict = \"deny\"
does.servers = [\"docs\"]
does.tools = [\"delete\"]

[mcp.docs]
url = \"https://{HOST}:{port}{path}\"
"
    )
}

impl World {
    fn start(transport: &str, rules: impl FnOnce(u16) -> String) -> Self {
        let (pki, folder) = (Pki::new(), tempfile::tempdir().expect("a folder"));
        let (cert, key) = pki.issue(|params| {
            let name = HOST.try_into().expect("ASCII");
            params.subject_alt_names = vec![SanType::DnsName(name)];
        });
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("cert.pem"), cert).expect("a file");
        std::fs::write(at("key.pem"), key).expect("a file");
        let words = [script("mcp_server.py"), transport.into()];
        let more = [at("cert.pem"), at("key.pem"), at("log")];
        let words = words.into_iter().chain(more);
        let server = Service::start("python", folder.path(), words);
        let port: u16 = server.says("port ").parse().expect("a port");
        let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{}", rules(port)));
        let path = if transport == "sse" { "/sse" } else { "/mcp" };
        Self {
            inside,
            log: at("log"),
            url: format!("https://{HOST}:{port}{path}"),
            _server: server,
            _folder: folder,
        }
    }

    fn python(&self, mode: &str) -> Outcome {
        let words = [
            script("mcp_client.py"),
            mode.into(),
            self.url.clone().into(),
        ];
        self.inside.program("python").args(words).run()
    }

    fn node(&self, transport: &str) -> Outcome {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-node");
        let words = [
            script("mcp_client.mjs"),
            modules,
            transport.into(),
            self.url.clone().into(),
        ];
        self.inside.program("node").args(words).run()
    }

    /// The tools whose calls reached the server.
    fn called(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        lines
            .filter(|line: &Value| line["method"] == "tools/call")
            .filter_map(|line| line["tool"].as_str().map(str::to_owned))
            .collect()
    }

    /// Both calls of `search` went through and the one of `delete` did not, and the agent was told.
    #[track_caller]
    fn allowed_one_and_denied_the_other(&self, outcome: Outcome) {
        let outcome = outcome.succeeded().showed("called search");
        outcome.showed("refused delete").showed("docs-tools");
        assert_eq!(self.called(), ["search", "search"]);
        let calls = calls(&self.inside);
        let said: Vec<_> = calls
            .iter()
            .map(|line| (line.text("mcp.tool.name"), line.verdict()))
            .collect();
        assert_eq!(
            said,
            [("search", "allow"), ("delete", "deny"), ("search", "allow")]
        );
        assert_eq!(calls[1].reason(), "mcp_tool_denied");
        assert_eq!(calls[1].text("security_rule.name"), "docs-no-delete");
        assert!(
            calls
                .iter()
                .all(|line| line.text("tidegate.action") == "call")
        );
        let log = std::fs::read_to_string(self.inside.gate.log()).expect("a log");
        assert!(
            !log.contains("a-private-question"),
            "arguments are on record"
        );
    }
}

/// What was judged of `tools/call`, in order.
fn calls(inside: &Inside) -> Vec<Line> {
    let mut all = inside.judged();
    all.retain(|line| line.text("mcp.method.name") == "tools/call");
    all
}

#[test]
fn a_listed_server_serves_the_library_of_python_with_a_handshake() {
    let world = World::start("http", |port| listed(port, "/mcp"));
    world.allowed_one_and_denied_the_other(world.python("legacy"));
}

#[test]
fn a_listed_server_serves_the_library_of_python_without_a_handshake() {
    let world = World::start("http", |port| listed(port, "/mcp"));
    world.allowed_one_and_denied_the_other(world.python("2026-07-28"));
}

#[test]
fn a_listed_server_serves_the_library_of_python_by_events() {
    // Events come from one URL, and messages go to another: both are listed.
    let world = World::start("sse", |port| {
        let both = listed(port, "/sse").replace("[\"docs\"]", "[\"docs\", \"messages\"]");
        format!("{both}\n[mcp.messages]\nurl = \"https://{HOST}:{port}/messages/\"\n")
    });
    let outcome = world.python("sse").succeeded();
    // Answers come by the events of another request, so that only a status can be given here;
    // this library ends its transport at one, and shows it.
    let outcome = outcome.showed("called search").showed("mcp_tool_denied");
    assert!(!outcome.shows("called delete"), "{outcome:#?}");
    assert_eq!(world.called(), ["search"]);
    let calls = calls(&world.inside);
    assert_eq!(calls[1].text("mcp.tool.name"), "delete", "{calls:?}");
    assert_eq!(calls[1].reason(), "mcp_tool_denied", "{calls:?}");
}

#[test]
fn a_listed_server_serves_the_library_of_node() {
    let world = World::start("http", |port| listed(port, "/mcp"));
    world.allowed_one_and_denied_the_other(world.node("http"));
}

#[test]
fn a_server_that_nobody_listed_is_refused() {
    for (transport, mode) in [("http", "legacy"), ("http", "2026-07-28"), ("sse", "sse")] {
        // The host itself may be asked for anything else.
        let rules = |port| inspected("pages", HOST, port, "category = \"webfetch\"\n");
        let world = World::start(transport, rules);
        let outcome = world.python(mode).failed();
        assert!(!outcome.shows("called"), "{outcome:#?}");
        assert_eq!(world.called(), Vec::<String>::new());
        let judged = world.inside.judged();
        let denied = judged.iter().find(|line| line.verdict() == "deny");
        let denied = denied.unwrap_or_else(|| panic!("{mode}: {judged:?}"));
        assert_eq!(
            denied.text("tidegate.category"),
            "mcp",
            "{mode}: {denied:?}"
        );
    }
}

// --- Messages of our own ------------------------------------------------------------------------

/// An origin that answers anything, listed as a server.
struct Bench {
    origin: Origin,
    inside: Inside,
}

impl Bench {
    fn start() -> Self {
        let pki = Pki::new();
        let origin = Origin::tls(&pki, &[HOST]);
        let rules = listed(origin.port(), "/mcp");
        let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}"));
        Self { origin, inside }
    }

    fn post(&self, path: &str, fields: &str, body: &str) -> Message {
        let mut client: Client = self.inside.enter(HOST, self.origin.port());
        let (host, length) = (format!("{HOST}:{}", self.origin.port()), body.len());
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {length}\r\n\
             {fields}\r\n{body}"
        ));
        client.answer("POST")
    }

    /// Did not get through, by whatever answer, and the record says so.
    #[track_caller]
    fn refuses(&self, fields: &str, body: &str) -> Message {
        let before = self.origin.requests().len();
        let answer = self.post("/mcp", fields, body);
        let shown = format!("{fields} {body}: {answer:?} {}", answer.text());
        assert_eq!(self.origin.requests().len(), before, "{shown}");
        let error = answer.status() >= 400 || answer.json().to_string().contains("\"error\"");
        assert!(error, "{shown}");
        until("a record", || {
            self.inside
                .judged()
                .iter()
                .any(|line| line.verdict() != "allow")
        });
        answer
    }

    #[track_caller]
    fn passes(&self, fields: &str, body: &str) {
        let answer = self.post("/mcp", fields, body);
        assert_eq!(answer.status(), 200, "{body}: {}", answer.text());
        assert_eq!(self.origin.last().text(), body);
    }
}

fn call(id: u32, tool: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": tool, "arguments": { "secret": "hush" } },
    })
}

#[test]
fn a_denied_tool_gets_an_error_that_names_the_rule() {
    let bench = Bench::start();
    bench.passes("", &call(1, "search").to_string());
    let answer = bench.refuses("", &call(7, "delete").to_string());
    assert_eq!(answer.status(), 200, "{answer:?}");
    let error = answer.json();
    assert_eq!(
        (&error["jsonrpc"], &error["id"]),
        (&json!("2.0"), &json!(7))
    );
    let message = error["error"]["message"].as_str().expect("a message");
    assert!(message.contains("docs-tools"), "{message}");
    assert!(error["error"]["code"].is_i64(), "{error}");
    // What no list names is not allowed.
    bench.refuses("", &call(8, "erase").to_string());
    let log = std::fs::read_to_string(bench.inside.gate.log()).expect("a log");
    assert!(!log.contains("hush"), "arguments are on record");
}

#[test]
fn the_id_of_the_agents_call_is_on_record() {
    let bench = Bench::start();
    let mut body = call(1, "search");
    body["params"]["_meta"] = json!({ "claudecode/toolUseId": "toolu_01AbC" });
    bench.passes("", &body.to_string());
    let calls = calls(&bench.inside);
    assert_eq!(calls[0].text("tool_use_id"), "toolu_01AbC", "{calls:?}");
    assert_eq!(calls[0].text("mcp.tool.name"), "search");
}

#[test]
fn what_two_readers_could_read_in_two_ways_is_refused() {
    let bench = Bench::start();
    let (good, bad) = (call(1, "search").to_string(), call(2, "delete").to_string());
    let twice = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\
                 \"params\":{\"name\":\"search\",\"name\":\"delete\"}}";
    let methods = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"method\":\"tools/call\",\
                   \"params\":{\"name\":\"delete\"}}";
    let escaped = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\
                   \"params\":{\"name\":\"search\",\"n\\u0061me\":\"delete\"}}";
    let upper = "{\"jsonrpc\":\"2.0\",\"id\":1,\"Method\":\"tools/call\",\
                 \"params\":{\"name\":\"delete\"}}";
    for body in [
        twice,
        methods,
        escaped,
        upper,
        &format!("[{good},{bad}]"),
        &format!("[{bad}]"),
        &format!("{good}{bad}"),
        "not JSON",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":7}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"DELETE\"}}",
    ] {
        bench.refuses("", body);
    }
    bench.refuses("Content-Encoding: gzip\r\n", &good);
}

#[test]
fn headers_that_say_something_else_than_the_body_are_refused() {
    let bench = Bench::start();
    let version = "MCP-Protocol-Version: 2026-07-28\r\n";
    let mut body = call(1, "search");
    body["params"]["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    let body = body.to_string();
    let said =
        |method: &str, name: &str| format!("{version}Mcp-Method: {method}\r\nMcp-Name: {name}\r\n");
    bench.passes(&said("tools/call", "search"), &body);
    bench.refuses(&said("tools/call", "delete"), &body);
    bench.refuses(&said("tools/list", "search"), &body);
    let denied = body.replace("\"search\"", "\"delete\"");
    bench.refuses(&said("tools/call", "search"), &denied);
    let twice = said("tools/call", "search") + "Mcp-Name: delete\r\n";
    bench.refuses(&twice, &body);
}

#[test]
fn another_path_of_a_listed_server_is_not_that_server() {
    let bench = Bench::start();
    for path in ["/mcp2", "/mcp/", "/", "/mcp?x=1"] {
        let before = bench.origin.requests().len();
        let answer = bench.post(path, "", &call(1, "search").to_string());
        if path == "/mcp?x=1" && answer.status() == 200 {
            continue;
        }
        assert_eq!(answer.status(), 403, "{path}: {answer:?}");
        assert_eq!(bench.origin.requests().len(), before, "{path}");
    }
}

// --- A server of this machine -------------------------------------------------------------------

/// An origin without TLS on loopback, listed by one line, and a gate.
fn on_loopback() -> (Origin, Inside) {
    let origin = Origin::echo();
    let rules = format!(
        "[mcp.own]\nurl = \"http://127.0.0.1:{}/mcp\"\n\
         [[rule]]\nid = \"own\"\nverdict = \"allow\"\ndoes.servers = [\"own\"]\n\
         does.tools = [\"sea*\"]\n",
        origin.port()
    );
    let inside = Inside::start(&Pki::new(), &[HOST], &format!("{TIERS}{rules}"));
    (origin, inside)
}

fn post_plain(inside: &Inside, place: &str, tool: &str) -> Message {
    let body = call(1, tool).to_string();
    let fields = format!(
        "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         Content-Length: {}\r\n",
        body.len()
    );
    let mut client = inside.gate.client();
    client.request("POST", place, &fields, &body)
}

#[test]
fn a_listed_server_on_loopback_needs_no_tls() {
    let (origin, inside) = on_loopback();
    let url = format!("http://127.0.0.1:{}/mcp", origin.port());
    assert_eq!(post_plain(&inside, &url, "search").status(), 200);
    assert_eq!(origin.requests().len(), 1);
    for (url, tool) in [
        (url.clone(), "delete"),
        (url.replace("/mcp", "/other"), "search"),
        (url.replace("127.0.0.1", "127.0.0.2"), "search"),
        (url.replace("127.0.0.1", "localhost"), "search"),
    ] {
        let answer = post_plain(&inside, &url, tool);
        let is_error = answer.status() >= 400 || answer.text().contains("-32043");
        assert!(is_error, "{url} {tool}: {answer:?}");
    }
    let other = Origin::echo();
    let unnamed = format!("http://127.0.0.1:{}/mcp", other.port());
    assert_eq!(post_plain(&inside, &unnamed, "search").status(), 403);
    other.saw_nothing();
    assert_eq!(origin.requests().len(), 1);
    let decisions = || inside.gate.records().named("decision");
    until("a record of each refusal", || {
        let refused = |line: &&Line| line.verdict() == "deny";
        decisions().iter().filter(refused).count() == 5
    });
    let decisions = decisions();
    let passed = decisions.iter().find(|line| line.verdict() == "allow");
    assert_eq!(passed.expect("a flow").text("tidegate.mcp.server"), "own");
}

#[test]
fn a_tunnel_to_a_server_on_loopback_carries_no_plain_message() {
    let (origin, inside) = on_loopback();
    let mut client = inside.gate.client();
    let opened = client.connect(&format!("127.0.0.1:{}", origin.port()));
    if opened.status() == 200 {
        let body = call(1, "delete").to_string();
        client.send(format!(
            "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\n\r\n{body}",
            origin.port(),
            body.len()
        ));
        client.rest();
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}
