//! `tidegate session` and `tidegate init`, as typed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::kit::{Gate, Hello, Origin, Outcome, Program, loopback};

fn run(home: &Path, words: &[&str]) -> Outcome {
    Program::at(Path::new(env!("CARGO_BIN_EXE_tidegate")), home)
        .args(words)
        .run()
}

#[test]
fn a_token_that_was_made_by_hand_is_good_until_its_key_is_gone() {
    let home = TempDir::new().expect("a home");
    run(home.path(), &["session", "keygen", "gate.key"]).succeeded();
    run(home.path(), &["session", "keygen", "gate.key"]).failed();
    let key = home.path().join("gate.key");
    let mode = key.metadata().expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let words = [
        "session", "start", "--key", "gate.key", "--json", "--for", "1h",
    ];
    let started = run(home.path(), &words).succeeded().stdout;
    let started: Value = serde_json::from_str(&started).expect("JSON");
    let text = |name: &str| started[name].as_str().expect("text");

    let origin = Origin::echo();
    let policy = loopback(origin.port());
    let public = home.path().join("gate.key.pub");
    let keys = format!("\n[identity.session]\nkeys = [{:?}]\n", public.display());
    let gate = Gate::with(&(policy.clone() + &keys));
    let url = format!("http://files.example.net:{}/", origin.port());
    let ask = || {
        gate.client()
            .known_as(text("session"), text("token"))
            .get(&url)
    };
    assert_eq!(ask().status(), 200);

    run(home.path(), &["session", "keygen", "next.key"]).succeeded();
    gate.reload(&(policy + &keys.replace("gate.key", "next.key")));
    assert_eq!(ask().refusal(), "identity_invalid");
}

#[test]
fn a_session_that_is_revoked_by_command_loses_its_tunnel() {
    let home = TempDir::new().expect("a home");
    let origin = Origin::bytes();
    let gate = Gate::with(&loopback(origin.port()));
    let control = format!("unix:{}", gate.folder().join("control.sock").display());
    let words = ["session", "start", "--control", &control, "--json"];
    let started = run(home.path(), &words).succeeded().stdout;
    let started: Value = serde_json::from_str(&started).expect("JSON");
    let text = |name: &str| started[name].as_str().expect("text");
    let hello = Hello::naming("files.example.net").bytes();
    let mut client = gate.client().known_as(text("session"), text("token"));
    let target = format!("files.example.net:{}", origin.port());
    client.tunnel(&target).send(&hello);
    assert_eq!(client.exactly(hello.len()), hello);

    let session = text("session");
    run(
        home.path(),
        &["session", "revoke", session, "--control", &control],
    )
    .succeeded();

    assert_eq!(client.rest(), b"");
    assert_eq!(gate.last_close().text("error.type"), "revoked");
}

#[test]
fn settings_are_shown_before_they_are_written_and_kept() {
    let home = TempDir::new().expect("a home");
    let file = home.path().join("settings.json");
    std::fs::write(&file, "{\"model\":\"x\"}").expect("a file");
    let words = ["init", "claude-code", "--file", "settings.json"];
    let shown = run(home.path(), &words);
    assert_eq!(shown.code, Some(1));
    shown.showed("SessionStart").showed("nothing was written");
    let text = || std::fs::read_to_string(&file).expect("a file");
    assert_eq!(text(), "{\"model\":\"x\"}");

    let write = [&words[..], &["--write"]].concat();
    run(home.path(), &write).succeeded();
    assert!(text().starts_with("{\n  \"model\": \"x\",\n"), "{}", text());
    let kept = home.path().join("settings.json.before-tidegate-0");
    assert_eq!(
        std::fs::read_to_string(kept).expect("a file"),
        "{\"model\":\"x\"}"
    );
    run(home.path(), &write)
        .succeeded()
        .showed("nothing to change");
}
