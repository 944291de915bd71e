//! Pins: the repository of a working copy at its first use, or as the operator set it.
//!
//! One JSON file in the gate's state folder, mode 0600, replaced as a whole:
//!
//! ```json
//! { "version": 1, "pins": [ { "path": "/home/ana/src/web", "repository": "github.com/acme/web",
//!   "by": "operator", "at": "2026-11-29T12:00:00Z", "device": 2049, "inode": 131, "born": 17 } ] }
//! ```
//!
//! `device`, `inode` and `born` (the creation time in the file system, in nanoseconds) show whether
//! another folder has replaced the pinned one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::config;

use super::WorkingCopy;

const VERSION: u32 = 1;
/// Maximum size of the file in bytes, and maximum number of pins.
const MAX_FILE_SIZE: u64 = 8 << 20;
const MAX_PINS: usize = 10_000;
/// How long to wait while another process locks the file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// All pins of one file.
#[derive(Clone, Debug, Default)]
pub struct Pins(Vec<Pin>);

/// The pinned repository of a folder.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The top folder of the working copy, without symbolic links.
    pub path: PathBuf,
    /// The clone URL without scheme, user and `.git`.
    pub repository: String,
    /// The origin of the pin.
    pub by: By,
    /// When the pin was made.
    pub at: Timestamp,
    device: u64,
    inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    born: Option<u64>,
}

/// The origin of a pin.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The first use of the folder: the repository that the working copy had then.
    FirstUse,
    /// The operator, with `tidegate workspace pin`.
    Operator,
}

/// The pins that apply to a folder.
#[derive(Debug, Default)]
pub struct Pinned<'p> {
    /// The pin of its working copy.
    pub own: Option<&'p Pin>,
    /// Pins of folders above its working copy.
    pub above: Vec<&'p Pin>,
}

/// Why pins cannot be used, or which pin the working copy contradicts.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
    /// The file has no valid pins, or another user can change it.
    #[error("{}: {why}: mend or remove it, and pin again", path.display())]
    Unsound {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        why: String,
    },
    /// The file has the maximum number of pins.
    #[error("{} has {MAX_PINS} pins: forget some with `tidegate workspace forget PATH`", .0.display())]
    Full(PathBuf),
    /// The working copy has another repository than the pin.
    #[error(
        "{} is pinned as {pinned}, and its working copy now names {}: if that is right, \
         `tidegate workspace forget {}`",
        path.display(), found.as_deref().unwrap_or("no repository"), path.display()
    )]
    Changed {
        /// The folder.
        path: PathBuf,
        /// The pinned repository.
        pinned: String,
        /// The repository in the working copy.
        found: Option<String>,
    },
    /// Another folder has the pinned path.
    #[error(
        "{} is pinned as {pinned}, and another folder replaced it, which names {}: if that is \
         right, `tidegate workspace forget {}`",
        path.display(), found.as_deref().unwrap_or("no repository"), path.display()
    )]
    Replaced {
        /// The folder.
        path: PathBuf,
        /// The pinned repository.
        pinned: String,
        /// The repository in the working copy.
        found: Option<String>,
    },
}

impl PinError {
    /// Returns the error for the record, without paths.
    pub fn detail(&self) -> String {
        let now = |found: &Option<String>| {
            let found = found.as_deref().unwrap_or("no repository");
            found.to_owned()
        };
        match self {
            Self::Changed { pinned, found, .. } => {
                format!("pinned as {pinned}, the working copy names {}", now(found))
            }
            Self::Replaced { pinned, found, .. } => {
                format!("pinned as {pinned}, another folder names {}", now(found))
            }
            Self::File { .. } | Self::Full(_) | Self::Unsound { .. } => {
                "the file of pins cannot be used".to_owned()
            }
        }
    }
}

/// Returns the pin file of this user: in the state folder of a gate without configuration.
pub fn default_file() -> Option<PathBuf> {
    let record = config::embedded().record.file?;
    record
        .is_absolute()
        .then(|| record.with_file_name("workspaces.json"))
}

impl Pin {
    /// Makes a pin for a folder as it is now.
    fn new(path: &Path, repository: &str, by: By, at: Timestamp) -> io::Result<Self> {
        let folder = path.symlink_metadata()?;
        Ok(Self {
            path: path.to_owned(),
            repository: repository.to_owned(),
            by,
            at,
            device: folder.dev(),
            inode: folder.ino(),
            born: born(&folder),
        })
    }

    /// Whether the folder at the pinned path is the pinned folder.
    fn is_of_same_folder(&self) -> bool {
        let folder = self.path.symlink_metadata();
        folder.is_ok_and(|folder| {
            folder.dev() == self.device && folder.ino() == self.inode && born(&folder) == self.born
        })
    }
}

