//! Builds the view: a root in memory with parts of the old root. Then the old root is removed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, Dev, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, symlinkat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root, umask};

use crate::config;

use super::super::promise::Missing;
use super::{Content, View, devices, expose, settings};

/// A folder that exists on every system: the new root is mounted there until it becomes the root.
const FOOTHOLD: &str = "/proc";
/// Lookups that follow no link: another process may make a link there meanwhile.
const NO_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS;

/// A copy of a mount with all mounts below it.
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE
    .union(OpenTreeFlags::OPEN_TREE_CLOEXEC)
    .union(OpenTreeFlags::AT_RECURSIVE);

/// Makes the view the root of this process. Returns the missing promises.
pub(in crate::jail) fn build(view: &View) -> io::Result<Vec<Missing>> {
    let mask = umask(Mode::empty());
    let mut root = Root::begin()?;
    for (path, content) in &view.places {
        let done = root.place(path, content, view);
        done.map_err(|error| at(path, &error))?;
    }
    name_service(&mut root)?;
    let missing = devices::add(&mut root)?;
    root.finish(view)?;
    umask(mask);
    Ok(missing)
}

/// Adds the path to an error.
pub(super) fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The two roots: the new one, and the old one, which is removed at the end.
pub(super) struct Root {
    pub(super) old: OwnedFd,
    new: OwnedFd,
    /// File systems that were made here: files are created only in these.
    own: HashSet<Dev>,
    /// An empty file that covers others.
    blank: Option<OwnedFd>,
}

impl Root {
    fn begin() -> io::Result<Self> {
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let old = rustix::fs::open("/", folder, Mode::empty())?;
        let new = memory(0o755)?;
        let from = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&new, "", CWD, FOOTHOLD, from)?;
        fchdir(&new)?;
        // The old root now lies over the new one; only its descriptor reaches it.
        pivot_root(".", ".")?;
        let own = HashSet::from([fstat(&new)?.st_dev]);
        Ok(Self {
            old,
            new,
            own,
            blank: None,
        })
    }

    fn place(&mut self, path: &Path, content: &Content, view: &View) -> io::Result<()> {
        match content {
            Content::ReadOnly => expose::read_only(self, path, &view.without),
            Content::Writable => self.bind(path, path),
            Content::Private(mode) => self.private(path, *mode),
            Content::Link(to) => self.link(path, to),
            Content::Certificates => self.copy(path, settings::is_certificates),
            Content::Settings => self.copy(path, settings::is_without_credentials),
            Content::Copy => self.copy(path, |_| true),
            Content::Covered => self.cover(path),
        }
    }

    /// Opens a path of the old root.
    pub(super) fn outside(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        open(&self.old, path, flags)
    }

    fn inside(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        open(&self.new, path, flags)
    }

    /// Binds a path of the old root, with all mounts below it, to a path of the new root.
    pub(super) fn bind(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let source = self.outside(from, OFlags::PATH)?;
        let is_folder = FileType::from_raw_mode(fstat(&source)?.st_mode).is_dir();
        let target = if is_folder {
            self.folder(to)?
        } else {
            self.file(to)?
        };
        let tree = open_tree(&source, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH)?;
        put(&tree, &target)
    }

    /// Makes a folder in memory.
    pub(super) fn private(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let target = self.folder(path)?;
        let memory = memory(mode)?;
        self.own.insert(fstat(&memory)?.st_dev);
        put(&memory, &target)
    }

    pub(super) fn link(&mut self, path: &Path, to: &Path) -> io::Result<()> {
        let Some((parent, name)) = self.parent(path)? else {
            return Ok(());
        };
        match symlinkat(to, &parent, name) {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Copies a file if `fit` accepts its content; any other file is left out.
    fn copy(&mut self, path: &Path, fit: fn(&[u8]) -> bool) -> io::Result<()> {
        let Ok(file) = self.outside(path, OFlags::RDONLY | OFlags::NONBLOCK) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        let file = File::from(file);
        if !file.metadata()?.is_file() || file.metadata()?.len() > settings::MAX_COPY {
            return Ok(());
        }
        file.take(settings::MAX_COPY).read_to_end(&mut bytes)?;
        if fit(&bytes) {
            self.write(path, &bytes)?;
        }
        Ok(())
    }

    /// Makes a file with these bytes.
    pub(super) fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let Some((parent, name)) = self.parent(path)? else {
            return Ok(());
        };
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW;
        let flags = flags | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
        File::from(file).write_all(bytes)
    }

    /// Covers a path with an empty file, if the path exists.
    pub(super) fn cover(&mut self, path: &Path) -> io::Result<()> {
        let Ok(target) = self.inside(path, OFlags::PATH) else {
            return Ok(());
        };
        let blank = if let Some(blank) = &self.blank {
            blank
        } else {
            let memory = memory(0o755)?;
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o444);
            rustix::fs::openat(&memory, "blank", flags, mode)?;
            self.blank.insert(memory)
        };
        put(&open_tree(blank, "blank", CLONE)?, &target)
    }

    /// Makes a part of the new root read-only, if it exists.
    pub(super) fn lock(&mut self, path: &Path) -> io::Result<()> {
        let Ok(target) = self.inside(path, OFlags::PATH) else {
            return Ok(());
        };
        let tree = open_tree(&target, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH)?;
        put(&tree, &target)
    }

    /// Opens a folder of the new root; makes it and the folders above it if they are missing.
    pub(super) fn folder(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.inside(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let Some((parent, name)) = self.parent(path)? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        self.inside(path, flags)
    }

    fn file(&mut self, path: &Path) -> io::Result<OwnedFd> {
        match self.inside(path, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        self.write(path, b"")?;
        self.inside(path, OFlags::PATH)
    }

    /// Opens the folder above a path, to create something in it: one that was made here, never one
    /// of the user's.
    fn parent<'a>(&mut self, path: &'a Path) -> io::Result<Option<(OwnedFd, &'a Path)>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        let parent = self.folder(parent)?;
        if !self.own.contains(&fstat(&parent)?.st_dev) {
            return Err(io::Error::other(
                "nothing is created in a folder of the user",
            ));
        }
        Ok(Some((parent, Path::new(name))))
    }

    /// Removes the old root and makes everything read-only except the writable places.
    fn finish(self, view: &View) -> io::Result<()> {
        fchdir(&self.old)?;
        unmount(".", UnmountFlags::DETACH)?;
        drop(self.old);
        rustix::process::chdir("/")?;
        let table = config::read(Path::new("/proc/self/mountinfo"))?;
        for mount in table.lines().filter_map(Mounted::of) {
            if is_read_only(&mount.path, view) && !mount.flags.contains(MountFlags::RDONLY) {
                let flags = mount.flags | MountFlags::RDONLY | MountFlags::BIND;
                mount_remount(&mount.path, flags, "")
                    .map_err(|error| at(&mount.path, &error.into()))?;
            }
        }
        Ok(())
    }
}

