//! Formats a proposal as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::config::Config;
use crate::policy::Policy;
use crate::replay::{Need, Needs, Seen};

use super::super::init::diff;
use super::super::print;
use super::label::{Label, is_labelled};
use super::proposal::Proposal;
use super::readiness::Readiness;
use super::rule::Proposed;

/// Maximum number of printed needs of one kind; the JSON has all.
const MAX_LINES: usize = 30;
/// Maximum number of printed names in one line.
const MAX_NAMES: usize = 5;

pub(super) fn text(
    needs: &Needs,
    proposal: &Proposal<'_>,
    config: &Config,
    policy: &Policy,
    [before, after]: [&str; 2],
) -> String {
    let mut text = String::new();
    let mut line = |label: &str, rest: &str| {
        let _ = writeln!(text, "{label:13}{}", print::clean(rest, print::WIDTH - 13));
    };
    let days = needs.days.len();
    let tiers: Vec<&str> = needs.observing.iter().map(|it| &**it).collect();
    let observing = match tiers.as_slice() {
        [] => "no tier observes".to_owned(),
        tiers => format!("observing: {}", tiers.join(", ")),
    };
    line(
        "promote",
        &format!("{} flows on {days} days; {observing}", needs.flows),
    );
    line("pass already", &needs.covered.to_string());
    let proposed: u64 = proposal.rules.iter().map(Proposed::flows).sum();
    line(
        "proposed",
        &format!("{proposed} by {} rules", proposal.rules.len()),
    );
    let denied: u64 = proposal
        .left_denied
        .iter()
        .map(|(_, seen)| seen.flows)
        .sum();
    let doubted: u64 = proposal
        .to_look_at
        .iter()
        .map(|(_, seen, _)| seen.flows)
        .sum();
    line("left denied", &denied.to_string());
    line("to look at", &doubted.to_string());
    if needs.undetermined > 0 {
        line("not judged", &needs.undetermined.to_string());
    }
    if needs.more > 0 {
        let more = format!(
            "{} flows of more needs than are kept: use --tier or --rule",
            needs.more
        );
        line("left out", &more);
    }
    for rule in &proposal.rules {
        let hosts: Vec<&str> = rule.hosts().into_iter().collect();
        line(
            "rule",
            &format!("{}   {} flows   {}", rule.id, rule.flows(), few(&hosts)),
        );
        line("", &purpose(rule, proposal, policy));
        if !rule.companions.is_empty() {
            let hidden: Vec<&str> = rule.companions.iter().map(|it| &**it).collect();
            line(
                "",
                &format!("not seen, beside it in the catalogue: {}", few(&hidden)),
            );
        }
    }
    for (need, seen) in proposal.left_denied.iter().take(MAX_LINES) {
        let by = match &*need.now.reason {
            "not_allowed" => format!("{}: agents work without it", seen.category),
            reason => format!("{} {} ({reason})", need.now.rule, need.now.location),
        };
        line(
            "left denied",
            &format!("{}   {} flows   {by}", place(need), seen.flows),
        );
    }
    for (need, seen, doubts) in proposal.to_look_at.iter().take(MAX_LINES) {
        let why = doubts.join(" · ");
        line(
            "to look at",
            &format!("{}   {} flows   {why}", place(need), seen.flows),
        );
    }
    let ready = Readiness::of(needs, proposal, config);
    let (all, pass) = ready.week;
    let week = format!(
        "{} of the flows of 7 days pass with it ({} of {all})",
        ready.percent(),
        pass.min(all)
    );
    line("readiness", &week);
    let (all, pass) = ready.sessions;
    line(
        "",
        &format!("{pass} of the {all} sessions of these days need nothing more"),
    );
    for (what, names) in [
        ("repositories without a flow", &ready.repositories),
        ("days without a flow", &ready.days),
        ("branches on one day only", &ready.branches),
        ("jobs on one day only", &ready.jobs),
    ] {
        if !names.is_empty() {
            let names: Vec<&str> = names.iter().map(|it| &**it).collect();
            line("", &format!("{what}: {}", few(&names)));
        }
    }
    if before != after {
        text.push('\n');
        for changed in diff::lines(before, after) {
            let _ = writeln!(text, "{}", print::clean(&changed, 400));
        }
    }
    text
}

