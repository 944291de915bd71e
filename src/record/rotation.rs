//! The rotated files of the log: their numbers and their retention.

use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::Deserialize;

use crate::config;

/// Bytes at the end of a file that are searched for the last line.
const MAX_TAIL: u64 = 256 * 1024;

/// How long, and how many, rotated files are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    size: u64,
    keep: u32,
    age: Duration,
}

/// The result of applying the retention.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The removed files, and the reason.
    pub(super) removed: Option<String>,
    /// Why `rotate-keep` files do not cover `retain`, if so.
    pub(super) short: Option<String>,
}

#[derive(Debug)]
struct Rotated {
    number: u32,
    path: PathBuf,
    /// When the last line of the file was written.
    ended: Timestamp,
    /// When the file system last changed the file, its name or its times; no program can set this
    /// time.
    changed: Timestamp,
}

impl Retention {
    pub(super) fn new(config: &config::Record) -> Self {
        Self {
            size: config.rotate_size,
            keep: config.rotate_keep,
            age: config.retain,
        }
    }

    /// Removes rotated files that are older than `retain`, or, without `retain`, beyond
    /// `rotate-keep`.
    pub(super) fn apply(self, path: &Path, now: Timestamp) -> io::Result<Kept> {
        let mut files = rotated(path)?;
        if !self.age.is_zero() {
            // A process that may write a file can set the file's time, so the time of its last line
            // decides.
            for file in files.iter_mut().filter(|file| self.is_over(file, now)) {
                file.ended = last_line_time(&file.path).unwrap_or(file.changed);
            }
        }
        let (gone, kept): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| self.is_over(file, now));
        for file in &gone {
            absent_is_fine(fs::remove_file(&file.path))?;
        }
        let names = |files: &[Rotated]| {
            let name = |file: &Rotated| {
                let name = file.path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            };
            match files {
                [] => String::new(),
                [one] => name(one),
                [first, .., last] => {
                    format!("{} files, {} to {}", files.len(), name(first), name(last))
                }
            }
        };
        let why = if self.age.is_zero() {
            format!("rotate-keep is {}", self.keep)
        } else {
            format!("older than {} days", self.age.as_secs() / 86_400)
        };
        Ok(Kept {
            removed: (!gone.is_empty()).then(|| format!("removed {}: {why}", names(&gone))),
            short: self.short(&kept),
        })
    }

    fn is_over(self, file: &Rotated, now: Timestamp) -> bool {
        if self.age.is_zero() {
            return file.number > self.keep;
        }
        let age = Duration::try_from(now.duration_since(file.ended));
        age.is_ok_and(|age| age > self.age)
    }

    /// Describes why `retain` keeps more files than `rotate-keep`: no file younger than `retain` is
    /// removed, so the log uses more space than `rotate-size` and `rotate-keep` allow.
    fn short(self, kept: &[Rotated]) -> Option<String> {
        let planned = usize::try_from(self.keep).unwrap_or(usize::MAX);
        if self.age.is_zero() || kept.len() < planned.max(1) {
            return None;
        }
        let oldest = kept.last()?;
        Some(format!(
            "{} rotated files ({} MiB each at most) do not hold {} days, the oldest ends {:.0}: \
             nothing is removed, more disk is used",
            kept.len(),
            self.size >> 20,
            self.age.as_secs() / 86_400,
            oldest.ended,
        ))
    }
}

/// Frees the name `path`: each file gets the next number.
pub(super) fn shift(path: &Path) -> io::Result<()> {
    let mut last = 0;
    while numbered(path, last + 1).symlink_metadata().is_ok() {
        last += 1;
    }
    for number in (1..=last).rev() {
        absent_is_fine(fs::rename(
            numbered(path, number),
            numbered(path, number + 1),
        ))?;
    }
    absent_is_fine(fs::rename(path, numbered(path, 1)))
}

/// Returns the rotated files of a log, the newest first.
fn rotated(path: &Path) -> io::Result<Vec<Rotated>> {
    let folder = folder(path).unwrap_or(Path::new("."));
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(&*own)?.strip_prefix('.'))
            .filter(|number| !number.starts_with(['0', '+']))
            .and_then(|number| number.parse().ok());
        let (Some(number), Ok(metadata)) = (number, entry.metadata()) else {
            continue;
        };
        let ended = metadata.modified().ok();
        let ended = ended.and_then(|ended| Timestamp::try_from(ended).ok());
        let changed = Timestamp::from_second(metadata.ctime()).ok();
        if let (Some(ended), Some(changed), true) = (ended, changed, metadata.is_file()) {
            files.push(Rotated {
                number,
                path: entry.path(),
                ended,
                changed,
            });
        }
    }
    files.sort_unstable_by_key(|file| file.number);
    Ok(files)
}

#[derive(Deserialize)]
struct Timed {
    timestamp: Timestamp,
}

/// Returns the latest time of the lines at the end of a file; `None` if no line there is readable.
fn last_line_time(path: &Path) -> Option<Timestamp> {
    let mut file = open_to_read(path).ok()?;
    let length = file.metadata().ok()?.len();
    let begins = length.saturating_sub(MAX_TAIL);
    file.seek(SeekFrom::Start(begins)).ok()?;
    let mut tail = Vec::new();
    file.take(MAX_TAIL).read_to_end(&mut tail).ok()?;
    let lines = tail.split(|byte| *byte == b'\n');
    let times = lines.filter_map(|line| serde_json::from_slice::<Timed>(line).ok());
    times.map(|line| line.timestamp).max()
}

/// Opens a file for reading; a pipe at the path does not block the caller.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
}

pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    suffixed(path, &format!(".{number}"))
}

pub(super) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn folder(path: &Path) -> Option<&Path> {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
}

pub(super) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
