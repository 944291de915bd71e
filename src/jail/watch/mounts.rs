//! Compares the mounts of a jail with those at the start of its command.
//!
//! Files that are renamed, replaced or removed outside change the mount table as well, and break no
//! wall: the root of a mount gets another name or `//deleted`, a moved mount point moves its mount,
//! and a removed mount point ends its mount. A wall is broken if a mount is new, wider or another
//! one, or if a removed mount shows what it covered.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};

use super::super::view::build::unescaped;

/// The suffix that the kernel adds to the root of a removed mount.
const DELETED: &str = "//deleted";

/// The numbers of a file system and of a file in it.
type Identity = (u64, u64);

/// A line of mountinfo (`proc_pid_mountinfo(5)`), without the options of the file system, which
/// change with the machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mount {
    parent: Box<str>,
    device: Box<str>,
    root: Box<str>,
    point: Box<str>,
    /// The mount options and the propagation.
    rest: Box<str>,
}

impl Mount {
    /// Returns the path in the file system that the mount shows, without the mark of removal.
    fn root(&self) -> &str {
        self.root.strip_suffix(DELETED).unwrap_or(&self.root)
    }
}

/// Mounts by their number.
pub(super) type Table = BTreeMap<Box<str>, Mount>;

pub(super) fn table(text: &str) -> Table {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<(Box<str>, Mount)> {
    let own = line.split(" - ").next()?;
    let mut words = own.splitn(6, ' ');
    let mut next = || words.next().map(Box::from);
    let number = next()?;
    let mount = Mount {
        parent: next()?,
        device: next()?,
        root: next()?,
        point: next()?,
        rest: next()?,
    };
    Some((number, mount))
}

/// The mounts of a jail at the start of its command.
#[derive(Debug)]
pub(super) struct Mounts {
    then: Table,
    /// The file systems that are also mounted outside: files of any other change only inside.
    outside: BTreeSet<Box<str>>,
    /// The file that each mount shows, if it may be renamed outside.
    shown: BTreeMap<Box<str>, Identity>,
    /// The socket that a mount covers, by the number of the mount. Kept open, so that no other file
    /// gets its inode.
    covered: BTreeMap<Box<str>, OwnedFd>,
}

impl Mounts {
    /// Returns the mounts of the process `first`; `inside` and `outside` are texts of mountinfo.
    pub(super) fn of(first: u32, inside: &str, outside: &str) -> io::Result<Self> {
        let mut this = Self {
            then: table(inside),
            outside: table(outside).into_values().map(|it| it.device).collect(),
            shown: BTreeMap::new(),
            covered: BTreeMap::new(),
        };
        let view = Files::of(first)?;
        for (number, mount) in &this.then {
            let point = unescaped(&mount.point);
            if this.outside.contains(&mount.device)
                && let Some(identity) = view.at(&point)
            {
                this.shown.insert(number.clone(), identity);
            }
            if this.is_on_a_shared_file(mount)
                && let Some(file) = covered(&point)
            {
                this.covered.insert(number.clone(), file);
            }
        }
        Ok(this)
    }

    /// Returns the broken wall, if any.
    pub(super) fn fallen(&self, first: u32, inside: &str) -> io::Result<Option<String>> {
        let now = table(inside);
        if now == self.then {
            return Ok(None);
        }
        let view = Files::of(first)?;
        if let Some((_, new)) = now
            .iter()
            .find(|(number, _)| !self.then.contains_key(*number))
        {
            return Ok(Some(format!("{} was mounted", new.point)));
        }
        for (number, then) in &self.then {
            let stands = match now.get(number) {
                Some(now) => self.is_still(number, then, now, &view),
                None => !self.is_uncovered(number, then, &view),
            };
            if !stands {
                let what = if now.contains_key(number) {
                    "is another mount"
                } else {
                    "is no longer mounted"
                };
                return Ok(Some(format!("{} {what}", then.point)));
            }
        }
        Ok(None)
    }

    /// Whether a mount is the same one, though files may have other names.
    fn is_still(&self, number: &str, then: &Mount, now: &Mount, view: &Files) -> bool {
        let same = |it: &Mount| (it.parent.clone(), it.device.clone(), it.rest.clone());
        let has_its_root = then.root() == now.root() || {
            let shown = self.shown.get(number);
            shown.is_some() && view.at(&unescaped(&now.point)).as_ref() == shown
        };
        let has_its_point = then.point == now.point || !self.is_uncovered(number, then, view);
        same(then) == same(now) && has_its_root && has_its_point
    }

    /// Whether a mount that has left its place uncovers a file.
    fn is_uncovered(&self, number: &str, then: &Mount, view: &Files) -> bool {
        if !self.is_on_a_shared_file(then) {
            return true;
        }
        let point = unescaped(&then.point);
        let Some(covered) = self.covered.get(number) else {
            return self.is_more_than(then) && view.at(&point).is_some();
        };
        let Ok(file) = fstat(covered).map(|status| identity(&status)) else {
            return true;
        };
        // By its old name, and by its current name.
        let name = std::fs::read_link(format!("/proc/self/fd/{}", covered.as_raw_fd()));
        [Some(point), name.ok()]
            .into_iter()
            .flatten()
            .any(|at| view.at(&at) == Some(file))
    }

    /// Whether the files behind a mount allow more than the mount: they are writable, or the
    /// mount's file system does not exist outside.
    fn is_more_than(&self, mount: &Mount) -> bool {
        let parent = self.then.get(&mount.parent);
        let is_read_only = |it: &Mount| it.rest.starts_with("ro");
        !self.outside.contains(&mount.device)
            || is_read_only(mount) && !parent.is_some_and(is_read_only)
    }

    /// Whether the mount point is a file that also exists outside, where it may be removed.
    fn is_on_a_shared_file(&self, mount: &Mount) -> bool {
        let parent = self.then.get(&mount.parent);
        parent.is_some_and(|parent| self.outside.contains(&parent.device))
    }
}

/// Returns the socket outside at the path of a mount, which covers the socket inside.
fn covered(point: &Path) -> Option<OwnedFd> {
    let file = open(CWD, point).ok()?;
    let is = FileType::from_raw_mode(fstat(&file).ok()?.st_mode);
    is.is_socket().then_some(file)
}

fn identity(status: &Stat) -> Identity {
    (status.st_dev, status.st_ino)
}

/// Opens a path without following links and without triggering automounts.
fn open(at: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(
        at,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )?)
}

