//! Notifications of new requests for approval: a webhook, a program, a desktop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::approvals::{HOST, approvals, authorization, connect, id_of, policy};
use crate::kit::{
    Gate, Lines as _, Message, Origin, Pki, Session, Site, eventually, script, until,
};

const HOOKS: &str = "hooks.example.net";
const KEY: [u8; 32] = [7; 32];

/// A gate that asks about a host, an agent's session, and the origin of that host.
struct Bench {
    origin: Origin,
    gate: Gate,
    session: Session,
}

impl Bench {
    /// With these notifiers and files beside the configuration.
    fn start(notifiers: &str, files: &[(&str, &str)]) -> Self {
        let origin = Origin::http(Site::default().answers());
        let policy = wide(origin.port()) + notifiers;
        let key = format!("whsec_{}\n", STANDARD.encode(KEY));
        let mut plan = Gate::plan(&policy).file("notify.key", &key);
        for (name, text) in files {
            plan = plan.file(name, text);
        }
        let gate = plan.start();
        let session = gate.session(&json!({}));
        Self {
            origin,
            gate,
            session,
        }
    }

    fn ask(&self, host: &str) -> Message {
        connect(
            &self.gate,
            &self.session,
            &format!("{host}:{}", self.origin.port()),
        )
    }

    /// Files a request with words of the agent.
    fn file(&self, host: &str, reason: &str) -> Message {
        let body = json!({ "host": host, "port": self.origin.port(), "reason": reason });
        let body = body.to_string();
        let mut client = self.gate.client();
        client.send(format!(
            "POST http://tidegate.internal/v1/requests HTTP/1.1\r\nHost: tidegate.internal\r\n{}\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            authorization(&self.session),
            body.len()
        ));
        client.answer("POST")
    }

    fn notified(&self, result: &str) -> f64 {
        let labels = [("result", result)];
        self.gate
            .metrics()
            .sum("tidegate_notifications_total", &labels)
    }
}

/// The policy of the tests of approvals, which asks about more hosts, and resolves the webhook's.
fn wide(port: u16) -> String {
    policy(port, "")
        .replace(
            &format!("verdict = \"ask\"\nto.hosts = [\"{HOST}\"]"),
            &format!("verdict = \"ask\"\nto.hosts = [\"{HOST}\", \"*.example.org\"]"),
        )
        .replace(
            &format!("\"{HOST}\" = [\"127.0.0.1\"]"),
            &format!("\"{HOST}\" = [\"127.0.0.1\"], \"{HOOKS}\" = [\"127.0.0.1\"]"),
        )
}

/// A receiver of webhooks that answers with these statuses, the last one from then on.
fn receiver(pki: &Pki, statuses: &'static [&'static str]) -> Origin {
    let answered = Arc::new(AtomicUsize::new(0));
    Origin::https(pki, &[HOOKS], move |visit, _| {
        let at = answered.fetch_add(1, Ordering::Relaxed);
        let status = statuses[at.min(statuses.len() - 1)];
        visit.answer(status, "text/plain", b"")
    })
}

fn webhook(port: u16, path: &str, lines: &str) -> String {
    format!(
        "\n[notify.on-call]\nurl = \"https://{HOOKS}:{port}{path}\"\nkey-file = \"notify.key\"\n\
         addresses = [\"127.0.0.0/8\"]\nroots = [\"hooks.pem\"]\nevery = \"1 s\"\n{lines}\n"
    )
}

/// Checks the signature of a message, as its receiver would.
fn is_signed(message: &Message) -> bool {
    let field = |name| message.field(name).expect("a field").to_owned();
    let signed = [
        field("webhook-id").as_bytes(),
        b".",
        field("webhook-timestamp").as_bytes(),
        b".",
        &message.body,
    ]
    .concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &KEY);
    let signature = field("webhook-signature");
    let signature = signature.strip_prefix("v1,").expect("a signature");
    let signature = STANDARD.decode(signature).expect("base64");
    hmac::verify(&key, &signed, &signature).is_ok()
}

