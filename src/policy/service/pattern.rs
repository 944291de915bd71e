//! Patterns over the segments of a path that capture names.
//!
//! | written | matches |
//! |---|---|
//! | `name` | that segment |
//! | `*`, `v*`, `*.json` | one segment, with that beginning and end |
//! | `{package}`, `{file}.whl` | the same, captured |
//! | `{package=@*/*}` | segments, captured together |
//! | `**` | any number of segments, also none |
//! | `{repository=**}` | one or more, captured together |
//! | `{package}-{version}.tgz` after `{package}` | the last part of what was captured, then the rest |
//!
//! At most one of the two forms for several segments is allowed, so that a match is unambiguous.

use std::borrow::Cow;
use std::ops::Range;

use super::fields::{Field, Fields};

/// A pattern over a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Pattern {
    pub(super) pieces: Box<[Piece]>,
    /// Captures of whole pieces.
    pub(super) groups: Box<[(Field, Range<usize>)]>,
    /// The number of pieces that match one segment.
    single: usize,
    /// The minimum number of segments of the piece for several segments, if there is one.
    many: Option<usize>,
}

/// A canonical path without its query, with the number of its segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segments<'a> {
    /// The path without its first slash.
    inside: &'a str,
    count: usize,
}

impl<'a> Segments<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        let inside = path.strip_prefix('/').unwrap_or_default();
        let count = inside.bytes().filter(|byte| *byte == b'/').count() + 1;
        Self { inside, count }
    }
}

/// One segment of a path, or any number of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Piece {
    One(Segment),
    Many,
}

/// A text with at most one hole in it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Segment {
    /// Begins with the last part of the earlier capture.
    pub(super) same: Option<Field>,
    pub(super) prefix: Box<str>,
    pub(super) hole: Option<Hole>,
    pub(super) suffix: Box<str>,
}

/// The variable part of a segment: it matches any text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hole {
    Any,
    Into(Field),
}

impl Pattern {
    /// Parses a pattern; the error has no full stop.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let inside = text.strip_prefix('/').ok_or("a path begins with `/`")?;
        let (mut pieces, mut groups, mut many) = (Vec::new(), Vec::new(), None);
        for part in split_outside_braces(inside) {
            let (field, forms) = match group(part)? {
                Some((field, forms)) => (Some(field), forms),
                None => (None, part),
            };
            let start = pieces.len();
            for form in forms.split('/') {
                if form == "**" {
                    if many.replace(usize::from(field.is_some())).is_some() {
                        return Err("`**` may occur only once".into());
                    }
                    pieces.push(Piece::Many);
                } else {
                    pieces.push(Piece::One(Segment::parse(form)?));
                }
            }
            groups.extend(field.map(|field| (field, start..pieces.len())));
        }
        Ok(Self {
            single: pieces.len() - usize::from(many.is_some()),
            pieces: pieces.into(),
            groups: groups.into(),
            many,
        })
    }

    /// Returns the captured names, if the path matches.
    pub(super) fn matches<'a>(&self, path: &Segments<'a>) -> Option<Fields<'a>> {
        let several = path.count.checked_sub(self.single)?;
        if several < self.many.unwrap_or(0) || (self.many.is_none() && several > 0) {
            return None;
        }
        let inside = path.inside;
        let mut fields = Fields::default();
        let mut opened = [0; 4];
        let mut at = 0;
        for (place, piece) in self.pieces.iter().enumerate() {
            self.open(place, at, &mut opened);
            let taken = if matches!(piece, Piece::Many) {
                several
            } else {
                1
            };
            let rest = inside.get(at..)?;
            let end = at + length_of(rest, taken);
            if let Piece::One(segment) = piece {
                segment.matches(inside.get(at..end)?, &mut fields)?;
            }
            self.close(place, inside, end, &opened, &mut fields)?;
            // After the slash; no segment was consumed if the piece matched none.
            at = if taken == 0 {
                at
            } else {
                (end + 1).min(inside.len())
            };
        }
        Some(fields)
    }

    /// Records the start of the captures that begin with a piece.
    fn open(&self, place: usize, at: usize, opened: &mut [usize; 4]) {
        for ((_, range), start) in self.groups.iter().zip(opened) {
            if range.start == place {
                *start = at;
            }
        }
    }

    /// Stores the captures that end with a piece. `None` if a capture of several segments has an
    /// escaped slash, so that servers disagree about its segments.
    fn close<'a>(
        &self,
        place: usize,
        inside: &'a str,
        end: usize,
        opened: &[usize; 4],
        fields: &mut Fields<'a>,
    ) -> Option<()> {
        for ((field, range), start) in self.groups.iter().zip(opened) {
            if range.end == place + 1 {
                let text = inside.get(*start..end).unwrap_or_default();
                if text.contains("%2F") {
                    return None;
                }
                fields.set(*field, Cow::Borrowed(text));
            }
        }
        Some(())
    }

    /// Whether the pattern matches any path with a certain prefix.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.pieces.last(), Some(Piece::Many))
    }
}

