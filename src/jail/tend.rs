//! The helper's second stage: the first process in the jail. It makes the view and the listeners,
//! starts the command, and reaps ended processes. When it ends, the kernel ends every other process
//! of the jail.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitCode};

use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, set_child_subreaper,
    set_dumpable_behavior, set_parent_process_death_signal, wait,
};

use super::descriptors::Lifeline;
use super::enter::{close_stdin, step};
use super::listen::{LISTENERS, listen};
use super::promise::{Missing, Promise};
use super::view::build;
use super::wire::{self, Message};
use super::{NOT_CONTAINED, Stage, VERB, landlock, refused, routes, sealed};

pub(super) fn run(control: OwnedFd, command: &[OsString]) -> ExitCode {
    match prepare(&control, command) {
        Ok((child, lifeline)) => {
            drop(control);
            tend(&child, &lifeline).into()
        }
        Err(why) => {
            let _ = wire::send(&control, &why, &[]);
            NOT_CONTAINED.into()
        }
    }
}

fn prepare(control: &OwnedFd, command: &[OsString]) -> Result<(Child, Lifeline), Message> {
    step(
        "the end of the gate",
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into),
    )?;
    let (message, mut descriptors) = step("the orders", wire::receive(control))?;
    let (Some(Message::Orders(orders)), Some(lifeline)) = (message, descriptors.pop()) else {
        return Err(Message::Failed("no orders came".into()));
    };
    let own_processes = rustix::process::getpid().is_init();
    if !own_processes {
        step(
            "orphans",
            set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into),
        )?;
    }
    let ipv6 = step("local routes", routes::everything_is_local())?;
    let mut sockets = step("listeners", listen(&orders, ipv6))?;
    let mut missing = landlock::missing();
    let refused = refused::sockets(ipv6).unwrap_or_else(|error| {
        missing.push(Missing::new(Promise::Refusals, error));
        Vec::new()
    });
    // Without a terminal, a separate session also contains signals.
    let own_session = missing.iter().any(|one| one.promise == Promise::Signals)
        && std::fs::File::open("/dev/tty").is_err();
    if own_session {
        missing.retain(|one| one.promise != Promise::Signals);
    }
    missing.extend(step("the view", build::build(&orders.view))?);
    let local = orders.local.len();
    let ready = Message::Ready {
        refused: refused.len(),
        local,
        captured: sockets.len().saturating_sub(LISTENERS + local),
        missing,
        own_session,
    };
    sockets.splice(LISTENERS..LISTENERS, refused);
    let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    step(
        "handing out sockets",
        wire::send(control, &ready, &borrowed),
    )?;
    drop(sockets);
    // Before the command exists, which has the same user.
    step(
        "closing itself",
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Into::into),
    )?;
    let mut third = Command::new("/proc/self/exe");
    third
        .args([VERB, "--stage", Stage::Command.name(), "--"])
        .args(command);
    third.current_dir(&orders.view.directory);
    let child = step("the command's process", third.spawn())?;
    step("the control socket", close_stdin())?;
    step("dropping capabilities", sealed::drop_privileges())?;
    Ok((child, Lifeline::of(lifeline)))
}

/// Reaps processes until the command has ended; returns its exit code as a shell does.
fn tend(child: &Child, lifeline: &Lifeline) -> u8 {
    if let Ok(lifeline) = lifeline.another() {
        std::thread::spawn(move || end_with_gate(&lifeline));
    }
    let command = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        match wait(WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if Some(pid) == command => {
                if let Some(code) = code(status) {
                    return code;
                }
                if status.stopped() {
                    lifeline.say_stopped();
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return u8::MAX,
        }
    }
}

/// Returns the command's own code, or 128 and the signal that ended it.
fn code(status: WaitStatus) -> Option<u8> {
    let signalled = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signalled)?;
    Some(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Ends the jail with the gate, which holds the other end of the lifeline.
#[expect(clippy::exit, reason = "a thread ends the process, and so the jail")]
fn end_with_gate(lifeline: &Lifeline) {
    while lifeline.hear() {}
    std::process::exit(i32::from(NOT_CONTAINED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_missing_only_with_a_reason() {
        for missing in landlock::missing() {
            let Missing { promise, why } = missing;
            assert!(promise.may_be_missing() && !why.is_empty(), "{promise}");
        }
    }
}
