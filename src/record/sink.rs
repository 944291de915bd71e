//! The output of the log: a file of whole lines that is rotated, or standard output.

use std::fs::{self, DirBuilder, File, FileType, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::config;

use super::rotation::{self, Kept, Retention, absent_is_fine, folder, numbered, suffixed};
use super::scan::{Found, Tail, scan};

/// How long the gate writes to a moved file before it reports the move: a log rotation from outside
/// first moves the file and then sends SIGHUP.
const MOVED_GRACE: Duration = Duration::from_secs(2);

/// The error for a path that is not a regular file.
const NO_FILE: &str = "what is at the path of the log is no regular file: remove it, or name another \
                       file (`[record] file`; `-` is standard output)";

/// The output of the log.
#[derive(Debug)]
pub(super) struct Sink {
    out: Out,
    /// The path of the file; absent for a stream, which is neither scanned nor rotated.
    path: Option<PathBuf>,
    /// Owner group and mode of the files.
    access: Access,
    /// Length of the file in bytes, up to its last whole line.
    length: u64,
    /// The file ends in part of a line that could not be cut off.
    torn: bool,
    rotate_size: u64,
    retention: Retention,
    /// The length at which the file is rotated: more than `rotate_size` after a rotation that
    /// failed.
    rotate_at: u64,
    /// Since when the file is no longer at its path.
    moved: Option<Instant>,
    /// Whether the file is on a file system of this machine.
    local: bool,
}

/// The open file or stream.
#[derive(Debug)]
enum Out {
    /// A double for tests of failures.
    #[cfg(test)]
    Faulty(faulty::Faulty),
    /// A file or another descriptor.
    File(File),
    /// The file is gone, and no new file can be opened.
    Lost,
}

/// A change of the file that the gate did not make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Change {
    /// The cause: `appended`, `moved`, `removed`, `replaced`, `truncated`.
    pub(super) cause: &'static str,
    /// Whether all lines of the file are gone with the file.
    pub(super) lines_gone: bool,
    /// Whether the path has to be opened again.
    pub(super) elsewhere: bool,
    /// The number of bytes that the file has too few or too many.
    pub(super) bytes: u64,
}

/// The group and mode of the files.
#[derive(Clone, Copy, Debug)]
struct Access {
    mode: u32,
    group: Option<u32>,
}

impl Sink {
    /// Opens the log and reads the state that an earlier run left. Afterwards the file ends with a
    /// whole line.
    pub(super) fn open(config: &config::Record) -> io::Result<(Self, Found)> {
        let Some(path) = &config.file else {
            let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            return Ok((Self::new(Out::File(out), None, config), Found::default()));
        };
        let (sink, found) = Self::open_file(path, config).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        Ok((sink, found))
    }

