//! Requirements on claims, and facts of a caller made from claims: `require`, `claims`.

use std::sync::Arc;

use crate::policy::{Pattern, PatternError, PatternKind};

/// The allowed values of a claim: `a|b*`; `*` matches any text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted(Vec<Pattern>);

impl Wanted {
    /// Parses `a|b*`: patterns with `|` between.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let parts = text.split('|');
        let parsed = parts.map(|part| Pattern::parse(part, PatternKind::Text));
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a value matches one of the patterns.
    pub fn fits(&self, value: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(value))
    }

    /// Whether no value of another owner matches: each pattern is exact, or exact up to a `/`.
    pub(super) fn is_tight(&self) -> bool {
        self.0
            .iter()
            .all(|pattern| match pattern.as_str().split_once('*') {
                None => true,
                Some((before, _)) => before.len() > 1 && before.ends_with('/'),
            })
    }
}

/// A template that makes a text from claims: alternatives, of which the first complete one is used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(Vec<Vec<Piece>>);

/// A part of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// The value of a claim.
    Claim(Arc<str>),
    /// `{@forge}`: the host of the forge that the issuer belongs to.
    Forge,
    /// A literal text.
    Text(Arc<str>),
}

impl Template {
    /// Parses `claim`, `text/{claim}`, `=text` and several of them with `|` between.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let alternatives: Result<Vec<_>, _> = text.split('|').map(alternative).collect();
        alternatives.map(Self)
    }

    /// The alternatives, each in parts.
    pub fn alternatives(&self) -> &[Vec<Piece>] {
        &self.0
    }
}

fn alternative(text: &str) -> Result<Vec<Piece>, &'static str> {
    if let Some(fixed) = text.strip_prefix('=') {
        return Ok(vec![Piece::Text(fixed.into())]);
    }
    if text.is_empty() {
        return Err("a claim has a name");
    }
    if !text.contains(['{', '}']) {
        return Ok(vec![Piece::Claim(text.into())]);
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once('{') {
        let (name, after) = inside.split_once('}').ok_or("`{` is not closed")?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.into()));
        }
        pieces.push(match name {
            "" => return Err("`{}` names no claim"),
            "@forge" => Piece::Forge,
            name => Piece::Claim(name.into()),
        });
        rest = after;
    }
    if rest.contains('}') {
        return Err("`}` closes nothing");
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_one_of_some_texts() {
        let wanted = Wanted::parse("acme/*|other").unwrap();
        assert!(wanted.fits("acme/web") && wanted.fits("other") && wanted.is_tight());
        assert!(!wanted.fits("acme") && !wanted.fits("others") && !wanted.fits(""));
        for loose in ["*", "acme*", "*/web", "/*", "acme/web|*"] {
            assert!(!Wanted::parse(loose).unwrap().is_tight(), "{loose}");
        }
        assert_eq!(Wanted::parse("a||b"), Err(PatternError::Empty));
        let fits = |wanted: &str, value: &str| Wanted::parse(wanted).unwrap().fits(value);
        assert!(fits("a*b*c", "axxbyyc") && !fits("a*b*c", "axxc") && !fits("ab*ba", "aba"));
    }

    #[test]
    fn templates_are_names_or_texts_with_names() {
        let claim = |name: &str| Piece::Claim(name.into());
        let parsed = Template::parse("{@forge}/{repository}|a.b|=x").unwrap();
        assert_eq!(
            parsed.alternatives(),
            [
                vec![Piece::Forge, Piece::Text("/".into()), claim("repository")],
                vec![claim("a.b")],
                vec![Piece::Text("x".into())],
            ]
        );
        for wrong in ["", "{", "}", "{}", "a|", "{a}}", "a}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }
}