#[test]
fn a_webhook_gets_new_requests_signed_and_how_to_settle_them() {
    let pki = Pki::new();
    let hooks = receiver(&pki, &["503 Service Unavailable", "204 No Content"]);
    let link = "link = \"https://ops.acme.example/tidegate/{request}\"";
    let bench = Bench::start(
        &webhook(hooks.port(), "/secret-path", link),
        &[("hooks.pem", &pki.pem())],
    );
    let id = id_of(&bench.ask(HOST));
    until("the message, after a failure", || {
        hooks.requests().len() >= 2
    });
    let (first, second) = (&hooks.requests()[0], &hooks.requests()[1]);
    assert!(is_signed(first) && is_signed(second), "{first:?}");
    assert_eq!(first.field("webhook-id"), second.field("webhook-id"));
    let message = second.json();
    assert_eq!(
        (&message["version"], &message["event"], &message["notifier"]),
        (&json!(1), &json!("approval_requested"), &json!("on-call"))
    );
    assert_eq!((&message["more"], &message["open"]), (&json!(0), &json!(1)));
    let listed = &message["requests"][0];
    assert_eq!((&listed["id"], &listed["host"]), (&json!(id), &json!(HOST)));
    assert_eq!(listed["untrusted"]["operation"], "connect");
    let settle = json!({
        "command": format!("tidegate approve show {id}"),
        "link": format!("https://ops.acme.example/tidegate/{id}"),
    });
    assert_eq!(listed["settle"], settle);
    until("it is counted", || bench.notified("ok") > 0.5);

    // The request of the gate itself is on record, without the path.
    let decision = bench.gate.line("the gate's own request", |line| {
        line.is_decision() && line.text("security_rule.name") == "notify.on-call"
    });
    assert_eq!(decision.text("user.id"), "tidegate");
    let log = std::fs::read_to_string(bench.gate.log()).expect("a log");
    assert!(!log.contains("secret-path"), "{log}");
    // The same request is told once.
    id_of(&bench.ask(HOST));
    id_of(&bench.ask("next.example.org"));
    until("the next message", || hooks.requests().len() >= 3);
    let next = hooks.requests()[2].json();
    assert_eq!(next["requests"].as_array().map(Vec::len), Some(1));
    assert_eq!(next["requests"][0]["host"], "next.example.org");
}

#[test]
fn many_requests_of_one_agent_are_few_messages_and_hide_no_other() {
    let pki = Pki::new();
    let hooks = receiver(&pki, &["204 No Content"]);
    let every = webhook(hooks.port(), "/", "").replace("every = \"1 s\"", "every = \"1 h\"");
    let bench = Bench::start(&every, &[("hooks.pem", &pki.pem())]);
    let other = bench.gate.session(&json!({}));
    for at in 0..200 {
        let answer = bench.file(&format!("h{at}.example.org"), "please");
        assert!(matches!(answer.status(), 200 | 429), "{answer:?}");
        if at == 40 {
            let target = format!("{HOST}:{}", bench.origin.port());
            id_of(&connect(&bench.gate, &other, &target));
        }
    }
    until("the first message", || !hooks.requests().is_empty());
    // The next one is an hour away: what follows is not told before.
    let seen = hooks.requests();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let message = seen[0].json();
    let listed = message["requests"].as_array().expect("a list").len() as u64;
    assert!(listed <= 10);
    let more = message["more"].as_u64().expect("a number");
    assert!(listed + more <= 33, "32 of one caller are open at most");
    assert!(hooks.requests()[0].body.len() < 64 * 1024);
}

#[test]
fn each_caller_has_its_place_in_a_message() {
    let pki = Pki::new();
    let hooks = receiver(&pki, &["503 Service Unavailable", "204 No Content"]);
    let bench = Bench::start(
        &webhook(hooks.port(), "/", ""),
        &[("hooks.pem", &pki.pem())],
    );
    for at in 0..20 {
        bench.file(&format!("h{at}.example.org"), "please");
    }
    let other = bench.gate.session(&json!({}));
    let target = format!("{HOST}:{}", bench.origin.port());
    let id = id_of(&connect(&bench.gate, &other, &target));
    let listed = |message: &Message| {
        let all = message.json()["requests"].as_array().cloned();
        all.unwrap_or_default().iter().any(|it| it["id"] == *id)
    };
    until("a message lists it", || hooks.requests().iter().any(listed));
}

