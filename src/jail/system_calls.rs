//! The filter of system calls that reach objects outside the namespaces of a jail.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Refuses these system calls in this process and its children.
pub(super) fn filter() -> io::Result<()> {
    filters().map_err(io::Error::other)
}

/// The bit of a system call of the x32 variant.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// `socket`, and on x86-64 the x32 variant, which a filter must list separately.
#[cfg(target_arch = "x86_64")]
const SOCKET: &[i64] = &[41, X32 + 41];
#[cfg(target_arch = "aarch64")]
const SOCKET: &[i64] = &[198];

#[cfg(target_arch = "x86_64")]
const IOCTL: &[i64] = &[16, X32 + 16, X32 + 514];
#[cfg(target_arch = "aarch64")]
const IOCTL: &[i64] = &[29];

/// `setpriority` and `ioprio_set`. A process group may have members outside the jail, and no
/// namespace protects the members from these calls.
#[cfg(target_arch = "x86_64")]
const PRIORITIES: [(i64, u64); 2] = [(141, 1), (251, 2)];
#[cfg(target_arch = "aarch64")]
const PRIORITIES: [(i64, u64); 2] = [(140, 1), (30, 2)];

/// `io_uring_setup`: its rings make system calls that no filter sees. Programs work without it.
const RINGS: &[i64] = &[425];

/// New system calls that a jail does not need, each with the same number on every architecture:
/// `open_tree`, `move_mount`, `fsopen`, `fsconfig`, `fsmount`, `fspick`, `mount_setattr`,
/// `open_tree_attr`.
const NEWER: &[i64] = &[428, 429, 430, 431, 432, 433, 442, 467];
/// `mount`, `umount2`, `pivot_root`, `setns` change the view. `add_key`, `request_key`, `keyctl`
/// use keyrings that a user has both inside and outside the jail. `bpf`, `perf_event_open`,
/// `userfaultfd`, `open_by_handle_at`, `syslog`, `kexec_load`, `kexec_file_load`, `init_module`,
/// `finit_module`, `delete_module`, `acct`, `swapon`, `swapoff`, `quotactl`, `reboot`,
/// `lookup_dcookie`, `nfsservctl` reach the kernel itself, or processes and files of others.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    165, 166, 155, 308, 248, 249, 250, 321, 298, 323, 304, 103, 246, 320, 175, 313, 176, 163, 167,
    168, 179, 169, 212, 180,
];
#[cfg(target_arch = "aarch64")]
const OLDER: &[i64] = &[
    40, 39, 41, 268, 217, 218, 219, 280, 241, 282, 265, 116, 104, 294, 105, 273, 106, 89, 224, 225,
    60, 142, 18, 42,
];

/// `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`: the families that a network namespace isolates.
const FAMILIES: [u64; 4] = [1, 2, 10, 16];
/// `TIOCSTI`, `TIOCLINUX`: insert input into the terminal, which the shell outside would read.
const TYPING: [u64; 2] = [0x5412, 0x541c];
const NO_SUCH_FAMILY: u32 = 97;
const NO_SUCH_CALL: u32 = 38;
const NOT_PERMITTED: u32 = 1;

/// Filters sockets of other families (vsock reaches the hypervisor from every network namespace),
/// terminal input, and the calls above.
fn filters() -> Result<(), seccompiler::Error> {
    let other_families = FAMILIES.map(|family| argument(0, SeccompCmpOp::Ne, family));
    let other_families = other_families.into_iter().collect::<Result<Vec<_>, _>>()?;
    let sockets = vec![SeccompRule::new(other_families)?];
    let typing = TYPING.map(|call| SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, call)?]));
    let typing = typing.into_iter().collect::<Result<Vec<_>, _>>()?;
    refuse(SOCKET.to_vec(), &sockets, NO_SUCH_FAMILY)?;
    refuse(IOCTL.to_vec(), &typing, NOT_PERMITTED)?;
    refuse(with_variants(RINGS), &[], NO_SUCH_CALL)?;
    for (call, of_group) in PRIORITIES {
        let of_group = SeccompRule::new(vec![argument(0, SeccompCmpOp::Eq, of_group)?])?;
        refuse(with_variants(&[call]), &[of_group], NOT_PERMITTED)?;
    }
    refuse(with_variants(&[OLDER, NEWER].concat()), &[], NOT_PERMITTED)
}

fn with_variants(calls: &[i64]) -> Vec<i64> {
    #[cfg(target_arch = "x86_64")]
    return calls.iter().flat_map(|call| [*call, X32 + call]).collect();
    #[cfg(not(target_arch = "x86_64"))]
    return calls.to_vec();
}

fn argument(
    index: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

fn refuse(calls: Vec<i64>, rules: &[SeccompRule], errno: u32) -> Result<(), seccompiler::Error> {
    let rules: BTreeMap<_, _> = calls
        .into_iter()
        .map(|call| (call, rules.to_vec()))
        .collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        ARCH,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}