fn born(folder: &fs::Metadata) -> Option<u64> {
    let since = folder.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

impl Pins {
    /// Reads a pin file; a missing file has no pins.
    pub fn read(path: &Path) -> Result<Self, PinError> {
        let unsound = |why: &str| PinError::Unsound {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        let file = match open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(path, error)),
        };
        let metadata = file.metadata().map_err(|error| failed(path, error))?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_SIZE {
            return Err(unsound("this is no file of pins"));
        }
        is_own(&metadata).map_err(|why| unsound(&why))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(unsound("its mode lets other users read or change it"));
        }
        let mut text = String::new();
        let read = file.take(MAX_FILE_SIZE).read_to_string(&mut text);
        read.map_err(|error| failed(path, error))?;
        let kept: Kept = serde_json::from_str(&text)
            .map_err(|error| unsound(&format!("this is no file of pins: {error}")))?;
        if kept.version != VERSION {
            return Err(unsound("it is of another version"));
        }
        Ok(Self(kept.pins))
    }

    /// Returns every pin, by path.
    pub fn iter(&self) -> impl Iterator<Item = &Pin> {
        self.0.iter()
    }

    /// Returns the pins for a working copy; `Err` if one of them contradicts the working copy.
    ///
    /// A first-use pin is ignored if its folder was replaced by one of the same repository: such a
    /// pin was no evidence before.
    pub fn of<'p>(&'p self, folder: &Path, copy: &WorkingCopy) -> Result<Pinned<'p>, PinError> {
        let mut pinned = Pinned::default();
        for pin in self.0.iter().filter(|pin| folder.starts_with(&pin.path)) {
            // A working copy below the folder of a pin is a different working copy.
            let below = |top: &PathBuf| *top != pin.path && top.starts_with(&pin.path);
            if copy.top.as_ref().is_some_and(below) {
                pinned.above.push(pin);
                continue;
            }
            let same = |found: &String| found.eq_ignore_ascii_case(&pin.repository);
            let same = copy.repository.as_ref().is_some_and(same);
            let replaced = !pin.is_of_same_folder();
            let (path, pinned_as) = (pin.path.clone(), pin.repository.clone());
            let found = copy.repository.clone();
            match (replaced, same, pin.by) {
                (false, true, _) => pinned.own = Some(pin),
                (true, true, By::FirstUse) => {}
                (true, ..) => {
                    return Err(PinError::Replaced {
                        path,
                        pinned: pinned_as,
                        found,
                    });
                }
                (false, false, _) => {
                    return Err(PinError::Changed {
                        path,
                        pinned: pinned_as,
                        found,
                    });
                }
            }
        }
        Ok(pinned)
    }

    /// Pins a folder and replaces its former pin. A first-use pin does not replace a pin of the
    /// operator.
    pub fn pin(
        file: &Path,
        folder: &Path,
        repository: &str,
        (by, now): (By, Timestamp),
    ) -> Result<Pin, PinError> {
        let pin = Pin::new(folder, repository, by, now).map_err(|error| failed(folder, error))?;
        Self::change(file, |pins| {
            let before = pins.0.iter().find(|known| known.path == pin.path);
            if let Some(before) = before.filter(|it| it.by == By::Operator && by == By::FirstUse) {
                return Ok(before.clone());
            }
            pins.0.retain(|known| known.path != pin.path);
            if pins.0.len() >= MAX_PINS {
                // Removes the first-use pins of missing folders: a folder that returns cannot be
                // recognised.
                pins.0
                    .retain(|known| known.by == By::Operator || known.path.exists());
            }
            if pins.0.len() >= MAX_PINS {
                return Err(PinError::Full(file.to_owned()));
            }
            pins.0.push(pin.clone());
            pins.0.sort_by(|one, other| one.path.cmp(&other.path));
            Ok(pin)
        })
    }

    /// Removes the pin of a folder; `None` if there was none.
    pub fn forget(file: &Path, folder: &Path) -> Result<Option<Pin>, PinError> {
        Self::change(file, |pins| {
            let at = pins.0.iter().position(|pin| pin.path == folder);
            Ok(at.map(|at| pins.0.remove(at)))
        })
    }

    /// Reads, changes and writes the file under a lock.
    fn change<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, PinError>,
    ) -> Result<T, PinError> {
        let failed = |error| failed(path, error);
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(failed)?;
        // `sudo` with the HOME of its caller would leave a file that the caller cannot change.
        let owned = is_own(&folder.metadata().map_err(failed)?);
        owned.map_err(|why| PinError::Unsound {
            path: folder.to_owned(),
            why,
        })?;
        let _lock = lock(&path.with_extension("lock")).map_err(failed)?;
        let mut pins = Self::read(path)?;
        let changed = change(&mut pins)?;
        pins.write(path).map_err(failed)?;
        Ok(changed)
    }

    /// Writes a new file and renames it: a reader finds the old pins or the new ones.
    fn write(self, path: &Path) -> io::Result<()> {
        let kept = Kept {
            version: VERSION,
            pins: self.0,
        };
        let text = serde_json::to_string_pretty(&kept).map_err(io::Error::other)? + "\n";
        let fresh = path.with_extension(format!("{}.new", uuid::Uuid::now_v7().simple()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&fresh, path));
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written
    }
}

