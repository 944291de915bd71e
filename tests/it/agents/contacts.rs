//! What an agent contacts by itself, before and beside what its model asks for.

use std::collections::BTreeSet;
use std::path::Path;

use crate::kit::Program;

use super::agent::{AIDER, Agent, CLAUDE_NATIVE, CLAUDE_NODE, CODEX, COPILOT, GEMINI, OPENCODE};
use super::played::Played;
use super::tables;
use super::world::{Run, Way};

/// Where nothing is refused, and everything is seen.
fn contacts(agent: &'static Agent) {
    contacts_with(agent, &[]);
}

fn contacts_with(agent: &'static Agent, words: &[&str]) {
    let run = Run::of(agent, Way::Exec, "none.json")
        .inspected()
        .words(words)
        .options(&["--observe"]);
    let Some(played) = run.play() else { return };
    let seen = Seen::of(&played);
    assert!(!seen.0.is_empty(), "{:#?}", played.outcome);
    let mut rows = BTreeSet::new();
    for (host, request) in &seen.0 {
        let category = ask(&played, host, request.as_ref(), "standard").0;
        if rows.insert((host.clone(), category.clone())) {
            let tiers = ["open", "standard", "restricted"];
            let verdicts = tiers.map(|tier| ask(&played, host, request.as_ref(), tier).1);
            tables::contact(agent.name, host, &category, &verdicts);
        }
    }
}

/// Hosts with one method and path for each beginning of a path; nothing for a tunnel in which
/// nothing was sent.
struct Seen(BTreeSet<(String, Option<(String, String)>)>);

impl Seen {
    fn of(played: &Played) -> Self {
        let mut seen = BTreeSet::new();
        let requests = played
            .requests
            .iter()
            .filter(|line| line.text("method") != "UPGRADE");
        for line in requests.filter(|line| is_foreign(line.text("host"))) {
            let path = line.text("path").to_owned();
            let request = (line.text("method").to_owned(), path);
            seen.insert((line.text("host").to_owned(), Some(request)));
        }
        for line in played.decisions() {
            let host = line.text("server.address");
            let known = seen.iter().any(|(known, _): &(String, _)| known == host);
            if is_foreign(host) && !known {
                seen.insert((host.to_owned(), None));
            }
        }
        Self(seen)
    }
}

/// The category of a request, and what a tier says to it.
fn ask(
    played: &Played,
    host: &str,
    request: Option<&(String, String)>,
    tier: &str,
) -> (String, String) {
    let (method, path) = request
        .cloned()
        .unwrap_or(("GET".to_owned(), "/".to_owned()));
    let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let asked = Program::at(tidegate, played.folder())
        .args([
            "explain", "--json", "--tier", tier, "--method", &method, "--config",
        ])
        .args([played.folder().join("tidegate.toml")])
        .args([format!("https://{host}{path}")])
        .run();
    let answer: serde_json::Value =
        serde_json::from_str(&asked.stdout).unwrap_or_else(|_| panic!("{asked:#?}"));
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    (text("category"), text("verdict"))
}

/// Whether a host is none of the test's own.
fn is_foreign(host: &str) -> bool {
    !host.is_empty() && !host.ends_with("example.com") && !host.starts_with("127.")
}

#[test]
fn of_claude_code() {
    contacts(&CLAUDE_NATIVE);
    contacts(&CLAUDE_NODE);
}

#[test]
fn of_aider() {
    // Without it, one installation in ten reports, chosen by its random id.
    contacts_with(&AIDER, &["--analytics"]);
}

#[test]
fn of_copilot() {
    contacts(&COPILOT);
}

#[test]
fn of_codex() {
    contacts(&CODEX);
}

#[test]
fn of_gemini() {
    contacts(&GEMINI);
}

#[test]
fn of_opencode() {
    contacts(&OPENCODE);
}
