//! Renders findings as text.

use std::cmp::Ordering;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Place, Severity};

/// Maximum width of the text, in columns.
const WIDTH: usize = 100;
/// Maximum number of characters shown after the marked text in a long line.
const AROUND: usize = 60;
/// Maximum number of characters examined before the marked text.
const BEFORE: usize = 10_000;
/// Maximum number of marked characters.
const CARETS: usize = 60;
/// Places of one text at most this many lines apart share one drawing.
const NEAR: usize = 20;

/// Draws findings the way rustc does: file, line, column, text, caret, help. Fits 100 columns.
///
/// Sorted by file, then by line; findings without a position come first, one line each. The last
/// line counts the findings. Without findings the text is empty.
pub fn render(findings: &[Diagnostic], colour: bool) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<&Diagnostic> = findings.iter().collect();
    sorted.sort_by(|a, b| by_place(a, b));
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let renderer = renderer.term_width(WIDTH);
    let mut drawn = String::new();
    for finding in sorted {
        drawn.push_str(renderer.render(&[group(finding)]).trim_end());
        drawn.push_str(if finding.place.is_some() {
            "\n\n"
        } else {
            "\n"
        });
    }
    drawn.push_str(&count(findings));
    drawn.push('\n');
    drawn
}

fn by_place(a: &Diagnostic, b: &Diagnostic) -> Ordering {
    let key = |finding: &Diagnostic| {
        finding
            .place
            .as_ref()
            .map(|place| (place.source.path.clone(), place.span.start))
    };
    match (&a.place, &b.place) {
        (Some(a), Some(b)) if Arc::ptr_eq(&a.source, &b.source) => a.span.start.cmp(&b.span.start),
        _ => key(a).cmp(&key(b)),
    }
}

/// `2 errors, 1 warning`.
fn count(findings: &[Diagnostic]) -> String {
    let of = |severity, one: &str| {
        let many = findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count();
        match many {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{many} {one}s")),
        }
    };
    let counts = [
        of(Severity::Error, "error"),
        of(Severity::Warning, "warning"),
    ];
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn group(finding: &Diagnostic) -> Group<'_> {
    let (level, word) = match finding.severity {
        Severity::Error => (Level::ERROR, "error"),
        Severity::Warning => (Level::WARNING, "warning"),
    };
    let title = |text: String| level.primary_title(text).id(finding.code);
    let Some(place) = &finding.place else {
        return Group::with_title(title(one_line(finding)));
    };
    let room = WIDTH - word.len() - finding.code.len() - "[]: ".len();
    let mut group = Group::with_title(title(wrap(&finding.message, room)));
    let (elements, notes, gutter) = drawing(finding, place);
    for element in elements {
        group = group.element(element);
    }
    for note in notes {
        let note = wrap(&note, WIDTH - gutter - " = note: ".len());
        group = group.element(Level::NOTE.message(note));
    }
    if let Some(help) = &finding.help {
        let help = wrap(help, WIDTH - gutter - " = help: ".len());
        group = group.element(Level::HELP.message(help));
    }
    group
}

fn one_line(finding: &Diagnostic) -> String {
    match &finding.help {
        Some(help) => format!("{} ({help})", finding.message),
        None => finding.message.clone(),
    }
}

/// Returns the places of a finding with their text, the labels below them, and the width of the
/// line numbers.
fn drawing<'a>(
    finding: &'a Diagnostic,
    place: &'a Place,
) -> (Vec<Element<'a>>, Vec<String>, usize) {
    let first = Line::of(place);
    let related: Vec<(Line<'a>, &Place, &str)> = finding
        .related
        .iter()
        .map(|(place, label)| (Line::of(place), place, label.as_str()))
        .collect();
    let last = related
        .iter()
        .map(|(line, ..)| line.number)
        .fold(first.number, usize::max);
    let gutter = last.to_string().len();

    let mut notes = Vec::new();
    let label = first.room_for(&finding.label, gutter, &mut notes);
    let mut near = vec![(&first, AnnotationKind::Primary, label)];
    let mut far = Vec::new();
    for (line, other, label) in &related {
        let label = line.room_for(label, gutter, &mut notes);
        let beside = Arc::ptr_eq(&other.source, &place.source)
            && line.number.abs_diff(first.number) <= NEAR
            && line.whole
            && first.whole;
        let drawing = if beside { &mut near } else { &mut far };
        drawing.push((line, AnnotationKind::Context, label));
    }
    let mut elements = match near.as_slice() {
        [(line, kind, label)] => line.drawn(*kind, *label),
        several => vec![together(place, several)],
    };
    elements.extend(
        far.iter()
            .flat_map(|(line, kind, label)| line.drawn(*kind, *label)),
    );
    (elements, notes, gutter)
}

/// Draws several lines of a text together.
fn together<'a>(
    place: &'a Place,
    several: &[(&Line<'a>, AnnotationKind, Option<&'a str>)],
) -> Element<'a> {
    let lines = || several.iter().map(|(line, ..)| line);
    let start = lines().map(|line| line.start).min().unwrap_or(0);
    let end = lines()
        .map(|line| line.start + line.text.len())
        .max()
        .unwrap_or(0);
    let number = lines().map(|line| line.number).min().unwrap_or(1);
    let text = place.source.text.get(start..end).unwrap_or_default();
    let path = place.path().to_string_lossy();
    let mut snippet = Snippet::source(text).path(path).line_start(number);
    for (line, kind, label) in several {
        let shift = line.start - start;
        let span = line.span.start + shift..line.span.end + shift;
        snippet = snippet.annotation(kind.span(span).label(*label));
    }
    snippet.into()
}

