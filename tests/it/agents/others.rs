//! Codex, Copilot CLI, Gemini CLI and opencode, in every way that they are started.

use super::agent::{AIDER, Agent, CODEX, COPILOT, GEMINI, OPENCODE};
use super::played::Played;
use super::tables;
use super::world::{Run, Way};

/// Every way to start an agent.
const WAYS: [Way; 4] = [Way::Exec, Way::Jail, Way::Join, Way::ByHand];

fn calls(agent: &'static Agent, way: Way) -> Option<Played> {
    let run = Run::of(agent, way, "calls.json");
    let inspected = way == Way::Jail;
    let run = if inspected {
        run.inspected().websocket()
    } else {
        run
    };
    let played = run.play()?;
    played.nothing_is_wrong().what_the_model_read_is_true();
    assert!(played.used().contains(&"commands"), "{:#?}", played.outcome);
    tables::ties(&played, inspected);
    Some(played)
}

/// Of a gate that runs already, only the records say what was refused to a process in the background.
#[track_caller]
fn refusals_are_told(played: &Played) {
    if matches!(played.way, Way::Exec | Way::Jail) {
        played.every_refusal_is_told();
    } else {
        played.refusals_of_open_calls_are_told();
    }
    played.what_the_model_read_works();
}

#[test]
fn codex_is_named_in_every_way() {
    for way in WAYS {
        let Some(played) = calls(&CODEX, way) else {
            continue;
        };
        played.the_agent_is_named("codex");
        played
            .all_are_tied(&["commands"])
            .sessions_of_open_calls_are_right();
        if way != Way::ByHand {
            played.all_sessions_are_right();
        }
        refusals_are_told(&played);
        if way == Way::Jail {
            let opened = played
                .requests
                .iter()
                .any(|line| line.text("method") == "UPGRADE");
            assert!(
                opened,
                "the WebSocket of the model API passes: {:#?}",
                played.outcome
            );
            assert!(!played.conversations().is_empty());
        }
    }
}

#[test]
fn gemini_is_named_and_fetches_in_a_jail() {
    for way in WAYS {
        if let Some(played) = calls(&GEMINI, way) {
            played.the_agent_is_named("gemini-cli");
            refusals_are_told(&played);
            // Its guard against private addresses looks names up: in a jail it lets ours pass.
            let fetched = played.used().contains(&"fetches");
            assert_eq!(fetched, way == Way::Jail, "{:?}: {:#?}", way, played.shown);
        }
    }
}

#[test]
fn opencode_is_named_in_every_way() {
    for way in WAYS {
        let Some(played) = calls(&OPENCODE, way) else {
            continue;
        };
        played.the_agent_is_named("opencode");
        played.all_are_tied(&["commands", "fetches"]);
        refusals_are_told(&played);
        assert_eq!(played.conversations().len(), usize::from(way == Way::Jail));
    }
}

#[test]
fn copilot_is_named_in_every_way() {
    for way in WAYS {
        let Some(played) = calls(&COPILOT, way) else {
            continue;
        };
        played.the_agent_is_named("copilot");
        refusals_are_told(&played);
        // Its guard against private addresses looks names up, as that of Gemini CLI does.
        let fetched = played.used().contains(&"fetches");
        assert_eq!(fetched, way == Way::Jail, "{way:?}: {:#?}", played.shown);
    }
}

#[test]
fn aider_is_named_in_every_way() {
    for way in [Way::Exec, Way::Jail] {
        let run = Run::of(&AIDER, way, "none.json").inspected();
        let Some(played) = run.play() else { continue };
        played.nothing_is_wrong().the_agent_is_named("aider");
        let asked = played.requests.iter();
        let mut models = asked.filter(|line| line.text("host") == "api.anthropic.com");
        assert!(models.next().is_some(), "{:#?}", played.outcome);
        tables::ties(&played, true);
    }
}

#[test]
fn codex_and_gemini_report_nothing_home_where_their_settings_say_so() {
    let gemini = r#"{"privacy":{"usageStatisticsEnabled":false}}"#;
    let codex = "[analytics]\nenabled = false\n";
    for (agent, path, text) in [
        (&CODEX, ".codex/config.toml", codex),
        (&GEMINI, ".gemini/settings.json", gemini),
    ] {
        let run = Run::of(agent, Way::Exec, "short.json").setting(path, text);
        let Some(played) = run.play() else { continue };
        let hosts = played
            .decisions()
            .map(|line| line.text("tidegate.category"));
        let reported = hosts.filter(|category| *category == "telemetry").count();
        assert_eq!(reported, 0, "{}", agent.name);
    }
}
