//! The API of a forge from inside: queries pass, mutations do not, however they are written.

use crate::clients::origin;
use crate::kit::{Client, Inside, Message, Origin, Pki, TIERS, github, inspected};

const HOST: &str = "api.example.com";

struct Bench {
    origin: Origin,
    inside: Inside,
}

impl Bench {
    fn start(lines: &str) -> Self {
        let pki = Pki::new();
        let origin = origin("https", &pki, HOST, github);
        let lines = format!("category = \"source-control\"\nservice = \"github\"\n{lines}");
        let rules = inspected("forge", HOST, origin.port(), &lines);
        let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}"));
        Self { origin, inside }
    }

    fn client(&self) -> Client {
        self.inside.enter(HOST, self.origin.port())
    }

    fn ask(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Message {
        let mut client = self.client();
        let (host, length) = (format!("{HOST}:{}", self.origin.port()), body.len());
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{fields}\r\n"
        ));
        client.send(body);
        client.answer(method)
    }

    fn graphql(&self, body: &str) -> Message {
        let kind = "Content-Type: application/json\r\n";
        self.ask("POST", "/graphql", kind, body.as_bytes())
    }

    /// Refused as a write, and the origin saw nothing of it.
    #[track_caller]
    fn refuses(&self, what: &str, ask: impl FnOnce(&Self) -> Message) {
        let before = self.origin.requests().len();
        let answer = ask(self);
        assert_eq!(answer.status(), 403, "{what}: {answer:?}");
        assert_eq!(answer.refusal(), "action_denied", "{what}");
        assert_eq!(self.origin.requests().len(), before, "{what}");
        let line = self
            .inside
            .gate
            .decision(answer.field("x-tidegate-flow").unwrap_or_default());
        assert_eq!(line.text("tidegate.action"), "write", "{what}: {line:?}");
        assert_eq!(line.text("tidegate.tls.mode"), "inspected", "{line:?}");
        assert!(line.has("tidegate.flow.parent"), "{line:?}");
    }

    #[track_caller]
    fn passes(&self, what: &str, ask: impl FnOnce(&Self) -> Message) {
        let before = self.origin.requests().len();
        let answer = ask(self);
        assert!(
            answer.status() < 300,
            "{what}: {answer:?} {}",
            answer.text()
        );
        assert_eq!(self.origin.requests().len(), before + 1, "{what}");
    }
}

/// As a client sends a document.
fn said(query: &str) -> String {
    serde_json::json!({ "query": query, "variables": {} }).to_string()
}

#[test]
fn a_query_passes_and_arrives_as_it_was_sent() {
    let bench = Bench::start("does.actions = [\"read\"]\n");
    for query in [
        "query { viewer { login } }",
        "{ viewer { login } }",
        "query A { a: viewer { login } } query B { viewer { id } }",
        "query($mutation: String) { search(query: $mutation, type: ISSUE) { issueCount } }",
        "# mutation { no }\nquery { viewer { login } }",
        "query { search(query: \"mutation { no }\", type: ISSUE) { issueCount } }",
        "fragment F on User { login } query { viewer { ...F } }",
    ] {
        let body = said(query);
        bench.passes(query, |bench| bench.graphql(&body));
        assert_eq!(bench.origin.last().text(), body);
    }
    bench.inside.all_passed("read");
}

#[test]
fn a_mutation_is_refused_wherever_it_hides() {
    let bench = Bench::start("does.actions = [\"read\"]\n");
    let plain = "mutation { createIssue(input: {}) { id } }";
    let documents = [
        plain,
        "mutation M($i: I!) { a: createIssue(input: $i) { id } }",
        "query Q { viewer { login } } mutation M { createIssue(input: {}) { id } }",
        "# only a comment\n\n,,mutation{createIssue(input:{}){id}}",
        "\u{feff}mutation { createIssue(input: {}) { id } }",
        "fragment F on Issue { id } mutation { createIssue(input: {}) { ...F } }",
        "subscription { issueAdded { id } } mutation { x }",
        "query { viewer { login ",
        "mutat\\u0069on { x }",
        "",
    ];
    for document in documents {
        bench.refuses(document, |bench| bench.graphql(&said(document)));
    }
    let query = "{\"query\":\"{ viewer { login } }\"}";
    let bodies = [
        format!("[{query},{}]", said(plain)),
        format!("{{\"query\":\"{{ viewer {{ login }} }}\",\"query\":\"{plain}\"}}"),
        "{\"\\u0071uery\":\"mutation { x }\"}".to_owned(),
        "{\"extensions\":{\"persistedQuery\":{\"version\":1,\"sha256Hash\":\"aa\"}}}".to_owned(),
        format!("{query} {}", said(plain)),
        "not JSON".to_owned(),
        "[]".to_owned(),
        format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)),
    ];
    for body in &bodies {
        bench.refuses(body, |bench| bench.graphql(body));
    }
}

