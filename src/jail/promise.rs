//! The guarantees of a jail, one by one: a missing kernel feature is reported by its name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A guarantee about the command in a jail.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// Every connection ends at the gate.
    Network,
    /// The file system contains only files that the command needs, and no other file of its user.
    Files,
    /// No file outside the writable folders is written, not even through a descriptor.
    Writes,
    /// No process outside is visible, and none of the command's outlives it.
    Processes,
    /// No signal reaches a process outside.
    Signals,
    /// No shared memory, semaphore or message queue of a process outside is reachable.
    Ipc,
    /// No Unix socket on which a process outside listens is reachable.
    Sockets,
    /// No descriptor leads out, and no socket is a standard stream.
    Descriptors,
    /// No variable names a socket or an agent outside.
    Environment,
    /// No system call reaches objects outside namespaces: kernel keyrings, mounts, `io_uring`.
    SystemCalls,
    /// No capability, and no way to gain one.
    Privileges,
    /// Each TCP connection that the jail refuses is recorded.
    Refusals,
}

impl Promise {
    /// Every promise, in the order of the manual's table.
    pub const ALL: [Self; 12] = [
        Self::Network,
        Self::Files,
        Self::Writes,
        Self::Processes,
        Self::Signals,
        Self::Ipc,
        Self::Sockets,
        Self::Descriptors,
        Self::Environment,
        Self::SystemCalls,
        Self::Privileges,
        Self::Refusals,
    ];

    /// Returns the name in `--allow-missing`, in messages and in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Files => "files",
            Self::Writes => "writes",
            Self::Processes => "processes",
            Self::Signals => "signals",
            Self::Ipc => "ipc",
            Self::Sockets => "sockets",
            Self::Descriptors => "descriptors",
            Self::Environment => "environment",
            Self::SystemCalls => "system-calls",
            Self::Privileges => "privileges",
            Self::Refusals => "refusals",
        }
    }

    /// Returns the mechanism that enforces the promise.
    pub fn mechanism(self) -> &'static str {
        match self {
            Self::Network => "user and network namespace in which every address is local",
            Self::Files => "mount namespace with a root that is built for the command",
            Self::Writes => "Landlock: writing below the writable folders only",
            Self::Processes => "PID namespace with its own /proc",
            Self::Signals => "Landlock scope, or a session of its own without a terminal",
            Self::Ipc => "IPC namespace",
            Self::Sockets => "sockets of processes outside are not in the view, or covered",
            Self::Descriptors => "all but 0, 1, 2 closed; those checked, sockets become pipes",
            Self::Environment => "variables that name sockets outside are removed",
            Self::SystemCalls => "seccomp filter",
            Self::Privileges => "no capability, an empty bounding set, no new privileges",
            Self::Refusals => "packet sockets inside, with a filter that passes refusals only",
        }
    }

    /// Returns the requirement on the kernel.
    pub fn requirement(self) -> &'static str {
        match self {
            Self::Network => "user namespaces; Linux 5.6",
            Self::Files => "mount namespaces; Linux 5.6",
            Self::Writes => "Landlock ABI 2 (Linux 5.19)",
            Self::Processes => "PID namespaces and a /proc that is not masked",
            Self::Signals => "Landlock ABI 6 (Linux 6.12), or no terminal",
            Self::Ipc => "IPC namespaces",
            Self::SystemCalls => "seccomp",
            Self::Refusals => "packet sockets and their filters",
            Self::Sockets | Self::Descriptors | Self::Environment | Self::Privileges => "none",
        }
    }

    /// Whether `--allow-missing` may name the promise: there is no jail without the others.
    pub fn may_be_missing(self) -> bool {
        matches!(
            self,
            Self::Writes | Self::Processes | Self::Signals | Self::Ipc | Self::Refusals
        )
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Promise {
    type Err = String;

    /// Parses a name for `--allow-missing`.
    fn from_str(name: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|one| one.name() == name);
        if let Some(promise) = named.filter(|one| one.may_be_missing()) {
            return Ok(promise);
        }
        let others = Self::ALL.into_iter().filter(|one| one.may_be_missing());
        let others = others.map(Self::name).collect::<Vec<_>>().join(", ");
        Err(match named {
            Some(_) => format!("without `{name}` there is no jail: only {others} may be missing"),
            None => format!("no such promise: write one of {others}"),
        })
    }
}

/// A promise that this kernel does not support, and why.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Missing {
    /// The promise.
    pub promise: Promise,
    /// The kernel's reason.
    pub why: String,
}

impl Missing {
    pub(super) fn new(promise: Promise, why: impl fmt::Display) -> Self {
        Self {
            promise,
            why: why.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_those_that_make_the_jail_are_not_taken() {
        for promise in Promise::ALL {
            let read = promise.name().parse::<Promise>();
            assert_eq!(read.is_ok(), promise.may_be_missing(), "{read:?}");
        }
        let why = "network".parse::<Promise>().unwrap_err();
        assert!(why.contains("writes, processes, signals, ipc"), "{why}");
        assert!("nothing".parse::<Promise>().is_err());
    }
}
