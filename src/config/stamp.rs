//! The state of a configuration's files in the file system. A poll compares it to detect a change
//! without reading the files.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Config, folder_of, glob};

/// Files of fewer bytes in all are read at each poll: reading them takes less than a millisecond.
const MIN_BYTES: u64 = 1 << 20;
/// The age of the last change of each file, at least. A later change then has another time, also on a
/// file system with coarse times.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// The files of a configuration, each with its state; `None` if there is no such file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp(Vec<(PathBuf, Option<FileState>)>);

/// The state of one file. A change of its content changes `changed`, which only the system sets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct FileState {
    device: u64,
    inode: u64,
    bytes: u64,
    /// The time of the last change (`st_ctime`), in seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    /// Looks at the files of a configuration, at those that its `include` patterns match now, and
    /// at its secrets. `None` if a folder cannot be listed.
    pub fn of(config: &Config) -> Option<Self> {
        let read = config.files.read.iter().map(|file| &file.source.path);
        let mut paths: Vec<PathBuf> = read.chain(&config.files.secrets).cloned().collect();
        for file in &config.files.read {
            let folder = folder_of(&file.source.path);
            for pattern in &file.includes {
                paths.extend(glob::expand(folder, pattern).ok()?);
            }
        }
        let state = |path: PathBuf| {
            let state = fs::metadata(&path).ok().as_ref().map(FileState::of);
            (path, state)
        };
        Some(Self(paths.into_iter().map(state).collect()))
    }

    /// Whether a poll may compare the stamp instead of reading the files: the files are large, and
    /// their last change was long enough before `now`, the time at which the stamp was made.
    pub fn replaces_reading(&self, now: Timestamp) -> bool {
        let bytes: u64 = self.states().map(|state| state.bytes).sum();
        bytes >= MIN_BYTES && self.states().all(|state| state.is_settled(now))
    }

    fn states(&self) -> impl Iterator<Item = FileState> {
        self.0.iter().filter_map(|(_, state)| *state)
    }
}

impl FileState {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    fn is_settled(self, now: Timestamp) -> bool {
        let Ok(changed) = Timestamp::from_second(self.changed.0) else {
            return false;
        };
        let margin = SignedDuration::try_from(SETTLED_AFTER).unwrap_or_default();
        now.duration_since(changed) > margin
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;
    use std::time::SystemTime;

    use super::super::load;
    use super::*;
    use crate::clock::Clock;

    fn config(path: &Path) -> Config {
        let (config, findings) = load(path);
        config.unwrap_or_else(|| panic!("{findings:?}"))
    }

    fn rule(id: &str, size: usize) -> String {
        let filler = "x".repeat(size);
        format!(
            "# {filler}\n[[rule]]\nid = \"{id}\"\nverdict = \"deny\"\nto.hosts = [\"a.example\"]\n"
        )
    }

    /// A folder with a configuration, an included file, and a pattern that could match more.
    fn folder(size: usize) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tidegate.toml");
        fs::create_dir(folder.path().join("d")).expect("a folder");
        fs::write(&path, "include = [\"d/*.toml\"]\n").expect("a file");
        fs::write(folder.path().join("d/a.toml"), rule("a", size)).expect("a file");
        (folder, path)
    }

    #[test]
    fn a_change_of_the_same_length_at_the_same_time_of_modification_shows() {
        let (folder, path) = folder(10);
        let config = config(&path);
        let included = folder.path().join("d/a.toml");
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let set = |path: &Path| {
            File::options()
                .write(true)
                .open(path)?
                .set_modified(modified)
        };
        set(&included).expect("a file");
        let before = Stamp::of(&config);
        assert_eq!(before, Stamp::of(&config));
        let began = Clock::system().instant();
        // The times of a file system have steps of some milliseconds.
        while Stamp::of(&config) == before {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "it does not show"
            );
            fs::write(&included, rule("b", 10)).expect("a file");
            set(&included).expect("a file");
        }
    }

    #[test]
    fn a_new_file_that_a_pattern_matches_and_a_file_that_is_gone_show() {
        let (folder, path) = folder(10);
        let config = config(&path);
        let before = Stamp::of(&config);
        let other = folder.path().join("d/b.toml");
        fs::write(&other, rule("b", 10)).expect("a file");
        assert_ne!(before, Stamp::of(&config));
        fs::remove_file(other).expect("a file");
        assert_eq!(before, Stamp::of(&config));
        fs::remove_file(folder.path().join("d/a.toml")).expect("a file");
        assert_ne!(before, Stamp::of(&config));
    }

    #[test]
    fn only_large_files_that_were_not_just_written_stay_unread() {
        for (size, large) in [(10, false), (2 << 20, true)] {
            let (_folder, path) = folder(size);
            let stamp = Stamp::of(&config(&path)).expect("a stamp");
            let written = stamp.states().map(|state| state.changed.0).max();
            let written = Timestamp::from_second(written.expect("files")).expect("a time");
            let after = |seconds| written + SignedDuration::from_secs(seconds);
            assert!(!stamp.replaces_reading(after(1)));
            assert_eq!(stamp.replaces_reading(after(4)), large, "{size}");
        }
    }
}