#[test]
fn a_mutation_is_refused_in_a_url_in_gzip_and_in_other_types() {
    let bench = Bench::start("does.actions = [\"read\"]\n");
    let plain = said("mutation { createIssue(input: {}) { id } }");
    let packed = gzip(plain.as_bytes());
    let kind = "Content-Type: application/json\r\n";
    let asked = |method: &'static str, path: &'static str, fields: String, body: Vec<u8>| {
        let what = format!("{method} {path} {fields}");
        bench.refuses(&what, |bench| bench.ask(method, path, &fields, &body));
    };
    asked(
        "GET",
        "/graphql?query=mutation%7Bx%7D",
        String::new(),
        vec![],
    );
    asked(
        "GET",
        "/graphql?query=%6dutation%7Bx%7D",
        String::new(),
        vec![],
    );
    asked(
        "GET",
        "/graphql?query=%7Bx%7D&query=mutation%7Bx%7D",
        String::new(),
        vec![],
    );
    asked(
        "POST",
        "/graphql",
        format!("{kind}Content-Encoding: gzip\r\n"),
        packed,
    );
    asked(
        "POST",
        "/graphql",
        format!("{kind}Content-Encoding: br\r\n"),
        b"\x0b\x02".to_vec(),
    );
    asked(
        "POST",
        "/graphql",
        String::new(),
        plain.clone().into_bytes(),
    );
    asked(
        "POST",
        "/graphql",
        "Content-Type: application/graphql\r\n".to_owned(),
        b"mutation { x }".to_vec(),
    );
    asked(
        "POST",
        "/graphql?query=mutation%7Bx%7D",
        kind.to_owned(),
        said("{ viewer { login } }").into_bytes(),
    );
}

/// As gzip does, by the program of the system.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("body"), bytes).expect("a file");
    crate::kit::Program::new("gzip", folder.path())
        .args(["body"])
        .run()
        .succeeded();
    std::fs::read(folder.path().join("body.gz")).expect("a file")
}

#[test]
fn a_query_in_gzip_passes_as_it_was_sent_or_is_refused() {
    let bench = Bench::start("does.actions = [\"read\"]\n");
    let packed = gzip(said("{ viewer { login } }").as_bytes());
    let fields = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let answer = bench.ask("POST", "/graphql", fields, &packed);
    match answer.status() {
        200 => assert_eq!(bench.origin.last().body, packed),
        403 => assert!(bench.origin.requests().is_empty()),
        other => panic!("answered {other}"),
    }
}

#[test]
fn a_type_or_coding_that_is_said_twice_is_refused() {
    let bench = Bench::start("does.actions = [\"read\"]\n");
    let body = said("{ viewer { login } }");
    for fields in [
        "Content-Type: application/json\r\nContent-Type: application/graphql\r\n",
        "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n",
    ] {
        let answer = bench.ask("POST", "/graphql", fields, body.as_bytes());
        assert_eq!(answer.status(), 400, "{fields}: {answer:?}");
    }
    assert!(bench.origin.requests().is_empty());
}

#[test]
fn reading_the_rest_api_passes_and_writing_does_not() {
    let bench = Bench::start("does.actions = [\"read\"]\n");
    bench.passes("an issue", |it| {
        it.ask("GET", "/repos/acme/app/issues/1", "", b"")
    });
    bench.passes("a search", |it| {
        it.ask("GET", "/search/issues?q=a", "", b"")
    });
    for (method, path) in [
        ("POST", "/repos/acme/app/issues"),
        ("PATCH", "/repos/acme/app/issues/1"),
        ("PUT", "/repos/acme/app/contents/a"),
        ("DELETE", "/repos/acme/app"),
        ("POST", "/gists"),
        ("POST", "/repos/acme/app/dispatches"),
    ] {
        let what = format!("{method} {path}");
        bench.refuses(&what, |bench| bench.ask(method, path, "", b"{}"));
    }
}

#[test]
fn a_rule_may_name_repositories_of_an_api() {
    let bench = Bench::start("does.repositories = [\"acme/app\"]\n");
    bench.passes("ours", |it| {
        it.ask("POST", "/repos/acme/app/issues", "", b"{}")
    });
    for path in [
        "/repos/evil/app/issues",
        "/repos/acme/app-evil/issues",
        "/gists",
    ] {
        let before = bench.origin.requests().len();
        let answer = bench.ask("POST", path, "", b"{}");
        assert_eq!(answer.status(), 403, "{path}: {answer:?}");
        assert_eq!(bench.origin.requests().len(), before, "{path}");
    }
}