/// Whether the user of this process owns a file or folder; the error is the reason.
fn is_own(metadata: &fs::Metadata) -> Result<(), String> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    Err(format!(
        "it belongs to user {owner}, not to user {user} (set HOME or XDG_STATE_HOME to this user's)"
    ))
}

/// The text of the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    pins: Vec<Pin>,
}

fn failed(path: &Path, error: io::Error) -> PinError {
    PinError::File {
        path: path.to_owned(),
        error,
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Takes the lock, which ends when the returned file is dropped.
fn lock(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)?;
    let mut waited = Duration::ZERO;
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK && error != rustix::io::Errno::INTR {
            return Err(error.into());
        }
        if waited >= LOCK_TIMEOUT {
            let why = "another process keeps the file of pins";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        std::thread::sleep(LOCK_PAUSE);
        waited += LOCK_PAUSE;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const WEB: &str = "github.com/acme/web";

    fn copy(top: &Path, repository: Option<&str>) -> WorkingCopy {
        WorkingCopy {
            repository: repository.map(str::to_owned),
            top: Some(top.to_owned()),
            ..WorkingCopy::default()
        }
    }

    /// Returns a pinned folder and the pin file.
    fn pinned(by: By) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let (web, file) = (home.path().join("web"), home.path().join("state/pins.json"));
        fs::create_dir(&web).unwrap();
        Pins::pin(&file, &web, WEB, (by, Timestamp::UNIX_EPOCH)).unwrap();
        (home, web, file)
    }

    #[test]
    fn a_working_copy_is_held_against_its_pin() {
        let (home, web, file) = pinned(By::FirstUse);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let pins = Pins::read(&file).unwrap();
        let of = |folder: &Path, copy| pins.of(folder, &copy).map(|it| it.own.is_some());
        assert!(of(&web, copy(&web, Some(WEB))).unwrap());
        assert!(of(&web.join("below"), copy(&web, Some(WEB))).unwrap());
        let other = of(&web, copy(&web, Some("github.com/acme/open"))).unwrap_err();
        let text = other.to_string();
        for part in [WEB, "github.com/acme/open", "tidegate workspace forget"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(of(&web, copy(&web, None)).is_err());
        // Its `.git` is gone, and git finds one in a folder above.
        assert!(of(&web, copy(home.path(), Some("github.com/acme/open"))).is_err());
        assert!(of(&web, WorkingCopy::default()).is_err());
        let below = web.join("nested");
        let nested = pins.of(&below, &copy(&below, Some("github.com/acme/open")));
        let nested = nested.unwrap();
        assert!(nested.own.is_none() && nested.above.len() == 1);
        let beside = home.path().join("web-2");
        assert!(!of(&beside, copy(&beside, Some("github.com/acme/open"))).unwrap());
    }

    #[test]
    fn another_folder_at_its_path_is_not_the_one_that_was_pinned() {
        for (by, refused) in [(By::Operator, true), (By::FirstUse, false)] {
            let (_home, web, file) = pinned(by);
            fs::rename(&web, web.with_extension("old")).unwrap();
            fs::create_dir(&web).unwrap();
            let pins = Pins::read(&file).unwrap();
            let same = pins.of(&web, &copy(&web, Some(WEB)));
            assert_eq!(same.is_err(), refused, "{same:?}");
            let other = pins.of(&web, &copy(&web, Some("github.com/acme/open")));
            assert!(matches!(other, Err(PinError::Replaced { .. })), "{other:?}");
        }
    }

    #[test]
    fn a_first_use_replaces_no_pin_of_the_operator() {
        let (_home, web, file) = pinned(By::Operator);
        let first = (By::FirstUse, Timestamp::UNIX_EPOCH);
        let kept = Pins::pin(&file, &web, "github.com/acme/open", first).unwrap();
        assert_eq!((&*kept.repository, kept.by), (WEB, By::Operator));
        assert!(Pins::forget(&file, &web).unwrap().is_some());
        assert!(Pins::forget(&file, &web).unwrap().is_none());
        assert_eq!(Pins::read(&file).unwrap().iter().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_ours_alone_is_not_read() {
        let (_home, _web, file) = pinned(By::Operator);
        let set = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        set(0o620);
        assert!(matches!(Pins::read(&file), Err(PinError::Unsound { .. })));
        set(0o600);
        fs::write(&file, "{}").unwrap();
        assert!(matches!(Pins::read(&file), Err(PinError::Unsound { .. })));
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("elsewhere", &file).unwrap();
        assert!(Pins::read(&file).is_err());
    }
}
