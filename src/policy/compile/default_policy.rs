//! The policy of a configuration without policy sections, and policies in one text.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::Source;
use crate::policy::source::{self, Placed};

/// The policy of a configuration without policy sections: `config/default.toml`.
pub fn default_source() -> source::Policy {
    let source = Arc::new(Source::new("built-in/default.toml", DEFAULT));
    parse(&source).unwrap_or_default()
}

const DEFAULT: &str = include_str!("../../../config/default.toml");

/// The sections of a policy in one text, as the embedded default and tests write them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sections {
    tiers: Option<Spanned<source::Tiers>>,
    tier: BTreeMap<Spanned<String>, Spanned<source::Tier>>,
    repository: Vec<Spanned<source::Repository>>,
    group: BTreeMap<Spanned<String>, Spanned<source::Group>>,
    destination: Vec<Spanned<source::Destination>>,
    rule: Vec<Spanned<source::Rule>>,
    exception: Vec<Spanned<source::Exception>>,
    trial: Vec<Spanned<source::Trial>>,
    never: Vec<Spanned<source::Invariant>>,
    always: Vec<Spanned<source::Invariant>>,
    mcp: BTreeMap<Spanned<String>, Spanned<source::Mcp>>,
}

/// Reads a policy from one text.
pub(in crate::policy) fn parse(text: &Arc<Source>) -> Result<source::Policy, toml::de::Error> {
    let sections: Sections = toml::from_str(&text.text)?;
    Ok(source::Policy {
        tiers: sections.tiers.map(|tiers| place(text, tiers)),
        tier: by_name(text, sections.tier),
        repositories: all(text, sections.repository),
        groups: by_name(text, sections.group),
        destinations: all(text, sections.destination),
        rules: all(text, sections.rule),
        exceptions: all(text, sections.exception),
        trials: all(text, sections.trial),
        never: all(text, sections.never),
        always: all(text, sections.always),
        mcp: by_name(text, sections.mcp),
        ..source::Policy::default()
    })
}

fn place<T>(text: &Arc<Source>, value: Spanned<T>) -> Placed<T> {
    Placed {
        source: text.clone(),
        span: value.span(),
        value: value.into_inner(),
    }
}

fn all<T>(text: &Arc<Source>, values: Vec<Spanned<T>>) -> Vec<Placed<T>> {
    values.into_iter().map(|value| place(text, value)).collect()
}

fn by_name<T>(
    text: &Arc<Source>,
    tables: BTreeMap<Spanned<String>, Spanned<T>>,
) -> Vec<(Spanned<String>, Placed<T>)> {
    tables
        .into_iter()
        .map(|(name, table)| (name, place(text, table)))
        .collect()
}
