//! Real agents behind the gate, with a scripted model: every flow is tied to the call that made it,
//! or to none, and the model reads nothing false.
//!
//! The truth is the model's own list of the calls that it asked for (each destination has the name
//! of its call as its first label) and the agent's own telemetry.

mod agent;
mod played;
mod world;

use agent::{CLAUDE_NATIVE, CLAUDE_NODE, CODEX, GEMINI, OPENCODE};
use world::{Run, Way};

fn look(run: Run) {
    let Some(played) = run.play() else { return };
    eprintln!("{:?} code {:?} asked {:?}\nuntied {:#?} used {:?} told {:?}", (played.agent, played.way), played.outcome.code, played.asked.keys(), played.untied(), played.used(), played.told());
    let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| { played.nothing_is_wrong(); played.what_the_model_read_is_true(); }));
    played.keep();
    assert!(wrong.is_ok());
}

#[test]
fn claude_behind_exec() {
    look(Run::of(&CLAUDE_NATIVE, Way::Exec, "calls.json"));
}

#[test]
fn claude_in_a_jail() {
    look(Run::of(&CLAUDE_NATIVE, Way::Jail, "calls.json").inspected());
}

#[test]
fn claude_by_hand() {
    look(Run::of(&CLAUDE_NATIVE, Way::ByHand, "calls.json"));
}

#[test]
fn claude_joined() {
    look(Run::of(&CLAUDE_NATIVE, Way::Join, "calls.json"));
}

#[test]
fn old_claude_behind_exec() {
    look(Run::of(&CLAUDE_NODE, Way::Exec, "calls.json"));
}

#[test]
fn codex_behind_exec() {
    look(Run::of(&CODEX, Way::Exec, "calls.json"));
}

#[test]
fn codex_in_a_jail() {
    look(Run::of(&CODEX, Way::Jail, "calls.json").inspected().websocket());
}

#[test]
fn gemini_behind_exec() {
    look(Run::of(&GEMINI, Way::Exec, "calls.json"));
}

#[test]
fn gemini_in_a_jail() {
    look(Run::of(&GEMINI, Way::Jail, "calls.json").inspected());
}

#[test]
fn opencode_behind_exec() {
    look(Run::of(&OPENCODE, Way::Exec, "calls.json"));
}

#[test]
fn opencode_in_a_jail() {
    look(Run::of(&OPENCODE, Way::Jail, "calls.json").inspected());
}
