//! The file that `--summary` names: opened before the command starts, written after it has ended.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2, renameat, unlinkat};

use crate::jail;

/// Only this user may read it.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The destination of the summary.
pub(super) enum SummaryFile {
    /// A regular file: replaced at the end, so that content from the command is removed.
    Regular {
        /// The folder that was opened before the command started, even if it is moved.
        folder: OwnedFd,
        /// The name in that folder.
        name: OsString,
    },
    /// A pipe, a terminal or a descriptor (`/dev/fd/3`).
    Stream(File),
}

impl SummaryFile {
    /// Opens the file, to fail before the command starts. Does not wait: a pipe needs its reader
    /// now.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("--summary {}: {error}", path.display()),
            )
        };
        Self::open_unnamed(path).map_err(named)
    }

    fn open_unnamed(path: &Path) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if is_descriptor(path) {
            // A file without a folder to write to is not replaced, even if it is a regular file.
            let custom = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
            let mut options = OpenOptions::new();
            return Self::stream(options.write(true).custom_flags(custom).open(path)?);
        }
        let path = std::path::absolute(path)?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::other("this names no file"));
        };
        if let Some(link) = jail::planted(folder).or_else(|| link_at(&path)) {
            return Err(io::Error::other(format!(
                "{} is a symbolic link, which a command can have put there: name the target \
                 file itself",
                link.display()
            )));
        }
        let held = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = folder.canonicalize()?;
        let folder = openat2(CWD, &folder, held, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        let file = File::from(openat(&folder, name, flags | OFlags::NOFOLLOW, MODE)?);
        if file.metadata()?.is_file() {
            let name = name.to_owned();
            return Ok(Self::Regular { folder, name });
        }
        Self::stream(file)
    }

    fn stream(file: File) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        Ok(Self::Stream(file))
    }

    /// Writes the summary.
    pub(super) fn write(self, text: &str) -> io::Result<()> {
        match self {
            Self::Regular { folder, name } => replace(&folder, &name, text),
            Self::Stream(mut stream) => stream.write_all(text.as_bytes()),
        }
    }
}

/// Whether a path names a device or a descriptor of a process.
fn is_descriptor(path: &Path) -> bool {
    let below = ["/dev", "/proc"]
        .iter()
        .any(|above| path.starts_with(above));
    below && !path.components().any(|part| part == Component::ParentDir)
}

fn link_at(path: &Path) -> Option<std::path::PathBuf> {
    let status = path.symlink_metadata().ok()?;
    status.is_symlink().then(|| path.to_owned())
}

/// Replaces the file of that name by a new file, without opening the old one.
fn replace(folder: &OwnedFd, name: &OsStr, text: &str) -> io::Result<()> {
    let mut beside = name.to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let _ = unlinkat(folder, &beside, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = openat(folder, &beside, flags | OFlags::CLOEXEC, MODE)?;
    File::from(file).write_all(text.as_bytes())?;
    Ok(renameat(folder, &beside, folder, name)?)
}
