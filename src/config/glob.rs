//! `include` patterns: `*` in the last component, nothing else.

use std::io;
use std::path::{Path, PathBuf};

/// Why a pattern names no files.
#[derive(Debug, thiserror::Error)]
pub(super) enum PatternError {
    /// Nothing is written.
    #[error("an empty text names no file")]
    Empty,
    /// A folder of the pattern cannot be listed.
    #[error("its folder cannot be listed: {0}")]
    Folder(#[from] io::Error),
    /// `*` stands for a folder.
    #[error("`*` may stand in the last component only, for files of one folder")]
    StarInFolder,
}

/// Whether a pattern may match no file without that being a mistake.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains('*')
}

/// The files that `pattern` names, relative to `folder`, sorted by name.
///
/// Names that begin with a dot are matched only by a pattern that says so: editors and mounted
/// volumes keep their own files there. A path without `*` is returned whether it exists or not.
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
    let mut names = Vec::new();
    for name in names_in(&folder)? {
        let hidden = name.starts_with('.') && !last.starts_with('.');
        if !hidden && matches(last, &name) && !folder.join(&name).is_dir() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// The names in a folder; none where there is no such folder.
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
        // A name that is no UTF-8 is no name that a pattern could mean.
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// Whether `name` fits `pattern`, in which `*` is any run of characters, also an empty one.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, name) in [
            ("*", "a"),
            ("*.toml", "web.toml"),
            ("10-*.toml", "10-.toml"),
            ("a*b*c", "a-b-b-c"),
            ("**", "a"),
            ("plain", "plain"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.toml", "web.toml.bak"),
            ("a*a", "a"),
            ("a*b*c", "a-c-b"),
            ("plain", "plainer"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

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
        assert!(expand(folder.path(), "absent/*.toml").unwrap().is_empty());
    }

    #[test]
    fn a_star_for_a_folder_is_refused() {
        let refused = |pattern| expand(Path::new(""), pattern).unwrap_err().to_string();
        assert!(refused("*/a.toml").contains("last component"));
        assert!(refused("").contains("empty"));
    }
}
