//! Redacts secrets in findings: findings are shown and logged, so a finding in a text with secrets
//! refers to a redacted copy.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::diag::{Diagnostic, Place, Source};

/// The positions of secrets.
#[derive(Debug, Default)]
pub(super) struct Secrets(HashMap<*const Source, Vec<Range<usize>>>);

impl Secrets {
    /// Adds the position of a secret.
    pub(super) fn add(&mut self, source: &Arc<Source>, span: Range<usize>) {
        self.0.entry(Arc::as_ptr(source)).or_default().push(span);
    }

    /// Adds the text after the word `secret` in a text that could not be parsed.
    pub(super) fn add_unparsed(&mut self, source: &Arc<Source>) {
        for (at, word) in source.text.match_indices("secret") {
            let begin = at + word.len();
            let rest = source.text.get(begin..).unwrap_or_default();
            let end = begin + rest.find('\n').unwrap_or(rest.len());
            let value = rest.find('=').map_or(end, |equals| begin + equals + 1);
            if value < end {
                self.add(source, value..end);
            }
        }
    }

    /// Redacts the secrets in the texts of findings.
    pub(super) fn blot(&self, findings: &mut [Diagnostic]) {
        let mut copies: HashMap<*const Source, Arc<Source>> = HashMap::new();
        let mut blot = |place: &mut Place| {
            let source = Arc::as_ptr(&place.source);
            if let Some(spans) = self.0.get(&source) {
                let copy = copies
                    .entry(source)
                    .or_insert_with(|| blotted(&place.source, spans));
                place.source = copy.clone();
            }
        };
        for finding in findings {
            finding.place.iter_mut().for_each(&mut blot);
            finding
                .related
                .iter_mut()
                .for_each(|(place, _)| blot(place));
        }
    }
}

/// Returns a copy with a star for each byte of the spans: all positions stay valid.
fn blotted(source: &Source, spans: &[Range<usize>]) -> Arc<Source> {
    let mut bytes = source.text.clone().into_bytes();
    for span in spans {
        for byte in bytes.get_mut(span.clone()).unwrap_or_default() {
            *byte = if *byte == b'\n' { b'\n' } else { b'*' };
        }
    }
    Arc::new(Source::new(
        source.path.clone(),
        String::from_utf8_lossy(&bytes),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_does_not_show_a_secret() {
        let text = "[[identity.user]]\nname = \"ana\"\nsecret = \"hünter2\"\n";
        let source = Arc::new(Source::new("a.toml", text));
        let begin = text.find("\"hü").unwrap();
        let mut secrets = Secrets::default();
        secrets.add(&source, begin..text.len() - 1);
        let mut findings = [
            Diagnostic::error("odd", Place::new(&source, begin..begin + 5), "odd")
                .related(Place::new(&source, begin..begin + 5), "odd"),
        ];
        secrets.blot(&mut findings);
        let drawn = crate::diag::render(&findings, false);
        assert!(drawn.contains("a.toml:3:10"), "{drawn}");
        assert!(!drawn.contains("nter"), "{drawn}");
    }

    #[test]
    fn an_unparsed_text_hides_what_follows_the_word() {
        let text = "secret = hunter2 secret=\nsecret\nx = 1\nuser = [{ secret = 'é' }]";
        let source = Arc::new(Source::new("a.toml", text));
        let mut secrets = Secrets::default();
        secrets.add_unparsed(&source);
        let mut findings = [Diagnostic::error("odd", Place::new(&source, 0..1), "odd")];
        secrets.blot(&mut findings);
        let copy = &findings[0].place.as_ref().unwrap().source.text;
        assert!(!copy.contains("hunter2") && !copy.contains('é'), "{copy}");
        assert!(copy.contains("x = 1") && copy.len() == text.len(), "{copy}");
    }
}
