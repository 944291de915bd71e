//! Formats an explanation as a tree of the stages, and as JSON.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::policy::{
    Decision, Explanation, Inspect, Looked, Named, RequestFacts, Stage, TierBasis,
};

use super::super::tree::Tree;
use super::asked::Flow;

/// The note on addresses: `explain` resolves no name.
pub(super) const ADDRESSES: &str =
    "the addresses that the name resolves to are judged before one is dialled";

/// The supposed caller.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    pub(super) repository: Option<Arc<str>>,
    pub(super) groups: Vec<Arc<str>>,
    /// Whether the tier comes from `--tier` instead of the policy.
    pub(super) tier_supposed: bool,
}

/// Draws the stages of a decision.
pub(super) fn tree(flow: &Flow, explanation: &Explanation, caller: &Caller) -> Tree {
    let decision = &explanation.decision;
    let mut tree = Tree::new(flow.show(), verdict(decision));
    tree.stage("caller", show_caller(caller));
    let basis = if caller.tier_supposed {
        "as supposed"
    } else if explanation.tier_basis == TierBasis::Unattributed && caller.repository.is_some() {
        "no `[[repository]]` matches the repository (tiers.unattributed)"
    } else {
        tier_basis(explanation.tier_basis)
    };
    tree.stage("tier", format!("{}   {basis}", explanation.tier));
    tree.stage("category", category(explanation));
    if let Some(request_facts) = explanation.request_facts.as_ref().and_then(request_facts) {
        tree.stage("does", request_facts);
    }
    if let Some(inspect) = inspect(&decision.inspect) {
        tree.stage("inspect", inspect);
    }
    tree.stages("rules", rules(explanation));
    if let Some(near) = &explanation.nearest_allow {
        tree.stage("nearest", looked(near));
    }
    let by = match explanation.stage {
        Stage::Exception => "by an exception, before the rules".to_owned(),
        Stage::Floor => "by the floor, before any rule".to_owned(),
        Stage::Narrowed => "by what the session was narrowed to".to_owned(),
        stage => format!("{} by {}", stage.as_str(), named(&decision.rule)),
    };
    tree.stage("verdict", format!("{}   {by}", decision.verdict));
    for note in &flow.notes {
        tree.note("note", *note);
    }
    if let Some(suggestion) = &explanation.suggestion {
        tree.note("to allow it", suggestion.as_str());
    }
    tree
}

/// Formats the same as JSON.
pub(super) fn as_json(flow: &Flow, explanation: &Explanation, caller: &Caller) -> Value {
    let decision = &explanation.decision;
    let looked = |looked: &Looked| {
        json!({
            "rule": looked.rule.name,
            "location": looked.rule.location,
            "verdict": looked.verdict,
            "miss": looked.miss,
        })
    };
    json!({
        "flow": flow.show(),
        "repository": caller.repository,
        "groups": caller.groups,
        "tier": explanation.tier,
        "tier_basis": explanation.tier_basis,
        "category": decision.category,
        "basis": decision.basis,
        "category_from": explanation.category_from,
        "action": decision.action,
        "request": explanation.request_facts.as_ref().map(request_facts_as_json),
        "inspect": inspect(&decision.inspect),
        "upstream": decision.upstream,
        "stage": explanation.stage.as_str(),
        "verdict": decision.verdict,
        "would": decision.would,
        "mode": decision.mode,
        "reason": decision.reason,
        "rule": { "name": decision.rule.name, "location": decision.rule.location },
        "looked_at": explanation.looked_at.iter().map(looked).collect::<Vec<_>>(),
        "others": explanation.others,
        "nearest": explanation.nearest,
        "nearest_allow": explanation.nearest_allow.as_ref().map(looked),
        "suggestion": explanation.suggestion,
        "notes": flow.notes,
    })
}

/// Formats `deny  not_allowed`; in observe mode also what would have happened.
pub(super) fn verdict(decision: &Decision) -> String {
    let code = decision.reason.code();
    match decision.would {
        Some(would) => format!("{}  observed, would {would}: {code}", decision.verdict),
        None => format!("{}  {code}", decision.verdict),
    }
}

