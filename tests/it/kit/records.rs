//! The decision log as a test reads it.

use std::ops::Deref;
use std::path::Path;

use serde_json::Value;

/// One line of the decision log.
#[derive(Clone, Debug)]
pub(crate) struct Line(Value);

impl Line {
    /// A field as text; empty where it is not written.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// A field as a number; panics where it is none.
    #[track_caller]
    pub(crate) fn number(&self, field: &str) -> u64 {
        self.0[field]
            .as_u64()
            .unwrap_or_else(|| panic!("no number `{field}` in {}", self.0))
    }

    /// Whether a field is written.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.0.get(field).is_some_and(|value| !value.is_null())
    }

    /// The same line with another text in a field.
    pub(crate) fn with(&self, field: &str, text: &str) -> Self {
        let mut line = self.clone();
        line.0[field] = text.into();
        line
    }

    /// `event.name`.
    pub(crate) fn name(&self) -> &str {
        self.text("event.name")
    }

    /// `tidegate.flow.id`.
    pub(crate) fn flow(&self) -> &str {
        self.text("tidegate.flow.id")
    }

    /// `tidegate.reason`.
    pub(crate) fn reason(&self) -> &str {
        self.text("tidegate.reason")
    }

    /// `tidegate.verdict`.
    pub(crate) fn verdict(&self) -> &str {
        self.text("tidegate.verdict")
    }

    /// Whether it says what was decided about a flow.
    pub(crate) fn is_decision(&self) -> bool {
        self.name() == "decision"
    }

    /// Whether it says how a flow ended.
    pub(crate) fn is_close(&self) -> bool {
        self.name() == "close"
    }
}

impl Deref for Line {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

/// Every whole line of a log; no file yet is no line.
pub(crate) fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            Line(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        })
        .collect()
}

/// Lines of one log, with questions.
pub(crate) trait Lines {
    /// The lines about one flow.
    fn of(&self, flow: &str) -> Vec<Line>;
    /// The lines with that `event.name`.
    fn named(&self, name: &str) -> Vec<Line>;
}

impl Lines for [Line] {
    fn of(&self, flow: &str) -> Vec<Line> {
        self.iter()
            .filter(|line| line.flow() == flow)
            .cloned()
            .collect()
    }

    fn named(&self, name: &str) -> Vec<Line> {
        self.iter()
            .filter(|line| line.name() == name)
            .cloned()
            .collect()
    }
}
