//! How threads come by a processor.

use std::io;

/// A thread's policy. What it starts inherits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `SCHED_OTHER`: when it wakes it may take the processor from a thread that runs.
    Normal,
    /// `SCHED_BATCH`: it waits for a processor that is free or for its turn.
    Batch,
}

/// Sets the policy of a thread; 0: of the one that calls. Only a system call, so that it may be made between fork and exec.
///
/// # Errors
/// EPERM for another user's thread, without `CAP_SYS_NICE`; ESRCH when it is gone.
#[expect(unsafe_code, reason = "nix does not wrap it, and musl's own wrapper refuses")]
pub fn set(thread: i32, policy: Policy) -> io::Result<()> {
    let number = match policy {
        Policy::Normal => libc::SCHED_OTHER,
        Policy::Batch => libc::SCHED_BATCH,
    };
    // The kernel's `sched_param`: one integer, which is 0 for both.
    let priority: libc::c_int = 0;
    // SAFETY: the kernel reads one integer at the address, which lives through the call.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setscheduler, thread, number, &raw const priority) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
