//! Groups texts by the patterns that match them.

use std::collections::BTreeMap;

use crate::policy::pattern::{Pattern, TooComplex, atoms};

/// How often patterns are compared again because a witness was one of the literal texts.
const MAX_ROUNDS: usize = 4;

/// Returns a text for each class of texts that `key` distinguishes; `key` depends only on which
/// patterns match. All patterns are of one kind. Empty if there are no patterns.
///
/// Each literal pattern costs one evaluation; patterns with `*` are compared with each other.
pub(super) fn classes<K: Ord>(
    patterns: &[&Pattern],
    key: impl Fn(&str) -> K,
) -> Result<Vec<String>, TooComplex> {
    let mut wild: Vec<&Pattern> = Vec::new();
    let mut literals: Vec<&Pattern> = Vec::new();
    for pattern in patterns {
        let list = if pattern.as_str().contains('*') {
            &mut wild
        } else {
            &mut literals
        };
        list.push(pattern);
    }
    if wild.is_empty() {
        let Some(first) = literals.first() else {
            return Ok(Vec::new());
        };
        wild.push(first);
    }
    let mut found = atoms(&wild)?;
    for _ in 0..MAX_ROUNDS {
        let named = |text: &str| literals.iter().find(|it| it.matches(text));
        let hidden: Vec<&Pattern> = found
            .iter()
            .filter_map(|atom| named(&atom.witness))
            .filter(|it| !wild.contains(*it))
            .copied()
            .collect();
        if hidden.is_empty() {
            break;
        }
        wild.extend(hidden);
        found = atoms(&wild)?;
    }
    let witnesses: Vec<String> = found.into_iter().map(|atom| atom.witness).collect();
    let texts = literals.iter().map(|literal| literal.as_str().to_owned());
    Ok(distinct(texts.chain(examples(&wild)).chain(witnesses), key))
}

/// Returns readable texts that patterns match: `x@acme.example` for `*@acme.example`.
fn examples<'p>(patterns: &'p [&Pattern]) -> impl Iterator<Item = String> + 'p {
    let example = |pattern: &&Pattern| {
        let text = pattern.as_str().replace("**", "x").replace('*', "x");
        pattern.matches(&text).then_some(text)
    };
    patterns.iter().filter_map(example)
}

fn distinct<K: Ord>(texts: impl Iterator<Item = String>, key: impl Fn(&str) -> K) -> Vec<String> {
    let mut classes: BTreeMap<K, (usize, String)> = BTreeMap::new();
    for (order, text) in texts.enumerate() {
        classes.entry(key(&text)).or_insert((order, text));
    }
    let mut found: Vec<(usize, String)> = classes.into_values().collect();
    found.sort_unstable();
    found.into_iter().map(|(_, text)| text).collect()
}
