//! Whether the records that a gate left are whole.

use std::path::{Path, PathBuf};

use tidegate::record::{Ending, Flaw, Verifier};

/// The log and the files that it was rotated to, the oldest first.
pub(crate) fn log_files(log: &Path) -> Vec<PathBuf> {
    let mut files = vec![log.to_owned()];
    for number in 1.. {
        let path = PathBuf::from(format!("{}.{number}", log.display()));
        if !path.exists() {
            break;
        }
        files.insert(0, path);
    }
    files
}

/// The first flaw of a log; a gate that was killed leaves an end without a checkpoint.
pub(crate) fn flaw(log: &Path) -> Option<Flaw> {
    let mut verifier = Verifier::new(None);
    for path in log_files(log) {
        let Ok(text) = std::fs::read(path) else {
            continue;
        };
        let whole = text.split_inclusive(|byte| *byte == b'\n');
        for line in whole.filter_map(|line| line.strip_suffix(b"\n")) {
            if let Err(flaw) = verifier.line(line) {
                return Some(flaw);
            }
        }
    }
    let end = verifier.end(Ending::default()).err();
    end.filter(|flaw| !matches!(flaw, Flaw::Unended(_)))
}