    fn open_file(path: &Path, config: &config::Record) -> io::Result<(Self, Found)> {
        let access = Access::new(config);
        access.make_folder(path)?;
        let file = open(path, access)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            is_stream(path, metadata.file_type())?;
            return Ok((Self::new(Out::File(file), None, config), Found::default()));
        }
        lock(&file)?;
        if !is_at(&file, path) {
            return Err(io::Error::other(
                "the file was replaced while it was opened",
            ));
        }
        access.grant(&file)?;
        let mut found = scan(&file)?;
        if metadata.len() == 0
            && let Ok(before) = rotation::open_to_read(&numbered(path, 1))
            && before.metadata()?.is_file()
        {
            found = Found {
                tail: Tail::Clean,
                ..scan(&before)?
            };
        }
        let mut sink = Self::new(Out::File(file), Some(path.to_owned()), config);
        sink.length = metadata.len();
        sink.local = sink.out.is_local();
        sink.mend(found.tail)?;
        Ok((sink, found))
    }

    fn new(out: Out, path: Option<PathBuf>, config: &config::Record) -> Self {
        let rotate_at = if config.rotate_size == 0 {
            u64::MAX
        } else {
            config.rotate_size
        };
        Self {
            out,
            path,
            access: Access::new(config),
            length: 0,
            torn: false,
            rotate_size: config.rotate_size,
            retention: Retention::new(config),
            rotate_at,
            moved: None,
            local: false,
        }
    }

    /// Whether the output is a file without a line.
    pub(super) fn is_empty(&self) -> bool {
        self.path.is_some() && self.length == 0
    }

    /// Writes whole lines, which end at the offsets `ends`. Returns the number of lines in the
    /// file, and the error if not all were written. Part of a further line is cut off.
    pub(super) fn append(&mut self, bytes: &[u8], ends: &[usize]) -> (usize, io::Result<()>) {
        if self.torn {
            match self.out.write(b"\n") {
                Ok(_) => self.torn = false,
                Err(error) => return (0, Err(error)),
            }
        }
        let (written, result) = self.out.write_on(bytes);
        let whole = ends.partition_point(|end| *end <= written);
        let kept = whole
            .checked_sub(1)
            .and_then(|last| ends.get(last))
            .copied()
            .unwrap_or(0);
        let before = self.length;
        self.length += u64::try_from(kept).unwrap_or(0);
        if written > kept && (self.path.is_none() || self.out.cut(self.length).is_err()) {
            self.torn = true;
            self.length = before + u64::try_from(written).unwrap_or(0) + 1;
        }
        (whole, result)
    }

    /// Whether the file is long enough to be rotated.
    pub(super) fn rotation_due(&self) -> bool {
        self.path.is_some() && self.length >= self.rotate_at
    }

    /// Compares the file with its expected length, and the path with the open file.
    pub(super) fn changed(&mut self, now: Instant) -> Option<Change> {
        let (Out::File(file), Some(path)) = (&self.out, &self.path) else {
            return None;
        };
        let ours = file.metadata().ok()?;
        let there = fs::symlink_metadata(path).ok();
        let lines_gone = ours.nlink() == 0;
        if is_same(&ours, there.as_ref()) {
            self.moved = None;
            return self.resized(ours.len());
        }
        let since = *self.moved.get_or_insert(now);
        if !lines_gone && now.duration_since(since) < MOVED_GRACE {
            return None;
        }
        self.moved = None;
        let cause = match (there, lines_gone) {
            (Some(_), _) => "replaced",
            (None, true) => "removed",
            (None, false) => "moved",
        };
        Some(Change {
            cause,
            lines_gone,
            elsewhere: true,
            bytes: 0,
        })
    }

    /// Whether the file has its expected length and is not removed.
    pub(super) fn is_as_left(&self) -> bool {
        let Out::File(file) = &self.out else {
            return false;
        };
        let found = file.metadata();
        !self.torn && found.is_ok_and(|it| it.nlink() > 0 && it.len() == self.length)
    }

    /// Compares the length of the file with the expected length.
    fn resized(&mut self, length: u64) -> Option<Change> {
        if self.torn || length == self.length {
            return None;
        }
        let cause = if length < self.length {
            "truncated"
        } else {
            "appended"
        };
        let bytes = length.abs_diff(self.length);
        self.length = length;
        let mut last = [b'\n'];
        if let (Out::File(file), Some(end)) = (&self.out, length.checked_sub(1)) {
            let _ = file.read_exact_at(&mut last, end);
        }
        self.torn = last != [b'\n'];
        self.length += u64::from(self.torn);
        Some(Change {
            cause,
            lines_gone: false,
            elsewhere: false,
            bytes,
        })
    }

    /// Whether the open file is the file at the path; always true for a stream.
    pub(super) fn is_in_place(&self) -> bool {
        match (&self.out, &self.path) {
            (Out::File(file), Some(path)) => is_at(file, path),
            (Out::Lost, _) => false,
            _ => true,
        }
    }

    /// Whether there is no output.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.out, Out::Lost)
    }

    /// Discards writes until the path can be opened.
    pub(super) fn lose(&mut self) {
        self.out = Out::Lost;
    }

    /// Removes rotated files that the retention does not keep.
    pub(super) fn keep_files(&self, now: Timestamp) -> io::Result<Kept> {
        match &self.path {
            Some(path) if matches!(self.out, Out::File(_)) => self.retention.apply(path, now),
            _ => Ok(Kept::default()),
        }
    }

    /// Whether the output is a regular file.
    pub(super) fn is_file(&self) -> bool {
        self.path.is_some()
    }

    /// Whether a write waits only for memory or for a local disk: the log is a regular file on a
    /// local file system. On a file system that another machine or a process serves, a write may
    /// wait without limit.
    pub(super) fn is_on_local_disk(&self) -> bool {
        self.path.is_some() && self.local
    }

    /// Continues in a new file that begins with `opening`; the old file becomes `.1`, and so on. If
    /// the rotation fails, the old file continues, and the next try follows a sixteenth of the size
    /// later.
    pub(super) fn rotate(&mut self, opening: &[u8]) -> io::Result<()> {
        let result = self.rotate_now(opening);
        if result.is_err() {
            self.rotate_at = self.length.saturating_add((self.rotate_size / 16).max(1));
        }
        result
    }

    fn rotate_now(&mut self, opening: &[u8]) -> io::Result<()> {
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        let fresh_path = suffixed(&path, ".new");
        absent_is_fine(fs::remove_file(&fresh_path))?;
        let mut fresh = open(&fresh_path, self.access)?;
        lock(&fresh)?;
        let access = self.access;
        let moved = fresh.write_all(opening).and_then(|()| {
            access.grant(&fresh)?;
            rotation::shift(&path)?;
            fs::rename(&fresh_path, &path)
        });
        if let Err(error) = moved {
            let _ = fs::remove_file(&fresh_path);
            return Err(error);
        }
        self.go_on(fresh, u64::try_from(opening.len()).unwrap_or(0));
        sync_folder(&path);
        Ok(())
    }

    /// Opens the path again if the path has another file, or none. Writes `opening` to the new file
    /// first. Returns whether a file was opened. Refuses a path that is not a regular file, and
    /// follows no link.
    pub(super) fn reopen(&mut self, opening: &[u8]) -> io::Result<bool> {
        let Some(path) = self.path.clone() else {
            return Ok(false);
        };
        if self.is_in_place() {
            return Ok(false);
        }
        self.access.make_folder(&path)?;
        let mut file = open(&path, self.access)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(NO_FILE));
        }
        lock(&file)?;
        self.access.grant(&file)?;
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(&mut last, length - 1)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        if let Err(error) = file.write_all(opening) {
            let _ = file.set_len(length);
            return Err(error);
        }
        let length = file.metadata()?.len();
        self.go_on(file, length);
        sync_folder(&path);
        Ok(true)
    }

    fn go_on(&mut self, file: File, length: u64) {
        self.out = Out::File(file);
        self.local = self.out.is_local();
        self.length = length;
        self.torn = false;
        self.moved = None;
        self.rotate_at = match self.rotate_size {
            0 => u64::MAX,
            // A new file that begins with more bytes than the rotation size would be rotated
            // without end.
            size => size.max(length.saturating_mul(2)),
        };
    }

    fn mend(&mut self, tail: Tail) -> io::Result<()> {
        match tail {
            Tail::Clean => {}
            Tail::Open => {
                self.out.write(b"\n")?;
                self.length += 1;
            }
            Tail::Torn(begins) => {
                self.out.cut(begins)?;
                self.length = begins;
            }
        }
        Ok(())
    }
}

