//! Tests that system calls are filtered and privileges are dropped.

use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::UnshareFlags;

use super::{Tried, status};

/// Socket families that no network namespace isolates: vsock, and raw packets.
const FAMILIES: [(&str, u16); 2] = [("vsock", 40), ("packet", 17)];
const CAPABILITIES: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

pub(super) fn is_filtered() -> Tried {
    if status("self", "Seccomp").as_deref() != Some("2") {
        return Err("no filter of system calls is in force".to_owned());
    }
    for (name, family) in FAMILIES {
        let made = socket(AddressFamily::from_raw(family), SocketType::RAW, None);
        if !matches!(made, Err(Errno::AFNOSUPPORT)) {
            return Err(format!("a socket of the family {name} is not refused"));
        }
    }
    Ok("a filter is in force, and refuses sockets that no namespace holds".to_owned())
}

pub(super) fn has_no_privileges() -> Tried {
    let held = |field: &&&str| {
        let bits = status("self", field).unwrap_or_else(|| "unknown".to_owned());
        !bits.bytes().all(|digit| digit == b'0')
    };
    if let Some(field) = CAPABILITIES.iter().find(held) {
        return Err(format!("there are capabilities ({field})"));
    }
    if status("self", "NoNewPrivs").as_deref() != Some("1") {
        return Err("privileges can be gained: no_new_privs is not set".to_owned());
    }
    // The test would change this process.
    let tried = Command::new("/proc/self/exe")
        .args(["doctor", "--try-namespaces"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match tried {
        Ok(status) if status.success() => Ok(
            "no capability, no way to gain one, and no mount in a namespace of one's own"
                .to_owned(),
        ),
        Ok(_) => Err("a new user namespace gives the right to mount".to_owned()),
        Err(error) => Err(format!(
            "the try of a new user namespace did not begin: {error}"
        )),
    }
}

/// Whether this process cannot mount, even in a new user and mount namespace if it can make one.
#[expect(
    deprecated,
    reason = "it is only unsafe with FILES, which parts the descriptors of threads"
)]
pub(in super::super) fn namespaces_give_nothing() -> bool {
    let made = rustix::thread::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS);
    made.is_err() || mount("none", "/proc", "tmpfs", MountFlags::empty(), None).is_err()
}
