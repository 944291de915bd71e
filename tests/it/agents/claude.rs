//! Claude Code, native and on Node, in every way that it is started.

use std::collections::BTreeSet;

use serde_json::json;

use crate::kit::Line;

use super::agent::{Agent, CLAUDE_NATIVE, CLAUDE_NODE};
use super::played::Played;
use super::tables;
use super::world::{Run, Way};

/// The scenario's MCP servers with their tools, in tiers that do not ask about MCP.
const MCP: &str = r#"
[tiers]
order = ["open", "standard", "restricted"]
unattributed = "standard"

[tier.open]
default = "deny"

[tier.standard]
default = "deny"
allow   = ["model-api", "auth"]
opaque  = "allow"

[tier.restricted]
default = "deny"

[mcp]
remote   = { url = "https://mcp.example.com/mcp", allow = ["echo_*"] }
loopback = { url = "http://127.0.0.1:4318/mcp", allow = ["echo_*"] }
"#;
/// Every call of the scenario, started in one way.
fn calls(agent: &'static Agent, way: Way, inspected: bool) -> Option<Played> {
    let mut run = Run::of(agent, way, "calls.json");
    if inspected {
        run = run.inspected();
    }
    let played = run.play()?;
    played.nothing_is_wrong().what_the_model_read_is_true();
    tables::ties(&played, inspected);
    Some(played)
}

#[test]
fn behind_exec_every_call_is_tied() {
    for agent in [&CLAUDE_NATIVE, &CLAUDE_NODE] {
        if let Some(played) = calls(agent, Way::Exec, false) {
            played
                .all_are_tied(&["commands", "background commands", "fetches"])
                .every_refusal_is_told()
                .what_the_model_read_works()
                .a_wrong_tie_is_noticed();
        }
    }
}

#[test]
fn in_a_jail_every_call_is_tied() {
    for agent in [&CLAUDE_NATIVE, &CLAUDE_NODE] {
        if let Some(played) = calls(agent, Way::Jail, true) {
            assert!(
                !played.telemetry.is_empty(),
                "a rule lets it reach the collector"
            );
            played
                .all_are_tied(&["commands", "background commands", "fetches"])
                .every_refusal_is_told()
                .what_the_model_read_works();
        }
    }
}

#[test]
fn behind_a_joined_gate_every_call_is_tied() {
    for agent in [&CLAUDE_NATIVE, &CLAUDE_NODE] {
        if let Some(played) = calls(agent, Way::Join, true) {
            played.all_are_tied(&["commands", "fetches"]);
        }
    }
}

#[test]
fn by_hand_every_session_is_right() {
    for agent in [&CLAUDE_NATIVE, &CLAUDE_NODE] {
        if let Some(played) = calls(agent, Way::ByHand, false) {
            played.all_sessions_are_right();
        }
    }
}

#[test]
fn calls_of_mcp_are_tied_by_http_and_behind_standard_input() {
    for agent in [&CLAUDE_NATIVE, &CLAUDE_NODE] {
        for way in [Way::Exec, Way::Jail] {
            calls_of_mcp(agent, way);
        }
    }
}

fn calls_of_mcp(agent: &'static Agent, way: Way) {
    let run = Run::of(agent, way, "mcp.json").inspected().policy(MCP);
    let Some(played) = run.mcp_servers().play() else {
        return;
    };
    played.nothing_is_wrong().what_the_model_read_is_true();
    let called = played
        .mcp
        .iter()
        .filter(|line| line.text("method") == "tools/call");
    let called: Vec<&str> = called.map(|line| line.text("tool")).collect();
    assert!(
        called.contains(&"echo_a") && !called.contains(&"secret_a"),
        "{called:?}"
    );
    if way == Way::Jail {
        assert!(called.contains(&"echo_d"), "{called:?}");
        let mut seen = played.decisions();
        let on_loopback = |line: &&Line| line.text("tidegate.mcp.server") == "loopback";
        assert!(seen.any(|line| on_loopback(&line)), "it is seen in a jail");
    }
    played.all_are_tied(&["MCP"]);
    tables::ties_of(&played, "inspected, MCP servers");
}

