//! Pipes through which the kernel moves bytes from socket to socket, uncopied (splice(2)).
//!
//! For bulk only: a pipe is two descriptors and two system calls to make, and at the beginning of a
//! tunnel nothing is gained by it. A pipe is filled only when it is empty. So a fill that would
//! block can only mean that the socket has nothing, never that the pipe is full.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::dial::{Descriptors, Taken};

/// Keeps empty pipes for the next who needs one.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    idle: Mutex<Vec<Ends>>,
    /// What pipes may use of the descriptors; `None`: as many as there are.
    budget: Option<Arc<Descriptors>>,
}

/// A pipe on loan; goes back when dropped, unless bytes are left in it.
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
    _taken: Option<Taken>,
}

/// Bytes of a pipe; the system's default of 64 KiB gains nothing over copying.
const BYTES: usize = 256 * 1024;

/// How many pipes are kept.
const KEPT: usize = 32;

impl Pipes {
    /// Makes pipes only while the budget has descriptors to spare.
    pub(crate) fn within(budget: Arc<Descriptors>) -> Self {
        Self {
            idle: Mutex::default(),
            budget: Some(budget),
        }
    }

    /// Lends an empty pipe of full size, if the system has one.
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
        Ends::new(taken).ok()
    }

    /// How many pipes wait here.
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
    /// Bytes in it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Takes what `from` has, up to the size of the pipe; 0 at its end. Only for an empty pipe.
    pub(crate) fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        self.held = splice(from, None, &ends.write, None, BYTES, flags())?;
        Ok(self.held)
    }

    /// Gives `to` what it takes.
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
    /// Fails where the system grants only a small pipe: copying is better then.
    fn new(taken: Option<Taken>) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&write, BYTES)?;
        Ok(Self {
            read,
            write,
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
