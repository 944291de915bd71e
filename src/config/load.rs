//! Files to sections: includes in order, all findings at once, digests.

use std::io;
use std::path::Path;

use crate::diag::Diagnostic;

use super::Config;

/// Reads a file; errors name the path.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads files")]
pub fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Loads a file and what it includes. Errors mean no configuration; warnings come with one.
pub fn load(_path: &Path) -> (Option<Config>, Vec<Diagnostic>) {
    todo!()
}

/// As [`load`], from a text that need not exist as a file; includes are relative to `path`.
pub fn load_text(_path: &Path, _text: &str) -> (Option<Config>, Vec<Diagnostic>) {
    todo!()
}

/// The configuration of a gate that was given none: the embedded default.
pub fn embedded() -> Config {
    todo!()
}
