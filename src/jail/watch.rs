//! Watches a jail from outside: whether its walls are unchanged since the command began.
//!
//! A check compares the first process of the jail, and each process below it, with these rules:
//!
//! - No namespace (user, network, mount, process) is the gate's own.
//! - The first process is in the namespaces that were made for it, and shows no more files than at
//!   the start: see [`mounts`].
//! - `no_new_privs` is set and a seccomp filter is in force.
//! - No capability, except in a user namespace that the process has made for itself.
//! - No network interface but `lo`.
//!
//! The kernel does not show the Landlock rules of another process, so a check does not cover them.

mod mounts;
mod table;

use std::collections::BTreeSet;
use std::io;

use mounts::Mounts;
use table::{Namespaces, Stat, Status, below, first_inside, interfaces, mountinfo, namespaces};

/// The walls of one jail, as they were when its command began.
#[derive(Debug)]
pub struct Watch {
    /// The first process of the jail, and its start time: another process may get its number.
    first: (u32, Box<str>),
    /// The process of the command.
    command: u32,
    /// The namespaces of the jail.
    inside: Namespaces,
    /// The namespaces of the gate's process.
    outside: Namespaces,
    mounts: Mounts,
}

/// The result of a check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WallState {
    /// All walls are unchanged.
    Stand,
    /// The first process has ended, and the jail with it.
    Ended,
    /// A wall is broken.
    Fell(Fallen),
}

/// A wall that is broken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{promise}: {what}")]
pub struct Fallen {
    /// The name of the promise that is broken.
    pub promise: &'static str,
    /// The observed fault.
    pub what: String,
}