#[test]
fn a_webhook_that_fails_is_counted_and_on_record_and_delays_no_decision() {
    let pki = Pki::new();
    // It takes the request and never answers.
    let hooks = Origin::https(&pki, &[HOOKS], |visit, _| {
        visit.exactly(usize::MAX).map(drop)
    });
    let bench = Bench::start(
        &webhook(hooks.port(), "/", ""),
        &[("hooks.pem", &pki.pem())],
    );
    let id = id_of(&bench.ask(HOST));
    until("the webhook has it", || !hooks.requests().is_empty());
    let allowed = bench.gate.control(
        &format!("/v1/approvals/{id}/allow"),
        None,
        &json!({ "scope": "1h" }),
    );
    assert_eq!(allowed.status(), 200, "{allowed:?}");
    assert_eq!(bench.ask(HOST).status(), 200);

    // One that answers with an error that does not pass.
    let refusing = receiver(&pki, &["302 Found"]);
    let text = wide(bench.origin.port()) + &webhook(refusing.port(), "/", "");
    bench
        .gate
        .reload(&text.replace("notify.on-call", "notify.chat"));
    id_of(&bench.ask("next.example.org"));
    let line = bench.gate.line("a failure", |line| {
        line.name() == "notification_failed" && line.text("tidegate.notifier") == "chat"
    });
    assert_eq!(line.text("tidegate.detail"), "its server answers 302 Found");
    until("it is counted", || bench.notified("failed") > 0.5);
}

#[test]
fn a_webhook_at_a_private_address_that_is_not_named_is_not_dialled() {
    let pki = Pki::new();
    let hooks = receiver(&pki, &["204 No Content"]);
    let text = webhook(hooks.port(), "/", "").replace("addresses = [\"127.0.0.0/8\"]\n", "");
    let bench = Bench::start(&text, &[("hooks.pem", &pki.pem())]);
    id_of(&bench.ask(HOST));
    let line = bench
        .gate
        .line("a failure", |line| line.name() == "notification_failed");
    let why = "its host has no address that may be dialled";
    assert_eq!(line.text("tidegate.detail"), why);
    hooks.saw_nothing();
}

/// A text of an agent that means something to a shell, to Slack, to a desktop and to a terminal.
const HOSTILE: &str =
    "`id` $(id) <!channel> <https://evil.example|ok> \u{1b}[2J \u{202e} */5;--help";

#[test]
fn slack_gets_a_text_in_which_nothing_of_an_agent_has_an_effect() {
    let pki = Pki::new();
    let hooks = receiver(&pki, &["200 OK"]);
    let text = "\n[notify.chat]\nurl-file = \"slack.key\"\nformat = \"slack\"\nevery = \"1 s\"\n\
                addresses = [\"127.0.0.0/8\"]\nroots = [\"hooks.pem\"]\n";
    let url = format!("https://{HOOKS}:{}/services/T0/B0/secret\n", hooks.port());
    let bench = Bench::start(text, &[("hooks.pem", &pki.pem()), ("slack.key", &url)]);
    bench.file(HOST, HOSTILE);
    until("the message", || !hooks.requests().is_empty());
    let message = hooks.last();
    assert_eq!(message.target(), "/services/T0/B0/secret");
    let text = message.json()["text"].as_str().expect("a text").to_owned();
    assert!(
        text.contains("written by the agent, not verified: `operation connect; reason 'id' $(id)"),
        "{text}"
    );
    let markup: Vec<&str> = text.matches(['<', '\u{1b}', '\u{202e}']).collect();
    assert!(markup.is_empty(), "{text}");
    assert!(text.contains("tidegate approve show "), "{text}");
}

