//! Unix sockets of processes outside: each that lies in a folder that the command sees is covered.
//! A read-only mount does not keep a process from connecting.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::config;

use super::{Content, Share, View};

/// Covers every bound socket that the view would show, unless it is shared by its exact path.
pub(super) fn cover(view: &mut View, shares: &[Share]) {
    let exact: Vec<PathBuf> = shares
        .iter()
        .filter_map(|share| view.directory.join(&share.path).canonicalize().ok())
        .collect();
    let table = config::read(Path::new("/proc/net/unix")).unwrap_or_default();
    for socket in bound(&table) {
        if view.shows(&socket) && !exact.contains(&socket) {
            view.places.insert(socket, Content::Covered);
        }
    }
}

/// The paths in `/proc/net/unix` at which a socket is, without symbolic links.
fn bound(table: &str) -> Vec<PathBuf> {
    let names = table.lines().skip(1).filter_map(name);
    let (absolute, relative): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with('/'));
    let mut found: Vec<PathBuf> = absolute.into_iter().filter_map(socket_at).collect();
    if !relative.is_empty() {
        // A name that is relative to the folder in which its process was when it bound it.
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

/// The name of a line: behind seven other words; `@` begins an abstract one.
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

/// Where the processes of this user are, and their parent folders are not looked at.
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
