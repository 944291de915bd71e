//! Processes and their sockets, read from `/proc`.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use crate::config;

/// The bytes read of a command line, at most.
const COMMAND: u64 = 8 * 1024;
/// Descriptors of one process that are searched, at most.
const DESCRIPTORS: usize = 65_536;

/// Ancestors of one process that are looked at, at most.
const MAX_ANCESTORS: usize = 4096;

/// Every visible process, with its name and its parent.
#[derive(Debug, Default)]
pub(in crate::identity) struct Table(BTreeMap<u32, (u32, Arc<str>)>);

impl Table {
    /// Reads the present table.
    pub(in crate::identity) fn read() -> Self {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Self::default();
        };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Self(
            pids.filter_map(|pid: u32| Some((pid, stat(&lossy(pid, "stat")?)?)))
                .collect(),
        )
    }

    /// The ids of all processes.
    pub(in crate::identity) fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.keys().copied()
    }

    /// The parent of a process.
    pub(in crate::identity) fn parent(&self, pid: u32) -> Option<u32> {
        self.0.get(&pid).map(|(parent, _)| *parent)
    }

    /// The descendants of a process, parents before their children, so that the process that opened
    /// a socket is found before one that inherited it.
    pub(in crate::identity) fn below(&self, head: u32) -> Vec<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (pid, (parent, _)) in &self.0 {
            children.entry(*parent).or_default().push(*pid);
        }
        let mut found = Vec::new();
        let mut seen = HashSet::from([head]);
        let mut next = vec![head];
        while let Some(parent) = next.pop() {
            for child in children.remove(&parent).unwrap_or_default() {
                if seen.insert(child) {
                    found.push(child);
                    next.insert(0, child);
                }
            }
        }
        found
    }

    /// The ancestors of a process with their names, the nearest first, up to `head`, which is left
    /// out.
    pub(in crate::identity) fn above(&self, pid: u32, head: u32) -> Vec<(u32, Arc<str>)> {
        let mut names = Vec::new();
        let mut seen = HashSet::from([pid]);
        let mut at = self.0.get(&pid).map(|(parent, _)| *parent);
        while let Some(parent) = at.filter(|parent| *parent != head && seen.insert(*parent)) {
            let Some((above, name)) = self.0.get(&parent) else {
                break;
            };
            names.push((parent, name.clone()));
            at = Some(*above);
        }
        names
    }
}

/// Parses `PID (NAME) STATE PARENT …`; a name may contain any character.
fn stat(line: &str) -> Option<(u32, Arc<str>)> {
    let (front, rest) = line.rsplit_once(')')?;
    let (_, name) = front.split_once('(')?;
    let parent = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((parent, name.into()))
}

/// Whether a process is an ancestor of another one. Reads the line of ancestors only.
pub(in crate::identity) fn is_above(ancestor: u32, pid: u32) -> bool {
    let parent = |pid: &u32| Some(stat(&lossy(*pid, "stat")?)?.0);
    let mut line = std::iter::successors(parent(&pid), parent).take(MAX_ANCESTORS);
    line.any(|it| it == ancestor)
}

/// The start of a process, in the kernel's ticks since boot.
pub(in crate::identity) fn began(pid: u32) -> Option<u64> {
    let line = lossy(pid, "stat")?;
    let (_, rest) = line.rsplit_once(')')?;
    // The 22nd field of the line; the first two are the process id and the name.
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The id of a process in its own process namespace.
pub(in crate::identity) fn inner(pid: u32) -> Option<u32> {
    let status = lossy(pid, "status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Whether a process has this socket open; `false` if its descriptors are not visible.
pub(in crate::identity) fn holds(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    open.take(DESCRIPTORS)
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == &*wanted))
}

/// The executable file of a process.
pub(in crate::identity) fn executable(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.to_string_lossy().into_owned())
}

/// The words of a command line.
pub(in crate::identity) fn command(pid: u32) -> Vec<String> {
    let text = lossy(pid, "cmdline").unwrap_or_default();
    let text = text.strip_suffix('\0').unwrap_or(&text);
    text.split('\0').map(str::to_owned).collect()
}

fn lossy(pid: u32, name: &str) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/{name}")).ok()?;
    let mut bytes = Vec::new();
    file.take(COMMAND).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The inode of the client's socket of a connection, in the network namespace of `folder`.
pub(in crate::identity) fn inode(
    folder: &Path,
    client: SocketAddr,
    local: SocketAddr,
) -> Option<u64> {
    let four = || listed(&folder.join("tcp"), &written(client)?, &written(local)?);
    let six = || listed(&folder.join("tcp6"), &mapped(client), &mapped(local));
    four().or_else(six)
}

/// The user id of the client's socket of a connection, in the network namespace of `folder`.
pub(in crate::identity) fn user(
    folder: &Path,
    client: SocketAddr,
    local: SocketAddr,
) -> Option<u32> {
    const USER: usize = 7;
    let of = |table: &str, from: String, to: String| {
        let text = config::read(&folder.join(table)).ok()?;
        let mut lines = text.lines().map(str::split_ascii_whitespace);
        lines.find_map(|words| {
            let words: Vec<_> = words.take(USER + 1).collect();
            let same = words.get(1) == Some(&&*from) && words.get(2) == Some(&&*to);
            same.then(|| words.get(USER)?.parse().ok()).flatten()
        })
    };
    let four = || of("tcp", written(client)?, written(local)?);
    four().or_else(|| of("tcp6", mapped(client), mapped(local)))
}

