//! The file that keeps revocations across restarts: one line each, `UNTIL NAME`.
//!
//! Several gates may append to one file, so it is locked while it changes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// The size in bytes from which a file is cleaned of expired lines, each time its size has doubled.
const LARGE: u64 = 1 << 20;

/// The file of revocations, if configured.
#[derive(Debug, Default)]
pub(super) struct Kept {
    path: Option<PathBuf>,
    /// The size of the file after its last cleaning.
    clean: u64,
}

impl Kept {
    /// Sets the file.
    pub(super) fn at(&mut self, path: Option<PathBuf>) {
        if self.path != path {
            *self = Self { path, clean: 0 };
        }
    }

    /// Adds a line, and returns when the line is on the disk.
    pub(super) fn add(&mut self, name: &str, until: Timestamp, now: Timestamp) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let mut file = open(path)?;
        let size = mend(&mut file)?;
        file.write_all(format!("{until} {name}\n").as_bytes())?;
        file.sync_data()?;
        if size > LARGE.max(self.clean.saturating_mul(2)) {
            self.clean = clean(path, &mut file, now)?;
        }
        Ok(())
    }
}

/// Opens and locks the file; the path must still name this file after locking.
fn open(path: &Path) -> io::Result<File> {
    loop {
        let mut options = OpenOptions::new();
        options.create(true).read(true).append(true).mode(0o600);
        let file = options.open(path)?;
        file.lock()?;
        // Another gate may have replaced the file meanwhile.
        if std::fs::metadata(path).is_ok_and(|named| {
            file.metadata()
                .is_ok_and(|ours| (ours.dev(), ours.ino()) == (named.dev(), named.ino()))
        }) {
            return Ok(file);
        }
    }
}

/// Removes an incomplete last line, left by a full disk or a crash: the next line would become part
/// of it. No revocation was confirmed for such a line. Returns the length of the file.
fn mend(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let tail = size.min(1024);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(size - tail))?;
    file.take(tail).read_to_end(&mut end)?;
    let half = end.iter().rev().take_while(|byte| **byte != b'\n').count();
    let whole = size.saturating_sub(half.try_into().unwrap_or(0));
    if half > 0 {
        file.set_len(whole)?;
    }
    Ok(whole)
}

/// Replaces the file by a copy without expired lines; returns the new size.
fn clean(path: &Path, file: &mut File, now: Timestamp) -> io::Result<u64> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    let counts = |line: &&str| {
        let until = line
            .split_once(' ')
            .map(|(until, _)| until.parse::<Timestamp>());
        !matches!(until, Some(Ok(until)) if until <= now)
    };
    let kept: String = text.split_inclusive('\n').filter(counts).collect();
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut cleaner = options.open(&beside)?;
    cleaner.write_all(kept.as_bytes())?;
    cleaner.sync_data()?;
    std::fs::rename(&beside, path)?;
    Ok(kept.len().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn kept(path: &Path) -> Kept {
        let mut kept = Kept::default();
        kept.at(Some(path.to_owned()));
        kept
    }

    #[test]
    fn half_a_line_does_not_swallow_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        let (until, now) = (at("2026-12-02T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        for half in ["2026-1", "2026-12-02T00:00:00Z on"] {
            std::fs::write(&path, format!("2026-12-02T00:00:00Z one\n{half}")).unwrap();
            kept(&path).add("two", until, now).unwrap();
            assert_eq!(
                crate::config::read(&path).unwrap(),
                "2026-12-02T00:00:00Z one\n2026-12-02T00:00:00Z two\n"
            );
        }
    }

    #[test]
    fn a_large_file_is_rid_of_what_no_longer_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        let (until, now) = (at("2026-12-02T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        let over = format!("2026-11-30T00:00:00Z {}\n", "x".repeat(250)).repeat(5_000);
        std::fs::write(&path, format!("2026-12-02T00:00:00Z one\n{over}")).unwrap();
        kept(&path).add("two", until, now).unwrap();
        assert_eq!(
            crate::config::read(&path).unwrap(),
            "2026-12-02T00:00:00Z one\n2026-12-02T00:00:00Z two\n"
        );
    }
}
