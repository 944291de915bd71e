//! Findings about something that was written: what is wrong, where, and what to write instead.
//!
//! A finding is data; [`render`] draws it the way rustc does. All findings of a file are shown at
//! once, never only the first.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A text that findings can point into: a file, or an embedded default.
#[derive(Debug)]
pub struct Source {
    /// The path as the reader should see it.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
}

/// A range of bytes in a [`Source`].
#[derive(Clone, Debug)]
pub struct Place {
    /// The text pointed into.
    pub source: Arc<Source>,
    /// The bytes pointed at.
    pub span: Range<usize>,
}

impl Place {
    /// Points at `span` in `source`.
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        Self { source: source.clone(), span }
    }

    /// The line and column (both from 1, columns in characters) where the place begins.
    pub fn line_column(&self) -> (usize, usize) {
        let end = self.span.start.min(self.source.text.len());
        let before = self.source.text.get(..end).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        (line, column)
    }

    /// The path of the text.
    pub fn path(&self) -> &Path {
        &self.source.path
    }
}

/// `path:line`, as records and refusals name a rule.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.path.display(), self.line_column().0)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Worth a look; the file still loads.
    Warning,
    /// The file does not load.
    Error,
}

/// One finding about something written, with a place and a help.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Whether the file still loads.
    pub severity: Severity,
    /// A stable kebab-case name of the kind of finding, e.g. `unknown-key`.
    pub code: &'static str,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where; absent only for findings about no text at all (a file that cannot be read).
    pub place: Option<Place>,
    /// What stands at the place, e.g. `empty label between the dots`.
    pub label: String,
    /// Other places that explain it, each with its own label.
    pub related: Vec<(Place, String)>,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at `place`.
    pub fn error(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            place: Some(place),
            label: String::new(),
            related: Vec::new(),
            help: None,
        }
    }

    /// A warning at `place`.
    pub fn warning(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// Says what stands at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at another place that explains this one.
    #[must_use]
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push((place, label.into()));
        self
    }
}

/// Draws findings the way rustc does: file, line, column, text, caret, help. Fits 100 columns.
pub fn render(_findings: &[Diagnostic], _colour: bool) -> String {
    todo!()
}
