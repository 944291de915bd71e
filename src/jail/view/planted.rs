//! Symbolic links that a command can have made in an earlier run: their target is not what the user
//! means.
//!
//! No attribute shows which command made a link. So a link is trusted only where no command writes:
//! in a system folder, in the home itself, and in the folders of toolchains, whose programs run
//! outside anyway.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::path;
use super::toolchain::IN_HOME;

/// Folders of the home whose own entries are trusted: sharing one of them is refused, because the
/// gate's files lie below.
const ENTRIES: [&str; 3] = ["", ".config", ".local"];
/// Folders of the home with trusted links at any depth, besides those of toolchains.
const BELOW: [&str; 4] = ["bin", ".cargo", ".config/git", ".config/pip"];
/// Folders with trusted links for root, who owns everything else.
const OF_ROOT: [&str; 11] = [
    "/bin", "/etc", "/gnu", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/sbin", "/usr", "/var",
];
/// Write permission of the group or of every user.
const OTHERS_WRITE: u32 = 0o022;

/// Returns the first symbolic link on a path that a command can have made; reads `HOME`.
pub fn planted(path: &Path) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.and_then(|home| home.canonicalize().ok());
    let path = std::path::absolute(path).ok()?;
    on_the_way(&path, home.as_deref())
}

/// Like [`planted`], with a home without symbolic links.
pub(super) fn on_the_way(path: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let mut links = path::links(path).map(|(at, _)| at);
    links.find(|at| !at.parent().is_some_and(|folder| counts(folder, home)))
}

/// Whether links in a folder are trusted.
fn counts(folder: &Path, home: Option<&Path>) -> bool {
    let below = home.and_then(|home| folder.strip_prefix(home).ok());
    if let Some(below) = below {
        return ENTRIES.iter().any(|name| below == Path::new(name))
            || BELOW
                .iter()
                .chain(&IN_HOME)
                .any(|name| below.starts_with(name));
    }
    folder.parent().is_none() || is_of_the_system(folder)
}

fn is_of_the_system(folder: &Path) -> bool {
    let Ok(status) = folder.symlink_metadata() else {
        return false;
    };
    let named = OF_ROOT.iter().any(|name| folder.starts_with(name));
    let closed = status.uid() == 0 && status.mode() & OTHERS_WRITE == 0;
    closed && (named || !rustix::process::geteuid().is_root())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_count_where_no_command_writes() {
        let folder = tempfile::TempDir::new().unwrap();
        let home = folder.path().canonicalize().unwrap();
        let found = |name: &str| {
            let at = home.join(name);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            symlink("/usr", &at).unwrap();
            on_the_way(&at.join("bin"), Some(&home)).is_some()
        };
        for name in [
            "tools",
            "bin/x",
            ".config/x",
            ".local/bin/x",
            ".cargo/bin/x",
        ] {
            assert!(!found(name), "{name}");
        }
        for name in ["web/x", ".cache/pip", ".config/agent/x", ".claude/x"] {
            assert!(found(name), "{name}");
        }
        assert!(on_the_way(Path::new("/proc/self/root"), None).is_some());
        assert!(on_the_way(Path::new("/bin/sh"), None).is_none());
    }
}
