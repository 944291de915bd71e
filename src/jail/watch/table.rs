//! Reads the facts of processes from `/proc`: namespaces, seals, interfaces and mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use crate::config;

/// The namespaces that a process of a jail does not share with the gate.
const KINDS: [&str; 4] = ["user", "net", "mnt", "pid"];
/// The fields of `/proc/PID/status` that list capabilities.
const CAPABILITIES: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
/// Maximum number of processes that are followed up or down.
const MAX_PROCESSES: usize = 100_000;

/// The namespaces of a process, e.g. `net:[4026531840]`, by their kind.
pub(super) type Namespaces = BTreeMap<&'static str, Box<str>>;

fn read(pid: u32, name: &str) -> io::Result<String> {
    config::read(Path::new(&format!("/proc/{pid}/{name}")))
}

/// Returns the namespaces of a process, by its number or `self`.
pub(super) fn namespaces(pid: &str) -> io::Result<Namespaces> {
    let link = |kind: &'static str| {
        let target = std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
        Ok((kind, target.to_string_lossy().into()))
    };
    KINDS.into_iter().map(link).collect()
}

/// Returns the topmost ancestor of a command that is outside the gate's process namespace; the
/// command itself if the jail has no process namespace. `Err` if the command is in no jail.
pub(super) fn first_inside(command: u32, outside: &Namespaces) -> io::Result<u32> {
    let differs = |pid: u32, kind: &str| {
        let own = namespaces(&pid.to_string())?;
        Ok::<_, io::Error>(own.get(kind) != outside.get(kind))
    };
    if !differs(command, "user")? || !differs(command, "net")? {
        return Err(io::Error::other(format!("process {command} is in no jail")));
    }
    let mut first = command;
    if differs(command, "pid")? {
        for _ in 0..MAX_PROCESSES {
            let above = Stat::of(first)?.parent;
            if above <= 1 || !differs(above, "pid").unwrap_or(false) {
                break;
            }
            first = above;
        }
    }
    Ok(first)
}

/// `PF_EXITING` of the kernel: the process releases its memory, files and namespaces, in this
/// order, before its state shows that it has ended.
const EXITING: u64 = 0x4;

/// Fields of `/proc/PID/stat`.
pub(super) struct Stat {
    state: Box<str>,
    parent: u32,
    flags: u64,
    /// The start time, in ticks of the kernel.
    pub(super) began: Box<str>,
}

impl Stat {
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let text = read(pid, "stat")?;
        // The name may contain blanks and parentheses.
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next().ok_or(io::ErrorKind::InvalidData)?.into();
        let parent = fields.next().and_then(|parent| parent.parse().ok());
        let flags = fields.nth(4).and_then(|flags| flags.parse().ok());
        let began = fields.nth(12).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            state,
            parent: parent.ok_or(io::ErrorKind::InvalidData)?,
            flags: flags.ok_or(io::ErrorKind::InvalidData)?,
            began: began.into(),
        })
    }

    /// Whether the process has ended or is about to end: `/proc` may no longer show its namespaces
    /// and mounts.
    pub(super) fn has_ended(&self) -> bool {
        matches!(&*self.state, "Z" | "X") || self.flags & EXITING != 0
    }
}

/// Returns a process and all its descendants.
pub(super) fn below(first: u32) -> io::Result<BTreeSet<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")?.take(MAX_PROCESSES) {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Ok(stat) = Stat::of(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut waiting = vec![first];
    while let Some(pid) = waiting.pop() {
        if found.insert(pid) {
            waiting.extend(children.remove(&pid).unwrap_or_default());
        }
    }
    Ok(found)
}

/// The text of `/proc/PID/status`.
pub(super) struct Status(String);

impl From<String> for Status {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Status {
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        read(pid, "status").map(Self)
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim)
    }

    pub(super) fn has_ended(&self) -> bool {
        let state = self.get("State").unwrap_or_default();
        state.starts_with(['Z', 'X'])
    }

    pub(super) fn has_no_new_privs(&self) -> bool {
        self.get("NoNewPrivs") == Some("1")
    }

    pub(super) fn has_filter(&self) -> bool {
        self.get("Seccomp") == Some("2")
    }

    /// Returns the first capability field that is not empty.
    pub(super) fn capability(&self) -> Option<&'static str> {
        let is_empty = |field: &&str| {
            let bits = self.get(field).unwrap_or("none");
            bits.bytes().all(|digit| digit == b'0')
        };
        CAPABILITIES.into_iter().find(|field| !is_empty(field))
    }
}

/// Returns the network interfaces of a process.
pub(super) fn interfaces(pid: u32) -> io::Result<Vec<Box<str>>> {
    let text = read(pid, "net/dev")?;
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().into()).collect())
}

/// Returns the mount table of a process.
pub(super) fn mountinfo(pid: &str) -> io::Result<String> {
    config::read(Path::new(&format!("/proc/{pid}/mountinfo")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_shown_as_it_is() {
        let own = std::process::id();
        let stat = Stat::of(own).expect("a process");
        assert!(!stat.has_ended());
        assert!(stat.began.parse::<u64>().is_ok_and(|ticks| ticks > 0));
        assert!(below(stat.parent).expect("a table").contains(&own));
        assert_eq!(namespaces("self").expect("links").len(), KINDS.len());
        assert!(interfaces(own).expect("a table").contains(&"lo".into()));
        assert!(!mountinfo("self").expect("a table").is_empty());
    }
}