/// The line in which a place begins, truncated if it is long.
struct Line<'a> {
    number: usize,
    path: &'a Path,
    /// The column in characters, from 1.
    column: usize,
    /// The position of `text` in the whole text.
    start: usize,
    text: &'a str,
    /// The marked part of `text`.
    span: Range<usize>,
    /// Whether the line is shown from its beginning.
    whole: bool,
}

impl<'a> Line<'a> {
    fn of(place: &'a Place) -> Self {
        let whole = place.source.text.as_str();
        let (number, column) = place.line_column();
        let at = floor(whole, place.span.start);
        let (_, begin) = place.source.line_at(at);
        let rest = whole.get(at..).unwrap_or_default();
        let end = at + rest.find('\n').unwrap_or(rest.len());
        let before = whole.get(begin..at).unwrap_or_default();
        let after = whole
            .get(at..end)
            .unwrap_or_default()
            .trim_end_matches('\r');

        let pointed = after.get(..place.span.len()).unwrap_or(after);
        let pointed = first_chars(pointed, CARETS);
        let shown_after = first_chars(after, CARETS + AROUND);
        let shown_before = last_chars(before, BEFORE);
        let start = at - shown_before.len();
        Self {
            number,
            path: place.path(),
            column,
            start,
            text: whole.get(start..at + shown_after.len()).unwrap_or_default(),
            span: shown_before.len()..shown_before.len() + pointed.len(),
            whole: shown_before.len() == before.len(),
        }
    }

    /// Returns the label if it fits beside the carets; otherwise adds it as a note below.
    fn room_for(&self, label: &'a str, gutter: usize, notes: &mut Vec<String>) -> Option<&'a str> {
        let width = |text: Option<&str>| text.unwrap_or_default().chars().count();
        let indent = gutter + " | ".len() + width(self.text.get(..self.span.start));
        let carets = width(self.text.get(self.span.clone())).max(1);
        let fits = indent + carets + 1 + label.chars().count() <= WIDTH;
        if !fits && !label.is_empty() {
            notes.push(label.to_owned());
        }
        Some(label).filter(|label| fits && !label.is_empty())
    }

    /// Draws only this line.
    fn drawn(&self, kind: AnnotationKind, label: Option<&'a str>) -> Vec<Element<'a>> {
        let annotation = kind.span(self.span.clone()).label(label);
        let (path, snippet) = (self.path.to_string_lossy(), Snippet::source(self.text));
        let snippet = snippet.line_start(self.number).annotation(annotation);
        if self.whole {
            return vec![snippet.path(path).into()];
        }
        // The column within a truncated line is not the column in the file.
        let origin = Origin::path(path)
            .line(self.number)
            .char_column(self.column);
        vec![origin.into(), snippet.into()]
    }
}

/// Returns the nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

fn first_chars(text: &str, many: usize) -> &str {
    text.char_indices()
        .nth(many)
        .map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

fn last_chars(text: &str, many: usize) -> &str {
    let begin = text
        .char_indices()
        .rev()
        .nth(many.saturating_sub(1))
        .map_or(0, |(at, _)| at);
    text.get(begin..).unwrap_or(text)
}

/// Wraps a text between words; a text between backticks is one word if it fits. Only the first line
/// is wrapped: later lines are text to copy.
fn wrap(text: &str, width: usize) -> String {
    if let Some((first, rest)) = text.split_once('\n') {
        return format!("{}\n{rest}", wrap(first, width));
    }
    let mut wrapped = String::with_capacity(text.len());
    let mut column = 0;
    for word in words(text) {
        for word in if word.chars().count() > width {
            word.split(' ').collect()
        } else {
            vec![word]
        } {
            let wide = word.chars().count();
            if column > 0 && column + 1 + wide > width {
                wrapped.push('\n');
                column = 0;
            } else if column > 0 {
                wrapped.push(' ');
                column += 1;
            }
            wrapped.push_str(word);
            column += wide;
        }
    }
    wrapped
}

/// Splits at blanks outside backticks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |letter: char| {
        quoted ^= letter == '`';
        !quoted && letter.is_whitespace()
    })
    .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;