/// The files that a process sees.
struct Files(OwnedFd);

impl Files {
    fn of(process: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = PathBuf::from(format!("/proc/{process}/root"));
        Ok(Self(rustix::fs::open(&root, flags, Mode::empty())?))
    }

    /// Returns the file at a path; `None` if there is none, or only a link.
    fn at(&self, path: &Path) -> Option<Identity> {
        let below = path.strip_prefix("/").unwrap_or(path);
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        let file = open(&self.0, below).ok()?;
        Some(identity(&fstat(&file).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: &str = "10 1 0:40 / / ro - tmpfs tmpfs rw\n\
                        11 10 8:1 /home/ana/web /home/ana/web rw - ext4 /dev/x rw\n\
                        12 10 8:1 /home/ana/.agent.json /home/ana/.agent.json rw - ext4 /dev/x rw\n\
                        13 11 0:41 /blank /home/ana/web/sock ro - tmpfs tmpfs rw\n";
    const OUTSIDE: &str = "1 0 8:1 / / rw - ext4 /dev/x rw\n";

    fn found(now: &str) -> Option<String> {
        let own = std::process::id();
        let mounts = Mounts::of(own, THEN, OUTSIDE).unwrap();
        mounts.fallen(own, now).unwrap()
    }

    #[test]
    fn files_that_are_removed_or_replaced_outside_are_no_fall() {
        assert_eq!(found(THEN), None);
        let json = "/home/ana/.agent.json /home";
        assert_eq!(
            found(&THEN.replace(json, "/home/ana/.agent.json//deleted /home")),
            None
        );
        // The socket, its folder or the whole working copy.
        let without: String = THEN.split_inclusive('\n').take(3).collect();
        assert_eq!(found(&without), None);
        assert_eq!(found(&THEN.replace("web/sock", "web/moved")), None);
    }

    #[test]
    fn a_mount_that_is_new_wider_another_or_taken_away_is_a_fall() {
        let added = format!("{THEN}14 10 8:1 / /old rw - ext4 /dev/x rw\n");
        assert_eq!(found(&added).unwrap(), "/old was mounted");
        for (from, to) in [
            ("/ / ro", "/ / rw"),
            ("13 11 0:41", "13 11 8:1"),
            ("12 10", "12 11"),
            ("8:1 /home/ana/.agent.json /", "8:1 /home/ana/.ssh /"),
            ("0:41 /blank", "0:41 /other"),
        ] {
            let now = THEN.replacen(from, to, 1);
            let what = found(&now).unwrap_or_else(|| panic!("{from} -> {to}"));
            assert!(what.ends_with("is another mount"), "{what}");
        }
        // A file of a file system that does not exist outside cannot have been removed there.
        let without = THEN.replace(THEN.lines().nth(2).unwrap(), "");
        let what = found(&without).unwrap();
        assert_eq!(what, "/home/ana/.agent.json is no longer mounted");
    }

    #[test]
    fn a_socket_that_is_seen_again_is_a_fall() {
        let folder = tempfile::TempDir::new().unwrap();
        let at = folder.path().canonicalize().unwrap().join("sock");
        let _listener = std::os::unix::net::UnixListener::bind(&at).unwrap();
        let then = THEN.replace("/home/ana/web/sock", at.to_str().unwrap());
        let own = std::process::id();
        let mounts = Mounts::of(own, &then, OUTSIDE).unwrap();
        let without: String = then.split_inclusive('\n').take(3).collect();
        let seen = || mounts.fallen(own, &without).unwrap();
        assert!(seen().is_some_and(|what| what.contains("no longer mounted")));
        std::fs::rename(&at, at.with_extension("moved")).unwrap();
        assert!(seen().is_some(), "it has another name");
        std::fs::remove_file(at.with_extension("moved")).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&at).unwrap();
        assert_eq!(seen(), None, "another one is there");
    }
}
