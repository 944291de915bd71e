//! Tests that the scenarios are complete, the built-in policy reacts as expected, and remedies
//! work.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::scenario::parse;
use super::*;
use crate::diag::Source;
use crate::policy::compile::{compile, default_policy};
use crate::policy::{built_in, default_source, source};

fn source(text: &str) -> source::Policy {
    default_policy::parse(&Arc::new(Source::new("test.toml", text))).unwrap()
}

fn policy(source: &source::Policy) -> Policy {
    let (policy, findings) = compile(source, &built_in());
    policy.unwrap_or_else(|| panic!("{findings:?}"))
}

fn all_played<'s>(text: &str, scenarios: &'s [Scenario]) -> Vec<Played<'s>> {
    play(&policy(&source(text)), scenarios, &Player::default())
}

fn one<'p, 's>(played: &'p [Played<'s>], id: &str, tier: &str) -> &'p Played<'s> {
    let mut found = played.iter();
    let found = found.find(|it| &*it.scenario.id == id && &*it.tier == tier);
    found.unwrap_or_else(|| panic!("no {id} in {tier}"))
}

#[test]
fn every_scenario_is_whole_and_its_evidence_is_a_field_of_records() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../config/record.schema.json")).unwrap();
    let fields = schema.pointer("/$defs/flow/properties").unwrap();
    let mut ids = BTreeSet::new();
    for scenario in &scenarios().unwrap() {
        let id = &scenario.id;
        assert!(ids.insert(id.clone()), "{id} twice");
        assert!(id.len() < 26, "{id} does not fit in the table");
        assert!(
            !scenario.story.is_empty() && !scenario.evidence.is_empty(),
            "{id}"
        );
        for field in &scenario.evidence {
            assert!(fields.get(&**field).is_some(), "{id}: {field}");
        }
        let steps: BTreeSet<_> = scenario.steps.iter().map(|step| &step.id).collect();
        assert_eq!(steps.len(), scenario.steps.len(), "{id}");
        let tiers: Vec<&str> = scenario.expect.keys().map(|tier| &**tier).collect();
        assert_eq!(tiers, ["open", "restricted", "standard"], "{id}");
    }
}

#[test]
fn the_built_in_policy_gives_the_reasons_that_the_scenarios_expect() {
    let scenarios = scenarios().unwrap();
    let mut wrong = Vec::new();
    for played in play(&policy(&default_source()), &scenarios, &Player::default()) {
        let got = played.decisive().unwrap().decision.reason.code();
        if played.expected() != Some(got) {
            wrong.push(format!("{} in {}: {got}", played.scenario.id, played.tier));
        }
        let stopped = played.scenario.status == Status::Stopped;
        if &*played.tier != "open" && stopped != played.is_stopped() {
            wrong.push(format!(
                "{}: status {}",
                played.scenario.id,
                played.scenario.status.as_str()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_lines_of_a_remedy_stop_what_they_say_when_they_are_added_to_the_file() {
    let scenarios = scenarios().unwrap();
    let before = default_source();
    let found = remedies(&before, &policy(&before), &scenarios, &Player::default());
    let tiers: Vec<&str> = found.iter().map(|remedy| &*remedy.tier).collect();
    assert_eq!(tiers, ["open", "standard", "restricted"]);
    for remedy in &found {
        assert!(remedy.leaves.is_empty(), "{remedy:#?}");
        // The default file without [tiers]: the lines change it key by key.
        let after = all_played(&remedy.lines, &scenarios);
        for scenario in &remedy.stops {
            assert!(
                one(&after, &scenario.id, &remedy.tier).is_stopped(),
                "{} in {}",
                scenario.id,
                remedy.tier
            );
        }
    }
}

#[test]
fn a_rule_that_lets_an_attack_pass_fails_the_expectation() {
    let text = "[[rule]]\nid = \"oops\"\nverdict = \"allow\"\nto.hosts = [\"pastebin.com\"]\n";
    let scenarios = scenarios().unwrap();
    let played = all_played(text, &scenarios);
    let paste = one(&played, "paste-site", "standard");
    assert!(!paste.is_stopped() && !paste.holds());
    assert_eq!(&*paste.decisive().unwrap().decision.rule.name, "oops");
    assert!(
        one(&played, "paste-site", "open").holds(),
        "expected to pass there"
    );
    assert!(one(&played, "dns-over-https", "standard").holds());
}

#[test]
fn a_tier_that_observes_stops_only_what_the_floor_refuses() {
    let text = "[tier.standard]\nmode = \"observe\"\n";
    let scenarios = scenarios().unwrap();
    let played = all_played(text, &scenarios);
    let paste = one(&played, "paste-site", "standard");
    assert!(!paste.is_stopped() && !paste.holds());
    assert!(one(&played, "metadata-name", "standard").is_stopped());
    let observed = source(text);
    let found = remedies(
        &observed,
        &policy(&observed),
        &scenarios,
        &Player::default(),
    );
    let standard = found.iter().find(|remedy| &*remedy.tier == "standard");
    assert!(standard.unwrap().lines.contains("mode = \"enforce\""));
}

#[test]
fn a_group_that_may_publish_passes_and_no_line_is_made_up_for_what_none_stops() {
    let text = "[group.releases]\n[[rule]]\nid = \"deploy\"\nverdict = \"allow\"\n\
        from.groups = [\"releases\"]\nto.hosts = [\"api.cluster.acme.example\"]\ngrant.inspect = false\n";
    let written = source(text);
    let policy = policy(&written);
    let scenarios = scenarios().unwrap();
    let player = Player {
        groups: vec!["releases".into()],
        repository: None,
    };
    let anyone = play(&policy, &scenarios, &Player::default());
    let release = play(&policy, &scenarios, &player);
    assert!(one(&anyone, "ci-deploy", "standard").is_stopped());
    assert!(!one(&release, "ci-deploy", "standard").is_stopped());
    let found = remedies(&written, &policy, &scenarios, &player);
    let standard = found
        .iter()
        .find(|remedy| &*remedy.tier == "standard")
        .unwrap();
    let ids = |list: &[&Scenario]| list.iter().any(|it| &*it.id == "ci-deploy");
    assert!(
        ids(&standard.stops) != ids(&standard.leaves),
        "{standard:#?}"
    );
}

#[test]
fn a_scenario_that_names_no_step_or_no_flow_is_refused() {
    let head = "dated = \"2026-11-30\"\n[[scenario]]\nid = \"x\"\nstory = \"s\"\nstatus = \"stopped\"\n\
        evidence = []\nexpect = {}\n";
    for (rest, why) in [
        (
            "stop = \"b\"\nsteps = [{ id = \"a\", flow = \"a.example:443\", does = \"d\" }]\n",
            "names no step",
        ),
        (
            "stop = \"a\"\nsteps = [{ id = \"a\", flow = \"push it\", does = \"d\" }]\n",
            "push it",
        ),
        (
            "stop = \"a\"\nrepository = \"*\"\nsteps = [{ id = \"a\", flow = \"a.example:443\", does = \"d\" }]\n",
            "repository",
        ),
        ("stop = \"a\"\nsteps = []\nnonsense = 1\n", "nonsense"),
    ] {
        let error = parse(&format!("{head}{rest}")).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
