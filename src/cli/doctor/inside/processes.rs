//! Tests that processes outside cannot be seen, signalled, or share memory.

use rustix::process::{Pid, getpgrp, getsid, test_kill_process};

use crate::config;

use super::{Tried, status};

/// The initial IPC namespace of every machine.
const FIRST_IPC: &str = "ipc:[4026531839]";

/// Tests `no_new_privs`: every process of the jail has it, most processes outside do not.
pub(super) fn are_unseen() -> Tried {
    let entries = std::fs::read_dir("/proc").map_err(|error| error.to_string())?;
    let mut count = 0;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        count += 1;
        // `None`: the process has ended since it was listed.
        if status(&name, "NoNewPrivs").is_some_and(|value| value != "1") {
            let comm = status(&name, "Name").unwrap_or_default();
            return Err(format!("process {name} ({comm}) is not of this jail"));
        }
    }
    Ok(format!("{count} processes are seen, all of this jail"))
}

/// The first process of the jail is outside the command's Landlock domain, like the gate.
pub(super) fn are_unreached() -> Tried {
    let refused = test_kill_process(Pid::INIT) == Err(rustix::io::Errno::PERM);
    if refused {
        return Ok("the kernel refuses signals to processes outside".to_owned());
    }
    // Number 0: the leader is not in this process namespace.
    let group = getpgrp().as_raw_nonzero().get();
    match getsid(None) {
        Ok(session) if session.as_raw_nonzero().get() > 1 && group > 1 => {
            Ok("the session and the process group are of this jail".to_owned())
        }
        _ => Err("the process group is shared with processes outside".to_owned()),
    }
}

pub(super) fn share_no_memory() -> Tried {
    let own = std::fs::read_link("/proc/self/ns/ipc").map_err(|error| error.to_string())?;
    if own.as_os_str() == FIRST_IPC {
        return Err("the IPC namespace is the machine's".to_owned());
    }
    let segments = config::read("/proc/sysvipc/shm".as_ref()).unwrap_or_default();
    // Number 0: the creator is not in this process namespace.
    let foreign = |line: &str| line.split_ascii_whitespace().nth(4) == Some("0");
    if segments.lines().skip(1).any(foreign) {
        return Err("a process outside has made shared memory that is seen here".to_owned());
    }
    Ok("the IPC namespace is not the machine's".to_owned())
}
