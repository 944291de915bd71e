//! What a claim has to be, and what claims make of a caller: `require`, `claims`.

use std::sync::Arc;

/// Texts that a claim has to be one of: `a|b*`; `*` stands for anything.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted(Vec<Arc<str>>);

impl Wanted {
    /// Reads `a|b*`; `None` where a part is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<Arc<str>> = text.split('|').map(Into::into).collect();
        parts
            .iter()
            .all(|part| !part.is_empty())
            .then_some(Self(parts))
    }

    /// Whether a value is one of them.
    pub fn fits(&self, value: &str) -> bool {
        self.0.iter().any(|pattern| glob(pattern, value))
    }

    /// Whether nobody else's value fits: each is whole, or whole up to a `/`.
    pub(super) fn is_tight(&self) -> bool {
        self.0.iter().all(|pattern| match pattern.split_once('*') {
            None => true,
            Some((before, _)) => before.len() > 1 && before.ends_with('/'),
        })
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// How a text is made of claims: alternatives, of which the first that can be made counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(Vec<Vec<Piece>>);

/// A part of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// The value of a claim.
    Claim(Arc<str>),
    /// `{@forge}`: the host of the forge that the issuer belongs to.
    Forge,
    /// As it is.
    Text(Arc<str>),
}

impl Template {
    /// Reads `claim`, `text/{claim}`, `=text` and several of them with `|` between.
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
        assert_eq!(Wanted::parse("a||b"), None);
        assert!(glob("a*b*c", "axxbyyc") && !glob("a*b*c", "axxc") && !glob("ab*ba", "aba"));
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