impl Out {
    #[cfg(target_os = "linux")]
    fn is_local(&self) -> bool {
        /// Magic numbers of `statfs(2)`: ext4, XFS, Btrfs, F2FS, tmpfs, overlayfs.
        const LOCAL: [u32; 6] = [
            0x0000_ef53,
            0x5846_5342,
            0x9123_683e,
            0xf2f5_2010,
            0x0102_1994,
            0x794c_7630,
        ];
        let Self::File(file) = self else {
            return false;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the numbers have 32 bits"
        )]
        rustix::fs::fstatfs(file).is_ok_and(|found| LOCAL.contains(&(found.f_type as u32)))
    }

    #[cfg(not(target_os = "linux"))]
    fn is_local(&self) -> bool {
        false
    }

    /// Writes until all bytes are written or a write fails; returns the number of written bytes in
    /// either case.
    fn write_on(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.write(rest) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            #[cfg(test)]
            Self::Faulty(faulty) => faulty.write(bytes),
            Self::File(file) => file.write(bytes),
            Self::Lost => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the file of the log is gone and cannot be opened anew",
            )),
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        match self {
            #[cfg(test)]
            Self::Faulty(faulty) => {
                faulty.cut(length);
                Ok(())
            }
            Self::File(file) => file.set_len(length),
            Self::Lost => Ok(()),
        }
    }
}

impl Access {
    fn new(config: &config::Record) -> Self {
        Self {
            mode: config.mode,
            group: config.group,
        }
    }

