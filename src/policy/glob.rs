//! Patterns with `*`: over repositories, packages, refs, tools, operations.

/// A pattern: `*` is any run without `/`, `**` any run at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Glob {
    pattern: Box<[u8]>,
    case: Case,
}

/// Whether letters of different case are the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Case {
    /// As forges compare the names of repositories (ASCII only).
    Ignored,
    Kept,
}

impl Glob {
    /// A pattern as it was written; the error says what is wrong with it.
    pub(super) fn parse(text: &str, case: Case) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("an empty pattern");
        }
        let sound = |byte: u8| byte.is_ascii_graphic() || byte >= 0x80;
        if !text.bytes().all(sound) {
            return Err("a blank or control character");
        }
        let pattern = match case {
            Case::Ignored => text.to_ascii_lowercase(),
            Case::Kept => text.to_owned(),
        };
        Ok(Self {
            pattern: pattern.into_bytes().into(),
            case,
        })
    }

    /// A pattern over words that have no segments: `*` is any run at all.
    pub(super) fn parse_word(text: &str, case: Case) -> Result<Self, &'static str> {
        let mut whole = text.replace('*', "**");
        while whole.contains("***") {
            whole = whole.replace("***", "**");
        }
        Self::parse(&whole, case)
    }

    /// A pattern over the names of users, claims and certificates: `*` at either end is any run of
    /// characters.
    pub(super) fn parse_text(text: &str) -> Result<Self, &'static str> {
        let inner = text.strip_prefix('*').unwrap_or(text);
        let inner = inner.strip_suffix('*').unwrap_or(inner);
        if text.is_empty() {
            return Err("nothing to match");
        }
        if inner.contains('*') {
            return Err("`*` stands only at the beginning and at the end");
        }
        Ok(Self {
            pattern: text.replace('*', "**").into_bytes().into(),
            case: Case::Kept,
        })
    }

    /// Whether the whole text matches.
    pub(super) fn matches(&self, text: &str) -> bool {
        matches(&self.pattern, text.as_bytes(), self.case)
    }
}

/// Matches without recursion. On a mismatch the last `*` takes one byte more (never a `/`), or else
/// the last `**` does; earlier ones need no second chance, as what follows them was found already.
fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut segment: Option<(usize, usize)> = None;
    let mut across: Option<(usize, usize)> = None;
    while next < text.len() || at < pattern.len() {
        let rest = pattern.get(at..).unwrap_or_default();
        if rest.starts_with(b"**") {
            at += 2;
            (across, segment) = (Some((at, next)), None);
            continue;
        }
        if rest.first() == Some(&b'*') {
            at += 1;
            segment = Some((at, next));
            continue;
        }
        let byte = text.get(next).map(|byte| match case {
            Case::Ignored => byte.to_ascii_lowercase(),
            Case::Kept => *byte,
        });
        if byte.is_some() && rest.first() == byte.as_ref() {
            (at, next) = (at + 1, next + 1);
        } else if let Some((after, taken)) = segment
            && text.get(taken).is_some_and(|byte| *byte != b'/')
        {
            (at, next) = (after, taken + 1);
            segment = Some((after, taken + 1));
        } else if let Some((after, taken)) = across
            && taken < text.len()
        {
            (at, next) = (after, taken + 1);
            (across, segment) = (Some((after, taken + 1)), None);
        } else {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_over_words_takes_everything() {
        let matches = |pattern: &str, text: &str| {
            Glob::parse_word(pattern, Case::Kept).unwrap().matches(text)
        };
        assert!(matches("search_*", "search_issues"));
        assert!(matches("*", "files/read"));
        assert!(matches("tools/*", "tools/call"));
        assert!(!matches("search_*", "Search_issues"));
        assert!(!matches("search_*", "research_x"));
    }

    #[test]
    fn case_counts_where_it_does() {
        let glob = |case| Glob::parse("Acme/*", case).unwrap();
        assert!(glob(Case::Ignored).matches("aCME/app"));
        assert!(!glob(Case::Kept).matches("aCME/app"));
    }
}
