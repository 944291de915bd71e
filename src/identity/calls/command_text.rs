//! Compares command texts independently of their quoting, and reads them.

use std::fs::File;
use std::io::Read;

/// The bytes of a command line that are compared. An agent writes the variables of its session
/// before the command: one argument may have 128 KiB.
const MAX_COMMAND_LINE: usize = 256 * 1024;
/// The characters of a command that are kept.
const MAX_COMMAND: usize = 32 * 1024;
/// The minimum length of a text that distinguishes commands.
const MIN_TEXT: usize = 4;

/// The part of a reported command that is kept, as [`bare`] text.
pub(super) fn kept(command: &str) -> String {
    bare(command).chars().take(MAX_COMMAND).collect()
}

/// A command line without blanks and quoting characters, so that different quoting gives the same
/// text.
pub(super) fn bare(text: &str) -> String {
    let plain =
        |letter: &char| !letter.is_whitespace() && !matches!(letter, '\'' | '"' | '\\' | '\0');
    let letters = text.chars().take(MAX_COMMAND_LINE);
    letters.filter(plain).collect()
}

/// Whether one of two bare texts contains the other.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    holds(one, other) || holds(other, one)
}

/// Whether a bare text contains another.
pub(super) fn holds(whole: &str, part: &str) -> bool {
    part.len() >= MIN_TEXT && whole.contains(part)
}

/// Whether a bare text is the end of another.
pub(super) fn is_end_of(text: &str, whole: &str) -> bool {
    text.len() >= MIN_TEXT && whole.ends_with(text)
}

/// The process id at the start of a span: that of a shell, in the shell's own namespace.
pub(super) fn shell_number(span: &str) -> Option<u32> {
    u32::from_str_radix(span.get(..8)?, 16).ok()
}

/// The command line of a process, unchanged.
pub(super) fn command_line(pid: u32) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    let mut line = Vec::new();
    file.take(MAX_COMMAND_LINE as u64)
        .read_to_end(&mut line)
        .ok()?;
    (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}
