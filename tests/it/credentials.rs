//! Rules that name the only credentials for a destination: those pass, a foreign one is refused
//! before anything of its request leaves, however it is carried.

use std::io::Write;
use std::process::{Command, Stdio};

use aws_lc_rs::hmac;
use tempfile::TempDir;

use crate::clients::{origin, repository};
use crate::kit::{
    CREDENTIAL_KEY, Gate, Inside, Message, Origin, Origin2, Outcome, Pki, Program, TIERS, Visit,
    allow_more, git_backend, inspected, names,
};

const HOST: &str = "forge.example.net";
const OURS: &str = "ours-4a6f7d2e";
const THEIRS: &str = "theirs-9c1b3e8f";

/// What a rule says for a credential, made without the program.
fn hash(credential: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, CREDENTIAL_KEY.as_bytes());
    let tag = hmac::sign(&key, credential.as_bytes());
    let digits: Vec<String> = tag.as_ref().iter().map(|it| format!("{it:02x}")).collect();
    format!("hmac-sha256:{}", digits.concat())
}

fn only_ours() -> String {
    format!("unless.credentials = [\"{}\"]\n", hash(OURS))
}

/// Words for curl that carry a credential.
fn carried(credential: &str, path: &str) -> Vec<Vec<String>> {
    let field = |field: String| vec!["-H".to_owned(), field, path.to_owned()];
    let query = |name: &str| vec![format!("{path}?a=b&{name}={credential}")];
    vec![
        field(format!("Authorization: Bearer {credential}")),
        field(format!("authorization: token {credential}")),
        field(format!("Authorization: {credential}")),
        field(format!("X-Api-Key: {credential}")),
        field(format!("PRIVATE-TOKEN: {credential}")),
        field(format!("Cookie: session={credential}")),
        vec!["-u".into(), format!("ana:{credential}"), path.into()],
        query("access_token"),
        query("private_token"),
        query("k%65y"),
    ]
}

/// Asks with each way to carry our credential, then a foreign one; the statuses.
fn statuses(curl: impl Fn() -> Program, url: &str, credential: &str) -> Vec<String> {
    let ask = |words: Vec<String>| {
        let asked = curl().args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]);
        asked.args(words).run().succeeded().stdout
    };
    carried(credential, url).into_iter().map(ask).collect()
}

/// Nothing in the log tells a credential, nor its hash.
#[track_caller]
fn kept_none(gate: &Gate) {
    let log = std::fs::read_to_string(gate.log()).expect("a log");
    let (ours, theirs) = (hash(OURS), hash(THEIRS));
    let said = gate.said();
    for secret in [OURS, THEIRS, &ours, &theirs] {
        let digits = secret.trim_start_matches("hmac-sha256:");
        assert!(!log.contains(digits) && !said.contains(digits), "{secret}");
    }
}

#[track_caller]
fn saw_only_ours(requests: &[Message]) {
    let all = format!("{requests:?}");
    assert!(!requests.is_empty() && !all.contains(THEIRS), "{all}");
}

#[test]
fn a_foreign_credential_does_not_leave_in_plain_http() {
    let origin = Origin::echo();
    let rule = allow_more("forge", HOST, origin.port(), &only_ours());
    let key = "[inspect]\ncredential-key = \"credentials.key\"\n";
    let gate = Gate::plan(&format!("{TIERS}{rule}{}{key}", names(&[HOST])))
        .file("credentials.key", CREDENTIAL_KEY)
        .start();
    let home = TempDir::new().expect("a home");
    let curl = || Program::new("curl", home.path()).through(&gate.url());
    let url = format!("http://{HOST}:{}/", origin.port());
    let passed = statuses(curl, &url, OURS);
    assert!(passed.iter().all(|status| status == "200"), "{passed:?}");
    let before = origin.requests().len();
    let refused = statuses(curl, &url, THEIRS);
    assert!(refused.iter().all(|status| status == "403"), "{refused:?}");
    assert_eq!(origin.requests().len(), before);
    saw_only_ours(&origin.requests());

    let mut client = gate.client();
    let answer = client.request("GET", &url, &format!("X-Api-Key: {THEIRS}\r\n"), "");
    assert_eq!(answer.refusal(), "credential_denied", "{answer:?}");
    let line = gate.decision(answer.field("x-tidegate-flow").unwrap_or_default());
    assert_eq!(line.text("security_rule.name"), "forge-unless", "{line:?}");
    // Nobody's credential is fine; two at once are not.
    assert_eq!(gate.client().get(&url).status(), 200);
    let both = format!("Authorization: Bearer {OURS}\r\nX-Api-Key: {THEIRS}\r\n");
    let answer = gate.client().request("GET", &url, &both, "");
    assert_eq!(answer.refusal(), "credential_denied", "{answer:?}");
    let twice = format!("Authorization: Bearer {OURS}\r\nAuthorization: Bearer {THEIRS}\r\n");
    assert_eq!(gate.client().request("GET", &url, &twice, "").status(), 400);
    saw_only_ours(&origin.requests());
    kept_none(&gate);
}

