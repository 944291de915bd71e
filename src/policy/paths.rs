//! Patterns over paths, and the texts as which servers may read one path.
//!
//! Prefixes and regular expressions are not supported: the prefix `/repos/x` would also match
//! `/repos/x-evil`, and the difference of two policies could not be computed exactly.

use super::pattern::{Kind, Pattern, PatternError, Readings};

/// A pattern over the segments of a path: `*` for one or a part of one, `**` for any number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PathPattern {
    exact: Pattern,
    /// The same pattern in the reading of each kind of server.
    readings: [Pattern; Readings::COUNT],
}

impl PathPattern {
    /// Parses a pattern. The error's text is a label without a full stop.
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let exact = Pattern::parse(text, Kind::Path)?;
        let readings = exact.readings();
        Ok(Self { exact, readings })
    }

    /// Whether a canonical path, without its query, matches as written.
    pub(super) fn matches(&self, path: &str) -> bool {
        self.exact.matches(path)
    }

    /// Whether the path matches in the reading of one kind of server.
    pub(super) fn matches_reading(&self, readings: &Readings, server: usize) -> bool {
        let pattern = self.readings.get(server);
        pattern.is_some_and(|pattern| readings.is_matched(pattern, server))
    }

    /// Returns the patterns that can distinguish paths: the text as written, and each reading.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        std::iter::once(&self.exact).chain(&self.readings)
    }
}
