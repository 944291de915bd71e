//! `path:line` for many places, without reading each text from its start again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::diag::Place;

/// Where the lines of the texts begin that were asked about.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<usize, Vec<usize>>);

impl Lines {
    /// `policy/web.toml:31`, as [`Place`] would write it.
    pub(super) fn locate(&mut self, place: &Place) -> Arc<str> {
        let starts = self
            .0
            .entry(Arc::as_ptr(&place.source).addr())
            .or_insert_with(|| {
                place
                    .source
                    .text
                    .match_indices('\n')
                    .map(|(at, _)| at)
                    .collect()
            });
        let line = starts.partition_point(|newline| *newline < place.span.start) + 1;
        format!("{}:{line}", place.path().display()).into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::diag::Source;

    use super::*;

    #[test]
    fn lines_are_those_that_a_place_says() {
        let text = "one\ntwo\n\nfour";
        let source = Arc::new(Source {
            path: PathBuf::from("a.toml"),
            text: text.into(),
        });
        let mut lines = Lines::default();
        for at in 0..=text.len() {
            let place = Place::new(&source, at..at);
            assert_eq!(*lines.locate(&place), place.to_string(), "{at}");
        }
    }
}
