//! Real agents behind the gate, with a scripted model: every flow is tied to the call that made it,
//! or to none, and the model reads nothing false.
//!
//! The truth is the model's own list of the calls that it asked for (each destination has the name
//! of its call as its first label) and the agent's own telemetry.

mod agent;
mod played;
mod world;

use agent::{CLAUDE_NATIVE, CLAUDE_NODE};
use world::{Run, Way};

#[test]
fn claude_behind_exec() {
    let run = Run::of(&CLAUDE_NATIVE, Way::Exec, "calls.json");
    let Some(played) = run.play() else { return };
    eprintln!("{:#?} {:?} {:?}", played.untied(), played.used(), played.told());
    played.nothing_is_wrong();
    played.what_the_model_read_is_true();
    played.keep();
}

#[test]
fn claude_in_a_jail() {
    let run = Run::of(&CLAUDE_NATIVE, Way::Jail, "calls.json").inspected();
    let Some(played) = run.play() else { return };
    eprintln!("{:#?} {:?} {:?}", played.untied(), played.used(), played.told());
    played.nothing_is_wrong();
    played.keep();
}

#[test]
fn claude_by_hand() {
    let run = Run::of(&CLAUDE_NATIVE, Way::ByHand, "calls.json");
    let Some(played) = run.play() else { return };
    eprintln!("{:#?} {:?} {:?}", played.untied(), played.used(), played.told());
    played.nothing_is_wrong();
    played.keep();
}
