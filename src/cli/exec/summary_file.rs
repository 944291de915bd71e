//! The file that `--summary` names: opened before the command begins, written after it ended.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::tls;

/// Where the summary goes.
pub(super) enum SummaryFile {
    /// A regular file: replaced at the end, so that what the command wrote there is gone.
    Regular(PathBuf),
    /// A pipe, a terminal or a descriptor (`/dev/fd/3`).
    Stream(File),
}

impl SummaryFile {
    /// Opens it, to fail before the command begins. Not waited for: a pipe needs its reader now.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        options
            .write(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nonblock);
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("--summary {}: {error}", path.display()),
            )
        };
        let file = options.open(path).map_err(named)?;
        // `/dev/fd/3` may be a regular file as well; what has no folder to write to is not replaced.
        let descriptor = ["/dev", "/proc"]
            .iter()
            .any(|above| path.starts_with(above));
        if !descriptor && file.metadata()?.is_file() {
            return Ok(Self::Regular(std::path::absolute(path)?));
        }
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self::Stream(file))
    }

    /// Writes it.
    pub(super) fn write(self, text: &str) -> io::Result<()> {
        match self {
            Self::Regular(path) => replace(&path, text),
            Self::Stream(mut stream) => stream.write_all(text.as_bytes()),
        }
    }
}

/// Puts a new file in the place of whatever is there by now, without opening that.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let _ = std::fs::remove_file(&beside);
    tls::create(&beside, text, 0o600)?;
    std::fs::rename(&beside, path)
}
