//! Descriptors: inherited ones are closed, and the standard streams lead to no folder, device or
//! socket outside the jail.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat, major, minor};
use rustix::pipe::{PipeFlags, pipe_with};

/// Bytes copied at once.
const CHUNK: usize = 64 * 1024;
/// Devices that any process may open: null, zero, full, random, urandom.
const HARMLESS: [(u32, u32); 5] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9)];

/// Closes every descriptor of this process except 0, 1 and 2. Called before anything is opened.
pub(super) fn close_inherited() -> io::Result<()> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The descriptor of the listed folder is among them, and closed by now.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// The standard streams of a command.
pub(super) struct Streams {
    /// Passed to the command when it starts.
    pub(super) stdin: OwnedFd,
    /// `None`: the command inherits the stream of this process.
    pub(super) stdout: Option<Stdio>,
    pub(super) stderr: Option<Stdio>,
    /// Threads that copy the output of the command; they end when its last process has ended.
    pub(super) copiers: Vec<JoinHandle<()>>,
}

impl Streams {
    /// Returns the streams of this process. A socket is replaced by a pipe that this process
    /// copies, because a process could connect the socket again, to an address outside. `Err` names
    /// the stream that leads out.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let input = Stream::check("standard input", stdin.as_fd())?;
        let output = Stream::check("standard output", stdout.as_fd())?;
        let errors = Stream::check("standard error", stderr.as_fd())?;
        let mut copiers = Vec::new();
        let stdin = if input.socket {
            into_pipe(input.descriptor)?
        } else {
            input.descriptor
        };
        let same = output.same_as(&errors);
        let mut piped = None;
        if output.socket {
            let (to, copier) = out_of_pipe(output.descriptor)?;
            copiers.push(copier);
            piped = Some(to);
        }
        let stderr = match &piped {
            Some(to) if same => Some(Stdio::from(to.try_clone()?)),
            _ if errors.socket => {
                let (to, copier) = out_of_pipe(errors.descriptor)?;
                copiers.push(copier);
                Some(Stdio::from(to))
            }
            _ => None,
        };
        Ok(Self {
            stdin,
            stdout: piped.map(Stdio::from),
            stderr,
            copiers,
        })
    }
}

struct Stream {
    descriptor: OwnedFd,
    status: Stat,
    socket: bool,
}

impl Stream {
    fn check(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        let status = fstat(descriptor)?;
        let refused = |what: &str| {
            Err(io::Error::other(format!(
                "{name} is {what}, which leads out of the jail: redirect it, e.g. `</dev/null` \
                 or `| cat`"
            )))
        };
        if fcntl_getfl(descriptor)?.contains(OFlags::PATH) {
            return refused("a path that was opened with O_PATH");
        }
        let socket = match FileType::from_raw_mode(status.st_mode) {
            FileType::Socket => true,
            FileType::RegularFile | FileType::Fifo => false,
            FileType::CharacterDevice if is_harmless(descriptor, &status) => false,
            FileType::CharacterDevice | FileType::BlockDevice => return refused("a device"),
            FileType::Directory => return refused("a folder"),
            _ => return refused("no file, pipe or terminal"),
        };
        Ok(Self {
            descriptor: descriptor.try_clone_to_owned()?,
            status,
            socket,
        })
    }

    fn same_as(&self, other: &Self) -> bool {
        (self.status.st_dev, self.status.st_ino) == (other.status.st_dev, other.status.st_ino)
    }
}

fn is_harmless(descriptor: BorrowedFd<'_>, status: &Stat) -> bool {
    let device = (major(status.st_rdev), minor(status.st_rdev));
    HARMLESS.contains(&device) || rustix::termios::isatty(descriptor)
}

/// Makes a pipe that gets the bytes of a socket. The copier ends with either side, or with this
/// process.
fn into_pipe(from: OwnedFd) -> io::Result<OwnedFd> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    std::thread::spawn(move || copy(&from, &writer));
    Ok(reader)
}

/// Makes a pipe whose bytes go to a socket.
fn out_of_pipe(to: OwnedFd) -> io::Result<(OwnedFd, JoinHandle<()>)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let copier = std::thread::spawn(move || copy(&reader, &to));
    Ok((writer, copier))
}

/// Copies until one side ends. Either side may be non-blocking, because another process set that.
fn copy(from: &OwnedFd, to: &OwnedFd) {
    let mut space = vec![0; CHUNK];
    loop {
        let read = attempt(from, PollFlags::IN, || {
            Ok(rustix::io::read(from, &mut space[..])?)
        });
        let mut rest = match read {
            Ok(0) | Err(_) => return,
            Ok(length) => space.get(..length).unwrap_or_default(),
        };
        while !rest.is_empty() {
            match attempt(to, PollFlags::OUT, || Ok(rustix::io::write(to, rest)?)) {
                Ok(0) | Err(_) => return,
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
            }
        }
    }
}

/// Repeats a call that would block or was interrupted.
fn attempt(
    on: &OwnedFd,
    ready: PollFlags,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(on, ready)], None)?;
            }
            other => return other,
        }
    }
}

/// One end of a lifeline: it notifies the other end, and notices when that has closed.
#[derive(Debug)]
pub(super) struct Lifeline(std::os::unix::net::UnixStream);

impl Lifeline {
    /// Returns the gate's end and the jail's end.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self(ours), theirs.into()))
    }

    pub(super) fn of(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }

    pub(super) fn another(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Reports that the command stopped.
    pub(super) fn say_stopped(&self) {
        let _ = (&self.0).write_all(b"s");
    }

    /// Waits until the command stops; `false` if the other end has closed.
    pub(super) fn hear(&self) -> bool {
        let mut byte = [0];
        loop {
            match (&self.0).read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return matches!(other, Ok(1)),
            }
        }
    }
}
