//! Findings about a configuration or policy text: the error, its place, and the correction.
//!
//! A finding is data; [`render`] draws it in the style of rustc. All findings of a file are shown
//! at once, never only the first.

mod render;
mod words;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use render::render;
pub use words::{clean, closest, cut, did_you_mean, misleads, shell_word};

/// A text with findings: a file, or an embedded default.
#[derive(Debug)]
pub struct Source {
    /// The path, as shown to the reader.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
    /// The offset of each line; computed at the first use, so that a place costs no scan.
    lines: OnceLock<Box<[usize]>>,
}

impl Source {
    /// Creates a source from a text and the path shown to the reader.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
            lines: OnceLock::new(),
        }
    }

    /// The line number (from 1) of the byte at `offset`, and the offset of that line.
    fn line_at(&self, offset: usize) -> (usize, usize) {
        let lines = self.lines.get_or_init(|| {
            let breaks = self
                .text
                .bytes()
                .enumerate()
                .filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0)
                .chain(breaks.map(|(at, _)| at + 1))
                .collect()
        });
        let line = lines.partition_point(|start| *start <= offset);
        (
            line,
            line.checked_sub(1)
                .and_then(|before| lines.get(before))
                .copied()
                .unwrap_or(0),
        )
    }
}

/// A range of bytes in a [`Source`].
#[derive(Clone, Debug)]
pub struct Place {
    /// The text of the range.
    pub source: Arc<Source>,
    /// The range, in bytes.
    pub span: Range<usize>,
}

impl Place {
    /// The range `span` of `source`.
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        Self {
            source: source.clone(),
            span,
        }
    }

    /// The line and column of the start of the place (both from 1, columns in characters).
    pub fn line_column(&self) -> (usize, usize) {
        let (line, start) = self
            .source
            .line_at(self.span.start.min(self.source.text.len()));
        let before = self
            .source
            .text
            .get(start..self.span.start)
            .unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// The path of the text.
    pub fn path(&self) -> &Path {
        &self.source.path
    }
}

/// `path:line`, the form of a rule name in records and refusals.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.path.display(), self.line_column().0)
    }
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// A possible mistake; the file still loads.
    Warning,
    /// The file does not load.
    Error,
}

/// One finding about a text, with a place and a help.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Whether the file still loads.
    pub severity: Severity,
    /// A stable kebab-case name of the kind of finding, e.g. `unknown-key`.
    pub code: &'static str,
    /// The error, in one sentence without a full stop.
    pub message: String,
    /// The place; absent only for findings without a text (a file that cannot be read).
    pub place: Option<Place>,
    /// A description of the text at the place, e.g. `empty label between the dots`.
    pub label: String,
    /// Other places that explain the finding, each with its own label.
    pub related: Vec<(Place, String)>,
    /// The correction.
    pub help: Option<String>,
}

/// Returns the worst finding as one line, with its place; empty if there is none.
pub fn first_error(findings: &[Diagnostic]) -> String {
    let first = findings.iter().max_by_key(|finding| finding.severity);
    first.map_or_else(String::new, |finding| match &finding.place {
        Some(place) => format!("{place}: {}", finding.message),
        None => finding.message.clone(),
    })
}

impl Diagnostic {
    /// An error at `place`.
    pub fn error(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self {
            place: Some(place),
            ..Self::unplaced(code, message)
        }
    }

    /// An error without a place, e.g. a file that cannot be read.
    pub fn unplaced(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            place: None,
            label: String::new(),
            related: Vec::new(),
            help: None,
        }
    }

    /// A warning at `place`.
    pub fn warning(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, place, message)
        }
    }

    /// Sets the description of the text at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the correction.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place that explains this finding.
    #[must_use]
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push((place, label.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_by_line_and_by_column_in_characters() {
        let source = Arc::new(Source::new("a.toml", "one\nzwölf = 1\n\nend"));
        let at = |start| Place::new(&source, start..start + 1).line_column();
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(3), (1, 4));
        assert_eq!(at(4), (2, 1));
        assert_eq!(at(11), (2, 7));
        assert_eq!(at(15), (3, 1));
        assert_eq!(at(18), (4, 3));
        assert_eq!(at(19), (4, 4));
        assert_eq!(at(500).0, 4);
        assert_eq!(Place::new(&source, 4..6).to_string(), "a.toml:2");
    }
}
