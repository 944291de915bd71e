//! Files that a command must neither see nor change, and the paths that lead to them.

use std::path::{Path, PathBuf};

use super::path::Way;

/// Files of the gate on this system. A file that does not exist yet counts as well: the next run
/// would read what the command wrote there.
pub(super) struct Hidden {
    /// The files without symbolic links: they and their folders do not exist in the jail.
    pub(super) files: Vec<PathBuf>,
    /// Programs that the gate starts, without symbolic links: visible, but not writable.
    programs: Vec<PathBuf>,
    /// Every name on the path to one of the files.
    passed: Vec<Passed>,
}

/// A name on the path to a file: a command that can replace the name chooses the target of the
/// path.
struct Passed {
    at: PathBuf,
    file: PathBuf,
}

impl Hidden {
    pub(super) fn of(hide: &[PathBuf], programs: &[PathBuf]) -> Self {
        let mut passed = Vec::new();
        let mut all = |paths: &[PathBuf]| -> Vec<PathBuf> {
            let paths = paths.iter();
            paths.filter_map(|path| follow(path, &mut passed)).collect()
        };
        let (files, programs) = (all(hide), all(programs));
        Self {
            files,
            programs,
            passed,
        }
    }

    /// Returns the folders of the files.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let folder = |path: &PathBuf| {
            if path.is_dir() {
                Some(path.clone())
            } else {
                path.parent().map(Path::to_owned)
            }
        };
        let mut folders: Vec<PathBuf> = self.files.iter().filter_map(folder).collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    /// Checks that no file lies in a folder that the command sees whole. If the command may write
    /// in the folder, no path may lead through it, and no program may lie in it.
    pub(super) fn keep_apart(
        &self,
        folder: &Path,
        is_written: bool,
        name: &str,
    ) -> Result<(), String> {
        let programs = self.programs.iter().filter(|_| is_written);
        let mut kept = self.files.iter().chain(programs);
        if let Some(file) = kept.find(|file| file.starts_with(folder)) {
            return Err(format!(
                "{} lies in {name} ({}), where the command could read or change it: move it \
                 outside, e.g. to ~/.config/tidegate/, and name it with --config",
                file.display(),
                folder.display()
            ));
        }
        let mut passed = self.passed.iter().filter(|_| is_written);
        match passed.find(|it| it.at.starts_with(folder) && it.at != folder) {
            None => Ok(()),
            Some(Passed { at, file }) => Err(format!(
                "the way to {} leads through {}, which lies in {name} ({}), where the command \
                 could make it lead elsewhere: name the file by its path ({})",
                file.display(),
                at.display(),
                folder.display(),
                file.display()
            )),
        }
    }
}

/// Returns the real path of a file, which may not exist yet; adds every name on the path.
fn follow(path: &Path, passed: &mut Vec<Passed>) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let way: Vec<PathBuf> = Way::of(&path).map(|(at, _)| at).collect();
    let file = path.canonicalize().ok().or_else(|| way.last().cloned())?;
    passed.extend(way.into_iter().map(|at| Passed {
        at,
        file: file.clone(),
    }));
    Some(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_leads_to_a_file_is_kept_apart_and_so_is_a_file_that_is_not_there_yet() {
        let folder = tempfile::TempDir::new().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for part in ["web/sub", "gate", "links", "bin"] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        std::fs::write(root.join("gate/t.toml"), "").unwrap();
        std::fs::write(root.join("bin/token"), "").unwrap();
        symlink("../gate/t.toml", root.join("web/t.toml")).unwrap();
        symlink("../gate", root.join("web/current")).unwrap();
        symlink("../web/current", root.join("links/gate")).unwrap();
        let refused = |hide: &str, program: Option<&str>, folder: &str, is_written: bool| {
            let programs: Vec<_> = program.iter().map(|name| root.join(name)).collect();
            let hidden = Hidden::of(&[root.join(hide)], &programs);
            let kept = hidden.keep_apart(&root.join(folder), is_written, "it");
            kept.is_err()
        };
        assert!(!refused("gate/t.toml", None, "web", true));
        for way in [
            "web/t.toml",
            "web/current/t.toml",
            "links/gate/t.toml",
            "web/sub/../../gate/t.toml",
            "web/none/t.toml",
        ] {
            assert!(refused(way, None, "web", true), "{way}");
        }
        // A command that writes in the folder cannot replace the folder itself.
        assert!(!refused("web/../gate/t.toml", None, "web", true));
        assert!(refused("none/tidegate/t.toml", None, "none", false));
        let program = Some("bin/token");
        assert!(refused("gate/t.toml", program, "bin", true));
        assert!(!refused("gate/t.toml", program, "bin", false));
        let hidden = Hidden::of(&[root.join("none/tidegate/t.toml")], &[]);
        assert_eq!(hidden.folders(), [root.join("none/tidegate")]);
    }
}