    fn place(text: &str, word: &str) -> Place {
        let at = text.find(word).expect("the word is in the text");
        Place::new(
            &Arc::new(Source::new("etc/gate.toml", text)),
            at..at + word.len(),
        )
    }

    #[test]
    fn a_finding_is_drawn_with_place_caret_label_and_help() {
        let finding = Diagnostic::error(
            "unknown-key",
            place("[[rule]]\nhost = []\n", "host"),
            "`host` is not a key of `[[rule]]`",
        )
        .label("not known here")
        .help("did you mean `hosts`?");
        let expected = "\
error[unknown-key]: `host` is not a key of `[[rule]]`
 --> etc/gate.toml:2:1
  |
2 | host = []
  | ^^^^ not known here
  |
  = help: did you mean `hosts`?

1 error
";
        assert_eq!(render(&[finding], false), expected);
    }

    #[test]
    fn findings_about_no_text_come_first_on_a_line_each() {
        let text = Diagnostic::warning("odd", place("a = 1\n", "a"), "odd");
        let file = Diagnostic::unplaced("unreadable", "x.toml: no such file").help("make it");
        let drawn = render(&[text.clone(), file, text], false);
        assert!(
            drawn.starts_with("error[unreadable]: x.toml: no such file (make it)\nwarning[odd]")
        );
        assert!(drawn.ends_with("\n\n1 error, 2 warnings\n"), "{drawn}");
    }

    #[test]
    fn findings_are_sorted_by_line_and_nothing_found_is_no_text() {
        let source = Arc::new(Source::new("a.toml", "a = 1\nb = 2\n"));
        let at = |span| Diagnostic::error("odd", Place::new(&source, span), "odd");
        let drawn = render(&[at(6..7), at(0..1)], false);
        assert!(
            drawn.find("a.toml:1:1") < drawn.find("a.toml:2:1"),
            "{drawn}"
        );
        assert_eq!(render(&[], false), "");
    }

    #[test]
    fn near_related_places_share_a_drawing() {
        let source = Arc::new(Source::new("a.toml", "one = 1\n\n\n\ntwo = 2\n"));
        let drawn = render(
            &[Diagnostic::error("odd", Place::new(&source, 11..14), "odd")
                .label("second")
                .related(Place::new(&source, 0..3), "first")],
            false,
        );
        let expected = "\
error[odd]: odd
 --> a.toml:5:1
  |
1 | one = 1
  | --- first
...
5 | two = 2
  | ^^^ second

1 error
";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn related_places_elsewhere_have_their_own_drawing() {
        let finding = Diagnostic::error("odd", place("one = 1\n", "one"), "odd")
            .label("second")
            .related(place("\n\ntwo = 2\n", "two"), "first");
        let drawn = render(&[finding], false);
        assert!(
            drawn.contains("etc/gate.toml:1:1") && drawn.contains("etc/gate.toml:3:1"),
            "{drawn}"
        );
        assert!(
            drawn.contains("^^^ second") && drawn.contains("--- first"),
            "{drawn}"
        );
    }

    #[test]
    fn nothing_is_wider_than_a_hundred_columns() {
        let long = format!("hosts = [{}]\n", r#""a.example.com", "#.repeat(5_000));
        let source = Arc::new(Source::new("a.toml", long.as_str()));
        let say = "many words that go on and on, ".repeat(10);
        for span in [
            0..5,
            8..long.len() - 1,
            40_000..40_013,
            79_990..80_100,
            long.len()..long.len(),
        ] {
            let finding = Diagnostic::error("odd", Place::new(&source, span), say.as_str())
                .label(say.as_str())
                .help(format!("{say}`printf %s SECRET | sha256sum` {say}"));
            let drawn = render(&[finding], false);
            for line in drawn.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
            assert!(drawn.contains("`printf %s SECRET | sha256sum`"), "{drawn}");
        }
    }

    #[test]
    fn a_place_within_a_character_or_past_the_end_is_drawn_all_the_same() {
        let source = Arc::new(Source::new("a.toml", "ä"));
        for span in [0..1, 1..2, 2..2, 7..9] {
            let finding = Diagnostic::error("odd", Place::new(&source, span), "odd").label("here");
            assert!(render(&[finding], false).contains("here"));
        }
    }

    #[test]
    fn colour_is_there_only_when_asked_for() {
        let finding = Diagnostic::error("odd", place("a = 1\n", "a"), "odd");
        assert!(render(std::slice::from_ref(&finding), true).contains('\u{1b}'));
        assert!(!render(&[finding], false).contains('\u{1b}'));
    }
}
