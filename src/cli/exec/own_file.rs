//! Files of `exec` that agents load: beside the records, each with a mark that `exec` wrote it.

use std::io;
use std::path::{Path, PathBuf};

use crate::config;
use crate::tls::replace;

/// The mark in each of these files.
pub(in crate::cli) const SIGN: &str = "Written by tidegate";

/// Returns the folder of the records.
pub(super) fn folder(record: Option<&Path>) -> io::Result<PathBuf> {
    let folder = record.and_then(Path::parent);
    let folder = folder.ok_or_else(|| io::Error::other("the gate keeps no records in a file"))?;
    std::path::absolute(folder)
}

/// Writes such a file, over one of an earlier run. Returns `Err` if another file has that name.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let is_ours = match config::read(path) {
        Ok(before) => before.contains(SIGN),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_ours {
        let why = format!(
            "{} is there, and tidegate did not write it: move it away",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    replace(path, text, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_program_is_not_overwritten() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("claude");
        let text = |path| config::read(path).unwrap();
        write(&path, "# Written by tidegate 1", 0o755).unwrap();
        write(&path, "# Written by tidegate 2", 0o755).unwrap();
        assert_eq!(text(&path), "# Written by tidegate 2");
        for other in [&b"#!/bin/sh\n"[..], b"\xff\xfe"] {
            std::fs::write(&path, other).unwrap();
            let error = write(&path, "# Written by tidegate 3", 0o755).unwrap_err();
            assert!(error.to_string().contains("move it away"), "{error}");
        }
    }
}
