//! What a folder is a working copy of: its repository, branch and commit, from git's own files.
//!
//! Read here and not asked of `git`: a repository's configuration names programs (hooks, file
//! monitors, pagers) that git would run, and who wrote the repository is not known yet. Variables
//! like `GIT_DIR` are not looked at: whoever can set them could claim another repository.

mod origin;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::policy::canonical_repository;

/// Bytes of one of git's files that are looked at.
const LONGEST: u64 = 4 << 20;
/// How far a symbolic reference is followed.
const HOPS: usize = 5;

/// What a folder is a working copy of; what is not known is not said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WorkingCopy {
    /// The clone URL of `origin` without scheme, user and `.git`; of the only remote, where there
    /// is no `origin`.
    pub repository: Option<String>,
    /// The branch that is checked out; `None` where the head is detached.
    pub branch: Option<String>,
    /// The commit, in hex.
    pub commit: Option<String>,
}

/// Reads what the nearest working copy at or above `folder` is of.
pub fn working_copy(folder: &Path) -> WorkingCopy {
    let Ok(folder) = folder.canonicalize() else {
        return WorkingCopy::default();
    };
    let mut folders = folder.ancestors();
    folders
        .find_map(git_folder)
        .map(|git| read(&git))
        .unwrap_or_default()
}

/// Where git keeps its files: a folder, or what a file of a worktree or submodule points to.
fn git_folder(folder: &Path) -> Option<PathBuf> {
    let at = folder.join(".git");
    if at.join("HEAD").is_file() {
        return Some(at);
    }
    if at.is_file() {
        let to = folder.join(text(&at)?.trim().strip_prefix("gitdir:")?.trim());
        return to.join("HEAD").is_file().then_some(to);
    }
    let bare = folder.join("HEAD").is_file() && folder.join("objects").is_dir();
    (bare && folder.join("refs").is_dir()).then(|| folder.to_owned())
}

fn read(git: &Path) -> WorkingCopy {
    let common = common(git);
    let head = text(&git.join("HEAD")).unwrap_or_default();
    let branch = head.trim().strip_prefix("ref:").map(str::trim);
    let url = text(&common.join("config")).and_then(|config| origin::url(&config));
    WorkingCopy {
        repository: url.and_then(|url| canonical_repository(&url)),
        branch: branch
            .and_then(|name| name.strip_prefix("refs/heads/"))
            .filter(|name| sound(name))
            .map(str::to_owned),
        commit: commit(git, &common, &head),
    }
}

/// Where a worktree keeps what it shares with the others.
fn common(git: &Path) -> PathBuf {
    match text(&git.join("commondir")) {
        Some(to) => git.join(to.trim()),
        None => git.to_owned(),
    }
}

/// Follows a head to its commit.
fn commit(git: &Path, common: &Path, head: &str) -> Option<String> {
    let mut at = head.trim().to_owned();
    for _ in 0..HOPS {
        let Some(name) = at.strip_prefix("ref:").map(str::trim) else {
            return is_hash(&at).then_some(at);
        };
        if !sound(name) || !name.starts_with("refs/") {
            return None;
        }
        let loose = [git, common].map(|folder| text(&folder.join(name)));
        at = match loose.into_iter().flatten().next() {
            Some(text) => text.trim().to_owned(),
            None => packed(common, name)?,
        };
    }
    None
}

/// `HASH NAME` in the file of references that are rarely written.
fn packed(common: &Path, name: &str) -> Option<String> {
    let all = text(&common.join("packed-refs"))?;
    let mut lines = all.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(_, known)| *known == name)
        .map(|(hash, _)| hash.to_owned())
}

fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A name that leads nowhere else and draws nothing.
fn sound(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 512
        && !name.chars().any(char::is_control)
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The text of a plain file: nothing that could be waited for, and nothing endless.
fn text(path: &Path) -> Option<String> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn git(folder: &Path, words: &[&str]) -> String {
        let made = Command::new("git")
            .args(["-c", "user.name=Ana", "-c", "user.email=ana@acme.example"])
            .args(["-c", "protocol.file.allow=always"])
            .args(words)
            .current_dir(folder)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git");
        assert!(made.status.success(), "{words:?}: {made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    fn repository(folder: &Path, remote: Option<&str>) -> String {
        git(folder, &["init", "-q", "-b", "main"]);
        git(folder, &["commit", "-q", "--allow-empty", "-m", "First"]);
        if let Some(url) = remote {
            git(folder, &["remote", "add", "origin", url]);
        }
        git(folder, &["rev-parse", "HEAD"])
    }

    #[test]
    fn repository_branch_and_commit_are_git_s() {
        let folder = tempfile::tempdir().unwrap();
        let url = "https://ana:hush@GitHub.example/acme/web.git";
        let commit = repository(folder.path(), Some(url));
        let below = folder.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        let found = working_copy(&below);
        assert_eq!(found.repository.as_deref(), Some("github.example/acme/web"));
        assert_eq!(found.branch.as_deref(), Some("main"));
        assert_eq!(found.commit, Some(commit.clone()));
        git(folder.path(), &["pack-refs", "--all"]);
        assert_eq!(working_copy(&below).commit, Some(commit));
    }

    #[test]
    fn a_detached_head_has_a_commit_and_no_branch() {
        let folder = tempfile::tempdir().unwrap();
        let commit = repository(folder.path(), None);
        git(folder.path(), &["checkout", "-q", "--detach"]);
        let found = working_copy(folder.path());
        assert_eq!((found.branch, found.commit), (None, Some(commit)));
        assert_eq!(found.repository, None);
    }

    #[test]
    fn worktrees_and_submodules_are_read_as_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (web, library) = (folder.path().join("web"), folder.path().join("library"));
        std::fs::create_dir_all(&web).unwrap();
        std::fs::create_dir_all(&library).unwrap();
        let commit = repository(&web, Some("git@forge.example:acme/web.git"));
        repository(&library, Some("https://forge.example/acme/library"));
        git(&web, &["worktree", "add", "-q", "-b", "topic", "../tree"]);
        let found = working_copy(&folder.path().join("tree"));
        assert_eq!(found.repository.as_deref(), Some("forge.example/acme/web"));
        assert_eq!(found.branch.as_deref(), Some("topic"));
        assert_eq!(found.commit, Some(commit));
        let from = library.display().to_string();
        git(&web, &["submodule", "--quiet", "add", &from, "lib"]);
        let url = "https://forge.example/acme/library.git";
        git(&web.join("lib"), &["remote", "set-url", "origin", url]);
        let found = working_copy(&web.join("lib"));
        assert_eq!(
            found.repository.as_deref(),
            Some("forge.example/acme/library")
        );
    }

    #[test]
    fn no_working_copy_is_nothing_and_hostile_files_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(working_copy(folder.path()).repository, None);
        let git = folder.path().join(".git");
        std::fs::create_dir_all(&git).unwrap();
        for head in [
            "ref: refs/heads/../../../etc/passwd",
            "ref: refs/heads/\u{1b}[2J",
            "ref: HEAD",
            "not a hash",
        ] {
            std::fs::write(git.join("HEAD"), head).unwrap();
            let found = working_copy(folder.path());
            assert_eq!((found.branch, found.commit), (None, None), "{head}");
        }
    }
}
