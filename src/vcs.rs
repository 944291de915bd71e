//! The repository, branch and commit of a working copy, read from git's own files.
//!
//! The gate does not run `git`: a repository's configuration names programs (hooks, file monitors,
//! pagers) that git would start. Variables like `GIT_DIR` are ignored: a process that sets them
//! could claim another repository.
//!
//! An agent may be able to write all of these files, so their content is a claim, not evidence.
//! Files of another user do not count, as in git (`safe.directory`).

mod head;
mod origin;
mod owner;
mod pins;
mod revision;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::policy::canonical_repository;

pub use head::{Head, Readers};
pub use owner::{Foreign, Owners};
pub use pins::{By, Pin, PinError, Pinned, Pins, default_file};
pub use revision::{Commit, Repository, RevisionError};

/// The bytes read of one git file, at most.
const MAX_FILE_SIZE: u64 = 4 << 20;
/// The bytes read of a file `packed-refs`, at most.
const MAX_PACKED_SIZE: u64 = 64 << 20;
/// The files of objects that are checked, at most.
const MAX_STORED: usize = 50_000;
/// The number of symbolic references followed, at most.
const MAX_REF_HOPS: usize = 5;

/// The repository, branch and commit of a folder.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WorkingCopy {
    /// The clone URL of `origin` without scheme, user and `.git`; without `origin`, the URL of the
    /// only remote.
    pub repository: Option<String>,
    /// The branch that is checked out; `None` if the head is detached.
    pub branch: Option<String>,
    /// The commit, in hex.
    pub commit: Option<String>,
    /// The top folder of the working copy, without symbolic links.
    pub top: Option<PathBuf>,
    /// Set if a working copy was found but not read, because another user owns a part of it.
    pub foreign: Option<Foreign>,
}

/// The folders in which git keeps the files of one working copy.
struct GitFolder {
    /// The top folder of the working copy.
    top: PathBuf,
    /// The folder of its own files.
    git: PathBuf,
    /// The folder of the files shared with other worktrees.
    common: PathBuf,
}

/// Reads the nearest working copy at or above `folder`, for the user of this process.
pub fn working_copy(folder: &Path) -> WorkingCopy {
    working_copy_of(folder, &Owners::of_this_process())
}

/// Like [`working_copy`], for a working copy that one of `owners` has to own.
fn working_copy_of(folder: &Path, owners: &Owners) -> WorkingCopy {
    match find(folder, owners) {
        Ok(Some(found)) => read(found),
        Ok(None) => WorkingCopy::default(),
        Err(foreign) => WorkingCopy {
            foreign: Some(foreign),
            ..WorkingCopy::default()
        },
    }
}

/// The checked-out branch and commit of the nearest working copy at or above `folder`; `None` if
/// the user of this process has no working copy there.
fn checkout(folder: &Path) -> Option<(Option<String>, Option<String>)> {
    let found = find(folder, &Owners::of_this_process()).ok()??;
    Some(checked_out(&found))
}

/// The nearest working copy at or above a folder.
fn find(folder: &Path, owners: &Owners) -> Result<Option<GitFolder>, Foreign> {
    let Ok(folder) = folder.canonicalize() else {
        return Ok(None);
    };
    let mut folders = folder.ancestors();
    let Some(found) = folders.find_map(git_folder) else {
        return Ok(None);
    };
    let GitFolder { top, git, common } = &found;
    owners.check([&**top, &top.join(".git"), git, common])?;
    Ok(Some(found))
}

/// The working copy at a folder: `.git` is a folder, or a file that a worktree or submodule has.
fn git_folder(folder: &Path) -> Option<GitFolder> {
    let at = folder.join(".git");
    if at.join("HEAD").is_file() {
        return Some(GitFolder::new(folder, at));
    }
    if at.is_file() {
        let to = folder.join(text(&at)?.trim().strip_prefix("gitdir:")?.trim());
        let is_git = to.join("HEAD").is_file();
        return is_git.then(|| GitFolder::new(folder, to));
    }
    let bare = folder.join("HEAD").is_file() && folder.join("objects").is_dir();
    (bare && folder.join("refs").is_dir()).then(|| GitFolder::new(folder, folder.to_owned()))
}

impl GitFolder {
    fn new(top: &Path, git: PathBuf) -> Self {
        let common = match text(&git.join("commondir")) {
            Some(to) => git.join(to.trim()),
            None => git.clone(),
        };
        Self {
            top: top.to_owned(),
            git,
            common,
        }
    }
}

fn read(found: GitFolder) -> WorkingCopy {
    let url = text(&found.common.join("config")).and_then(|config| origin::url(&config));
    let (branch, commit) = checked_out(&found);
    WorkingCopy {
        repository: url.and_then(|url| canonical_repository(&url)),
        branch,
        commit,
        top: Some(found.top),
        foreign: None,
    }
}

/// The branch and the commit that are checked out.
fn checked_out(GitFolder { git, common, .. }: &GitFolder) -> (Option<String>, Option<String>) {
    let head = text(&git.join("HEAD")).unwrap_or_default();
    let branch = head.trim().strip_prefix("ref:").map(str::trim);
    let branch = branch
        .and_then(|name| name.strip_prefix("refs/heads/"))
        .filter(|name| sound(name));
    (branch.map(str::to_owned), commit(git, common, &head))
}

