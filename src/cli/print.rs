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
pub(super) use crate::diag::{clean, cut};

fn write(to: &mut impl Write, text: &str) {
    // The output is closed: there is no other place for a message.
    let _ = to.write_all(text.as_bytes());
    let _ = to.flush();
}
