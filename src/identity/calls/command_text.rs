//! Texts of commands, compared however they were quoted on the way, and where they are found.

use std::fs::File;
use std::io::Read;

/// Bytes of a command line that are compared. An agent writes the variables of its session before the
/// command: one argument may have 128 KiB.
const MAX_COMMAND_LINE: usize = 256 * 1024;
/// Letters of a command that are kept.
const MAX_COMMAND: usize = 32 * 1024;
/// Characters of a text that can tell one command from another.
const MIN_TEXT: usize = 4;

/// The letters of a reported command that are kept, as [`bare`] text.
pub(super) fn kept(command: &str) -> String {
    bare(command).chars().take(MAX_COMMAND).collect()
}

/// A command line without blanks and without what shells quote with: however it was quoted on the
/// way, it reads the same.
pub(super) fn bare(text: &str) -> String {
    let plain =
        |letter: &char| !letter.is_whitespace() && !matches!(letter, '\'' | '"' | '\\' | '\0');
    let letters = text.chars().take(MAX_COMMAND_LINE);
    letters.filter(plain).collect()
}

/// Whether one of two bare texts is a part of the other.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    holds(one, other) || holds(other, one)
}

/// Whether a bare text is a part of another.
pub(super) fn holds(whole: &str, part: &str) -> bool {
    part.len() >= MIN_TEXT && whole.contains(part)
}

/// Whether a bare text is the end of another.
pub(super) fn is_end_of(text: &str, whole: &str) -> bool {
    text.len() >= MIN_TEXT && whole.ends_with(text)
}

/// The process id of a shell that a span begins with, as the shell itself sees it.
pub(super) fn shell_number(span: &str) -> Option<u32> {
    u32::from_str_radix(span.get(..8)?, 16).ok()
}

/// The command line of a process, as it is.
pub(super) fn command_line(pid: u32) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    let mut line = Vec::new();
    file.take(MAX_COMMAND_LINE as u64)
        .read_to_end(&mut line)
        .ok()?;
    (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}
