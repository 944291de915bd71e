//! The allowed words of keys.

use crate::policy::action::Action;
use crate::policy::category::Category;
use crate::policy::verdict::{Mode, Verdict};

/// `mode` of a tier.
pub(super) const MODES: [(&str, Mode); 2] =
    [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
/// `verdict`, and `default` of a tier.
pub(super) const VERDICTS: [(&str, Verdict); 3] = [
    ("deny", Verdict::Deny),
    ("ask", Verdict::Ask),
    ("allow", Verdict::Allow),
];
/// `opaque` and `ech` of a tier.
pub(super) const PASSES: [(&str, bool); 2] = [("allow", true), ("deny", false)];

/// Returns the allowed words of a key; none: any text. `table` is the heading of a section, or the
/// name of a table in it.
pub(crate) fn choices(table: &str, key: &str) -> Vec<String> {
    let names = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match (table, key) {
        ("[tier.NAME]", "mode") => names(&MODES.map(|(word, _)| word)),
        ("[tier.NAME]", "opaque" | "ech") => names(&PASSES.map(|(word, _)| word)),
        ("[tier.NAME]", "default") | (_, "verdict") => names(&VERDICTS.map(|(word, _)| word)),
        ("[tier.NAME]", "allow" | "ask" | "deny") => items(),
        ("[tier.NAME]", "inspect") => [
            names(&Category::ALL.map(Category::as_str)),
            vec!["all".to_owned()],
        ]
        .concat(),
        ("does", "actions") => names(&Action::ALL.map(Action::as_str)),
        (_, "categories" | "category") => names(&Category::ALL.map(Category::as_str)),
        _ => Vec::new(),
    }
}

/// `category` and `category:action`.
fn items() -> Vec<String> {
    let of = |category: Category| {
        let actions = Action::ALL.map(|action| format!("{category}:{}", action.as_str()));
        std::iter::once(category.to_string()).chain(actions)
    };
    Category::ALL.into_iter().flat_map(of).collect()
}
