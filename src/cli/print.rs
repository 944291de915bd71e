//! Standard output and standard error of the commands.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use crate::diag::misleads;

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
    out(&format!("{}\n", escaped(&text)));
}

/// Returns a JSON document with the same meaning, and without characters that mislead a reader: they
/// occur only in its strings.
fn escaped(document: &str) -> String {
    let mut text = String::with_capacity(document.len());
    for character in document.chars() {
        if character == '\n' || !misleads(character) {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

pub(super) use crate::app::{colour, colour_of_output};
pub(super) use crate::diag::{clean, cut};

fn write(to: &mut impl Write, text: &str) {
    // The output is closed: there is no other place for a message.
    let _ = to.write_all(text.as_bytes());
    let _ = to.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_in_json_cannot_draw_on_the_terminal() {
        let value = serde_json::json!({ "a": ["x\x1b[2J\u{9b}2J\u{202e}\u{e0041}\n\"y", 1] });
        let text = serde_json::to_string_pretty(&value).expect("JSON");
        let shown = escaped(&text);
        let misleading = |letter: char| letter != '\n' && misleads(letter);
        assert!(!shown.contains(misleading), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(read, value);
    }
}
