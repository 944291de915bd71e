//! A read-only place: the folder of the system, or, if part of it must stay hidden, a new folder
//! with its other entries. Later changes outside do not appear in the new folder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use rustix::fs::{Dir, FileType, Mode, OFlags, readlinkat, statat};

use super::build::Root;

/// The settings of the system: shown entry by entry, without the entries that only root reads.
const ETC: &str = "/etc";
/// Files that the view has its own version of.
const OWN: [&str; 2] = ["/etc/resolv.conf", "/etc/nsswitch.conf"];

/// Shows the content of `path`, without the folders `without`.
pub(super) fn read_only(root: &mut Root, path: &Path, without: &[PathBuf]) -> io::Result<()> {
    let mut closed = HashSet::new();
    if path.starts_with(ETC) {
        note_closed(root, path, &mut closed);
    }
    show(root, path, &Left { without, closed })
}

/// The entries that a read-only place leaves out.
struct Left<'a> {
    /// Folders that are left out.
    without: &'a [PathBuf],
    /// Folders of settings that are shown entry by entry.
    closed: HashSet<PathBuf>,
}

fn show(root: &mut Root, path: &Path, left: &Left<'_>) -> io::Result<()> {
    let is_left_out = left.without.iter().any(|folder| folder == path);
    if is_left_out || OWN.map(Path::new).contains(&path) {
        return Ok(());
    }
    let below = left.without.iter().any(|folder| folder.starts_with(path));
    if below || left.closed.contains(path) {
        return entries(root, path, left);
    }
    root.bind(path, path)
}

/// Records the folders of settings with an entry that other users cannot read, and always the folder
/// of all settings; reads each folder once. Returns whether `path` is one of them.
fn note_closed(root: &Root, path: &Path, closed: &mut HashSet<PathBuf>) -> bool {
    let mut found = path == Path::new(ETC);
    // For any other user, the kernel protects these files.
    if rustix::process::geteuid().is_root() {
        let read = each(root, path, |name, is, is_public| {
            let is_folder = is == FileType::Directory;
            found |= !is_public || is_folder && note_closed(root, &path.join(name), closed);
        });
        found |= read.is_err();
    }
    if found {
        closed.insert(path.to_owned());
    }
    found
}

/// Whether every user can read the file.
fn is_public(mode: Mode, is: FileType) -> bool {
    match is {
        FileType::Directory => mode.contains(Mode::ROTH | Mode::XOTH),
        FileType::RegularFile => mode.contains(Mode::ROTH),
        _ => true,
    }
}

/// Makes a new folder with the current entries.
fn entries(root: &mut Root, path: &Path, left: &Left<'_>) -> io::Result<()> {
    root.folder(path)?;
    let is_settings = path.starts_with(ETC) && rustix::process::geteuid().is_root();
    let mut found = Vec::new();
    each(root, path, |name, is, is_public| {
        if !is_settings || is_public {
            found.push((path.join(name), is));
        }
    })?;
    for (entry, is) in found {
        match is {
            FileType::Symlink => {
                let folder = root.outside(path, OFlags::PATH | OFlags::DIRECTORY)?;
                let name = entry.file_name().unwrap_or_default();
                let to = readlinkat(&folder, name, Vec::new())?;
                if !OWN.map(Path::new).contains(&&*entry) {
                    root.link(&entry, Path::new(OsStr::from_bytes(to.to_bytes())))?;
                }
            }
            FileType::Directory | FileType::RegularFile => {
                match show(root, &entry, left) {
                    // The entry was removed meanwhile, or this user cannot read it.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                        ) => {}
                    other => other?,
                }
            }
            // Sockets, pipes and devices contain no settings.
            _ => {}
        }
    }
    Ok(())
}

/// Errors of a file, or of a folder that this user cannot read: neither shows entries.
const NO_ENTRIES: [io::ErrorKind; 2] = [
    io::ErrorKind::NotADirectory,
    io::ErrorKind::PermissionDenied,
];

/// Calls `call` with each entry of a folder of the old root: its name, its type, and whether every
/// user can read it.
fn each(root: &Root, path: &Path, mut call: impl FnMut(&Path, FileType, bool)) -> io::Result<()> {
    let folder = match root.outside(path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(error) if NO_ENTRIES.contains(&error.kind()) => return Ok(()),
        other => other?,
    };
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        let name = Path::new(OsStr::from_bytes(bytes));
        // Every user can read a symbolic link, and most settings are links.
        if entry.file_type() == FileType::Symlink {
            call(name, FileType::Symlink, true);
            continue;
        }
        let Ok(status) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let is = FileType::from_raw_mode(status.st_mode);
        call(name, is, is_public(Mode::from_raw_mode(status.st_mode), is));
    }
    Ok(())
}
