//! System calls that no handler needs, refused inside the sandbox (`--oci-seccomp`; measured: no cost at start).
//!
//! A deny-list: under gVisor the sentry is the wall, and the list only keeps code out of its larger rooms. In a plain container it is
//! what stands before the host's kernel, together with an unprivileged user without capabilities.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const CLONE_NEWUSER: u64 = 0x1000_0000;

const DENIED: [&str; 50] = [
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
];

/// The filter. Its architecture is the one that runs it: runsc refuses others.
///
/// In a plain container a user namespace by `clone` is refused too. runsc (20240729) answers every refused call with
/// EPERM whatever `errnoRet` says, and libc takes that from `clone3` for a failure, not for a reason to fall back: every
/// thread would fail. So that door stays open under gVisor, where what lies behind it is the sentry's own code.
pub(super) fn profile(gvisor: bool) -> Result<LinuxSeccomp, OciSpecError> {
    let denied: Vec<String> = DENIED.map(str::to_owned).into();
    let mut syscalls = vec![refused(denied, EPERM)?];
    if !gvisor {
        syscalls.push(new_user_namespace_by_clone()?);
        // Its flags lie in memory, where a filter cannot look; libc falls back to clone.
        syscalls.push(refused(vec!["clone3".to_owned()], ENOSYS)?);
    }
    LinuxSeccompBuilder::default().default_action(LinuxSeccompAction::ScmpActAllow).syscalls(syscalls).build()
}

fn refused(names: Vec<String>, errno: u32) -> Result<LinuxSyscall, OciSpecError> {
    LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActErrno).errno_ret(errno).build()
}

fn new_user_namespace_by_clone() -> Result<LinuxSyscall, OciSpecError> {
    let asks = LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(CLONE_NEWUSER)
        .value_two(CLONE_NEWUSER)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()?;
    LinuxSyscallBuilder::default()
        .names(["clone".to_owned()])
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(EPERM)
        .args(vec![asks])
        .build()
}
