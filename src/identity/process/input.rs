//! Reads the standard input of a hook in the gate itself, instead of in the hook.
//!
//! An agent makes a pair of Unix sockets, keeps one end, and starts its hook with the other end as
//! standard input. Only the holder of the first end can send to the second, and the kernel records
//! which process made the pair (`SO_PEERCRED`). The bytes that the gate reads there therefore come
//! from the agent, independent of the program and process of the hook. A pipe gives no such
//! assurance: each process of the user can open it for writing (`/proc/PID/fd`).

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// The descriptor of standard input.
const STDIN: i32 = 0;

/// Copies the standard input of the process `hook`, if it is an end of a socket pair made by the
/// process `agent`.
pub(super) fn of(hook: u32, agent: u32) -> Option<UnixStream> {
    let pid = Pid::from_raw(i32::try_from(hook).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let input = pidfd_getfd(process, STDIN, PidfdGetfdFlags::empty()).ok()?;
    is_made_by(&input, agent).then(|| UnixStream::from(input))
}

fn is_made_by(input: &OwnedFd, agent: u32) -> bool {
    let Ok(copy) = input.try_clone() else {
        return false;
    };
    let stream = UnixStream::from(copy);
    // A socket connected by name has another creator at its other end. Neither call succeeds for a
    // pipe, a file or a socket of another family.
    let local = stream.local_addr().is_ok_and(|name| name.is_unnamed());
    let peer = stream.peer_addr().is_ok_and(|name| name.is_unnamed());
    let is_stream = getsockopt(input, sockopt::SockType) == Ok(SockType::Stream);
    let maker = getsockopt(input, PeerCredentials).ok();
    let maker = maker.and_then(|maker| u32::try_from(maker.pid()).ok());
    local && peer && is_stream && maker == Some(agent) && maker_lives(input)
}

/// Whether the process that made the pair still runs: its process id may have been reused. Kernels
/// before 6.5 do not report this, and there the process id must suffice.
fn maker_lives(input: &OwnedFd) -> bool {
    match getsockopt(input, PeerPidfd) {
        Ok(maker) => {
            let mut ended = [PollFd::new(&maker, PollFlags::IN)];
            poll(&mut ended, Some(&Timespec::default())) == Ok(0)
        }
        Err(error) => error == Errno::ENOPROTOOPT,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn held_by(input: Stdio) -> Child {
        let mut command = Command::new("sleep");
        command.arg("60").stdin(input).spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_is_read_was_written_by_the_maker_of_the_pair() {
        let (mut own, other) = UnixStream::pair().unwrap();
        let hook = held_by(OwnedFd::from(other).into());
        let mut input = of(hook.id(), std::process::id()).expect("a pair of this process");
        own.write_all(b"report").unwrap();
        drop(own);
        end(hook);
        let mut text = String::new();
        input.read_to_string(&mut text).unwrap();
        assert_eq!(text, "report");
    }

    #[test]
    fn a_pair_of_another_process_a_pipe_and_a_named_socket_are_no_report() {
        let (_own, other) = UnixStream::pair().unwrap();
        let hook = held_by(OwnedFd::from(other).into());
        assert!(of(hook.id(), hook.id()).is_none());
        end(hook);
        let hook = held_by(Stdio::piped());
        assert!(of(hook.id(), std::process::id()).is_none());
        end(hook);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        for end_of in [OwnedFd::from(client), OwnedFd::from(server)] {
            let hook = held_by(end_of.into());
            assert!(of(hook.id(), std::process::id()).is_none());
            end(hook);
        }
    }
}