/// Formats `docs  policy/web.toml:31`.
pub(super) fn named(rule: &Named) -> String {
    match &*rule.location {
        "" => rule.name.to_string(),
        location => format!("{}  {location}", rule.name),
    }
}

fn show_caller(caller: &Caller) -> String {
    let repository = caller
        .repository
        .as_deref()
        .unwrap_or("no repository known");
    match caller.groups.as_slice() {
        [] => repository.to_owned(),
        groups => format!("{repository} · groups {}", groups.join(", ")),
    }
}

fn tier_basis(basis: TierBasis) -> &'static str {
    match basis {
        TierBasis::Group => "the floor of a group",
        TierBasis::Listener => "by the listener",
        TierBasis::Repository => "by the repository",
        TierBasis::Session => "what the session was narrowed to",
        TierBasis::Unattributed => "no repository known (tiers.unattributed)",
    }
}

fn category(explanation: &Explanation) -> String {
    let decision = &explanation.decision;
    let from = match &*explanation.category_from {
        "" => "nothing says one".to_owned(),
        from => from.to_owned(),
    };
    let action = decision
        .action
        .map_or("cannot be seen", |action| action.as_str());
    format!("{}   {from} · action {action}", decision.category.as_str())
}

/// Formats `npm publish · package @acme/ui`; `None` if no service is known.
fn request_facts(request_facts: &RequestFacts) -> Option<String> {
    let service = request_facts.service.as_deref()?;
    let mut text = format!(
        "{service} {}",
        request_facts.operation.as_deref().unwrap_or("?")
    );
    let parts = [
        ("repository", &request_facts.repository),
        ("package", &request_facts.package),
        ("version", &request_facts.version),
    ];
    for (word, part) in parts {
        if let Some(part) = part {
            let _ = write!(text, " · {word} {part}");
        }
    }
    Some(text)
}

fn request_facts_as_json(request_facts: &RequestFacts) -> Value {
    json!({
        "service": request_facts.service,
        "operation": request_facts.operation,
        "action": request_facts.action,
        "repository": request_facts.repository,
        "package": request_facts.package,
        "version": request_facts.version,
        "server": request_facts.mcp.as_ref().and_then(|call| call.server.as_deref()),
    })
}

/// Describes whether TLS is intercepted; `None` if no rule inspects.
fn inspect(inspect: &Inspect) -> Option<String> {
    match inspect {
        Inspect::No => None,
        Inspect::Passed(rule) => Some(format!("not inspected, by rule {rule}")),
        Inspect::Yes => Some("TLS is ended here".to_owned()),
    }
}

/// Formats the number of compared rules, and the nearest ones.
fn rules(explanation: &Explanation) -> Vec<String> {
    let all = explanation.looked_at.len() + explanation.others;
    let matched = explanation
        .looked_at
        .iter()
        .filter(|looked| looked.miss.is_none())
        .count();
    let mut lines = vec![match (matched, explanation.others) {
        (0, _) => format!("{all} looked at, none matches; the nearest:"),
        (_, 0) => format!("{all} looked at:"),
        _ => format!("{all} looked at; the nearest:"),
    }];
    let table: Vec<[String; 3]> = explanation.looked_at.iter().map(columns).collect();
    let width = |at: usize| {
        let column = table.iter().filter_map(|row| row.get(at));
        column.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    lines.extend(
        table
            .iter()
            .map(|[rule, verdict, miss]| format!("{rule:first$}   {verdict:second$}   {miss}")),
    );
    lines
}

fn looked(looked: &Looked) -> String {
    columns(looked).join("   ")
}

/// Returns the rule with its location, its content, and why it does not match.
fn columns(looked: &Looked) -> [String; 3] {
    let miss = looked.miss.as_deref().unwrap_or("matches");
    [
        named(&looked.rule),
        looked.verdict.to_string(),
        miss.to_owned(),
    ]
}
