//! Inspection behind parents: through Squid with a password, through another gate with
//! certificates, and through both, one after the other. What works without them works with them.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use serde_json::json;
use tempfile::TempDir;

use crate::clients::{origin, repository};
use crate::kit::{
    Client, Gate, Inside, Line, Message, Origin, Origin2, Outcome, Pki, Program, Squid, TIERS,
    Visit, allow, allow_more, git_backend, inspected, npm_package, npm_registry, socket,
};

const HOST: &str = "services.example.com";
/// What squid is told, in the forms in which it could leak.
const SECRETS: [&str; 2] = ["hunter2", "YW5hOmh1bnRlcjI="];

/// A restricted caller writes to no registry.
const RESTRICTED: &str = r#"
[tiers]
order = ["open", "restricted"]
unattributed = "restricted"

[tier.open]
default = "allow"

[tier.restricted]
default = "deny"
deny = ["package-registry:write"]
"#;

/// Who leads to the origins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chain {
    Squid,
    Gate,
    GateThenSquid,
}

const CHAINS: [Chain; 3] = [Chain::Squid, Chain::Gate, Chain::GateThenSquid];

/// A gate that looks inside, and those who lead on. Only the last of them knows the name.
struct World {
    inside: Inside,
    far: Option<Gate>,
    _squid: Option<Squid>,
    /// The first parent, as in records.
    parent: String,
}

