//! The helper's first stage: makes the namespaces for the jail, then starts the second stage, which
//! is the first process in them.
//!
//! The stage runs before any runtime starts: only a single-threaded process can make a user
//! namespace. It stays outside the process namespace and waits; when it ends, the kernel ends the
//! whole jail.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use rustix::process::setpgid;
use rustix::thread::UnshareFlags;

use super::promise::{Missing, Promise};
use super::wire::{self, Message};
use super::{NOT_CONTAINED, Stage, VERB, begin, descriptors, sealed, tend};

/// Performs one stage of a jail, and all later stages.
pub fn enter(stage: Stage, command: &[OsString]) -> ExitCode {
    let control = match descriptors::close_inherited() {
        Ok(()) => io::stdin().as_fd().try_clone_to_owned(),
        Err(error) => Err(error),
    };
    let Ok(control) = control else {
        return NOT_CONTAINED.into();
    };
    match stage {
        Stage::Namespaces => first(control, command),
        Stage::Init => tend::run(control, command),
        Stage::Command => begin::run(&control, command),
    }
}

/// Names a step in the message of its failure.
pub(super) fn step<T>(what: &str, done: io::Result<T>) -> Result<T, Message> {
    done.map_err(|error| Message::Failed(format!("{what}: {error}")))
}

fn first(control: OwnedFd, command: &[OsString]) -> ExitCode {
    match start(&control, command) {
        Ok(mut init) => {
            drop(control);
            let _ = close_stdin();
            // Signals of the terminal are not for this process.
            let _ = setpgid(None, None);
            let status = init.wait();
            let code = status.map(|it| it.code().or(it.signal().map(|signal| 128 + signal)));
            u8::try_from(code.ok().flatten().unwrap_or(255))
                .unwrap_or(255)
                .into()
        }
        Err(why) => {
            let _ = wire::send(&control, &why, &[]);
            NOT_CONTAINED.into()
        }
    }
}

/// Closes the control socket, which is the standard input of each stage.
pub(super) fn close_stdin() -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdin(&null)?)
}

fn start(control: &OwnedFd, command: &[OsString]) -> Result<std::process::Child, Message> {
    let missing = namespaces()?;
    step("keeping capabilities", sealed::keep_privileges())?;
    step(
        "the gate",
        wire::send(control, &Message::Namespaces(missing), &[]),
    )?;
    let mut init = Command::new("/proc/self/exe");
    init.args([VERB, "--stage", Stage::Init.name(), "--"])
        .args(command);
    step("the first process", init.spawn())
}

/// Makes namespaces in which this user keeps its id and no other user exists. Returns the
/// namespaces that this kernel does not support.
fn namespaces() -> Result<Vec<Missing>, Message> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    forbidden("user namespaces", unshare(UnshareFlags::NEWUSER))?;
    // With or without root, the process maps its own id to itself, after denying `setgroups`.
    let write = |path: &str, text: String| std::fs::write(path, text);
    forbidden("setgroups", write("/proc/self/setgroups", "deny".into()))?;
    forbidden(
        "uid map",
        write("/proc/self/uid_map", format!("{user} {user} 1")),
    )?;
    forbidden(
        "gid map",
        write("/proc/self/gid_map", format!("{group} {group} 1")),
    )?;
    forbidden("network namespaces", unshare(UnshareFlags::NEWNET))?;
    forbidden("mount namespaces", unshare(UnshareFlags::NEWNS))?;
    let mut missing = Vec::new();
    for (promise, what, flag) in [
        (Promise::Processes, "PID", UnshareFlags::NEWPID),
        (Promise::Ipc, "IPC", UnshareFlags::NEWIPC),
    ] {
        if let Err(error) = unshare(flag) {
            let why = format!("no {what} namespace can be made: {error}");
            missing.push(Missing::new(promise, why));
        }
    }
    Ok(missing)
}

fn forbidden(what: &str, done: io::Result<()>) -> Result<(), Message> {
    done.map_err(|error| Message::Forbidden {
        what: what.to_owned(),
        error: error.to_string(),
    })
}

#[expect(
    deprecated,
    reason = "it is only unsafe with FILES, which parts the descriptors of threads"
)]
fn unshare(flag: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(flag)?)
}
