//! `include` patterns: `*` is allowed only in the last component.

use std::io;
use std::path::{Path, PathBuf};

use crate::policy::{Pattern, PatternError as Unreadable, PatternKind};

/// Why a pattern is invalid.
#[derive(Debug, thiserror::Error)]
pub(super) enum PatternError {
    /// The pattern is empty.
    #[error("an empty text names no file")]
    Empty,
    /// A folder of the pattern cannot be listed.
    #[error("its folder cannot be listed: {0}")]
    Folder(#[from] io::Error),
    /// The last component has too many `*`, or is too long.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// `*` is in a folder name.
    #[error("`*` may stand in the last component only, for files of one folder")]
    StarInFolder,
}

/// Whether a pattern may match no file without an error.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains('*')
}

/// Returns the files that `pattern` matches, relative to `folder`, sorted by name.
///
/// A name that begins with a dot needs a pattern that begins with a dot: editors and mounted
/// volumes have such files. A path without `*` is returned whether it exists or not.
pub(super) fn expand(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, PatternError> {
    if pattern.is_empty() {
        return Err(PatternError::Empty);
    }
    if !is_pattern(pattern) {
        return Ok(vec![folder.join(pattern)]);
    }
    let (below, last) = pattern
        .rsplit_once('/')
        .map_or(("", pattern), |(folder, last)| {
            (if folder.is_empty() { "/" } else { folder }, last)
        });
    if is_pattern(below) {
        return Err(PatternError::StarInFolder);
    }
    let folder = folder.join(below);
    let wanted = Pattern::parse(last, PatternKind::Text)?;
    let mut names = Vec::new();
    for name in names_in(&folder)? {
        let hidden = name.starts_with('.') && !last.starts_with('.');
        if !hidden && wanted.matches(&name) && !folder.join(&name).is_dir() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Returns the names in a folder; empty if there is no such folder.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let listed = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let entries = match listed.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        // No pattern can match a name that is not UTF-8.
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_sorted_without_folders_and_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("policy/c.toml")).unwrap();
        for name in ["b.toml", "a.toml", ".a.toml", "a.toml~"] {
            std::fs::write(folder.path().join("policy").join(name), "").unwrap();
        }
        let found = expand(folder.path(), "policy/*.toml").unwrap();
        let policy = folder.path().join("policy");
        assert_eq!(found, [policy.join("a.toml"), policy.join("b.toml")]);
        assert_eq!(
            expand(folder.path(), "policy/.*").unwrap(),
            [policy.join(".a.toml")]
        );
        for (pattern, found) in [
            ("policy/*a*.toml", 1),
            ("policy/a*a*.toml", 0),
            ("policy/*.tom", 0),
            ("policy/**", 3),
        ] {
            let names = expand(folder.path(), pattern).unwrap();
            assert_eq!(names.len(), found, "{pattern} {names:?}");
        }
        assert!(expand(folder.path(), "absent/*.toml").unwrap().is_empty());
    }

    #[test]
    fn a_star_for_a_folder_is_refused() {
        let refused = |pattern| expand(Path::new(""), pattern).unwrap_err().to_string();
        assert!(refused("*/a.toml").contains("last component"));
        assert!(refused("").contains("empty"));
    }
}
