//! Paths with symbolic links: the view has the same links as the system outside.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Maximum number of links that are followed in one path, as in Linux.
const MAX_LINKS: usize = 40;

/// Returns the symbolic links on a path, each with its target.
pub(super) fn links(path: &Path) -> impl Iterator<Item = (PathBuf, PathBuf)> + use<> {
    Way::of(path).filter_map(|(at, to)| Some((at, to?)))
}

/// Every name that is looked up on a path, the last one included, with the target if the name is a
/// symbolic link. The folder above each name has no symbolic link in it.
pub(super) struct Way {
    at: PathBuf,
    rest: VecDeque<OsString>,
    left: usize,
}

impl Way {
    pub(super) fn of(path: &Path) -> Self {
        let mut this = Self {
            at: PathBuf::from("/"),
            rest: VecDeque::new(),
            left: MAX_LINKS,
        };
        this.lead_to(path);
        this
    }

    /// Continues with this path.
    fn lead_to(&mut self, path: &Path) {
        if path.is_absolute() {
            self.at = PathBuf::from("/");
        }
        let parts: Vec<_> = path.components().collect();
        for part in parts.into_iter().rev() {
            match part {
                Component::Normal(name) => self.rest.push_front(name.to_owned()),
                Component::ParentDir => self.rest.push_front("..".into()),
                _ => {}
            }
        }
    }
}

impl Iterator for Way {
    type Item = (PathBuf, Option<PathBuf>);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(name) = self.rest.pop_front() {
            if name == ".." {
                self.at.pop();
                continue;
            }
            let here = self.at.join(name);
            match std::fs::read_link(&here) {
                Ok(to) if self.left > 0 => {
                    self.left -= 1;
                    self.lead_to(&to);
                    return Some((here, Some(to)));
                }
                _ => {
                    self.at.clone_from(&here);
                    return Some((here, None));
                }
            }
        }
        None
    }
}

/// Returns the path without `.` and `..`, with its symbolic links unresolved.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_found() {
        let folder = tempfile::TempDir::new().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        symlink(root.join("a"), root.join("x")).unwrap();
        symlink("b/../b", root.join("a/y")).unwrap();
        symlink("z", root.join("z")).unwrap();
        let found = |path: &str| links(&root.join(path)).map(|(at, _)| at);
        let links: Vec<_> = found("x/y/file").collect();
        assert_eq!(links, [root.join("x"), root.join("a/y")]);
        assert_eq!(found("z/file").count(), MAX_LINKS);
        let way: Vec<_> = Way::of(&root.join("x/y/../b/none/file"))
            .map(|(at, _)| at)
            .filter(|at| at.starts_with(&root) && *at != root)
            .collect();
        let expected = [
            "x",
            "a",
            "a/y",
            "a/b",
            "a/b",
            "a/b",
            "a/b/none",
            "a/b/none/file",
        ];
        assert_eq!(way, expected.map(|name| root.join(name)));
        assert_eq!(plain(Path::new("/a/./b/../c")), Path::new("/a/c"));
    }
}
