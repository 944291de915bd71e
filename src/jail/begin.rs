//! The helper's third stage: waits until the gate serves the jail, drops privileges, and executes
//! the command.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use super::enter::step;
use super::wire::{self, Message, Walls};
use super::{NOT_CONTAINED, NOT_RUN, landlock, sealed, system_calls};

/// Executes the command; returns only on failure.
pub(super) fn run(control: &OwnedFd, command: &[OsString]) -> ExitCode {
    let (why, code) = match prepare(control) {
        Err(why) => (why, NOT_CONTAINED),
        Ok(()) => (become_command(command), NOT_RUN),
    };
    let _ = wire::send(control, &why, &[]);
    code.into()
}

fn become_command(command: &[OsString]) -> Message {
    let Some((program, words)) = command.split_first() else {
        return Message::Failed("no command was given".into());
    };
    let error = Command::new(program).args(words).exec();
    Message::NoCommand {
        program: program.into(),
        error: error.raw_os_error().unwrap_or_default(),
    }
}

fn prepare(control: &OwnedFd) -> Result<(), Message> {
    // The credentials of this message give the gate the process of the command.
    step("the gate", wire::send(control, &Message::Waiting, &[]))?;
    let (message, mut descriptors) = step("waiting", wire::receive(control))?;
    let (Some(Message::Go(walls)), Some(stdin)) = (message, descriptors.pop()) else {
        return Err(Message::Failed("the gate has ended".into()));
    };
    step(
        "the standard input",
        rustix::stdio::dup2_stdin(&stdin).map_err(Into::into),
    )?;
    drop(stdin);
    seal(&walls)
}

fn seal(walls: &Walls) -> Result<(), Message> {
    if walls.own_session {
        let session = rustix::process::setsid().map(drop);
        step("a session of its own", session.map_err(io::Error::from))?;
    }
    step("dropping capabilities", sealed::drop_privileges())?;
    step(
        "Landlock",
        landlock::restrict(&walls.writable, &walls.missing),
    )?;
    step("the system call filter", system_calls::filter())
}
