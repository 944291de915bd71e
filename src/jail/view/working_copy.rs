//! The folder in which a command writes: the working copy that its working directory is in.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config;

use super::path;

/// The folders in which a command writes.
pub(super) struct WorkingCopy {
    pub(super) folder: PathBuf,
    /// The folder in which git keeps the files of a linked worktree.
    git: Option<PathBuf>,
}

impl WorkingCopy {
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        let folder = std::iter::once(self.folder.as_path());
        folder.chain(self.git.as_deref())
    }
}

/// Returns the nearest git top level at or above a folder that belongs to this user and is below
/// its home; otherwise the folder itself. Both paths are without symbolic links.
pub(super) fn of(directory: &Path, home: Option<&Path>) -> WorkingCopy {
    let user = rustix::process::geteuid().as_raw();
    let top = directory.ancestors().find(|at| at.join(".git").exists());
    let top = top.filter(|top| {
        let owned = top.metadata().is_ok_and(|status| status.uid() == user);
        owned && !home.is_some_and(|home| home.starts_with(top)) && top.parent().is_some()
    });
    let folder = top.unwrap_or(directory).to_owned();
    let git = linked(&folder);
    WorkingCopy { folder, git }
}

/// Returns the common git folder of a linked worktree (git-worktree(1)). A command can write the
/// file `.git`, so the file is trusted only if the worktree's own folder there names this working
/// copy: git wrote that name, outside the working copy.
fn linked(folder: &Path) -> Option<PathBuf> {
    let file = folder.join(".git");
    if !file.symlink_metadata().is_ok_and(|status| status.is_file()) {
        return None;
    }
    let text = config::read(&file).ok()?;
    let own = folder.join(text.trim().strip_prefix("gitdir:")?.trim());
    let own = own.canonicalize().ok()?;
    let back = config::read(&own.join("gitdir")).ok()?;
    // Compared as written: a symbolic link on the path could lead here from another worktree.
    if path::plain(&own.join(back.trim())) != file {
        return None;
    }
    let worktrees = own.parent()?;
    let common = worktrees.parent()?;
    let is_git = ["objects", "refs"]
        .iter()
        .all(|name| common.join(name).is_dir());
    (worktrees.ends_with("worktrees") && is_git).then(|| common.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worktree_counts_only_where_its_git_folder_names_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let own = root.join("main/.git/worktrees/side");
        for part in [
            "main/.git/objects",
            "main/.git/refs",
            "main/.git/worktrees/side",
            "side/src",
        ] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        let side = root.join("side");
        std::fs::write(side.join(".git"), format!("gitdir: {}\n", own.display())).unwrap();
        let all = |at: &Path| {
            let copy = of(at, None);
            copy.all().map(Path::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(all(&side.join("src")), std::slice::from_ref(&side));
        let back = format!("{}\n", side.join(".git").display());
        std::fs::write(own.join("gitdir"), back).unwrap();
        assert_eq!(
            all(&side.join("src")),
            [side.clone(), root.join("main/.git")]
        );
        // git may write the path relative to the worktree's own folder.
        std::fs::write(own.join("gitdir"), "../../../../side/.git\n").unwrap();
        assert_eq!(all(&side).len(), 2);
        // If the home is a repository, it is no working copy of a folder in it.
        assert_eq!(of(&side.join("src"), Some(&side)).folder, side.join("src"));
    }

    #[test]
    fn the_git_folder_of_another_worktree_does_not_count() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::TempDir::new().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let own = root.join("main/.git/worktrees/side");
        for part in [
            "main/.git/objects",
            "main/.git/refs",
            "linked",
            "file",
            "side",
        ] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        std::fs::create_dir_all(&own).unwrap();
        let (side, text) = (
            root.join("side/.git"),
            format!("gitdir: {}\n", own.display()),
        );
        std::fs::write(&side, &text).unwrap();
        std::fs::write(own.join("gitdir"), format!("{}\n", side.display())).unwrap();
        assert_eq!(of(&root.join("side"), None).all().count(), 2);
        // A link to the file, a copy of the file, and a link in its place that leads here.
        symlink(&side, root.join("linked/.git")).unwrap();
        std::fs::write(root.join("file/.git"), &text).unwrap();
        let alone = |name: &str| of(&root.join(name), None).all().count() == 1;
        assert!(alone("linked") && alone("file"));
        std::fs::rename(root.join("side"), root.join("moved")).unwrap();
        symlink(root.join("file"), root.join("side")).unwrap();
        assert!(alone("file") && alone("moved"));
    }
}