/// Why a check stopped.
enum Stop {
    Fallen(Fallen),
    Unreadable(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl Watch {
    /// Returns the walls of the jail whose command is the running process `command`; `None` if it
    /// has ended already.
    pub fn of(command: u32) -> io::Result<Option<Self>> {
        match Self::while_it_runs(command) {
            Err(_) if Stat::of(command).is_ok_and(|stat| !stat.has_ended()) => {
                // Tries once more: the jail may have been about to end.
                Self::while_it_runs(command).map(Some)
            }
            Err(_) => Ok(None),
            Ok(watch) => Ok(Some(watch)),
        }
    }

    fn while_it_runs(command: u32) -> io::Result<Self> {
        let outside = namespaces("self")?;
        let first = first_inside(command, &outside)?;
        Ok(Self {
            first: (first, Stat::of(first)?.began),
            command,
            inside: namespaces(&first.to_string())?,
            mounts: Mounts::of(first, &mountinfo(&first.to_string())?, &mountinfo("self")?)?,
            outside,
        })
    }

    /// Checks once. Blocks for some milliseconds while it reads `/proc`.
    pub fn look(&self) -> WallState {
        match self.examine() {
            Ok(()) => WallState::Stand,
            Err(Stop::Fallen(fallen)) => WallState::Fell(fallen),
            Err(Stop::Unreadable(_)) if !self.lives() => WallState::Ended,
            Err(Stop::Unreadable(error)) => WallState::Fell(Fallen {
                promise: "processes",
                what: format!("/proc no longer shows the jail: {error}"),
            }),
        }
    }

    /// Whether the first process still runs.
    fn lives(&self) -> bool {
        let (pid, began) = &self.first;
        Stat::of(*pid).is_ok_and(|stat| stat.began == *began && !stat.has_ended())
    }

    fn examine(&self) -> Result<(), Stop> {
        if !self.lives() {
            return Err(Stop::Unreadable(io::ErrorKind::NotFound.into()));
        }
        self.first_is_where_it_was()?;
        let mut networks = BTreeSet::new();
        for pid in below(self.first.0)? {
            match self.process(pid, &mut networks) {
                // The process has ended since it was listed, or is about to end.
                Err(Stop::Unreadable(_)) if has_gone(pid) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn first_is_where_it_was(&self) -> Result<(), Stop> {
        let now = namespaces(&self.first.0.to_string())?;
        if now == self.inside {
            let mounts = mountinfo(&self.first.0.to_string())?;
            return match self.mounts.fallen(self.first.0, &mounts)? {
                None => Ok(()),
                Some(what) => Err(fallen("files", what)),
            };
        }
        // A command may make its own namespaces.
        if self.first.0 == self.command {
            return Ok(());
        }
        Err(fallen(
            "processes",
            "its first process has entered other namespaces",
        ))
    }

    fn process(&self, pid: u32, networks: &mut BTreeSet<Box<str>>) -> Result<(), Stop> {
        let status = Status::of(pid)?;
        if status.has_ended() {
            return Ok(());
        }
        let own = match namespaces(&pid.to_string()) {
            // The kernel hides the namespaces of a program that its user may execute but not read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return sealed(pid, &status, false);
            }
            own => own?,
        };
        self.is_inside(pid, &own)?;
        // The first process only waits, and drops its privileges while the command starts.
        if pid != self.first.0 || pid == self.command {
            sealed(pid, &status, own.get("user") == self.inside.get("user"))?;
        }
        let Some(network) = own.get("net") else {
            return Err(fallen(
                "network",
                format!("process {pid} has no network namespace"),
            ));
        };
        if !networks.contains(network) {
            only_loopback(pid)?;
            networks.insert(network.clone());
        }
        Ok(())
    }

    fn is_inside(&self, pid: u32, own: &Namespaces) -> Result<(), Stop> {
        for (kind, namespace) in own {
            let outside = self.outside.get(kind);
            // If the kernel gave the jail no namespace of this kind, the process cannot leave one.
            if outside == Some(namespace) && outside != self.inside.get(kind) {
                let promise = match *kind {
                    "net" => "network",
                    "mnt" => "files",
                    "pid" => "processes",
                    _ => "privileges",
                };
                let what = format!("process {pid} is in the {kind} namespace of the gate");
                return Err(fallen(promise, what));
            }
        }
        Ok(())
    }
}

/// Whether a process has ended, or is about to end.
fn has_gone(pid: u32) -> bool {
    Stat::of(pid).map_or(true, |stat| stat.has_ended())
}

/// Checks that a process has `no_new_privs` and a filter, and no capability if it is
/// `in_user_namespace` of the jail. In a user namespace of its own it has every capability there,
/// and none outside.
fn sealed(pid: u32, status: &Status, in_user_namespace: bool) -> Result<(), Stop> {
    if !status.has_no_new_privs() {
        let what = format!("process {pid} may gain privileges: no_new_privs is not set");
        return Err(fallen("privileges", what));
    }
    if !status.has_filter() {
        let what = format!("process {pid} has no filter of system calls");
        return Err(fallen("system-calls", what));
    }
    match status.capability() {
        Some(field) if in_user_namespace => {
            let what = format!("process {pid} has capabilities ({field})");
            Err(fallen("privileges", what))
        }
        _ => Ok(()),
    }
}

fn only_loopback(pid: u32) -> Result<(), Stop> {
    let more = interfaces(pid)?.into_iter().find(|name| &**name != "lo");
    match more {
        Some(name) => {
            let what = format!("process {pid} has the network interface {name}");
            Err(fallen("network", what))
        }
        None => Ok(()),
    }
}

fn fallen(promise: &'static str, what: impl Into<String>) -> Stop {
    Stop::Fallen(Fallen {
        promise,
        what: what.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(lines: &str) -> Status {
        Status::from(lines.to_owned())
    }

    const SEALED: &str = "State:\tS (sleeping)\nCapInh:\t0000000000000000\n\
                          CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                          CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n\
                          NoNewPrivs:\t1\nSeccomp:\t2\n";

    fn why(found: Result<(), Stop>) -> String {
        match found {
            Ok(()) => String::new(),
            Err(Stop::Fallen(fallen)) => fallen.to_string(),
            Err(Stop::Unreadable(error)) => error.to_string(),
        }
    }

    #[test]
    fn each_seal_is_held_against_the_status() {
        let seen = |text: &str| why(sealed(7, &status(text), true));
        assert_eq!(seen(SEALED), "");
        for (from, to, what) in [
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no_new_privs"),
            ("NoNewPrivs:\t1\n", "", "no_new_privs"),
            ("Seccomp:\t2", "Seccomp:\t0", "filter"),
            (
                "CapEff:\t0000000000000000",
                "CapEff:\t0000000000000100",
                "CapEff",
            ),
            (
                "CapBnd:\t0000000000000000",
                "CapBnd:\t000001ffffffffff",
                "CapBnd",
            ),
        ] {
            let found = seen(&SEALED.replace(from, to));
            assert!(found.contains(what), "{to}: {found}");
        }
        let nested = SEALED.replace("CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff");
        assert_eq!(why(sealed(7, &status(&nested), false)), "");
    }

    #[test]
    fn a_process_of_the_gate_s_own_namespaces_is_no_jail() {
        let error = Watch::of(std::process::id()).expect_err("no jail");
        assert!(error.to_string().contains("no jail"), "{error}");
    }
}