/// Squid, with the password in a file.
fn by_squid(squid: &Squid) -> (String, (&'static str, String)) {
    let text = format!(
        "\n[[dial.parent]]\nurl = \"{}\"\ncredential-file = \"parent.key\"\n",
        squid.url()
    );
    (text, ("parent.key", Squid::USER.to_owned()))
}

/// A gate that takes callers with a certificate alone and passes on to these ports, by `more`.
fn far(pki: &Pki, ports: &[u16], more: &str, files: &[(&str, String)]) -> Gate {
    let (cert, key) = pki.issue(|params| {
        let local = SanType::IpAddress("127.0.0.1".parse().expect("an address"));
        params.subject_alt_names = vec![local];
    });
    let rules: String = ports
        .iter()
        .map(|port| allow(&format!("to-{port}"), HOST, *port))
        .collect();
    let listener = "\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
        tls = { cert = \"proxy.pem\", key = \"proxy.key\", client-ca = \"callers.pem\" }\n";
    let plan = Gate::plan(&format!("{TIERS}{rules}{more}{listener}"))
        .file("proxy.pem", &cert)
        .file("proxy.key", &key)
        .file("callers.pem", &pki.pem());
    let files = files.iter();
    files
        .fold(plan, |plan, (name, text)| plan.file(name, text))
        .start()
}

fn client_certificate(params: &mut CertificateParams) {
    let name = "spiffe://acme/gate".try_into().expect("ASCII");
    params.subject_alt_names = vec![SanType::URI(name)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

impl World {
    /// Origins at these ports have certificates of `pki`; `policy` is that of the first gate.
    fn start(chain: Chain, pki: &Pki, policy: &str, ports: &[u16]) -> Self {
        let squid = (chain != Chain::Gate).then(|| Squid::start(&[HOST]));
        let by_squid = squid.as_ref().map(by_squid);
        let far = match (chain, &by_squid) {
            (Chain::Squid, _) => None,
            (_, Some((parent, file))) => Some(far(pki, ports, parent, std::slice::from_ref(file))),
            (_, None) => Some(far(pki, ports, &crate::kit::names(&[HOST]), &[])),
        };
        let (text, files) = match (&far, by_squid) {
            (Some(far), _) => by_gate(pki, far),
            (None, squid) => {
                let (text, file) = squid.expect("one of both");
                (text, vec![file])
            }
        };
        let parent = match &far {
            Some(far) => far.listener(1).to_string(),
            None => text.split(['/', '"']).nth(3).expect("a URL").to_owned(),
        };
        let (cert, key) = pki.issue(client_certificate);
        let more = [("agent.pem", cert), ("agent.key", key)];
        let files = [files, more.into()].concat();
        let internal = "\n[upstream.internal]\nclient-cert = \"agent.pem\"\n\
             client-key = \"agent.key\"\nroots = [\"origins.pem\"]\n";
        let whole = Inside::text(&[], policy) + internal + &text;
        Self {
            inside: Inside::with(pki, &whole, &files),
            far,
            _squid: squid,
            parent,
        }
    }

    fn program(&self, name: &str, words: &[&str]) -> Outcome {
        self.inside.program(name).args(words).run()
    }

    fn git(&self, words: &[&str]) -> Outcome {
        named(self.inside.program("git")).args(words).run()
    }

    /// What was let through went by the parent, and its record says so; nobody else was dialled.
    #[track_caller]
    fn all_by_the_parent(&self) -> Vec<Line> {
        let judged = self.inside.judged();
        let lines = self.inside.gate.records();
        let passed = lines
            .iter()
            .filter(|line| line.is_decision() && line.verdict() == "allow");
        let mut count = 0;
        for line in passed {
            assert_eq!(line.text("tidegate.parent"), self.parent, "{line:?}");
            assert!(!line.has("dns.answers"), "{line:?}");
            count += 1;
        }
        assert!(count > 0, "nothing passed");
        if let Some(far) = &self.far {
            let caller = far.line("a caller", Line::is_decision);
            assert_eq!(caller.text("user.id"), "spiffe://acme/gate");
        }
        judged
    }

    /// Nothing of what we say to parents is known to the origin, nor on record.
    #[track_caller]
    fn keeps_secrets(&self, seen: &[Message]) {
        assert!(!seen.is_empty(), "nothing reached the origin");
        for request in seen {
            for (name, value) in &request.fields {
                let name = name.to_ascii_lowercase();
                let ours = ["proxy-", "x-tidegate-", "traceparent"];
                assert!(!ours.iter().any(|it| name.starts_with(it)), "{request:?}");
                assert!(!SECRETS.iter().any(|it| value.contains(it)), "{request:?}");
            }
        }
        for gate in [Some(&self.inside.gate), self.far.as_ref()]
            .into_iter()
            .flatten()
        {
            let log = std::fs::read_to_string(gate.log()).expect("a log") + &gate.said();
            for secret in SECRETS.iter().chain(&["PRIVATE KEY"]) {
                assert!(!log.contains(secret), "`{secret}` is on record");
            }
        }
    }
}

/// Another gate, to which we show a certificate.
fn by_gate(pki: &Pki, far: &Gate) -> (String, Vec<(&'static str, String)>) {
    let (cert, key) = pki.issue(client_certificate);
    let text = format!(
        "\n[[dial.parent]]\nurl = \"https://{}\"\nroots = [\"parents.pem\"]\n\
         client-cert = \"gate.pem\"\nclient-key = \"gate.key\"\n",
        far.listener(1)
    );
    let files = [
        ("parents.pem", pki.pem()),
        ("gate.pem", cert),
        ("gate.key", key),
    ];
    (text, files.into())
}

fn named(git: Program) -> Program {
    git.env("GIT_AUTHOR_NAME", "Ana")
        .env("GIT_AUTHOR_EMAIL", "ana@acme.example")
        .env("GIT_COMMITTER_NAME", "Ana")
        .env("GIT_COMMITTER_EMAIL", "ana@acme.example")
}

/// Those that were refused.
fn refused(judged: &[Line]) -> Vec<&Line> {
    let lines = judged.iter();
    lines.filter(|line| line.verdict() == "deny").collect()
}

#[test]
fn git_clones_and_pushes_to_the_branches_of_agents_alone() {
    for chain in CHAINS {
        let (pki, root) = (Pki::new(), TempDir::new().expect("a folder"));
        repository(root.path());
        let place = root.path().to_owned();
        let origin = origin("https", &pki, HOST, move |_| git_backend(place));
        let port = origin.port();
        let read = "category = \"source-control\"\ndoes.actions = [\"read\"]\n";
        let write = "does.actions = [\"write\"]\ndoes.refs = [\"refs/heads/agent/**\"]\n";
        let rules = inspected("clone", HOST, port, read) + &inspected("agents", HOST, port, write);
        let world = World::start(chain, &pki, &format!("{TIERS}{rules}"), &[port]);

        let url = format!("https://{HOST}:{port}/repo.git");
        world.git(&["clone", "-q", &url, "copy"]).succeeded();
        let copy = world.inside.home().join("copy");
        let text = std::fs::read_to_string(copy.join("README.md")).expect("a file");
        assert_eq!(text, "a real repository\n", "{chain:?}");
        std::fs::write(copy.join("new.txt"), "new\n").expect("a file");
        world.git(&["-C", "copy", "add", "."]).succeeded();
        world
            .git(&["-C", "copy", "commit", "-qm", "Second"])
            .succeeded();
        let push = ["-C", "copy", "push", "-q", "origin"];
        world
            .git(&[&push[..], &["main"]].concat())
            .failed()
            .showed("403");
        world
            .git(&[&push[..], &["main:agent/x"]].concat())
            .succeeded();

        let packs = origin.asked();
        let packs = packs.iter().filter(|it| it.ends_with("/git-receive-pack"));
        assert_eq!(packs.count(), 1, "{chain:?}: {:?}", origin.asked());
        let judged = world.all_by_the_parent();
        let denied = refused(&judged);
        assert!(!denied.is_empty(), "{chain:?}: {judged:?}");
        for line in denied {
            assert_eq!(line.text("tidegate.action"), "write", "{line:?}");
            assert!(line.has("tidegate.operation"), "{line:?}");
        }
        world.keeps_secrets(&origin.requests());
    }
}

#[test]
fn npm_installs_and_does_not_publish() {
    for chain in CHAINS {
        let pki = Pki::new();
        let origin = origin("https", &pki, HOST, npm_registry);
        let port = origin.port();
        let lines = "category = \"package-registry\"\nservice = \"npm\"\n";
        let policy = format!("{RESTRICTED}{}", inspected("packages", HOST, port, lines));
        let world = World::start(chain, &pki, &policy, &[port]);
        let settings = format!(
            "registry=https://{HOST}:{port}/\n//{HOST}:{port}/:_authToken=not-a-secret\n\
             fetch-retries=0\n"
        );
        let home = world.inside.home();
        std::fs::write(home.join(".npmrc"), &settings).expect("a file");
        let words = ["install", "--no-save", "@acme/demo"];
        world.program("npm", &words).succeeded();
        assert!(home.join("node_modules/@acme/demo/index.js").exists());

        let place = npm_package(home, "@acme/demo", "2.0.0");
        std::fs::write(place.join(".npmrc"), &settings).expect("a file");
        let publish = world.inside.program("npm").args(["publish"]).within(&place);
        publish.run().failed().showed("403").showed("tidegate");

        let asked = origin.asked();
        assert!(asked.iter().all(|it| it.starts_with("GET ")), "{asked:?}");
        let judged = world.all_by_the_parent();
        let denied = refused(&judged);
        assert_eq!(denied.len(), 1, "{chain:?}: {judged:?}");
        assert_eq!(denied[0].reason(), "action_denied");
        assert_eq!(denied[0].text("tidegate.action"), "write");
        assert!(denied[0].has("tidegate.operation"), "{denied:?}");
        assert_eq!(denied[0].text("tidegate.package.name"), "@acme/demo");
        world.keeps_secrets(&origin.requests());
    }
}

/// A call of a tool, posted inside a tunnel.
fn call(client: &mut Client, port: u16, tool: &str) -> Message {
    let body = json!({
        "jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": { "name": tool, "arguments": {} },
    });
    let body = body.to_string();
    client.send(format!(
        "POST /mcp HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.answer("POST")
}

#[test]
fn a_tool_is_called_and_another_one_gets_an_error_of_its_protocol() {
    for chain in CHAINS {
        let pki = Pki::new();
        let origin = Origin::tls(&pki, &[HOST]);
        let port = origin.port();
        let rules = format!(
            "\n[[rule]]\nid = \"docs-tools\"\nverdict = \"allow\"\ndoes.servers = [\"docs\"]\n\
             does.tools = [\"sea*\"]\n\
             grant.addresses = [\"127.0.0.0/8\"]\ngrant.upstream = \"test\"\n[[rule]]\n\
             id = \"docs-no-delete\"\nverdict = \"deny\"\ndoes.servers = [\"docs\"]\n\
             does.tools = [\"delete\"]\n\
             \n[mcp.docs]\nurl = \"https://{HOST}:{port}/mcp\"\n"
        );
        let world = World::start(chain, &pki, &format!("{TIERS}{rules}"), &[port]);
        let mut client = world.inside.enter(HOST, port);
        assert_eq!(call(&mut client, port, "search").status(), 200, "{chain:?}");
        let error = call(&mut world.inside.enter(HOST, port), port, "delete");
        assert_eq!(error.status(), 200, "{chain:?}: {error:?}");
        let error = error.json();
        assert_eq!(
            (&error["jsonrpc"], &error["id"]),
            (&json!("2.0"), &json!(7))
        );
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(message.contains("docs-tools"), "{message}");

        assert_eq!(origin.requests().len(), 1, "{chain:?}");
        let judged = world.all_by_the_parent();
        let said: Vec<_> = judged
            .iter()
            .map(|line| (line.text("mcp.tool.name"), line.verdict()))
            .collect();
        assert_eq!(said, [("search", "allow"), ("delete", "deny")], "{chain:?}");
        world.keeps_secrets(&origin.requests());
    }
}

#[test]
fn a_service_that_wants_a_certificate_is_reached_without_a_key() {
    for chain in CHAINS {
        let pki = Pki::new();
        let config = pki.server_for_certificates(&[HOST], &[]);
        let origin = Origin::https_with(config, Visit::echo);
        let port = origin.port();
        let lines = "grant.upstream = \"internal\"\n";
        let inspected = allow_more("tls", HOST, port, &format!("{lines}grant.inspect = true\n"));
        let policy = format!("{TIERS}{inspected}");
        let world = World::start(chain, &pki, &policy, &[port]);
        let url = format!("https://{HOST}:{port}/report");
        let answer = world.program("curl", &["-sS", &url]).succeeded();
        assert!(answer.stdout.contains("/report"), "{chain:?}: {answer:?}");
        let mut client = world.inside.enter(HOST, port);
        for _ in 0..3 {
            let answer = client.inside("GET", &format!("{HOST}:{port}"), "/again");
            assert_eq!(answer.status(), 200, "{chain:?}: {answer:?}");
        }
        assert_eq!(origin.connections(), 2, "one of each tunnel");
        world.all_by_the_parent();
        drop(client);
        let with = |line: &Line| line.is_close() && line.has("tidegate.upstream");
        let close = world.inside.gate.line("a close", with);
        assert_eq!(close.text("tidegate.upstream"), "internal");
        world.keeps_secrets(&origin.requests());
    }
}

#[test]
fn a_plain_request_that_is_made_tls_goes_through_a_tunnel_of_the_parent() {
    for chain in CHAINS {
        let pki = Pki::new();
        let config = pki.server_for_certificates(&[HOST], &[]);
        let origin = Origin::https_with(config, Visit::echo);
        let port = origin.port();
        let rule = allow_more("plain", HOST, port, "grant.upstream = \"internal\"\n");
        let world = World::start(chain, &pki, &format!("{TIERS}{rule}"), &[port]);
        let mut client = world.inside.gate.client();
        for _ in 0..2 {
            let answer = client.get(&format!("http://{HOST}:{port}/report"));
            assert_eq!(answer.status(), 200, "{chain:?}: {answer:?}");
        }
        assert_eq!(origin.connections(), 1, "{chain:?}: it is kept");
        assert_eq!(origin.last().target(), "/report");
        world.all_by_the_parent();
        world.keeps_secrets(&origin.requests());
    }
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    for chain in CHAINS {
        let pki = Pki::new();
        let (send, receive) = mpsc::channel::<String>();
        let receive = Arc::new(Mutex::new(receive));
        let origin = Origin::https(&pki, &[HOST], move |visit, _| {
            visit.say(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
            )?;
            while let Ok(event) = receive.lock().expect("a channel").recv() {
                visit.say(format!("{:x}\r\n{event}\r\n", event.len()))?;
            }
            visit.say("0\r\n\r\n")
        });
        let port = origin.port();
        let policy = format!("{TIERS}{}", inspected("events", HOST, port, ""));
        let world = World::start(chain, &pki, &policy, &[port]);
        let mut client = world.inside.enter(HOST, port);
        client.send(format!(
            "GET /events HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n"
        ));
        let head = client.head();
        assert_eq!(head.field("content-type"), Some("text/event-stream"));
        for number in 0..20 {
            let event = format!("data: {number}\n\n");
            send.send(event.clone()).expect("an origin");
            let mut got = Vec::new();
            while got.len() < event.len() {
                got.extend(client.chunk());
            }
            assert_eq!(String::from_utf8_lossy(&got), event, "{chain:?}");
        }
        drop(send);
        assert!(client.chunk().is_empty());
        world.all_by_the_parent();
        world.keeps_secrets(&origin.requests());
    }
}

#[test]
fn a_websocket_passes_where_a_rule_lets_it() {
    for chain in CHAINS {
        let pki = Pki::new();
        let origin = Origin::https(&pki, &[HOST], socket::echo);
        let port = origin.port();
        let rule = inspected("sockets", HOST, port, "grant.upgrade = true\n");
        let world = World::start(chain, &pki, &format!("{TIERS}{rule}"), &[port]);
        let mut client = world.inside.enter(HOST, port);
        client.send(format!(
            "GET /ws HTTP/1.1\r\nHost: {HOST}:{port}\r\n{}\r\n",
            socket::UPGRADE
        ));
        assert_eq!(client.head().status(), 101, "{chain:?}");
        for text in ["one", "two", "three"] {
            assert_eq!(socket::say(&mut client, text), text);
        }
        world.all_by_the_parent();
        world.keeps_secrets(&origin.requests());
    }
}

#[test]
fn http_2_is_spoken_on_both_sides() {
    for chain in CHAINS {
        let pki = Pki::new();
        let origin = Origin2::start(pki.serving(&[HOST], |_| {}), false);
        let port = origin.port();
        let rule = inspected("h2", HOST, port, "does.paths = [\"/docs/**\"]\n");
        let world = World::start(chain, &pki, &format!("{TIERS}{rule}"), &[port]);
        let url = |path: &str| format!("https://{HOST}:{port}{path}");
        let words = ["-sS", "--http2", "-w", "%{http_version} %{http_code}\n"];
        let urls = [url("/docs/a"), url("/secret"), url("/docs/b")];
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let outcome = world.program("curl", &[&words[..], &urls].concat());
        let shown = outcome.succeeded().stdout;
        assert_eq!(shown.matches("2 200\n").count(), 2, "{chain:?}: {shown}");
        assert!(shown.contains("2 403\n"), "{chain:?}: {shown}");
        let asked: Vec<_> = origin
            .requests()
            .iter()
            .map(|it| it.start.clone())
            .collect();
        assert_eq!(asked, ["GET /docs/a HTTP/2", "GET /docs/b HTTP/2"]);
        assert_eq!(origin.connections(), 1, "{chain:?}");
        assert_eq!(refused(&world.all_by_the_parent()).len(), 1);
        world.keeps_secrets(&origin.requests());
    }
}

#[test]
fn plain_requests_are_passed_on_and_judged() {
    for chain in CHAINS {
        let (pki, origin) = (Pki::new(), Origin::echo());
        let port = origin.port();
        let rule = allow_more("plain", HOST, port, "does.actions = [\"read\"]\n");
        let world = World::start(chain, &pki, &format!("{TIERS}{rule}"), &[port]);
        let mut client = world.inside.gate.client();
        let url = format!("http://{HOST}:{port}/page?a=b");
        for _ in 0..2 {
            let mine = "Proxy-Authorization: Basic bm86bm8=\r\n";
            let answer = client.request("GET", &url, mine, "");
            assert_eq!(answer.status(), 200, "{chain:?}: {answer:?}");
            assert_eq!(answer.json()["target"], "/page?a=b");
        }
        let fields = "Content-Length: 2\r\n";
        let answer = client.request("POST", &url, fields, "hi");
        assert_eq!(answer.refusal(), "action_denied", "{chain:?}");
        assert_eq!(origin.asked().len(), 2, "{chain:?}");
        world.all_by_the_parent();
        world.keeps_secrets(&origin.requests());
    }
}

#[test]
fn a_tunnel_goes_the_way_of_the_policy_that_is_in_force() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let port = origin.port();
    let policy = format!("{TIERS}{}", inspected("files", HOST, port, ""));
    let world = World::start(Chain::Gate, &pki, &policy, &[port]);
    let mut client = world.inside.enter(HOST, port);
    // Nothing was asked yet: the connection that was made for the tunnel is still there.
    world.inside.gate.reload(&Inside::text(&[HOST], &policy));
    let answer = client.inside("GET", &format!("{HOST}:{port}"), "/");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(origin.connections(), 2);
    let judged = world.inside.judged();
    assert!(!judged[0].has("tidegate.parent"), "{judged:?}");
}