    /// Makes the folder of a log if there is none: a group that may read the files may list the
    /// folder.
    fn make_folder(self, path: &Path) -> io::Result<()> {
        let Some(folder) = folder(path).filter(|folder| !folder.exists()) else {
            return Ok(());
        };
        let mode = if self.group.is_some() { 0o750 } else { 0o700 };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(folder)?;
        if let Some(group) = self.group {
            fchown(File::open(folder)?, None, Some(group))
                .map_err(|error| no_group(&error, group))?;
        }
        Ok(())
    }

    /// Sets the configured group and permissions of a file.
    fn grant(self, file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        if let Some(group) = self.group.filter(|group| *group != found.gid()) {
            fchown(file, None, Some(group)).map_err(|error| no_group(&error, group))?;
        }
        if found.mode() & 0o7777 != self.mode {
            file.set_permissions(Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }
}

fn no_group(error: &io::Error, group: u32) -> io::Error {
    let message = format!(
        "cannot be given to group {group} (`[record] group`): {error}; the user of the gate has to \
         be a member of it"
    );
    io::Error::new(error.kind(), message)
}

/// Refuses a stream other than a device: a pipe or socket at the path of a log would discard the
/// only record, and its reader could block the writer. Only root can make a device.
fn is_stream(path: &Path, found: FileType) -> io::Result<()> {
    if path.starts_with("/dev") && found.is_char_device() {
        return Ok(());
    }
    Err(io::Error::other(NO_FILE))
}

/// Opens a file for appending and reading. Does not follow a link at the path: another user could
/// have made the link.
fn open(path: &Path, access: Access) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(access.mode)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path);
    opened.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => io::Error::other(
            "the path of the log is a symbolic link, which is not followed: name the file itself \
             (`-` is standard output)",
        ),
        _ => error,
    })
}

/// Locks the file: two writers of one file would each cut off the other's lines.
fn lock(file: &File) -> io::Result<()> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another process writes this file",
        )),
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => {
            tracing::warn!("this file system has no locks: see that nothing else writes the log");
            Ok(())
        }
        locked => Ok(locked?),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let ours = file.metadata();
    ours.is_ok_and(|ours| is_same(&ours, fs::symlink_metadata(path).ok().as_ref()))
}

fn is_same(ours: &fs::Metadata, there: Option<&fs::Metadata>) -> bool {
    there.is_some_and(|there| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
}

/// Syncs new names to disk. If the file system cannot, the names still exist.
fn sync_folder(path: &Path) {
    let folder = folder(path).unwrap_or(Path::new("."));
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::warn!(%error, "the folder of the decision log cannot be synced");
    }
}

#[cfg(test)]
pub(super) mod faulty {
    //! A file in memory with a disk of limited size, which a test sets.

    use std::sync::{Arc, Mutex};

    use super::{Out, Sink, config, io};

    /// The content of the file, and the number of bytes that still fit.
    #[derive(Clone, Debug, Default)]
    pub(in super::super) struct Faulty(pub(in super::super) Arc<Mutex<(Vec<u8>, usize)>>);

    impl Faulty {
        /// An empty file with room for `room` bytes.
        pub(in super::super) fn with_room(room: usize) -> Self {
            Self(Arc::new(Mutex::new((Vec::new(), room))))
        }

        /// Sets the number of bytes that still fit.
        pub(in super::super) fn set_room(&self, room: usize) {
            self.0.lock().expect("whole").1 = room;
        }

        /// Returns the content of the file.
        pub(in super::super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("whole").0.clone()).expect("UTF-8")
        }

        /// Returns a sink that writes to the file: a regular file, or with `cuts` false a stream
        /// that cannot be truncated.
        pub(in super::super) fn sink(&self, cuts: bool) -> Sink {
            let config = config::Record {
                file: None,
                rotate_size: 0,
                ..config::embedded().record
            };
            let path = cuts.then(|| "faulty".into());
            Sink::new(Out::Faulty(self.clone()), path, &config)
        }

        pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            let (held, room) = &mut *self.0.lock().expect("whole");
            let taken = bytes.len().min(*room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            held.extend_from_slice(&bytes[..taken]);
            *room -= taken;
            Ok(taken)
        }

        pub(super) fn cut(&self, length: u64) {
            let (held, room) = &mut *self.0.lock().expect("whole");
            let length = usize::try_from(length).expect("short");
            *room += held.len() - length;
            held.truncate(length);
        }
    }
}
