//! Tests of the text of every family.

use std::collections::BTreeMap;

use super::*;

const REASONS: &[&str] = &["allowed", "not_allowed", "connect_failed"];

fn tiers() -> [Arc<str>; 2] {
    [Arc::from("standard"), Arc::from("strict")]
}

/// Changes a value of every family, so that each is in the text.
fn all() -> Metrics {
    let metrics = Metrics::new(REASONS);
    let generation = metrics.generation(&tiers(), "abc", 1);
    let took = Duration::from_millis(3);
    for outcome in OUTCOMES {
        for mode in MODES {
            generation.decision(outcome, mode, Category::Mcp, Some(TierId(1)), 1, took);
        }
    }
    generation.decision(
        Outcome::Error,
        Mode::Enforce,
        Category::Unknown,
        None,
        2,
        took,
    );
    generation.bytes(Category::Webfetch, TierId(0), 10, 20);
    generation.flow_duration(Category::Auth, took);
    metrics.flow_began(FlowKind::Connect);
    metrics.flow_began(FlowKind::Http);
    metrics.flow_ended(FlowKind::Http);
    metrics.flow_end(End::Refused, Some(REASONS[1]));
    metrics.flow_unstarted();
    metrics.accept_failed("exhausted");
    metrics.connection_evicted();
    metrics.dns(took);
    metrics.connected(Category::Update, took);
    metrics.upstream_error("connect_failed", Category::Plugin);
    metrics.attributed("username", "asserted");
    for result in PARENT_DIALS {
        metrics.parent_dial(result);
    }
    metrics.reloaded(false);
    metrics.contained(&[("tcp", Some(true)), ("udp", None)], 1);
    metrics.approvals_pending(2);
    metrics.approval_settled("allowed", took);
    metrics.rate_limited("refusals");
    metrics.draining();
    metrics.exceptions(1, 2, None);
    metrics.records_written(7);
    metrics.records_lost(2);
    metrics.record_queue(3);
    metrics.records_repeated(5);
    metrics.record_file_changed("moved");
    metrics.shadow_decided(Verdict::Allow, Verdict::Deny);
    assert!(metrics.retention_short(true) && !metrics.retention_short(true));
    metrics
}

/// Returns `name type labels` of every family.
fn shape(text: &str) -> String {
    let mut kinds = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            kinds.insert(name.to_owned(), (kind.to_owned(), String::new()));
        } else if let Some((name, labels)) = line
            .split_once('}')
            .and_then(|(head, _)| head.split_once('{'))
        {
            let names = labels
                .split("\",")
                .filter_map(|label| label.split('=').next());
            let names = names
                .filter(|name| *name != "le")
                .collect::<Vec<_>>()
                .join(",");
            let family = ["_bucket", "_sum", "_count"]
                .into_iter()
                .find_map(|end| {
                    name.strip_suffix(end)
                        .filter(|name| kinds.contains_key(*name))
                })
                .unwrap_or(name);
            kinds.get_mut(family).expect("TYPE comes first").1 = names;
        }
    }
    kinds
        .iter()
        .map(|(name, (kind, labels))| format!("{name} {kind} {{{labels}}}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn names_types_and_labels_are_frozen() {
    insta::assert_snapshot!(shape(&all().render()));
}

#[test]
fn every_family_has_a_help() {
    let text = all().render();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().expect("a name");
        assert!(
            text.contains(&format!("# HELP {name} ")),
            "{name} has no help"
        );
    }
}

#[test]
fn counts_stand_at_their_labels() {
    let text = all().render();
    for line in [
        "tidegate_decisions_total{category=\"mcp\",mode=\"observe\",reason=\"not_allowed\",\
         tier=\"strict\",verdict=\"deny\"} 1",
        "tidegate_decisions_total{category=\"unknown\",mode=\"enforce\",\
         reason=\"connect_failed\",tier=\"none\",verdict=\"error\"} 1",
        "tidegate_bytes_total{category=\"webfetch\",direction=\"in\",tier=\"standard\"} 20",
        "tidegate_flows_active{kind=\"http\"} 0",
        "tidegate_upstream_errors_total{category=\"plugin\",error=\"connect_failed\"} 1",
        "tidegate_sessions_attributed_total{evidence=\"username\",trust=\"asserted\"} 1",
        "tidegate_policy_stale 1",
        "tidegate_records_lost_total 2",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in {text}"
        );
    }
}

#[test]
fn only_the_current_policy_has_an_info() {
    let metrics = Metrics::new(REASONS);
    metrics.generation(&tiers(), "abc", 1);
    metrics.generation(&tiers(), "def", 2);
    metrics.generation(&tiers(), "def", 2);
    let text = metrics.render();
    let info: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("tidegate_policy_info{"))
        .collect();
    assert_eq!(
        info,
        ["tidegate_policy_info{digest=\"def\",generation=\"2\"} 1"]
    );
}

#[test]
fn counts_go_on_over_a_reload() {
    let metrics = Metrics::new(REASONS);
    for generation in 1..=2 {
        metrics
            .generation(&tiers(), "abc", generation)
            .bytes(Category::Mcp, TierId(0), 5, 0);
    }
    assert!(
        metrics
            .render()
            .contains("direction=\"out\",tier=\"standard\"} 10")
    );
}

#[test]
fn what_is_in_no_closed_list_makes_no_label() {
    let metrics = Metrics::new(REASONS);
    metrics.attributed("made-up", "made-up");
    metrics.upstream_error("made-up", Category::Mcp);
    metrics.generation(&tiers(), "abc", 1).decision(
        Outcome::Deny,
        Mode::Enforce,
        Category::Mcp,
        Some(TierId(200)),
        99,
        Duration::ZERO,
    );
    assert!(!metrics.render().contains("made-up"));
    assert!(metrics.render().contains("reason=\"other\",tier=\"none\""));
}