/// Returns the length of `segments` segments, with the slashes between them.
fn length_of(text: &str, segments: usize) -> usize {
    if segments == 0 {
        return 0;
    }
    let mut slashes = text.match_indices('/');
    slashes
        .nth(segments - 1)
        .map_or(text.len(), |(slash, _)| slash)
}

/// Parses `{field=forms}` into field and forms.
fn group(part: &str) -> Result<Option<(Field, &str)>, String> {
    let inside = part
        .strip_prefix('{')
        .and_then(|part| part.strip_suffix('}'));
    let Some((name, forms)) = inside.and_then(|inside| inside.split_once('=')) else {
        return Ok(None);
    };
    let field = Field::from_word(name).ok_or_else(|| format!("`{name}` is nothing to capture"))?;
    Ok(Some((field, forms)))
}

/// Splits at slashes outside braces.
fn split_outside_braces(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    text.split(move |character| {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == '/' && depth == 0
    })
}

impl Segment {
    /// Parses a text with at most one hole: `*` or `{field}`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (same, text) = match text.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((name, rest)) if rest.contains('{') => (Some(field(name)?), rest),
            _ => (None, text),
        };
        let bare = |text: &str| {
            if text.contains(['*', '{', '}', '?', '#', '%']) {
                return Err(format!(
                    "`{text}`: a second hole, or no character of a path"
                ));
            }
            Ok(Box::from(text))
        };
        let (prefix, hole, suffix) = if let Some((prefix, rest)) = text.split_once('{') {
            let (name, suffix) = rest.split_once('}').ok_or("`{` without `}`")?;
            (prefix, Some(Hole::Into(field(name)?)), suffix)
        } else if let Some((prefix, suffix)) = text.split_once('*') {
            (prefix, Some(Hole::Any), suffix)
        } else {
            (text, None, "")
        };
        Ok(Self {
            same,
            prefix: bare(prefix)?,
            hole,
            suffix: bare(suffix)?,
        })
    }

    /// Whether one segment matches; a hole matches at least one character.
    pub(super) fn matches<'a>(&self, text: &'a str, fields: &mut Fields<'a>) -> Option<()> {
        let text = match self.same {
            Some(field) => text.strip_prefix(last_part(fields.get(field)?))?,
            None => text,
        };
        let middle = strip_start(text, &self.prefix)?;
        let middle = middle.strip_suffix(&*self.suffix)?;
        match self.hole {
            None => middle.is_empty(),
            Some(Hole::Any) => !middle.is_empty(),
            Some(Hole::Into(field)) => {
                fields.set(field, Cow::Borrowed(middle));
                !middle.is_empty()
            }
        }
        .then_some(())
    }

    /// Whether the pattern matches exactly one text.
    pub(super) fn is_exact(&self) -> bool {
        self.hole.is_none()
    }
}

/// Removes a prefix; its `@` may be escaped, as some clients of npm do.
fn strip_start<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let escaped = || {
        text.strip_prefix("%40")?
            .strip_prefix(prefix.strip_prefix('@')?)
    };
    text.strip_prefix(prefix).or_else(escaped)
}

