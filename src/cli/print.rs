//! Standard output and standard error of the commands.

use std::io::{self, Write};

use serde::Serialize;

/// Maximum width of a line for people, in characters.
pub(super) const WIDTH: usize = 100;

/// Writes the result. A closed reader (`| head`) is no error.
pub(super) fn out(text: &str) {
    write(&mut io::stdout().lock(), text);
}

/// Writes a message about the result.
pub(super) fn err(text: &str) {
    write(&mut io::stderr().lock(), text);
}

/// Writes one JSON document.
pub(super) fn json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| "null".to_owned());
    out(&format!("{text}\n"));
}

pub(super) use crate::app::{colour, colour_of_output};

/// Returns an untrusted text without control or invisible characters (they could draw another
/// answer on a terminal), at most `longest` characters.
pub(super) fn clean(text: &str, longest: usize) -> String {
    let plain = |letter: char| match letter {
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}' => '?',
        letter if letter.is_control() => '?',
        letter => letter,
    };
    cut(&text.chars().map(plain).collect::<String>(), longest)
}

/// Truncates a text to `longest` characters; an ellipsis stands for the rest.
pub(super) fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars()
        .take(longest.saturating_sub(1))
        .chain(std::iter::once('…'))
        .collect()
}

fn write(to: &mut impl Write, text: &str) {
    // The output is closed: there is no other place for a message.
    let _ = to.write_all(text.as_bytes());
    let _ = to.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_cannot_draw_on_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\r\n\u{202e}c", 20), "a?[2Jb???c");
    }

    #[test]
    fn a_long_text_is_cut_visibly() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("äöü", 3), "äöü");
    }
}
