//! Rules that say how old a version of a package has to be: what is old enough installs, what is
//! younger, or of no known age, does not leave its registry.

use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};

use crate::clients::origin;
use crate::kit::{
    Inside, Message, Origin, Pki, TIERS, Visit, inspected, npm_registry_of, pypi_registry_of,
};

const HOST: &str = "packages.example.com";
const NPM: &str =
    "category = \"package-registry\"\nservice = \"npm\"\nunless.min-age = \"7 days\"\n";
const PYPI: &str =
    "category = \"package-registry\"\nservice = \"pypi\"\nunless.min-age = \"7 days\"\n";

/// A registry, and a gate that looks inside what goes there.
struct World {
    origin: Origin,
    inside: Inside,
}

impl World {
    fn start<F, A>(serve: F, lines: &str, more: &str) -> Self
    where
        F: FnOnce(&str) -> A,
        A: Fn(&mut Visit, &Message) -> std::io::Result<()> + Send + Sync + 'static,
    {
        let pki = Pki::new();
        let origin = origin("https", &pki, HOST, serve);
        let rules = inspected("packages", HOST, origin.port(), lines);
        let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rules}{more}"));
        Self { origin, inside }
    }

    fn url(&self) -> String {
        format!("https://{HOST}:{}", self.origin.port())
    }

    fn asked_for(&self, path: &str) -> usize {
        let asked = self.origin.asked();
        asked.iter().filter(|line| line.contains(path)).count()
    }

    fn get(&self, path: &str) -> Message {
        let authority = format!("{HOST}:{}", self.origin.port());
        let mut client = self.inside.enter(HOST, self.origin.port());
        client.inside("GET", &authority, path)
    }

    /// A version is refused, in those words, and its registry was not asked for it.
    #[track_caller]
    fn refuses(&self, path: &str, words: &str) {
        let answer = self.get(path);
        assert_eq!(answer.refusal(), "package_too_new", "{answer:?}");
        assert!(answer.text().contains(words), "{}", answer.text());
        assert!(answer.phrase().contains("package_too_new: "), "{answer:?}");
        assert_eq!(self.asked_for(path), 0, "{:?}", self.origin.asked());
    }
}

fn ago(days: i64) -> String {
    let now = Timestamp::try_from(SystemTime::now()).expect("a time");
    (now - SignedDuration::from_hours(24 * days + 1)).to_string()
}

#[test]
fn npm_installs_what_is_old_enough_and_says_what_is_not() {
    let world = World::start(|url| npm_registry_of(url, &ago(2)), NPM, "");
    let rc = format!("registry={}/\nfetch-retries=0\n", world.url());
    std::fs::write(world.inside.home().join(".npmrc"), rc).expect("a file");
    let npm = |package: &str| {
        let npm = world.inside.program("npm");
        npm.args(["install", "--no-save", package]).run()
    };
    npm("@acme/demo@1.0.0").succeeded();
    let installed = world.inside.home().join("node_modules/@acme/demo/index.js");
    assert!(installed.exists());
    world.inside.all_passed("read");

    let refused = npm("@acme/demo@1.1.0").failed();
    let refused = refused.showed("403").showed("package_too_new");
    refused.showed("@acme/demo 1.1.0 was published 2 days ago; rule packages-unless asks 7 days");
    assert_eq!(
        world.asked_for("demo-1.1.0.tgz"),
        0,
        "{:?}",
        world.origin.asked()
    );
    let line = world.inside.refused("package_too_new");
    assert_eq!(
        line.text("security_rule.name"),
        "packages-unless",
        "{line:?}"
    );
}

#[test]
fn pip_installs_what_is_old_enough_and_says_what_is_not() {
    for (days, passes) in [(30, true), (3, false)] {
        let world = World::start(|_| pypi_registry_of(&ago(days)), PYPI, "");
        let index = format!("{}/simple/", world.url());
        let words = ["download", "--no-deps", "--no-cache-dir", "--index-url"];
        let pip = world.inside.program("pip").args(words);
        let outcome = pip.args([index.as_str(), "demo-package"]).run();
        if passes {
            outcome.succeeded();
            world.inside.all_passed("read");
        } else {
            outcome
                .failed()
                .showed("was published 3 days ago; rule packages-unless asks 7 days");
            world.inside.refused("package_too_new");
            assert_eq!(
                world.asked_for("/packages/"),
                0,
                "{:?}",
                world.origin.asked()
            );
        }
    }
}

#[test]
fn a_registry_is_asked_once_for_a_version() {
    let world = World::start(|url| npm_registry_of(url, &ago(8)), NPM, "");
    for _ in 0..3 {
        assert_eq!(world.get("/@acme/demo/-/demo-1.1.0.tgz").status(), 200);
    }
    assert_eq!(
        world.asked_for("GET /@acme%2fdemo"),
        1,
        "{:?}",
        world.origin.asked()
    );
    assert_eq!(world.asked_for(".tgz"), 3);
}

