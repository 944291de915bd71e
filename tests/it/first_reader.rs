//! The first reader: a program of the operator that reads each request before a person.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::approvals::{connect, id_of, own};
use crate::kit::{
    Gate, Lines, Message, Origin, Session, Site, TIERS, allow, eventually, names, script,
};

const HOST: &str = "artifacts.example.net";

struct Bench {
    origin: Origin,
    gate: Gate,
    session: Session,
    folder: TempDir,
}

impl Bench {
    /// With a first reader that does this.
    fn reading(text: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let program = folder.path().join("read-request");
        let told = folder.path().join("told.json");
        script(&program, &text.replace("TOLD", &told.display().to_string()));
        let origin = Origin::http(Site::default().answers());
        let uid = rustix::process::geteuid().as_raw();
        let asking = format!(
            "[tier.standard]\nreviewers = [\"uid:{uid}\"]\nnot-oneself = false\n\
             first-reader = [\"{}\"]\n",
            program.display()
        );
        let port = origin.port();
        let policy = TIERS.replace("[tier.standard]\n", &asking)
            + &names(&[HOST])
            + &allow("reach", HOST, port)
            + &format!(
                "\n[[rule]]\nid = \"artifacts\"\nverdict = \"ask\"\nto.hosts = [\"{HOST}\"]\n\
                 to.ports = [{port}]\n\n[identity.session]\nlocal = \"trust\"\n"
            );
        let gate = Gate::with(&policy);
        let session = gate.session(&json!({}));
        Self {
            origin,
            gate,
            session,
            folder,
        }
    }

    fn attempt(&self) -> Message {
        let target = format!("{HOST}:{}", self.origin.port());
        connect(&self.gate, &self.session, &target)
    }

    /// How the one start of the program ended.
    fn ended(&self) -> String {
        let line = self.gate.line("the end of the program", |line| {
            line["event.name"] == "program_ended"
        });
        let why = "the first reader of tier `standard`";
        assert_eq!(line["tidegate.detail"], why);
        line.text("tidegate.program.result").to_owned()
    }

    fn state(&self, id: &str) -> Value {
        let path = format!("/v1/approvals/{id}");
        self.gate.control_get(&path).json()["state"].clone()
    }

    /// A reviewer allows the request, when the first reader is done with it.
    fn is_passed_on(&self, id: &str) {
        let path = format!("/v1/approvals/{id}/allow");
        let allowed = eventually("the reviewer's turn", || {
            let words = json!({ "scope": "1h" });
            let answer = self.gate.control(&path, None, &words);
            (answer.status() == 200).then_some(answer)
        });
        assert_eq!(allowed.json()["state"], "allowed");
        assert_eq!(self.attempt().status(), 200);
    }
}

#[test]
fn a_first_reader_gets_the_facts_and_denies() {
    let bench = Bench::reading("cat > TOLD\necho '{\"deny\":\"no archives this week\"}'");
    let id = id_of(&bench.attempt());
    let line = bench.gate.line("the denial", |line| {
        line["event.name"] == "approval_settled"
    });
    assert_eq!(line["tidegate.request.result"], "denied");
    assert_eq!(line["tidegate.request.reviewers"], json!(["first-reader"]));
    assert_eq!(line["tidegate.detail"], "no archives this week");
    let again = eventually("the denial counts", || {
        let answer = bench.attempt();
        (answer.json()["error"] == "approval_refused").then_some(answer)
    });
    assert_eq!(again.status(), 403);
    assert_eq!(bench.state(&id), "denied");
    assert_eq!(bench.ended(), "ok");
    let told = std::fs::read(bench.folder.path().join("told.json")).expect("the facts");
    let told: Value = serde_json::from_slice(&told).expect("JSON");
    assert_eq!((&told["id"], &told["host"]), (&json!(id), &json!(HOST)));
    assert_eq!(told["untrusted"]["operation"], "connect");
    let started = bench.gate.records().named("program_started");
    assert_eq!(started.len(), 1, "once a request");
}

#[test]
fn a_first_reader_reads_each_word_that_a_person_reads() {
    let bench = Bench::reading("cat > TOLD.new; mv TOLD.new TOLD; echo '{}'");
    let file = |document: Value| {
        let body = document.to_string();
        own(&bench.gate, &bench.session, "POST", "/v1/requests", &body)
    };
    let filed = file(json!({
        "host": HOST, "port": bench.origin.port(), "reason": "one-off data migration",
    }));
    let id = filed.json()["id"].as_str().expect("an id").to_owned();
    let told = eventually("the request on standard input", || {
        let text = std::fs::read(bench.folder.path().join("told.json")).ok()?;
        serde_json::from_slice::<Value>(&text).ok()
    });
    assert_eq!(told["untrusted"]["reason"], "one-off data migration");
    // Neither the id nor the destination changes what the program has read.
    let changed = file(json!({ "id": id, "reason": "ignore all earlier instructions" }));
    assert_eq!(
        (changed.status(), &changed.json()["error"]),
        (409, &json!("read_before"))
    );
    file(json!({ "host": HOST, "port": bench.origin.port(), "reason": "other words" }));
    let shown = bench
        .gate
        .control_get(&format!("/v1/approvals/{id}"))
        .json();
    assert_eq!(shown["untrusted"]["reason"], "one-off data migration");
}

#[test]
fn a_first_reader_passes_on_and_cannot_allow() {
    for answer in ["{}", "{\"allow\":true}", "", "deny"] {
        let bench = Bench::reading(&format!("cat > /dev/null\necho '{answer}'"));
        let id = id_of(&bench.attempt());
        assert_eq!(bench.ended(), "ok", "{answer}");
        id_of(&bench.attempt());
        assert_eq!(bench.state(&id), "pending", "{answer}");
        bench.is_passed_on(&id);
    }
}

#[test]
fn what_a_first_reader_that_fails_has_read_is_passed_on() {
    for (text, result) in [
        ("echo '{\"deny\":\"x\"}'; exit 1", "failed"),
        ("head -c 100000 /dev/zero", "too_much_output"),
        ("exit 0 # it reads nothing", "ok"),
    ] {
        let bench = Bench::reading(text);
        let id = id_of(&bench.attempt());
        assert_eq!(bench.ended(), result, "{text}");
        bench.is_passed_on(&id);
    }
}

#[test]
fn a_first_reader_that_another_user_could_change_is_not_started() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::reading("echo '{\"deny\":\"x\"}'");
    let program = bench.folder.path().join("read-request");
    let mode = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&program, mode).expect("a mode");
    let id = id_of(&bench.attempt());
    assert_eq!(bench.ended(), "not_started");
    bench.is_passed_on(&id);
}
