//! Pipes through which the kernel moves bytes from socket to socket, uncopied (splice(2)).
//!
//! For bulk only: making a pipe costs two descriptors and two system calls, and gains nothing at
//! the start of a tunnel. A pipe is filled only when it is empty. A fill that would block therefore
//! means that the socket has no bytes, never that the pipe is full.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::dial::{Descriptors, Taken};

/// A store of empty pipes.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    idle: Mutex<Vec<Ends>>,
    /// Counted by each large pipe.
    large: Arc<()>,
    /// The descriptor budget of the pipes; `None`: unlimited.
    budget: Option<Arc<Descriptors>>,
}

/// A borrowed pipe; returned when dropped, unless bytes are left in it.
#[derive(Debug)]
pub(crate) struct Pipe<'p> {
    home: &'p Pipes,
    ends: Option<Ends>,
    held: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    _large: Option<Arc<()>>,
    _taken: Option<Taken>,
}

/// The size of a pipe in bytes; the system's default of 64 KiB is no faster than copying.
const SIZE: usize = 256 * 1024;
/// The size of the first pipes, which wakes the receiver of bulk less often.
const LARGE: usize = 1024 * 1024;
/// The number of large pipes: a user has 64 MiB for all pipes, and above that its other programs get
/// pipes of two pages (`pipe-user-pages-soft` in pipe(7)).
const MAX_LARGE: usize = 16;

/// The number of idle pipes kept.
const KEPT: usize = 16;

impl Pipes {
    /// Makes pipes only while the budget has spare descriptors.
    pub(crate) fn within(budget: Arc<Descriptors>) -> Self {
        Self {
            budget: Some(budget),
            ..Self::default()
        }
    }

    /// Returns an empty pipe of full size, if the system can make one.
    pub(crate) fn take(&self) -> Option<Pipe<'_>> {
        let ends = self.with_idle(Vec::pop).or_else(|| self.make())?;
        Some(Pipe {
            home: self,
            ends: Some(ends),
            held: 0,
        })
    }

    fn make(&self) -> Option<Ends> {
        let taken = match &self.budget {
            Some(budget) => Some(budget.take_spare(2)?),
            None => None,
        };
        let large = (Arc::strong_count(&self.large) <= MAX_LARGE).then(|| self.large.clone());
        Ends::new(large, taken).ok()
    }

    /// The number of idle pipes.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.with_idle(|idle| idle.len())
    }

    /// A panic elsewhere cannot leave the list half changed, so a poisoned lock is still good.
    fn with_idle<T>(&self, act: impl FnOnce(&mut Vec<Ends>) -> T) -> T {
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pipe<'_> {
    /// The bytes in the pipe.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves the bytes of `from` into the pipe, up to its size; 0 at the end of `from`. The pipe
    /// must be empty.
    pub(crate) fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        self.held = splice(from, None, &ends.write, None, ends.size, flags())?;
        Ok(self.held)
    }

    /// Moves bytes from the pipe to `to`, as many as `to` accepts.
    pub(crate) fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let moved = splice(&ends.read, None, to, None, self.held, flags())?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else {
            return;
        };
        self.home.with_idle(|idle| {
            if idle.len() < KEPT {
                idle.push(ends);
            }
        });
    }
}

impl Ends {
    /// Fails if the system grants only a small pipe: copying is faster then.
    fn new(large: Option<Arc<()>>, taken: Option<Taken>) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let large = large.filter(|_| fcntl_setpipe_size(&write, LARGE).is_ok());
        if large.is_none() {
            fcntl_setpipe_size(&write, SIZE)?;
        }
        Ok(Self {
            read,
            write,
            size: if large.is_some() { LARGE } else { SIZE },
            _large: large,
            _taken: taken,
        })
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_go_through_and_an_empty_pipe_goes_back() {
        let pipes = Pipes::default();
        let (mut sender, from) = UnixStream::pair().expect("sockets");
        let (mut receiver, to) = UnixStream::pair().expect("sockets");
        let mut pipe = pipes.take().expect("a pipe");
        sender.write_all(b"hello").expect("open");
        assert_eq!((pipe.fill(&from).expect("open"), pipe.held()), (5, 5));
        assert_eq!((pipe.drain(&to).expect("open"), pipe.held()), (5, 0));
        drop((pipe, to));
        let mut seen = [0; 5];
        receiver.read_exact(&mut seen).expect("through");
        assert_eq!((&seen, pipes.idle()), (b"hello", 1));
    }

    #[test]
    fn only_some_pipes_are_large() {
        let pipes = Pipes::default();
        let size = |pipe: &Pipe<'_>| pipe.ends.as_ref().map(|ends| ends.size);
        let taken: Vec<_> = (0..MAX_LARGE + 2).map_while(|_| pipes.take()).collect();
        let large = taken.iter().filter(|pipe| size(pipe) == Some(LARGE));
        assert!(large.count() <= MAX_LARGE);
        assert_eq!(taken.last().and_then(size), Some(SIZE));
        drop(taken);
        assert_eq!(pipes.idle(), KEPT);
        // Those that were not kept are counted no more.
        assert!(Arc::strong_count(&pipes.large) <= 1 + KEPT);
    }

    #[test]
    fn no_pipe_is_made_of_the_last_descriptors() {
        let budget = Arc::new(Descriptors::new(8));
        let pipes = Pipes::within(budget.clone());
        let first: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(first.len(), 3);
        assert!(budget.take(None, 2).is_some());
        drop(first);
        assert!(pipes.idle() == 3 && pipes.take().is_some());
    }

    #[test]
    fn a_pipe_with_bytes_of_a_broken_tunnel_is_never_lent_again() {
        let pipes = Pipes::default();
        let (mut sender, from) = UnixStream::pair().expect("sockets");
        let mut pipe = pipes.take().expect("a pipe");
        sender.write_all(b"secret").expect("open");
        assert_eq!(pipe.fill(&from).expect("open"), 6);
        drop(pipe);
        assert_eq!(pipes.idle(), 0);
    }
}