#[test]
fn a_version_of_the_future_is_too_young() {
    let world = World::start(|url| npm_registry_of(url, "2099-01-01T00:00:00Z"), NPM, "");
    world.refuses("/@acme/demo/-/demo-1.1.0.tgz", "still to come");
    world.refuses("/@acme/demo/-/demo-9.9.9.tgz", "the registry does not say");
}

/// A registry whose one document is that.
fn saying(answer: fn(&mut Visit) -> std::io::Result<()>, more: &str) -> World {
    let serve = move |_: &str| {
        move |visit: &mut Visit, request: &Message| match request.target() {
            "/demo" => answer(visit),
            _ => visit.answer("200 OK", "application/octet-stream", b"an archive"),
        }
    };
    World::start(serve, NPM, more)
}

#[test]
fn a_registry_that_lies_is_not_believed() {
    let archive = "/demo/-/demo-1.0.0.tgz";
    let garbage = saying(
        |visit| visit.answer("200 OK", "application/json", b"\x00{]"),
        "",
    );
    garbage.refuses(archive, "the registry does not say");
    let number = saying(
        |visit| visit.answer("200 OK", "application/json", br#"{"time":{"1.0.0":1}}"#),
        "",
    );
    number.refuses(archive, "the registry does not say");
    let gone = saying(|visit| visit.answer("404 Not Found", "text/plain", b""), "");
    gone.refuses(archive, "404");
    let elsewhere = saying(
        |visit| visit.say("HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"),
        "",
    );
    elsewhere.refuses(archive, "302");
    let huge = saying(
        |visit| {
            let mut text = br#"{"time":{"1.0.0":"2020-01-01T00:00:00Z"},"x":""#.to_vec();
            text.resize(17 * 1024 * 1024, b' ');
            text.extend_from_slice(b"\"}");
            visit.answer("200 OK", "application/json", &text)
        },
        "",
    );
    huge.refuses(archive, "longer than may be");
}

#[test]
fn a_registry_that_never_answers_holds_nobody_up() {
    let silent = |visit: &mut Visit| visit.head().map(|_| ());
    let world = saying(silent, "\n[limits]\nconnect-timeout = \"1 s\"\n");
    world.refuses("/demo/-/demo-1.0.0.tgz", "does not answer in time");
}

#[test]
fn a_caller_that_may_not_read_the_index_learns_nothing_from_it() {
    let lines = format!("{NPM}does.operations = [\"download\"]\n");
    let world = World::start(|url| npm_registry_of(url, &ago(30)), &lines, "");
    world.refuses("/demo/-/demo-1.0.0.tgz", "may not be read");
    assert!(world.origin.requests().is_empty());
}

#[test]
fn what_does_not_say_its_version_does_not_pass() {
    let world = World::start(|url| npm_registry_of(url, &ago(30)), NPM, "");
    world.refuses(
        "/prefix/demo/-/demo-1.0.0.tgz",
        "does not say which version",
    );
    assert_eq!(world.get("/demo").status(), 200);
}

#[test]
fn a_tunnel_that_nobody_looks_into_does_not_pass() {
    let world = World::start(|url| npm_registry_of(url, &ago(30)), NPM, "");
    let port = world.origin.port();
    let blind = inspected("packages", HOST, port, NPM)
        .replace("grant.inspect = true", "grant.inspect = false");
    let text = Inside::text(&[HOST], &format!("{TIERS}{blind}"));
    world.inside.gate.reload(&text);
    let answer = world
        .inside
        .gate
        .client()
        .connect(&format!("{HOST}:{port}"));
    assert_eq!(answer.refusal(), "package_too_new", "{answer:?}");
}

#[test]
fn a_tier_that_observes_lets_it_pass_and_says_so() {
    let world = World::start(|url| npm_registry_of(url, &ago(2)), NPM, "");
    let observing = TIERS.replace("[tier.standard]", "[tier.standard]\nmode = \"observe\"");
    let rules = inspected("packages", HOST, world.origin.port(), NPM);
    let text = Inside::text(&[HOST], &format!("{observing}{rules}"));
    world.inside.gate.reload(&text);
    assert_eq!(world.get("/@acme/demo/-/demo-1.1.0.tgz").status(), 200);
    let mut judged = world.inside.judged();
    judged.retain(|line| line.reason() == "package_too_new");
    assert_eq!(judged.len(), 1, "{judged:?}");
    assert_eq!(judged[0].text("tidegate.would"), "deny", "{judged:?}");
}

// --- The fetch is a flow of the gate itself ------------------------------------------------------

#[test]
fn the_gates_own_fetch_is_a_flow_on_record_before_the_request_is() {
    let world = World::start(|url| npm_registry_of(url, &ago(8)), NPM, "");
    assert_eq!(world.get("/@acme/demo/-/demo-1.1.0.tgz").status(), 200);
    let fetches = world.inside.fetched();
    let [(own, request)] = fetches.as_slice() else {
        panic!("{fetches:?}")
    };
    assert_eq!(own.text("tidegate.channel"), "gate", "{own:?}");
    assert_eq!(own.text("security_rule.name"), "packages", "{own:?}");
    assert_eq!(own.text("server.address"), HOST, "{own:?}");
    assert_eq!(own.text("tidegate.action"), "read", "{own:?}");
    assert!(
        !own.has("tidegate.detail"),
        "no credential was sent: {own:?}"
    );
    assert!(own.number("event.sequence") < request.number("event.sequence"));
    let close = world.inside.gate.close(own.flow());
    assert_eq!(close.text("tidegate.end"), "closed", "{close:?}");
    assert_eq!(close.number("http.response.status_code"), 200);
    assert!(close.number("tidegate.bytes.in") > 10, "{close:?}");
}

#[test]
fn a_fetch_that_may_not_be_is_on_record_as_refused() {
    let lines = format!("{NPM}does.operations = [\"download\"]\n");
    let world = World::start(|url| npm_registry_of(url, &ago(30)), &lines, "");
    world.refuses("/demo/-/demo-1.0.0.tgz", "may not be read");
    let fetches = world.inside.fetched();
    assert_eq!(fetches.len(), 1, "{fetches:?}");
    assert_eq!(fetches[0].0.verdict(), "deny", "{fetches:?}");
    assert!(world.origin.requests().is_empty());
}

/// A registry that shows its document only to a credential, and answers others with that status.
fn private(status: &'static str) -> World {
    let serve = move |_: &str| {
        move |visit: &mut Visit, request: &Message| match request.target() {
            "/demo" if request.field("authorization") != Some("Bearer secret") => {
                visit.answer(status, "text/plain", b"")
            }
            "/demo" => {
                let text = format!("{{\"time\":{{\"1.0.0\":\"{}\"}}}}", ago(8));
                visit.answer("200 OK", "application/json", text.as_bytes())
            }
            _ => visit.answer("200 OK", "application/octet-stream", b"an archive"),
        }
    };
    World::start(serve, NPM, "")
}

/// Asks for the archive with a credential.
fn with_credential(world: &World) -> Message {
    let mut client = world.inside.enter(HOST, world.origin.port());
    client.send(format!(
        "GET /demo/-/demo-1.0.0.tgz HTTP/1.1\r\nHost: {HOST}:{}\r\nAuthorization: Bearer secret\r\n\r\n",
        world.origin.port()
    ));
    client.answer("GET")
}

/// Which of the requests for the document had a credential.
fn credentials(world: &World) -> Vec<bool> {
    let requests = world.origin.requests();
    let documents = requests.iter().filter(|it| it.target() == "/demo");
    documents
        .map(|it| it.field("authorization").is_some())
        .collect()
}

#[test]
fn a_credential_is_sent_only_where_the_registry_needs_it_and_on_record() {
    for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found"] {
        let world = private(status);
        assert_eq!(with_credential(&world).status(), 200, "{status}");
        assert_eq!(credentials(&world), [false, true], "{status}");
        let fetches = world.inside.fetched();
        let details: Vec<_> = fetches
            .iter()
            .map(|(own, _)| own.text("tidegate.detail"))
            .collect();
        assert_eq!(
            details,
            ["", "with the credential of the request"],
            "{status}"
        );
        // What is told to a credential is not kept for others.
        world.refuses("/demo/-/demo-1.0.0.tgz?x", &status[..3]);
    }
}

#[test]
fn a_credential_is_not_sent_where_the_registry_tells_everyone_or_fails() {
    let world = saying(
        |visit| {
            let text = format!("{{\"time\":{{\"1.0.0\":\"{}\"}}}}", ago(8));
            visit.answer("200 OK", "application/json", text.as_bytes())
        },
        "",
    );
    for _ in 0..2 {
        assert_eq!(with_credential(&world).status(), 200);
    }
    assert_eq!(credentials(&world), [false], "told once, to everyone");
    for status in [
        "500 Internal Server Error",
        "302 Found",
        "429 Too Many Requests",
    ] {
        let world = private(status);
        assert_eq!(
            with_credential(&world).refusal(),
            "package_too_new",
            "{status}"
        );
        assert_eq!(credentials(&world), [false], "{status}");
    }
}
