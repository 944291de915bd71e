//! Tests whether sockets, descriptors and variables lead out.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::config;

use super::super::sockets::places;
use super::super::surroundings::Surroundings;
use super::{Inside, Tried, network};

/// Maximum depth below a folder, and maximum number of entries, of the search for sockets.
const MAX_DEPTH: usize = 64;
const MAX_ENTRIES: usize = 1_000_000;
/// Variables that name a socket or an agent outside.
const VARIABLES: [&str; 14] = [
    "CONTAINER_HOST",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "DOCKER_HOST",
    "EMACS_SOCKET_NAME",
    "GPG_AGENT_INFO",
    "KITTY_LISTEN_ON",
    "NVIM",
    "SSH_AUTH_SOCK",
    "STY",
    "TMUX",
    "VSCODE_GIT_IPC_HANDLE",
    "VSCODE_IPC_HOOK_CLI",
    "WAYLAND_DISPLAY",
];

/// Searches for sockets that answer although no process of this network namespace listens at them.
pub(super) fn lead_nowhere(inside: &Inside<'_>) -> Tried {
    // On the machine's network, the table lists every socket of the machine.
    let own = match network::tried() {
        Ok(_) => listened_here(),
        Err(_) => BTreeSet::new(),
    };
    let mut folders: Vec<PathBuf> = ["/run", "/var/run", "/tmp", "/var/tmp"]
        .iter()
        .map(PathBuf::from)
        .collect();
    let named = ["XDG_RUNTIME_DIR", "TMPDIR", "HOME"];
    folders.extend(
        named
            .iter()
            .filter_map(|name| inside.around.get(name))
            .map(Into::into),
    );
    folders.extend(std::env::current_dir());
    let mut found: BTreeSet<PathBuf> = BTreeSet::new();
    let mut room = MAX_ENTRIES;
    for folder in &folders {
        collect(folder, MAX_DEPTH, &mut room, &mut found);
    }
    if room == 0 {
        return Err(format!(
            "not every folder was looked at for sockets: there are more than {MAX_ENTRIES} entries"
        ));
    }
    found.extend(places(inside.around).into_iter().map(|(_, _, path)| path));
    for path in found {
        let outside = !own.contains(&path.display().to_string());
        if outside && UnixStream::connect(&path).is_ok() {
            return Err(format!("a process outside answers at {}", path.display()));
        }
    }
    Ok("no socket answers at which a process outside listens".to_owned())
}

/// Returns the paths at which sockets of this network namespace are bound.
fn listened_here() -> BTreeSet<String> {
    let table = config::read("/proc/self/net/unix".as_ref()).unwrap_or_default();
    let paths = table.lines().filter_map(|line| line.split_once(" /"));
    paths.map(|(_, path)| format!("/{path}")).collect()
}

fn collect(folder: &Path, depth: usize, room: &mut usize, found: &mut BTreeSet<PathBuf>) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        if *room == 0 {
            return;
        }
        *room -= 1;
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => {
                found.insert(entry.path());
            }
            Ok(kind) if kind.is_dir() && depth > 0 => {
                collect(&entry.path(), depth - 1, room, found);
            }
            _ => {}
        }
    }
}

/// Checks the descriptors that were open at start: this program opens its own with close-on-exec.
pub(super) fn are_closed() -> Tried {
    let entries = std::fs::read_dir("/proc/self/fd").map_err(|error| error.to_string())?;
    for entry in entries.flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        let Ok(what) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let what = what.display();
        if ["0", "1", "2"].contains(&&*number) {
            if what.to_string().starts_with("socket:") {
                return Err(format!("standard stream {number} is a socket"));
            }
        } else if is_inherited(&number) {
            return Err(format!("descriptor {number} is open: {what}"));
        }
    }
    Ok("nothing but 0, 1 and 2 is open, and none of them is a socket".to_owned())
}

fn is_inherited(number: &str) -> bool {
    const CLOSES: u32 = 0o2_000_000;
    let text = config::read(format!("/proc/self/fdinfo/{number}").as_ref()).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & CLOSES == 0)
}

pub(super) fn are_unnamed(around: &Surroundings) -> Tried {
    match VARIABLES.iter().find(|name| around.get(name).is_some()) {
        Some(name) => Err(format!("{name} names a socket or agent outside")),
        None => Ok("no variable names a socket or an agent outside".to_owned()),
    }
}