/// Formats the purpose of the hosts of a rule, with the source of that purpose.
fn purpose(rule: &Proposed<'_>, proposal: &Proposal<'_>, policy: &Policy) -> String {
    if rule.needs.iter().all(|(need, _)| is_labelled(need, policy)) {
        let ecosystem = rule.key.ecosystem.as_deref();
        let ecosystem = ecosystem.map_or_else(String::new, |it| format!(" ({it})"));
        return format!("labelled already: {}{ecosystem}", rule.key.category);
    }
    let hosts = rule.hosts();
    let mut labels = proposal.labels.iter();
    let label = labels.find(|label| hosts.iter().any(|host| label.hosts.contains(*host)));
    match label {
        Some(label) => format!(
            "new destination: {}, as its clients name themselves",
            label.category
        ),
        None => "no label: write a [[destination]] once you know what the host is for".to_owned(),
    }
}

/// Formats the first names, and the number of further ones.
fn few(names: &[&str]) -> String {
    let shown = names
        .iter()
        .take(MAX_NAMES)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().checked_sub(MAX_NAMES) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

/// Formats the destination and the request of a need.
fn place(need: &Need) -> String {
    let done = need.request.as_ref().map(|done| {
        let words = [&done.service, &done.operation, &done.action, &done.tool];
        let words: Vec<&str> = words.into_iter().filter_map(|it| it.as_deref()).collect();
        format!(" {}", words.join(" "))
    });
    format!("{}:{}{}", need.host, need.port, done.unwrap_or_default())
}

pub(super) fn as_json(
    needs: &Needs,
    proposal: &Proposal<'_>,
    config: &Config,
    policy: &Policy,
) -> Value {
    let ready = Readiness::of(needs, proposal, config);
    let need = |need: &Need, seen: &Seen| {
        json!({
            "tier": need.tier,
            "host": need.host,
            "port": need.port,
            "does": need.request.as_ref().map(|done| json!({
                "service": done.service,
                "operation": done.operation,
                "action": done.action,
                "repository": done.repository,
                "ref": done.reference,
                "package": done.package,
                "server": done.server,
                "tool": done.tool,
            })),
            "flows": seen.flows,
            "sessions": seen.sessions(),
            "days": seen.days.len(),
            "repositories": seen.repositories,
            "after_fetch": seen.after_fetch,
            "flow": seen.flow,
            "rule": need.now.rule,
            "location": need.now.location,
            "reason": need.now.reason,
        })
    };
    let rules = proposal.rules.iter().map(|rule| {
        json!({
            "id": rule.id,
            "tier": rule.key.tier,
            "hosts": rule.hosts(),
            "flows": rule.flows(),
            "companions": rule.companions,
            "category": rule.key.category,
            "labelled": rule.needs.iter().all(|(need, _)| is_labelled(need, policy)),
            "text": rule.text(),
        })
    });
    let denied = proposal.left_denied.iter().map(|(it, seen)| need(it, seen));
    let doubted = proposal
        .to_look_at
        .iter()
        .map(|(it, seen, doubts)| json!({ "need": need(it, seen), "why": doubts }));
    json!({
        "flows": needs.flows,
        "pass": needs.covered,
        "not_judged": needs.undetermined,
        "observing": needs.observing,
        "rules": rules.collect::<Vec<_>>(),
        "destinations": proposal.labels.iter().map(Label::text).collect::<Vec<_>>(),
        "trials": proposal.trials,
        "left_out": needs.more,
        "left_denied": denied.collect::<Vec<_>>(),
        "to_look_at": doubted.collect::<Vec<_>>(),
        "readiness": {
            "sessions": { "all": ready.sessions.0, "pass": ready.sessions.1 },
            "week": { "flows": ready.week.0, "pass": ready.week.1.min(ready.week.0) },
            "repositories": ready.repositories,
            "days": ready.days,
            "branches": ready.branches,
            "jobs": ready.jobs,
        },
    })
}
