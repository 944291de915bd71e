//! What a command gives up before it begins: every capability, ways to gain any, and what a network
//! namespace does not hold.

use std::collections::BTreeMap;
use std::io;

use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_no_new_privs,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Gives up everything, for good.
pub(super) fn give_up_everything() -> io::Result<()> {
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    clear_ambient_capability_set()?;
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match remove_capability_from_bounding_set(one) {
            // Past the last that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            other => other?,
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets)?;
    set_no_new_privs(true)?;
    filter().map_err(io::Error::other)
}

/// Numbers of system calls.
struct Calls {
    arch: TargetArch,
    socket: &'static [i64],
    ioctl: &'static [i64],
    io_uring_setup: &'static [i64],
}

/// Of x86-64 and of its x32 variant, which the filter must name apart.
#[cfg(target_arch = "x86_64")]
const CALLS: Calls = Calls {
    arch: TargetArch::x86_64,
    socket: &[41, 0x4000_0000 | 41],
    ioctl: &[16, 0x4000_0000 | 16, 0x4000_0000 | 514],
    io_uring_setup: &[425, 0x4000_0000 | 425],
};
#[cfg(target_arch = "aarch64")]
const CALLS: Calls = Calls {
    arch: TargetArch::aarch64,
    socket: &[198],
    ioctl: &[29],
    io_uring_setup: &[425],
};

/// `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`: families that a network namespace holds.
const FAMILIES: [u64; 4] = [1, 2, 10, 16];
/// `TIOCSTI`, `TIOCLINUX`: typing into the terminal, for the shell outside to read.
const TYPING: [u64; 2] = [0x5412, 0x541c];
const NO_SUCH_FAMILY: u32 = 97;
const NO_SUCH_CALL: u32 = 38;
const NOT_PERMITTED: u32 = 1;

/// Sockets of other families (vsock leads to the hypervisor from every network namespace), rings
/// that would make them unseen, and typing into the terminal.
fn filter() -> Result<(), seccompiler::Error> {
    let other_families = FAMILIES.map(|family| argument(0, SeccompCmpOp::Ne, family));
    let other_families = other_families.into_iter().collect::<Result<Vec<_>, _>>()?;
    let sockets = vec![SeccompRule::new(other_families)?];
    let typing = TYPING.map(|call| SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, call)?]));
    let typing = typing.into_iter().collect::<Result<Vec<_>, _>>()?;
    refuse(CALLS.socket, &sockets, NO_SUCH_FAMILY)?;
    refuse(CALLS.ioctl, &typing, NOT_PERMITTED)?;
    refuse(CALLS.io_uring_setup, &[], NO_SUCH_CALL)
}

fn argument(
    index: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

fn refuse(calls: &[i64], rules: &[SeccompRule], errno: u32) -> Result<(), seccompiler::Error> {
    let rules: BTreeMap<_, _> = calls.iter().map(|call| (*call, rules.to_vec())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        CALLS.arch,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}