/// The users of the sockets that listen at an address, or at its port on every address, in the
/// network namespace of `folder`.
pub(in crate::identity) fn listeners(folder: &Path, local: SocketAddr) -> Vec<u32> {
    const USER: usize = 7;
    const LISTENS: &str = "0A";
    let port = format!(":{:04X}", local.port());
    let places = [written(local), Some(mapped(local))];
    let every = |place: &str| {
        place
            .strip_suffix(&*port)
            .is_some_and(|it| it.bytes().all(|b| b == b'0'))
    };
    let of = |table: &str| {
        let text = config::read(&folder.join(table)).unwrap_or_default();
        let users = text.lines().filter_map(|line| {
            let words: Vec<_> = line.split_ascii_whitespace().take(USER + 1).collect();
            let place = *words.get(1)?;
            let here = places.iter().flatten().any(|it| it == place) || every(place);
            let listens = words.get(3) == Some(&LISTENS);
            (here && listens)
                .then(|| words.get(USER)?.parse().ok())
                .flatten()
        });
        users.collect::<Vec<u32>>()
    };
    ["tcp", "tcp6"].into_iter().flat_map(of).collect()
}

/// The inode in the line with these two addresses; a socket that no process holds has none.
fn listed(table: &Path, from: &str, to: &str) -> Option<u64> {
    number(table, |client, server| client == from && server == to)
}

/// The inode of the UDP socket that queries a name server from this port. The socket may be neither
/// bound to an address nor connected, so the client's address is not compared.
pub(in crate::identity) fn asker(folder: &Path, client: SocketAddr) -> Option<u64> {
    let port = format!(":{:04X}", client.port());
    let asks = |from: &str, to: &str| {
        from.ends_with(&port) && [":0035", ":0000"].iter().any(|server| to.ends_with(server))
    };
    let four = number(&folder.join("udp"), asks);
    four.or_else(|| number(&folder.join("udp6"), asks))
}

/// The TCP ports that listen in the network namespace of `folder`.
pub(in crate::identity) fn listening(folder: &Path) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (_, port) = words.next()?.rsplit_once(':')?;
        // A listening socket has no peer.
        let listens = words.next()?.ends_with(":0000");
        u16::from_str_radix(port, 16).ok().filter(|_| listens)
    };
    let tables = ["tcp", "tcp6"].map(|table| config::read(&folder.join(table)).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines());
    lines.filter_map(port).collect()
}

/// The inode in the first line whose addresses match `such`.
fn number(table: &Path, such: impl Fn(&str, &str) -> bool) -> Option<u64> {
    let text = config::read(table).ok()?;
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    lines.find_map(|mut words| {
        let _number = words.next()?;
        let same = such(words.next()?, words.next()?);
        let inode = words.nth(6)?.parse().ok()?;
        (same && inode != 0).then_some(inode)
    })
}

/// An IPv4 address in the kernel's format: native-endian words, in hex.
fn written(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(four) = address.ip() else {
        return None;
    };
    let word = u32::from_ne_bytes(four.octets());
    Some(format!("{word:08X}:{:04X}", address.port()))
}

/// The same for IPv6, and for IPv4 over an IPv6 socket.
fn mapped(address: SocketAddr) -> String {
    let six = match address.ip() {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    };
    let octets = six.octets();
    let (words, _) = octets.as_chunks::<4>();
    let mut text = String::new();
    for word in words {
        let _ = write!(text, "{:08X}", u32::from_ne_bytes(*word));
    }
    let _ = write!(text, ":{:04X}", address.port());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_brackets_and_blanks() {
        let (parent, name) = stat("42 (a) b (c) S 7 42 42 0 -1").unwrap();
        assert_eq!((parent, &*name), (7, "a) b (c"));
        assert_eq!(stat("42"), None);
    }

    #[test]
    fn parents_come_before_children_and_a_circle_ends() {
        let name: Arc<str> = "x".into();
        let table = Table(
            [(2, 1), (3, 2), (4, 3), (9, 1), (5, 6), (6, 5)]
                .map(|(pid, parent)| (pid, (parent, name.clone())))
                .into(),
        );
        assert_eq!(table.below(2), [3, 4]);
        assert_eq!(table.below(1), [2, 9, 3, 4]);
        assert_eq!(table.above(4, 2).len(), 1);
        assert_eq!(table.above(5, 1).len(), 1);
    }

    #[test]
    fn who_asks_a_name_server_is_found_by_its_port() {
        let folder = tempfile::TempDir::new().unwrap();
        let line = |port: &str, to: &str, inode: u32| {
            format!(
                " 1: 0100007F:{port} {to} 07 00000000:00000000 00:00000000 00000000 0 0 {inode} 2\n"
            )
        };
        let text = [
            line("0035", "00000000:0000", 7),
            line("0C38", "0A0A0A0A:01BB", 8),
            line("0C38", "09090909:0035", 9),
            line("0C39", "00000000:0000", 10),
        ];
        fs::write(folder.path().join("udp"), text.concat()).unwrap();
        let asker = |port| asker(folder.path(), SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(asker(0x0c38), Some(9));
        assert_eq!(asker(0x0c39), Some(10));
        assert_eq!(asker(0x0c3a), None);
    }

    #[test]
    fn a_port_without_a_peer_listens() {
        let folder = tempfile::TempDir::new().unwrap();
        let text = "  sl  local_address rem_address   st\n\
            0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 7 1\n\
            1: 0100007F:0BB9 0100007F:C000 01 00000000:00000000 00:00000000 00000000 0 0 8 1\n";
        fs::write(folder.path().join("tcp"), text).unwrap();
        assert_eq!(listening(folder.path()), [3000]);
    }

    #[test]
    fn addresses_are_written_as_the_kernel_does() {
        if cfg!(target_endian = "little") {
            let address = "127.0.0.1:3128".parse().unwrap();
            assert_eq!(written(address).unwrap(), "0100007F:0C38");
            assert_eq!(mapped(address), "0000000000000000FFFF00000100007F:0C38");
        }
    }
}