/// Asks through a gate that looks inside.
fn asks_inside(inside: &Inside, port: u16, version: &str) {
    let curl = || inside.program("curl").args([version]);
    let url = format!("https://{HOST}:{port}/");
    let passed = statuses(curl, &url, OURS);
    assert!(passed.iter().all(|status| status == "200"), "{passed:?}");
    let refused = statuses(curl, &url, THEIRS);
    assert!(refused.iter().all(|status| status == "403"), "{refused:?}");
    let line = inside.refused("credential_denied");
    assert_eq!(line.text("security_rule.name"), "forge-unless", "{line:?}");
    kept_none(&inside.gate);
}

#[test]
fn a_foreign_credential_does_not_leave_a_tunnel() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let rule = inspected("forge", HOST, origin.port(), &only_ours());
    let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rule}"));
    asks_inside(&inside, origin.port(), "--http1.1");
    saw_only_ours(&origin.requests());
}

#[test]
fn a_foreign_credential_does_not_leave_in_http2() {
    let pki = Pki::new();
    let origin = Origin2::start(pki.serving(&[HOST], |_| {}), false);
    let rule = inspected("forge", HOST, origin.port(), &only_ours());
    let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rule}"));
    asks_inside(&inside, origin.port(), "--http2");
    saw_only_ours(&origin.requests());
}

/// A forge that accepts every password.
fn forge(root: &TempDir, pki: &Pki) -> Origin {
    let backend = git_backend(root.path().to_owned());
    origin("https", pki, HOST, move |_| {
        move |visit: &mut Visit, request: &Message| {
            if request.field("authorization").is_some() {
                return backend(visit, request);
            }
            visit.say(
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"forge\"\r\n\
                 Content-Length: 0\r\n\r\n",
            )
        }
    })
}

#[test]
fn git_pushes_with_the_token_that_was_issued_and_with_no_other() {
    let (pki, root) = (Pki::new(), TempDir::new().expect("a folder"));
    repository(root.path());
    let words = ["-C", "repo.git", "config", "http.receivepack", "true"];
    Program::new("git", root.path())
        .args(words)
        .run()
        .succeeded();
    let origin = forge(&root, &pki);
    let lines = format!("category = \"source-control\"\n{}", only_ours());
    let rule = inspected("forge", HOST, origin.port(), &lines);
    let inside = Inside::start(&pki, &[HOST], &format!("{TIERS}{rule}"));
    let git = |words: &[&str]| -> Outcome { inside.program("git").args(words).run() };
    let url = |token: &str| format!("https://ana:{token}@{HOST}:{}/repo.git", origin.port());
    git(&["clone", "-q", &url(OURS), "copy"]).succeeded();
    git(&["clone", "-q", &url(THEIRS), "other"])
        .failed()
        .showed("403");
    let push = |token: &str, to: &str| {
        let to = format!("main:{to}");
        git(&["-C", "copy", "push", "-q", &url(token), &to])
    };
    push(OURS, "one").succeeded();
    push(THEIRS, "two").failed().showed("403");
    inside.refused("credential_denied");
    let seen = format!("{:?}", origin.requests());
    let foreign = base64_of(&format!("ana:{THEIRS}"));
    assert!(seen.contains(&base64_of(&format!("ana:{OURS}"))), "{seen}");
    assert!(!seen.contains(&foreign), "{seen}");
    kept_none(&inside.gate);
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn the_program_says_what_a_rule_writes() {
    let gate = Gate::plan(&format!(
        "{TIERS}\n[inspect]\ncredential-key = \"credentials.key\"\n"
    ))
    .file("credentials.key", CREDENTIAL_KEY)
    .start();
    let say = |words: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["credential", "hash", "--config"])
            .arg(gate.config())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut stdin = child.stdin.take().expect("a stdin");
        writeln!(stdin, "{OURS}").expect("a reader");
        drop(stdin);
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(say(&[]).trim_end(), hash(OURS));
    let json: serde_json::Value = serde_json::from_str(&say(&["--json"])).expect("JSON");
    assert_eq!(json["credential"], hash(OURS));
}
