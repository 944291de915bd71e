//! Unix sockets of processes outside: each socket in a folder that the command sees is covered. A
//! read-only mount does not prevent connecting.

use std::collections::VecDeque;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::config;

use super::{Content, Share, View};

/// Maximum number of entries of the writable and the shared folders that are searched for sockets.
const MAX_ENTRIES: usize = 50_000;

/// Covers every bound socket that the view would show, unless its exact path is shared: the sockets
/// that the kernel lists, and the sockets found in the user's folders, where a socket may have been
/// renamed, or belong to another network namespace. Adds a note if not every entry was searched.
pub(super) fn cover(view: &mut View, shares: &[Share]) {
    let exact: Vec<PathBuf> = shares
        .iter()
        .filter_map(|share| view.directory.join(&share.path).canonicalize().ok())
        .collect();
    let table = config::read(Path::new("/proc/net/unix")).unwrap_or_default();
    let places = view.places.iter();
    let writable = places.filter(|(_, is)| matches!(is, Content::Writable));
    let mut folders: Vec<PathBuf> = writable.map(|(path, _)| path.clone()).collect();
    folders.extend(exact.iter().cloned());
    let (found, whole) = below(folders, MAX_ENTRIES);
    if !whole {
        view.notes.push(format!(
            "only {MAX_ENTRIES} entries of the writable folders were looked at for sockets of \
             processes outside: one that was renamed may be reachable"
        ));
    }
    let alive = found.into_iter().filter(|socket| may_answer(socket));
    for socket in bound(&table).into_iter().chain(alive) {
        if view.shows(&socket) && !exact.contains(&socket) {
            view.places.insert(socket, Content::Covered);
        }
    }
}

/// Returns the sockets below some folders, the nearest first, and whether every entry was searched.
fn below(folders: Vec<PathBuf>, mut room: usize) -> (Vec<PathBuf>, bool) {
    let mut waiting = VecDeque::from(folders);
    let mut found = Vec::new();
    while let Some(folder) = waiting.pop_front() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if room == 0 {
                return (found, false);
            }
            room -= 1;
            match entry.file_type() {
                Ok(is) if is.is_socket() => found.push(entry.path()),
                Ok(is) if is.is_dir() => waiting.push_back(entry.path()),
                _ => {}
            }
        }
    }
    (found, true)
}

/// Whether a process may hold a socket: a socket without a process refuses connections. The command
/// keeps such a socket, because its servers remove the leftovers of an earlier run.
fn may_answer(path: &Path) -> bool {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let (Ok(socket), Ok(address)) = (socket, SocketAddrUnix::new(path)) else {
        return true;
    };
    !matches!(
        connect(&socket, &address),
        Err(Errno::CONNREFUSED | Errno::NOENT)
    )
}

/// Returns the socket paths in `/proc/net/unix`, without symbolic links.
fn bound(table: &str) -> Vec<PathBuf> {
    let names = table.lines().skip(1).filter_map(name);
    let (absolute, relative): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with('/'));
    let mut found: Vec<PathBuf> = absolute.into_iter().filter_map(socket_at).collect();
    if !relative.is_empty() {
        // A relative name belongs to the folder in which its process was when it bound the socket.
        for folder in working_directories() {
            found.extend(
                relative
                    .iter()
                    .filter_map(|name| socket_at(folder.join(name))),
            );
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Returns the name in a line: after seven other words; `@` begins an abstract name.
fn name(line: &str) -> Option<&str> {
    let mut rest = line;
    for _ in 0..7 {
        rest = rest.trim_start().split_once(' ')?.1;
    }
    let name = rest.trim_start();
    (!name.is_empty() && !name.starts_with('@')).then_some(name)
}

fn socket_at(path: impl AsRef<Path>) -> Option<PathBuf> {
    let path = path.as_ref().canonicalize().ok()?;
    let is_socket = path.metadata().is_ok_and(|it| it.file_type().is_socket());
    is_socket.then_some(path)
}

/// Returns the working directories of this user's processes, without searching their parents.
fn working_directories() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
    });
    let mut folders: Vec<PathBuf> = processes
        .filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok())
        .collect();
    folders.sort_unstable();
    folders.dedup();
    folders
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_are_found_by_what_lies_in_a_folder() {
        let folder = tempfile::TempDir::new().unwrap();
        let deep = folder.path().join("a/b/c/d/e/f");
        std::fs::create_dir_all(&deep).unwrap();
        let listener = UnixListener::bind(deep.join("bound")).unwrap();
        std::fs::rename(deep.join("bound"), deep.join("renamed")).unwrap();
        let (found, whole) = below(vec![folder.path().to_owned()], 7);
        assert_eq!(found, [deep.join("renamed")]);
        assert!(whole && may_answer(&found[0]));
        assert!(!below(vec![folder.path().to_owned()], 6).1);
        drop(listener);
        assert!(!may_answer(&found[0]), "no process holds it");
    }

    #[test]
    fn sockets_are_found_by_what_the_kernel_lists() {
        let folder = tempfile::TempDir::new().unwrap();
        let at = folder.path().canonicalize().unwrap().join("a socket");
        let _listener = UnixListener::bind(&at).unwrap();
        let table = config::read(Path::new("/proc/net/unix")).unwrap();
        assert!(bound(&table).contains(&at), "{table}");
        assert_eq!(name("0: 00000002 00000000 00010000 0001 01 123 @x"), None);
        assert_eq!(name("0: 00000002 00000000 00010000 0001 01 123"), None);
    }
}
