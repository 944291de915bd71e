//! Where lines go: a file of whole lines that is rotated, or standard output.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::config;

use super::scan::{Found, Tail, scan};

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    out: Out,
    /// Where the file is; absent for a stream, which is neither scanned nor rotated.
    path: Option<PathBuf>,
    /// Bytes of the file, up to its last whole line.
    length: u64,
    /// The file ends in part of a line that could not be cut off.
    torn: bool,
    rotate_size: u64,
    rotate_keep: u32,
    /// Rotate at this length: later than `rotate_size` after a rotation that failed.
    rotate_at: u64,
}

/// What lines are written to.
#[derive(Debug)]
enum Out {
    /// For tests of failures.
    #[cfg(test)]
    Faulty(faulty::Faulty),
    /// A file, or any other descriptor.
    File(File),
}

impl Sink {
    /// Opens the log and reads what an earlier run left in it. The tail of the file is whole lines
    /// afterwards.
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
        if let Some(folder) = folder(path) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let file = open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok((Self::new(Out::File(file), None, config), Found::default()));
        }
        lock(&file)?;
        if !is_at(&file, path) {
            return Err(io::Error::other(
                "the file was replaced while it was opened",
            ));
        }
        let mut found = scan(&file)?;
        if metadata.len() == 0
            && let Ok(before) = File::open(numbered(path, 1))
        {
            found = Found {
                tail: Tail::Clean,
                ..scan(&before)?
            };
        }
        let mut sink = Self::new(Out::File(file), Some(path.to_owned()), config);
        sink.length = metadata.len();
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
            length: 0,
            torn: false,
            rotate_size: config.rotate_size,
            rotate_keep: config.rotate_keep,
            rotate_at,
        }
    }

    /// Writes whole lines, which end at `ends`. Says how many of them are in the file, and, where
    /// that is not all, why. What is there of another is cut off.
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

    /// Whether someone removed the file from under us.
    pub(super) fn is_gone(&self) -> bool {
        match (&self.out, &self.path) {
            (Out::File(file), Some(_)) => file.metadata().is_ok_and(|found| found.nlink() == 0),
            _ => false,
        }
    }

    /// Goes on in a new file that begins with `opening`; the old one becomes `.1`, and so on. Where
    /// it fails, the old file goes on, and the next try comes a sixteenth of the size later.
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
        let mut fresh = open(&fresh_path)?;
        lock(&fresh)?;
        let moved = fresh.write_all(opening).and_then(|()| {
            shift(&path, self.rotate_keep)?;
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

    /// Opens the path anew, where another file than ours is there by now, or none. `opening` goes
    /// to it first. Says whether it did.
    pub(super) fn reopen(&mut self, opening: &[u8]) -> io::Result<bool> {
        let Some(path) = self.path.clone() else {
            return Ok(false);
        };
        if let Out::File(file) = &self.out
            && is_at(file, &path)
        {
            return Ok(false);
        }
        if let Some(folder) = folder(&path) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let mut file = open(&path)?;
        lock(&file)?;
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
        self.length = length;
        self.torn = false;
        self.rotate_at = match self.rotate_size {
            0 => u64::MAX,
            // A file that begins with more than a whole one would be rotated without end.
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
    /// Writes until all is written or it fails; says how much there is in either case.
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
        }
    }
}

/// Opens for appending, and for reading what is there; only the owner may.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Two writers of one file would each cut off the other's lines.
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
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Makes place at `path`: each file gets the next number, and the last is written over.
fn shift(path: &Path, keep: u32) -> io::Result<()> {
    if keep == 0 {
        return Ok(());
    }
    for number in (1..keep).rev() {
        absent_is_fine(fs::rename(
            numbered(path, number),
            numbered(path, number + 1),
        ))?;
    }
    absent_is_fine(fs::rename(path, numbered(path, 1)))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    suffixed(path, &format!(".{number}"))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn folder(path: &Path) -> Option<&Path> {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
}

/// Makes new names last. Where the file system cannot, the names are there all the same.
fn sync_folder(path: &Path) {
    let folder = folder(path).unwrap_or(Path::new("."));
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::warn!(%error, "the folder of the decision log cannot be synced");
    }
}

#[cfg(test)]
pub(super) mod faulty {
    //! A file in memory whose disk fills up and is emptied by hand.

    use std::sync::{Arc, Mutex};

    use super::{Out, Sink, config, io};

    /// What it holds, and how many bytes more it takes.
    #[derive(Clone, Debug, Default)]
    pub(in super::super) struct Faulty(pub(in super::super) Arc<Mutex<(Vec<u8>, usize)>>);

    impl Faulty {
        /// Nothing held, this much room.
        pub(in super::super) fn with_room(room: usize) -> Self {
            Self(Arc::new(Mutex::new((Vec::new(), room))))
        }

        /// Sets how many bytes more it takes.
        pub(in super::super) fn set_room(&self, room: usize) {
            self.0.lock().expect("whole").1 = room;
        }

        /// Everything it holds.
        pub(in super::super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("whole").0.clone()).expect("UTF-8")
        }

        /// A sink that writes to it: a file, or a stream that cannot be cut.
        pub(in super::super) fn sink(&self, cuts: bool) -> Sink {
            let config = config::Record {
                file: None,
                on_failure: config::OnFailure::Refuse,
                rotate_size: 0,
                rotate_keep: 0,
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
