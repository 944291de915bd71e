//! Reports probable mistakes, and names that are invalid or not unique.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::FixedState;
use toml::Spanned;

use crate::diag::{Diagnostic, closest};

use super::compiled::Policy;
use super::findings::Findings;
use super::rule;
use super::source::{self, Placed, Rule};
use super::unseen::Seen;
use super::verdict::Verdict;

/// Compares a compiled policy with its text.
pub(super) fn lint(source: &source::Policy, policy: &Policy, findings: &mut Findings) {
    ids(source, findings);
    twins(source, findings);
    let seen = Seen::new(policy);
    for (rule, compiled) in source.rules.iter().zip(&policy.rules) {
        seen.look(rule, compiled, findings);
        operations(rule, policy, findings);
        grants(rule, compiled, findings);
    }
    empty_tiers(source, policy, findings);
    blind_trust(source, policy, findings);
    unused_groups(source, findings);
    unused_upstreams(source, findings);
}

/// Reports each `[upstream.NAME]` that no flow uses.
fn unused_upstreams(source: &source::Policy, findings: &mut Findings) {
    let granted = |name: &Spanned<String>| {
        let mut rules = source.rules.iter();
        rules.any(|rule| rule.value.grant.upstream.as_ref() == Some(name))
    };
    for (name, upstream) in &source.upstreams {
        let of = &upstream.value;
        if of.hosts.is_empty() && of.categories.is_empty() && !granted(name) {
            let message = format!("upstream `{}` is used by no flow", name.get_ref());
            findings.push(
                Diagnostic::warning("unused-upstream", upstream.at(name), message)
                    .label("has no `hosts` and no `categories`, and no rule grants it")
                    .help("name it in `grant.upstream` of an allow, or leave it out"),
            );
        }
    }
}

/// Checks ids, which occur in records, refusals and on command lines.
fn ids(source: &source::Policy, findings: &mut Findings) {
    let mut seen: HashMap<&str, &Placed<Rule>> = HashMap::new();
    for rule in &source.rules {
        let id = &rule.value.id;
        if let Some(first) = seen.get(id.get_ref().as_str()) {
            findings.push(
                Diagnostic::error(
                    "id-twice",
                    rule.at(id),
                    format!("two rules have the id `{}`", id.get_ref()),
                )
                .label("again here")
                .related(first.at(&first.value.id), "first here")
                .help("an id names one rule in records and refusals"),
            );
        } else {
            seen.insert(id.get_ref(), rule);
        }
        if let Err(label) = sound_id(id.get_ref()) {
            findings.push(
                Diagnostic::error(
                    "bad-id",
                    rule.at(id),
                    format!("`{}` cannot name a rule", id.get_ref()),
                )
                .label(label)
                .help("write letters, digits, `-`, `_` and `.`, at most 64"),
            );
        }
    }
}

fn sound_id(id: &str) -> Result<(), &'static str> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match id {
        "" => Err("empty"),
        "floor" => Err("the floor has that name"),
        _ if id.starts_with("tier.") => Err("lists of tiers have such names"),
        _ if id.len() > 64 => Err("too long"),
        _ if !id.bytes().all(sound) => Err("a character that no id has"),
        _ => Ok(()),
    }
}

/// Reports a rule that repeats an earlier one.
fn twins(source: &source::Policy, findings: &mut Findings) {
    let state = FixedState::default();
    let mut seen: HashMap<u64, Vec<&Placed<Rule>>> = HashMap::new();
    for rule in &source.rules {
        let alike = seen.entry(fingerprint(&rule.value, &state)).or_default();
        if let Some(first) = alike.iter().find(|first| same(&first.value, &rule.value)) {
            findings.push(
                Diagnostic::warning(
                    "same-rule",
                    rule.at(&rule.value.id),
                    format!(
                        "rule `{}` says what rule `{}` says",
                        rule.value.id.get_ref(),
                        first.value.id.get_ref()
                    ),
                )
                .label("never named in a record")
                .related(first.at(&first.value.id), "the first of the two")
                .help("leave one of them out"),
            );
        } else {
            alike.push(rule);
        }
    }
}