/// Each version, with its own hooks and with those that `tidegate init` writes.
fn each_version(test: impl Fn(&'static Agent, Way)) {
    for agent in [&CLAUDE_NATIVE, &CLAUDE_NODE] {
        for way in [Way::Exec, Way::ByHand] {
            test(agent, way);
        }
    }
}

/// A second run that goes on with the conversation of a first one, and the sessions of the first.
fn goes_on(agent: &'static Agent, way: Way, words: &[&str]) -> Option<(BTreeSet<String>, Played)> {
    let first = Run::of(agent, way, "short.json").play()?;
    first.nothing_is_wrong();
    let before = first.sessions_of_the_agent();
    let again = Run::of(agent, way, "resumed.json").after(first);
    let played = again.words(words).play().expect("it was played before");
    played.nothing_is_wrong().all_sessions_are_right();
    played.all_are_tied(&["commands"]);
    assert!(played.told().contains("b"), "{:#?}", played.shown);
    Some((before, played))
}

#[test]
fn a_session_that_is_resumed_stays_one() {
    each_version(|agent, way| {
        if let Some((before, played)) = goes_on(agent, way, &["--continue"]) {
            assert_eq!(before, played.sessions_of_the_agent());
        }
    });
}

#[test]
fn a_session_that_is_forked_goes_on_under_another_id() {
    each_version(|agent, way| {
        if let Some((before, played)) = goes_on(agent, way, &["--continue", "--fork-session"]) {
            let after = played.sessions_of_the_agent();
            assert!(before.is_disjoint(&after), "{before:?} {after:?}");
        }
    });
}

#[test]
fn a_session_that_is_cleared_at_a_terminal_is_followed() {
    each_version(|agent, way| {
        let Some(played) = cleared(agent, way) else {
            return;
        };
        played.nothing_is_wrong().all_sessions_are_right();
        played.all_are_tied(&["commands"]).every_refusal_is_told();
        let sessions = played.sessions_of_the_agent();
        assert_eq!(sessions.len(), 3, "{sessions:?} {:#?}", played.outcome);
    });
}

/// A session at a terminal that is cleared twice.
fn cleared(agent: &'static Agent, way: Way) -> Option<Played> {
    let (ready, end) = ("bypass permissions on", "All turns are done");
    let steps = json!([
        {"after": ready, "type": "Go."},
        {"after": "Go.", "type": "\r"},
        {"after": end, "type": "/clear"},
        {"after": "/clear", "type": "\r"},
        {"after": ready, "type": "Now follow again."},
        {"after": "Now follow again.", "type": "\r"},
        {"after": end, "type": "/clear"},
        {"after": "/clear", "type": "\r"},
        {"after": ready, "type": "Now follow once."},
        {"after": "Now follow once.", "type": "\r"},
        {"after": end, "type": "/exit"},
        {"after": "/exit", "type": "\r"},
    ]);
    Run::of(agent, way, "cleared.json").typing(&steps).play()
}

#[test]
fn without_telemetry_nothing_is_reported_home() {
    let run = Run::of(&CLAUDE_NATIVE, Way::Exec, "short.json").inspected();
    let Some(played) = run.options(&["--no-telemetry"]).play() else {
        return;
    };
    let reported = played
        .decisions()
        .filter(|line| line.text("tidegate.category") == "telemetry");
    let reported: Vec<_> = reported.map(|line| line.text("server.address")).collect();
    assert!(reported.is_empty(), "{reported:?}");
    assert!(
        !played.telemetry.is_empty(),
        "the user's own telemetry goes on"
    );
    let kept = played.folder().join("home/.claude/telemetry");
    assert!(!kept.exists(), "reports that could not be sent are kept");
}

#[test]
fn behind_a_wrapper_and_in_a_script_it_is_the_same_agent() {
    for agent in [&CLAUDE_NATIVE, &CLAUDE_NODE] {
        for wrapper in [&["env", "A=1", "nice"][..], &["../../bin/work"]] {
            let run = Run::of(agent, Way::Exec, "short.json").behind(wrapper);
            let Some(played) = run.play() else { continue };
            played.the_agent_is_named("claude-code");
            // In a script it is found behind a program of its name that adds the hooks.
            played.nothing_is_wrong();
            played.all_are_tied(&["commands"]).every_refusal_is_told();
        }
    }
}