/// Follows a head to its commit.
fn commit(git: &Path, common: &Path, head: &str) -> Option<String> {
    let mut at = head.trim().to_owned();
    for _ in 0..MAX_REF_HOPS {
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

/// Reads the present commit of a branch of the repository at a folder (bare, or with a working copy)
/// from the files of the repository.
pub fn branch_commit(folder: &Path, branch: &str) -> Option<String> {
    let GitFolder { git, common, .. } = git_folder(folder)?;
    commit(&git, &common, &format!("ref: refs/heads/{branch}"))
}

/// The files and folders of a repository with which another user could change the content of a branch:
/// its configuration, references and objects. Returns `Err` if a part cannot be checked.
pub fn stored_in(folder: &Path, branch: &str) -> Result<Vec<PathBuf>, String> {
    let shown = folder.display();
    let GitFolder { git, common, .. } =
        git_folder(folder).ok_or_else(|| format!("{shown}: no repository of git"))?;
    // A worktree has its references in a folder that another file names.
    if common != git || ![folder.to_owned(), folder.join(".git")].contains(&git) {
        return Err(format!("{shown}: a worktree, and no clone of its own"));
    }
    let objects = common.join("objects");
    if objects.join("info/alternates").exists() {
        return Err(format!(
            "{shown}: it borrows the objects of another repository"
        ));
    }
    let mut paths = vec![git, common.join("config"), common.join("packed-refs")];
    let reference = Path::new("refs/heads").join(branch);
    paths.extend(
        reference
            .ancestors()
            .filter(|it| it.iter().count() > 0)
            .map(|it| common.join(it)),
    );
    let mut folders = vec![objects];
    while let Some(next) = folders.pop() {
        let entries = match std::fs::read_dir(&next) {
            // git removes folders of objects while it packs them.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.map_err(|error| format!("{}: {error}", next.display()))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| format!("{}: {error}", next.display()))?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => paths.push(entry.path()),
            }
        }
        paths.push(next);
        if paths.len() > MAX_STORED {
            return Err(format!(
                "{shown}: more than {MAX_STORED} files of objects: run `git gc` there"
            ));
        }
    }
    Ok(paths)
}

/// Finds `HASH NAME` in `packed-refs`, git's file of references that rarely change. Other names may be
/// any bytes, and many: authors choose the names of their branches.
fn packed(common: &Path, name: &str) -> Option<String> {
    let file = open_regular(&common.join("packed-refs"))?;
    let mut all = BufReader::new(file.take(MAX_PACKED_SIZE));
    let mut line = Vec::new();
    loop {
        line.clear();
        if all.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        let known = str::from_utf8(&line).ok().map(str::trim_end);
        if let Some((hash, known)) = known.and_then(|line| line.split_once(' '))
            && known == name
        {
            return Some(hash.to_owned());
        }
    }
}

fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a reference name is safe: it stays in its folder and has no control characters.
fn sound(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 512
        && !name.chars().any(char::is_control)
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The text of a regular file of at most [`MAX_FILE_SIZE`] bytes.
fn text(path: &Path) -> Option<String> {
    let file = open_regular(path)?;
    let mut text = String::new();
    file.take(MAX_FILE_SIZE).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Opens a regular file. Opening never waits for a writer, and the check reads the type of the
/// opened file: a FIFO that replaces the file meanwhile is rejected.
fn open_regular(path: &Path) -> Option<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).ok()?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    file.metadata().ok()?.is_file().then_some(file)
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
    fn a_packed_reference_is_found_among_names_of_any_bytes_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let mut text = format!("# pack-refs with: peeled\n{hash} refs/heads/agent/").into_bytes();
        text.extend(b"\xff\n");
        let long = "x".repeat(400);
        for at in 0..12_000 {
            text.extend(format!("{hash} refs/heads/b/{at}-{long}\n").bytes());
        }
        let main = "89abcdef0123456789abcdef0123456789abcdef";
        text.extend(format!("{main} refs/heads/main\n^{hash}\n").bytes());
        std::fs::write(folder.path().join("packed-refs"), text).unwrap();
        let found = |name| packed(folder.path(), name);
        assert_eq!(found("refs/heads/main").as_deref(), Some(main));
        assert_eq!(found("refs/heads/mai"), None);
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
    #[test]
    fn a_working_copy_of_another_user_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        repository(folder.path(), Some("https://forge.example/acme/web"));
        let own = Owners::of_this_process();
        let found = working_copy_of(folder.path(), &own);
        assert_eq!(found.repository.as_deref(), Some("forge.example/acme/web"));
        let other = Owners::only(u32::MAX - 1);
        let found = working_copy_of(folder.path(), &other);
        assert_eq!((found.repository, found.top), (None, None));
        let foreign = found.foreign.unwrap().to_string();
        assert!(foreign.contains(&folder.path().display().to_string()));
        assert!(foreign.contains("belongs to user"), "{foreign}");
    }

    #[test]
    fn hostile_files_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        repository(folder.path(), Some("https://forge.example/acme/web"));
        let git = folder.path().join(".git");
        let fifo = |name: &str| {
            let path = git.join(name);
            let _ = std::fs::remove_file(&path);
            let made = Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success());
        };
        fifo("config");
        assert_eq!(working_copy(folder.path()).repository, None);
        fifo("commondir");
        fifo("packed-refs");
        fifo("refs/heads/main");
        assert_eq!(working_copy(folder.path()).commit, None);
        fifo("HEAD");
        assert_eq!(working_copy(folder.path()), WorkingCopy::default());
        // The open itself rejects a FIFO: a regular file may have been there at the look before.
        assert!(open_regular(&git.join("HEAD")).is_none());
        let endless = folder.path().join("loop");
        std::os::unix::fs::symlink("loop", &endless).unwrap();
        assert!(open_regular(&endless).is_none());
        std::fs::remove_file(git.join("HEAD")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", git.join("HEAD")).unwrap();
        assert_eq!(working_copy(folder.path()), WorkingCopy::default());
    }
}
