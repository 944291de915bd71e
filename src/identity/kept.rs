//! The file in which revocations outlive the process: one line each, `UNTIL NAME`.
//!
//! Several gates may append to one file, so it is locked while it changes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A file of more bytes is rid of what no longer counts, whenever it has doubled since.
const LARGE: u64 = 1 << 20;

/// Where revocations are kept, if anywhere.
#[derive(Debug, Default)]
pub(super) struct Kept {
    path: Option<PathBuf>,
    /// Its size after it was last rid of what no longer counts.
    clean: u64,
}

impl Kept {
    /// Where they are kept from now on.
    pub(super) fn at(&mut self, path: Option<PathBuf>) {
        if self.path != path {
            *self = Self { path, clean: 0 };
        }
    }

    /// Adds a line that is on the disk when this returns.
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

/// Opens and locks the file that has this name while the lock is held.
fn open(path: &Path) -> io::Result<File> {
    loop {
        let mut options = OpenOptions::new();
        options.create(true).read(true).append(true).mode(0o600);
        let file = options.open(path)?;
        file.lock()?;
        // Another gate may have put a cleaner file in its place meanwhile.
        if std::fs::metadata(path).is_ok_and(|named| {
            file.metadata()
                .is_ok_and(|ours| (ours.dev(), ours.ino()) == (named.dev(), named.ino()))
        }) {
            return Ok(file);
        }
    }
}

/// Takes away half a line at the end, which a full disk or a sudden end left: the next one would
/// become part of it. No caller was told that this line was kept. Returns the length of the file.
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

/// Puts a file without what no longer counts in its place; its size.
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