/// A program that writes its arguments and its input into files of a folder.
fn program(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    let to = folder.display();
    let text = format!(
        "printf '%s\\n' \"$@\" >{to}/words.new && cat >{to}/input.new\n\
         echo \"$DBUS_SESSION_BUS_ADDRESS\" >{to}/bus\n\
         mv {to}/input.new {to}/input && mv {to}/words.new {to}/words"
    );
    script(&path, &text);
    path.display().to_string()
}

fn written(folder: &Path, name: &str) -> String {
    eventually("the program was started", || {
        std::fs::read_to_string(folder.join(name)).ok()
    })
}

#[test]
fn a_program_gets_the_message_on_its_standard_input() {
    let folder = TempDir::new().expect("a folder");
    let path = program(folder.path(), "notify");
    let text = format!("\n[notify.script]\ncommand = [\"{path}\", \"--quiet\"]\n");
    let bench = Bench::start(&text, &[]);
    bench.file(HOST, HOSTILE);
    assert_eq!(written(folder.path(), "words"), "--quiet\n");
    let message: Value = serde_json::from_str(&written(folder.path(), "input")).expect("JSON");
    let listed = &message["requests"][0];
    let id = approvals(&bench.gate)[0]["id"].clone();
    assert_eq!(listed["id"], id);
    let reason = listed["untrusted"]["reason"].as_str().expect("a reason");
    assert!(!reason.contains(['\u{1b}', '\u{202e}']), "{reason:?}");
    until("it is counted", || bench.notified("ok") > 0.5);
    assert_eq!(bench.gate.records().named("program_started").len(), 1);
}

#[test]
fn a_program_that_fails_is_on_record_and_is_told_again() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("notify");
    let marker = folder.path().join("begun");
    let marker = marker.display();
    script(
        &path,
        &format!("cat >/dev/null; [ -e {marker} ] || {{ touch {marker}; exit 1; }}"),
    );
    let text = format!(
        "\n[notify.script]\ncommand = [\"{}\"]\nevery = \"1 s\"\n",
        path.display()
    );
    let bench = Bench::start(&text, &[]);
    id_of(&bench.ask(HOST));
    bench.gate.line("a failure", |line| {
        line.name() == "notification_failed" && line.text("tidegate.notifier") == "script"
    });
    until("it is told again", || bench.notified("ok") > 0.5);
}

#[test]
fn a_desktop_gets_texts_that_are_no_options_and_no_markup() {
    let folder = TempDir::new().expect("a folder");
    let path = program(folder.path(), "notify-send");
    let bench = Bench::start(&format!("\n[notify.desk]\nnotify-send = \"{path}\"\n"), &[]);
    bench.file(HOST, HOSTILE);
    let words = written(folder.path(), "words");
    let lines: Vec<&str> = words.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "--app-name=tidegate",
            "--",
            "tidegate: 1 new request for approval, 1 open"
        ]
    );
    assert!(
        words.contains("the agent wrote: operation connect; reason "),
        "{words}"
    );
    assert!(!words.contains(['<', '\u{1b}', '\u{202e}']), "{words}");
    let uid = rustix::process::geteuid().as_raw();
    let bus = written(folder.path(), "bus");
    assert_eq!(bus, format!("unix:path=/run/user/{uid}/bus\n"));
}

#[test]
fn a_notifier_tells_of_its_tiers_alone() {
    let pki = Pki::new();
    let hooks = receiver(&pki, &["204 No Content"]);
    let folder = TempDir::new().expect("a folder");
    let path = program(folder.path(), "notify");
    let text = webhook(hooks.port(), "/", "tiers = [\"restricted\"]")
        + &format!("\n[notify.script]\ncommand = [\"{path}\"]\n");
    let bench = Bench::start(&text, &[("hooks.pem", &pki.pem())]);
    id_of(&bench.ask(HOST));
    written(folder.path(), "input");
    until("it is counted", || bench.notified("ok") > 0.5);
    hooks.saw_nothing();
}
