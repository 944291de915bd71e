//! What a jail sees of the files: those outside, less what would answer names or show secrets.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsmount, fsopen, mount_bind_recursive, mount_change,
    mount_remount, move_mount, open_tree,
};

use crate::config;

/// What clients ask names from; each leads out.
const NAME_SERVICES: [&str; 4] = [
    "/run/systemd/resolve",
    "/run/nscd",
    "/var/run/nscd",
    "/run/avahi-daemon",
];
/// Where a process of user 0 could tell the kernel to run something outside.
const OF_THE_KERNEL: [&str; 2] = ["/proc/sys", "/sys"];

/// Hides, replaces, and locks: everything that is done to the mounts.
pub(super) fn arrange(hide: &[PathBuf]) -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let blank = Blank::new()?;
    blank.instead("resolv.conf", "/etc/resolv.conf", "nameserver 127.0.0.1\n")?;
    if let Some(text) = names_by_dns_only(Path::new("/etc/nsswitch.conf")) {
        blank.instead("nsswitch.conf", "/etc/nsswitch.conf", &text)?;
    }
    for path in NAME_SERVICES.iter().map(Path::new) {
        blank.hide(path)?;
    }
    for path in hide {
        blank.hide(path)?;
    }
    if rustix::process::geteuid().is_root() {
        for path in OF_THE_KERNEL {
            read_only(Path::new(path))?;
        }
        blank.hide(Path::new("/proc/sysrq-trigger"))?;
    }
    Ok(())
}

/// A file system of our own that is nowhere: pieces of it are put over others.
struct Blank(OwnedFd);

impl Blank {
    fn new() -> io::Result<Self> {
        let new = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&new)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(&new, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        rustix::fs::mkdirat(&mount, "folder", Mode::from_raw_mode(0o555))?;
        let this = Self(mount);
        this.write("file", "")?;
        Ok(this)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.0, name, flags, Mode::from_raw_mode(0o444))?;
        std::fs::File::from(file).write_all(text.as_bytes())
    }

    /// Puts a text in the place of a file, where there is one.
    fn instead(&self, name: &str, path: &str, text: &str) -> io::Result<()> {
        let Some(path) = there(Path::new(path))? else {
            return Ok(());
        };
        self.write(name, text)?;
        self.cover(name, &path)
    }

    /// Puts nothing in the place of a file, a socket or a folder, where there is one.
    fn hide(&self, path: &Path) -> io::Result<()> {
        let Some(path) = there(path)? else {
            return Ok(());
        };
        let blank = if path.is_dir() { "folder" } else { "file" };
        self.cover(blank, &path)
    }

    fn cover(&self, name: &str, path: &Path) -> io::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let piece = open_tree(&self.0, name, flags)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&piece, "", CWD, path, flags)?;
        read_only_here(path, MountFlags::empty())
    }
}

/// The path without symbolic links, where something is there.
fn there(path: &Path) -> io::Result<Option<PathBuf>> {
    match path.canonicalize() {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // What cannot be reached by this user from here cannot be from inside.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes everything below a path read-only.
fn read_only(path: &Path) -> io::Result<()> {
    mount_bind_recursive(path, path)?;
    let table = config::read(Path::new("/proc/self/mountinfo"));
    let table = table?;
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    let below = places
        .map(Path::new)
        .filter(|place| place.starts_with(path));
    let mut places: Vec<_> = below.collect();
    places.sort_unstable();
    places.dedup();
    for place in places {
        read_only_here(place, MountFlags::NODEV)?;
    }
    Ok(())
}

fn read_only_here(path: &Path, more: MountFlags) -> io::Result<()> {
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NOEXEC
        | MountFlags::NODEV
        | more;
    Ok(mount_remount(path, flags, "")?)
}

/// The name service switch without services that would ask somebody else for hosts, where it names
/// any.
fn names_by_dns_only(path: &Path) -> Option<String> {
    let text = config::read(path).ok()?;
    Some(hosts_by_dns(&text))
}

fn hosts_by_dns(text: &str) -> String {
    let mut out: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("hosts:"))
        .flat_map(|line| [line, "\n"])
        .collect();
    out.push_str("hosts: files dns\n");
    out
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
}
