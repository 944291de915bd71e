//! The folder in which a command writes: the working copy that its working directory is in.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config;

/// What a command writes in.
pub(super) struct WorkingCopy {
    pub(super) folder: PathBuf,
    /// Where git keeps the files of a linked worktree.
    git: Option<PathBuf>,
}

impl WorkingCopy {
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        let folder = std::iter::once(self.folder.as_path());
        folder.chain(self.git.as_deref())
    }
}

/// The nearest git top level at or above a folder, which belongs to this user and is below its
/// home; else the folder itself. Both without symbolic links.
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

/// The common git folder of a linked worktree (git-worktree(1)). The file `.git` can be written by
/// a command, so it only counts where the worktree's own folder there names this working copy:
/// git wrote that, outside the working copy.
fn linked(folder: &Path) -> Option<PathBuf> {
    let file = folder.join(".git");
    if !file.is_file() {
        return None;
    }
    let text = config::read(&file).ok()?;
    let own = folder.join(text.trim().strip_prefix("gitdir:")?.trim());
    let own = own.canonicalize().ok()?;
    let back = config::read(&own.join("gitdir")).ok()?;
    if Path::new(back.trim()).canonicalize().ok()? != file.canonicalize().ok()? {
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
        // A home that is a repository is no working copy of a folder in it.
        assert_eq!(of(&side.join("src"), Some(&side)).folder, side.join("src"));
    }
}