/// Whether a mount is to be read-only: it is no writable place, and was not mounted outside below
/// one.
fn is_read_only(mount: &Path, view: &View) -> bool {
    if devices::WRITABLE.iter().any(|it| mount == Path::new(it)) {
        return false;
    }
    match view.nearest(mount) {
        Some((_, Content::Writable)) => false,
        Some((place, Content::Private(_))) => place != mount,
        _ => true,
    }
}

fn open(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let below = if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    };
    let flags = flags | OFlags::CLOEXEC;
    Ok(openat2(root, below, flags, Mode::empty(), NO_LINKS)?)
}

/// Mounts a detached tree.
pub(super) fn put(tree: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", target, "", flags)?)
}

/// Makes a file system in memory that is not mounted yet.
fn memory(mode: u32) -> io::Result<OwnedFd> {
    let new = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(new.as_fd(), "mode", format!("{mode:o}"))?;
    fsconfig_create(&new)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&new, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(mount)
}

/// Configures the name service so that names are resolved by the gate alone.
fn name_service(root: &mut Root) -> io::Result<()> {
    root.write(Path::new("/etc/resolv.conf"), b"nameserver 127.0.0.1\n")?;
    let switch = Path::new("/etc/nsswitch.conf");
    if let Ok(file) = root.outside(switch, OFlags::RDONLY) {
        let mut text = String::new();
        File::from(file)
            .take(settings::MAX_COPY)
            .read_to_string(&mut text)?;
        root.write(switch, hosts_by_dns(&text).as_bytes())?;
    }
    Ok(())
}

/// Removes services that would ask another process for hosts from the name service switch.
fn hosts_by_dns(text: &str) -> String {
    let mut out: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("hosts:"))
        .flat_map(|line| [line, "\n"])
        .collect();
    out.push_str("hosts: files dns\n");
    out
}

/// A line of mountinfo (`proc_pid_mountinfo(5)`).
struct Mounted {
    path: PathBuf,
    flags: MountFlags,
}

impl Mounted {
    fn of(line: &str) -> Option<Self> {
        let mut words = line.split(' ').skip(4);
        let path = unescaped(words.next()?);
        let mut flags = MountFlags::empty();
        for option in words.next()?.split(',') {
            flags |= match option {
                "ro" => MountFlags::RDONLY,
                "nosuid" => MountFlags::NOSUID,
                "nodev" => MountFlags::NODEV,
                "noexec" => MountFlags::NOEXEC,
                "noatime" => MountFlags::NOATIME,
                "nodiratime" => MountFlags::NODIRATIME,
                "relatime" => MountFlags::RELATIME,
                _ => MountFlags::empty(),
            };
        }
        Some(Self { path, flags })
    }
}

/// Decodes a path: blanks and similar characters are written as three octal digits.
pub(in crate::jail) fn unescaped(path: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = after.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_asked_from_dns_only() {
        let text =
            "passwd: files systemd\nhosts: files resolve [!UNAVAIL=return] dns\nnetworks: files\n";
        assert_eq!(
            hosts_by_dns(text),
            "passwd: files systemd\nnetworks: files\nhosts: files dns\n"
        );
    }

    #[test]
    fn a_mount_keeps_its_flags() {
        let line = r"36 35 98:0 / /mnt\040a rw,nosuid,noexec,relatime - ext4 /dev/x rw";
        let mount = Mounted::of(line).unwrap();
        assert_eq!(mount.path, Path::new("/mnt a"));
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RELATIME;
        assert_eq!(mount.flags, flags);
    }
}