fn field(name: &str) -> Result<Field, String> {
    Field::from_word(name).ok_or_else(|| format!("`{name}` is nothing to capture"))
}

/// Returns the name without its scope: `ui` of `@acme/ui`.
pub(super) fn last_part(text: &str) -> &str {
    let text = text.rsplit('/').next().unwrap_or(text);
    text.rsplit("%2F").next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pattern: &str, path: &str) -> Option<String> {
        let fields = Pattern::parse(pattern)
            .unwrap()
            .matches(&Segments::of(path))?;
        let named = Field::ALL
            .iter()
            .filter_map(|(word, field)| fields.get(*field).map(|text| format!("{word}={text}")));
        Some(named.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn captures_are_what_the_path_names() {
        for (pattern, path, expected) in [
            ("/a/b", "/a/b", ""),
            ("/{package}", "/lodash", "package=lodash"),
            ("/{package}", "/@acme%2Fui", "package=@acme%2Fui"),
            ("/{package=@*/*}", "/@acme/ui", "package=@acme/ui"),
            (
                "/{package}/-/{package}-{version}.tgz",
                "/ui/-/ui-1.2.3-rc.1.tgz",
                "package=ui version=1.2.3-rc.1",
            ),
            (
                "/{package=@*/*}/-/{package}-{version}.tgz",
                "/@acme/ui/-/ui-1.0.0.tgz",
                "package=@acme/ui version=1.0.0",
            ),
            (
                "/{package}/-/{package}-{version}.tgz",
                "/@acme%2Fui/-/ui-1.0.0.tgz",
                "package=@acme%2Fui version=1.0.0",
            ),
            (
                "/v2/{repository=**}/manifests/{version}",
                "/v2/a/b/c/manifests/latest",
                "repository=a/b/c version=latest",
            ),
            (
                "/{repository=**}/info/refs",
                "/a/b.git/info/refs",
                "repository=a/b.git",
            ),
            (
                "/repos/{repository=*/*}/issues/**",
                "/repos/acme/app/issues",
                "repository=acme/app",
            ),
            (
                "/repos/{repository=*/*}/issues/**",
                "/repos/acme/app/issues/1/comments",
                "repository=acme/app",
            ),
            ("/**", "/", ""),
            ("/a/**", "/a", ""),
            ("/a/**/z", "/a/z", ""),
            ("/m/*:invoke", "/m/x:invoke", ""),
            ("/m/*/invoke", "/m/arn:x%2Fy/invoke", ""),
            ("/p/{repository}/x", "/p/a%2Fb/x", "repository=a%2Fb"),
        ] {
            assert_eq!(
                captured(pattern, path).as_deref(),
                Some(expected),
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn what_does_not_match_is_not_captured() {
        for (pattern, path) in [
            ("/a/b", "/a/b/"),
            ("/a/b", "/A/b"),
            ("/a/b", "/a"),
            ("/{package}", "/"),
            ("/{package}", "/a/b"),
            ("/{package=@*/*}", "/acme/ui"),
            ("/{package=@*/*}", "/@acme/"),
            (
                "/{package}/-/{package}-{version}.tgz",
                "/ui/-/evil-1.0.0.tgz",
            ),
            ("/{package}/-/{package}-{version}.tgz", "/ui/-/ui-.tgz"),
            ("/{repository=**}/info/refs", "/info/refs"),
            ("/repos/{repository=*/*}/issues/**", "/repos/acme/issues"),
            ("/a/**/z", "/a/z/y"),
            (
                "/repos/{repository=*/*}/issues/**",
                "/repos/acme%2Fa/b/issues",
            ),
            ("/{repository=**}/info/refs", "/acme%2Fapp/info/refs"),
        ] {
            assert_eq!(captured(pattern, path), None, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "a",
            "/{thing}",
            "/{package",
            "/**/a/**",
            "/{package}{version}*",
            "/a?b",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
