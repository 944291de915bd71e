//! The special folders: devices and processes.

use std::io;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount};

use super::super::promise::{Missing, Promise};
use super::build::{Root, at};

/// Where the command may write, besides the places of the view.
pub(super) const WRITABLE: [&str; 4] = ["/dev", "/dev/pts", "/dev/shm", "/proc"];
const NODES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
const LINKS: [(&str, &str); 6] = [
    ("/dev/core", "/proc/kcore"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
];
/// Parts of `/proc` through which a process of user 0 can change the kernel outside the jail.
const OF_THE_KERNEL: [&str; 6] = ["bus", "driver", "fs", "irq", "sys", "tty"];
/// Parts of `/proc` that show or reach objects outside the jail.
const CLOSED: [&str; 6] = [
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "sysrq-trigger",
    "timer_list",
];

/// Mounts `/dev` and `/proc`; returns the promises that this kernel does not support.
pub(super) fn add(root: &mut Root) -> io::Result<Vec<Missing>> {
    root.private(Path::new("/dev"), 0o755)?;
    for node in NODES {
        let path = Path::new("/dev").join(node);
        if root.outside(&path, OFlags::PATH).is_ok() {
            root.bind(&path, &path)?;
        }
    }
    for (path, to) in LINKS {
        root.link(Path::new(path), Path::new(to))?;
    }
    root.private(Path::new("/dev/shm"), 0o1777)?;
    terminals(root)?;
    processes(root)
}

/// Makes a separate set of terminals for the command. The terminal it was started from is
/// `/dev/console`, where ttyname(3) finds it.
fn terminals(root: &mut Root) -> io::Result<()> {
    let pts = Path::new("/dev/pts");
    root.folder(pts)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = c"newinstance,ptmxmode=0666,mode=0620";
    mount("devpts", pts, "devpts", flags, options).map_err(|error| at(pts, &error.into()))?;
    let named = [1, 2].map(|number| {
        let path = Path::new("/proc/self/fd").join(number.to_string());
        rustix::fs::readlinkat(
            &root.old,
            path.strip_prefix("/").unwrap_or(&path),
            Vec::new(),
        )
    });
    for name in named.into_iter().flatten() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        if name.starts_with("/dev/pts/") && root.outside(Path::new(&name), OFlags::PATH).is_ok() {
            return root.bind(Path::new(&name), Path::new("/dev/console"));
        }
    }
    Ok(())
}

fn processes(root: &mut Root) -> io::Result<Vec<Missing>> {
    let path = Path::new("/proc");
    root.folder(path)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut missing = Vec::new();
    let own = rustix::process::getpid().is_init();
    let mounted = own.then(|| mount("proc", path, "proc", flags, c""));
    if let Some(Err(error)) = &mounted {
        let why = format!("a /proc of its own cannot be mounted: {error}");
        missing.push(Missing::new(Promise::Processes, why));
    }
    if !matches!(mounted, Some(Ok(()))) {
        root.bind(path, path)?;
    }
    for name in OF_THE_KERNEL {
        root.lock(&path.join(name))?;
    }
    for name in CLOSED {
        root.cover(&path.join(name))?;
    }
    Ok(missing)
}
