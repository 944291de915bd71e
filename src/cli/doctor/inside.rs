//! Tests the walls of a jail from inside: one row for each promise of `exec --jail`.
//!
//! The variable that `exec --jail` sets only selects the rows to test, and the folders that must be
//! absent. The doctor reports containment only if every test fails to get out.

mod files;
mod kernel;
mod network;
mod processes;
mod sockets;

use std::path::PathBuf;

use crate::config;
use crate::jail;

use super::report::Item;
use super::surroundings::Surroundings;

/// The result of a test: why the promise holds, or what got through.
type Tried = Result<String, String>;

/// The inputs of the tests.
pub(super) struct Inside<'a> {
    around: &'a Surroundings,
    /// Folders of the gate that must be absent.
    absent: Vec<PathBuf>,
}

impl<'a> Inside<'a> {
    /// Returns the tests if the environment marks this process as jailed.
    pub(super) fn here(around: &'a Surroundings) -> Option<Self> {
        let absent = around.get(jail::VARIABLE)?;
        Some(Self {
            around,
            absent: std::env::split_paths(absent).collect(),
        })
    }

    /// Returns every row, in the order of the manual.
    pub(super) fn look(&self) -> Vec<Item> {
        vec![
            row("network", network::tried()),
            row("files", files::are_absent(self)),
            row("writes", files::are_read_only()),
            row("processes", processes::are_unseen()),
            row("signals", processes::are_unreached()),
            row("ipc", processes::share_no_memory()),
            row("sockets", sockets::lead_nowhere(self)).probe("unix"),
            row("descriptors", sockets::are_closed()),
            row("environment", sockets::are_unnamed(self.around)),
            row("system-calls", kernel::is_filtered()),
            row("privileges", kernel::has_no_privileges()),
        ]
    }
}

fn row(promise: &'static str, tried: Tried) -> Item {
    match tried {
        Ok(why) => Item::fine("jail", promise, format!("yes: {why}")),
        Err(what) => Item::finding("jail", promise, format!("no: {what}")),
    }
}

/// A test that changes its process, and so runs in a separate one: whether a new user namespace
/// gives the right to mount.
pub(super) use kernel::namespaces_give_nothing;

/// Returns a field of `/proc/PID/status`.
fn status(pid: &str, name: &str) -> Option<String> {
    let text = config::read(format!("/proc/{pid}/status").as_ref()).ok()?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}
