//! Findings about the text of a policy.

use crate::diag::{Diagnostic, Place, Severity, did_you_mean};

/// Findings in the order of their discovery.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Diagnostic>);

impl Findings {
    pub(super) fn push(&mut self, finding: Diagnostic) {
        self.0.push(finding);
    }

    pub(super) fn into_inner(self) -> Vec<Diagnostic> {
        self.0
    }

    pub(super) fn has_errors(&self) -> bool {
        self.0
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }
}

/// Adds an error about a word that is not one of a known few, with the one that may be meant.
pub(super) fn unknown<'a>(
    kind: &'static str,
    place: Place,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Diagnostic {
    let known: Vec<&str> = known.into_iter().collect();
    let help = match known.as_slice() {
        [] => format!("no {kind} is written"),
        known => did_you_mean(word, known),
    };
    Diagnostic::error("unknown-name", place, format!("unknown {kind} `{word}`"))
        .label(format!("no {kind} of that name"))
        .help(help)
}
