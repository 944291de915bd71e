//! Patterns over paths, and the texts as which servers may read one path.
//!
//! Why not prefixes or regular expressions: a prefix lets `/repos/x-evil` pass where `/repos/x` was
//! meant, and the difference of two policies could not be told exactly.

use super::pattern::{Kind, Pattern, PatternError, Readings};

/// A pattern over the segments of a path: `*` for one or a part of one, `**` for any number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PathPattern {
    exact: Pattern,
    /// The same pattern as each kind of server reads it.
    readings: [Pattern; Readings::COUNT],
}

impl PathPattern {
    /// Parses a pattern. `Display` of the error is a label without a full stop.
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let exact = Pattern::parse(text, Kind::Path)?;
        let readings = exact.readings();
        Ok(Self { exact, readings })
    }

    /// Whether a canonical path, without its query, matches as it is written.
    pub(super) fn matches(&self, path: &str) -> bool {
        self.exact.matches(path)
    }

    /// Whether the path matches as one kind of server reads it.
    pub(super) fn matches_reading(&self, readings: &Readings, server: usize) -> bool {
        let pattern = self.readings.get(server);
        pattern.is_some_and(|pattern| readings.is_matched(pattern, server))
    }

    /// What the pattern tells apart: the text as it is written, and each reading.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        std::iter::once(&self.exact).chain(&self.readings)
    }
}
