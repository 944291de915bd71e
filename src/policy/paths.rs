//! Path patterns: segments, `*` for one, a trailing `**` for the rest.
//!
//! Why not prefixes or regular expressions: a prefix lets `/repos/x-evil` pass where `/repos/x` was
//! meant, and the difference of two policies could not be told exactly.

use crate::name;

/// A pattern over the segments of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PathPattern {
    segments: Box<[Segment]>,
    rest: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Segment {
    Any,
    Exact(Box<str>),
}

impl PathPattern {
    /// Parses a pattern; the error says what is wrong, without a full stop.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(inside) = text.strip_prefix('/') else {
            return Err("a path begins with `/`".into());
        };
        if text.contains('?') {
            return Err("a query is never matched".into());
        }
        name::Path::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        let (inside, rest) = match inside.strip_suffix("**") {
            Some("") => {
                return Ok(Self {
                    segments: Box::default(),
                    rest: true,
                });
            }
            Some(front) => match front.strip_suffix('/') {
                Some(front) => (front, true),
                None => return Err("`**` stands alone, after a `/`".into()),
            },
            None => (inside, false),
        };
        let segments = inside
            .split('/')
            .map(Segment::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self { segments, rest })
    }

    /// Whether a canonical path, without its query, matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        let Some(inside) = path.strip_prefix('/') else {
            return false;
        };
        let mut found = inside.split('/');
        for segment in &self.segments {
            if !found.next().is_some_and(|text| segment.matches(text)) {
                return false;
            }
        }
        self.rest || found.next().is_none()
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "*" => Ok(Self::Any),
            "**" => Err("`**` stands only at the end".into()),
            _ if text.contains('*') => Err("`*` stands for a whole segment".into()),
            _ => Ok(Self::Exact(text.into())),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => !text.is_empty(),
            Self::Exact(exact) => **exact == *text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn segments_match_whole() {
        assert!(matches("/repos/x", "/repos/x"));
        assert!(!matches("/repos/x", "/repos/x-evil"));
        assert!(!matches("/repos/x", "/repos/x/y"));
        assert!(!matches("/repos/x", "/repos/x/"));
        assert!(!matches("/repos/x", "/repos"));
        assert!(!matches("/repos/x", "/Repos/x"));
    }

    #[test]
    fn a_star_is_one_segment() {
        assert!(matches("/crate/*/docs", "/crate/tokio/docs"));
        assert!(!matches("/crate/*/docs", "/crate/docs"));
        assert!(!matches("/crate/*/docs", "/crate/a/b/docs"));
        assert!(!matches("/crate/*", "/crate/"));
    }

    #[test]
    fn two_stars_are_zero_or_more_segments() {
        assert!(matches("/a/**", "/a"));
        assert!(matches("/a/**", "/a/"));
        assert!(matches("/a/**", "/a/b/c"));
        assert!(!matches("/a/**", "/ab"));
        assert!(matches("/**", "/"));
        assert!(matches("/**", "/anything/at/all"));
    }

    #[test]
    fn a_slash_at_the_end_is_a_segment() {
        assert!(matches("/", "/"));
        assert!(!matches("/", "/a"));
        assert!(matches("/a/", "/a/"));
        assert!(!matches("/a/", "/a"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let error = |text: &str| PathPattern::parse(text).unwrap_err();
        assert_eq!(error("a/b"), "a path begins with `/`");
        assert_eq!(error("/a?b=c"), "a query is never matched");
        assert_eq!(error("/a/**/b"), "`**` stands only at the end");
        assert_eq!(error("/a**"), "`**` stands alone, after a `/`");
        assert_eq!(error("/a*/b"), "`*` stands for a whole segment");
        assert!(PathPattern::parse("/a/../b").is_err());
    }
}