fn fingerprint(rule: &Rule, state: &FixedState) -> u64 {
    let mut hasher = state.build_hasher();
    rule.verdict.hash(&mut hasher);
    for host in &rule.to.hosts {
        host.hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether two rules match the same flows and grant the same.
pub(super) fn same(left: &Rule, right: &Rule) -> bool {
    left.verdict == right.verdict
        && left.from == right.from
        && left.to == right.to
        && left.does == right.does
        && left.unless == right.unless
        && left.grant == right.grant
}

/// Reports operations that no service has.
fn operations(rule: &Placed<Rule>, policy: &Policy, findings: &mut Findings) {
    let services = &policy.catalogue.services;
    for word in &rule.value.does.operations {
        let names = || services.names().map(|(name, _)| name);
        if word.get_ref().contains('*') || services.has_operation(word.get_ref()) {
            continue;
        }
        let known: Vec<&str> = names().flat_map(|name| services.operations(name)).collect();
        let help = match closest(word.get_ref(), known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write e.g. `publish` or `push`".into(),
        };
        findings.push(
            Diagnostic::warning(
                "unknown-operation",
                rule.at(word),
                format!("no service has an operation `{}`", word.get_ref()),
            )
            .label("matches only if a body contains this word")
            .help(help),
        );
    }
}

/// Reports grants in a rule that allows nothing.
fn grants(rule: &Placed<Rule>, compiled: &rule::Rule, findings: &mut Findings) {
    if compiled.is_allow() {
        return;
    }
    let grant = &rule.value.grant;
    let on = |flag: &Option<Spanned<bool>>| {
        let flag = flag.as_ref().filter(|flag| *flag.get_ref());
        flag.map(|flag| rule.at(flag))
    };
    let places = [
        (
            "addresses",
            grant.addresses.first().map(|first| rule.at(first)),
        ),
        ("raw", on(&grant.raw)),
        ("upgrade", on(&grant.upgrade)),
        ("upstream", grant.upstream.as_ref().map(|at| rule.at(at))),
    ];
    for (key, place) in places {
        let Some(place) = place else { continue };
        let verdict = compiled.verdict;
        let message = format!("`grant.{key}` has no effect in a rule that says {verdict}");
        findings.push(
            Diagnostic::warning("no-effect", place, message)
                .label("only an allow grants anything")
                .help("leave it out; the rule matches with and without it"),
        );
    }
}

/// Reports a tier in which no flow can pass.
fn empty_tiers(source: &source::Policy, policy: &Policy, findings: &mut Findings) {
    for (name, tier) in &source.tier {
        let Some(id) = policy.tier(name.get_ref()) else {
            continue;
        };
        let passes = |compiled: &rule::Rule| {
            compiled.verdict != Verdict::Deny && compiled.from.tiers & id.bit() != 0
        };
        let denies = policy.tiers.tier(id).default == Verdict::Deny;
        if denies && !policy.rules.iter().any(passes) {
            findings.push(
                Diagnostic::warning(
                    "empty-tier",
                    tier.at(name),
                    format!("nothing can pass in tier `{}`", name.get_ref()),
                )
                .label("denies by default, and nothing allows")
                .help("write e.g. `allow = [\"model-api\", \"auth\"]`"),
            );
        }
    }
}

/// Reports a list that allows reading from unknown hosts, and so lets every tunnel pass.
fn blind_trust(source: &source::Policy, policy: &Policy, findings: &mut Findings) {
    for (name, tier) in &source.tier {
        let opaque = policy
            .tier(name.get_ref())
            .is_some_and(|id| policy.tiers.tier(id).opaque);
        let items = tier.value.allow.iter().flatten();
        for item in items.filter(|item| opaque && item.get_ref().starts_with("unknown:")) {
            findings.push(
                Diagnostic::warning(
                    "blind-trust",
                    tier.at(item),
                    format!("`{}` lets every tunnel pass", item.get_ref()),
                )
                .label("actions are not seen in a tunnel, and `opaque` is `allow`")
                .help("set `opaque = \"deny\"`, or name the hosts that are meant in a rule"),
            );
        }
    }
}

/// Reports a group that has no effect on any caller.
fn unused_groups(source: &source::Policy, findings: &mut Findings) {
    let used = |name: &Spanned<String>| {
        source
            .rules
            .iter()
            .any(|rule| rule.value.from.groups.contains(name))
    };
    let reviews = |name: &Spanned<String>| {
        let tiers = source.tier.iter();
        let mut reviewers = tiers.flat_map(|(_, tier)| tier.value.reviewers.iter().flatten());
        reviewers.any(|it| it.get_ref().strip_prefix("group:") == Some(name.get_ref()))
    };
    for (name, group) in &source.groups {
        if group.value.floor.is_none() && !used(name) && !reviews(name) {
            findings.push(
                Diagnostic::warning(
                    "unused-group",
                    group.at(name),
                    format!("group `{}` makes no difference", name.get_ref()),
                )
                .label("has no `floor`, and no rule names it")
                .help("name it in `groups` of a rule, or leave it out"),
            );
        }
    }
}
