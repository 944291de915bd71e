//! Proposed trials: tests of the policy, made of recorded flows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::policy::Verdict;

use super::super::edit;
use super::proposal::Proposal;

/// Maximum number of flows of one trial.
const MAX_ENTRIES: usize = 10;

/// Returns the tables. For each rule with a condition on the caller besides the tier, a trial asserts
/// that one such caller still reaches its recorded destinations. For each tier, a trial asserts that
/// the flows which are left denied stay refused.
pub(super) fn trials(proposal: &Proposal<'_>) -> Vec<String> {
    let mut tables: Vec<String> = Vec::new();
    for rule in &proposal.rules {
        let key = &rule.key;
        let has_more = !key.repositories.is_empty() || !key.groups.is_empty();
        let examples = rule.examples();
        if has_more && !examples.is_empty() {
            let name = format!("{} as it was seen", rule.id);
            let mut text = format!("[[trial]]\nname = {}\n{}", edit::quoted(&name), rule.from());
            let _ = writeln!(text, "allows = {}", edit::list(examples));
            tables.push(text);
        }
    }
    let mut refused: BTreeMap<&str, [BTreeSet<&str>; 2]> = BTreeMap::new();
    for (need, seen) in &proposal.left_denied {
        let Some(entry) = seen.entry.as_deref() else {
            continue;
        };
        let [asks, denies] = refused.entry(&need.tier).or_default();
        let entries = match need.now.effect.enforced() {
            Verdict::Ask => asks,
            _ => denies,
        };
        if entries.len() < MAX_ENTRIES {
            entries.insert(entry);
        }
    }
    tables.extend(refused.into_iter().map(|(tier, [asks, denies])| {
        let name = format!("left denied in {tier}");
        let mut text = format!("[[trial]]\nname = {}\n", edit::quoted(&name));
        let _ = writeln!(text, "from.tiers = {}", edit::list([tier]));
        for (key, entries) in [("asks", asks), ("denies", denies)] {
            if !entries.is_empty() {
                let _ = writeln!(text, "{key} = {}", edit::list(entries));
            }
        }
        text
    }));
    tables
}
